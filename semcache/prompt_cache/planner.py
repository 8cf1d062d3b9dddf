"""Where cache points go in one request, and whether they pay. Pure: same history, same time, same plan.

With p the chance that a prefix is still warm when it is next needed, a marked token costs p·r + (1 − p)·w plain
tokens on average (r: read, w: write multiple), an unmarked one 1. So a mark pays when p > (w − 1)/(w − r).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from semcache.prompt_cache.history import History, Seen
from semcache.prompt_cache.prefixes import Boundary, Outline
from semcache.prompt_cache.rules import SECONDS, Rules

CHARS_PER_TOKEN: Final = 4.0
"""English prose; code and other scripts have fewer. Better: learn it from reported usage."""

_HEAD: Final = 4
_TAIL: Final = 4
_WARM: Final = 2
"""Candidates from the start and the end of a long conversation, and those between them that can be read again: one turn
of an agent may add more messages than a provider looks back."""


class Point(NamedTuple):
    """One cache point: after ``boundary``, for ``ttl``."""

    boundary: Boundary
    ttl: str


class Plan(NamedTuple):
    """What to write into one request body.

    Args:
        style: See ``Rules.style``; empty leaves the body as it is.
        points: Cache points in the order of the prompt.
        key: Value for ``prompt_cache_key``.
        salt: Value for ``cache_salt``.
        reason: Why there are points, or why not.
    """

    style: str
    points: tuple[Point, ...] = ()
    key: str | None = None
    salt: str | None = None
    reason: str = ""


class _Option(NamedTuple):
    """A lifetime, and what a token so marked costs: see :func:`_options`."""

    ttl: str
    cost: float


class _Choice(NamedTuple):
    saved: float
    marks: tuple[tuple[int, str], ...]


def plan(
    outline: Outline | None,
    rules: Rules | None,
    history: History,
    now: float,
    *,
    tenant: str | None = None,
    chars_per_token: float = CHARS_PER_TOKEN,
) -> Plan:
    """Decide on one miss, which ``history`` has already seen: its own gap counts.

    A prefix that should be warm is always marked, since reads need the mark too, for as long as before or longer: what
    comes after it may need that, and it counts once the prefix has to be written again. Any other is marked if that
    pays on average. A mark below the provider's minimum would be ignored, and is not
    made; neither is any when the caller has placed marks: then the plan is the caller's own.

    Args:
        outline: The request; ``None`` if its shape is not understood.
        rules: The provider's; ``None`` for an unknown host.
        now: Seconds, on the clock of ``history``.
        tenant: Keeps tenants apart in a shared vLLM prefix cache.
    """
    if rules is None:
        return Plan("", reason="no known prompt cache at this host")
    if outline is None:
        return Plan("", reason="unknown shape")
    if outline.marked:
        return Plan("", reason="the caller's own marks")
    if rules.style == "salt":
        return Plan("salt", salt=_salt(tenant), reason="kept apart by tenant" if tenant else "no tenant")
    key = None if outline.head is None else f"sc-{outline.head:016x}"
    if not rules.writes:
        return Plan(rules.style, key=key, reason="the provider marks by itself, free of charge")
    long_enough = [b for b in outline.boundaries if b.chars / chars_per_token >= rules.minimum]
    if not long_enough:
        return Plan(rules.style, key=key, reason=f"no prefix of {rules.minimum} tokens to share")
    candidates = _candidates(long_enough, history, now)
    marks = _best(candidates, _options(candidates, rules, history, now), rules)
    points = tuple(Point(candidates[i], ttl) for i, ttl in marks)
    return Plan(rules.style, points, key, reason="pays" if points else "misses too far apart to pay")


def note(decided: Plan, history: History, now: float) -> None:
    """Tell the history that the request went out with the plan's marks, at ``now``."""
    for point in decided.points:
        # What is warm is read, and lives on for as long as it was written for.
        history.mark(point.boundary.prefix, history.warm(point.boundary.prefix, now) or point.ttl, now)


def seen(outline: Outline) -> list[Seen]:
    """The prefixes of a request, for ``History.see``."""
    return [Seen(boundary.prefix, boundary.kind) for boundary in outline.boundaries]


def break_even(read: float, write: float) -> float:
    """Least chance of being warm at which a cache point pays."""
    return (write - 1) / (write - read)


def _candidates(boundaries: list[Boundary], history: History, now: float) -> list[Boundary]:
    if len(boundaries) <= _HEAD + _TAIL:
        return boundaries
    warm = [b for b in boundaries[_HEAD:-_TAIL] if history.warm(b.prefix, now) is not None]
    return [*boundaries[:_HEAD], *warm[-_WARM:], *boundaries[-_TAIL:]]


def _options(candidates: Sequence[Boundary], rules: Rules, history: History, now: float) -> list[list[_Option]]:
    """What each candidate could be marked with; longest lifetime first.

    Costs are in plain tokens: that of a cold prefix is the average over all requests if each is marked so. A warm one
    is ahead of that by a write that need not be made again, which is what it would cost to pass over it.
    """
    multiples = dict(rules.writes)
    options: list[list[_Option]] = []
    for boundary in candidates:
        chances = history.chances(Seen(boundary.prefix, boundary.kind), now)
        warm = history.warm(boundary.prefix, now)
        mine = []
        for ttl, write in reversed(rules.writes):
            if warm is None or SECONDS[ttl] >= SECONDS[warm]:
                p = chances[ttl]
                ahead = 0.0 if warm is None else multiples.get(warm, write) - rules.read
                mine.append(_Option(ttl, p * rules.read + (1 - p) * write - ahead))
        options.append(mine)
    return options


def _best(
    candidates: Sequence[Boundary], options: Sequence[Sequence[_Option]], rules: Rules
) -> tuple[tuple[int, str], ...]:
    """The marks that save most, by dynamic programming over the last mark made.

    The tokens between two marks belong to the second.
    """
    best = nothing = _Choice(0.0, ())
    last: list[tuple[_Choice, int, int]] = [(nothing, 0, SECONDS["12h"])]  # choice, chars covered, seconds
    for i, boundary in enumerate(candidates):
        ended = []
        for option in options[i]:
            seconds = SECONDS[option.ttl]
            # One best choice for each number of marks: fewer may have room for a better mark later on.
            by_count: dict[int, _Choice] = {}
            for choice, covered, before in last:
                if (rules.longest_first and before < seconds) or len(choice.marks) == rules.points:
                    continue
                saved = choice.saved + (boundary.chars - covered) * (1 - option.cost)
                more = _Choice(saved, (*choice.marks, (i, option.ttl)))
                if more.saved > by_count.get(len(more.marks), _WORST).saved:
                    by_count[len(more.marks)] = more
            ended += [(choice, boundary.chars, seconds) for choice in by_count.values()]
        last += ended
        best = max([best, *(choice for choice, *_ in ended)], key=_gain)
    return best.marks


_WORST: Final = _Choice(float("-inf"), ())


def _gain(choice: _Choice) -> tuple[float, int]:
    # Rounding keeps a mark that changes nothing but the last bit from being made.
    return round(choice.saved, 6), -len(choice.marks)


def _salt(tenant: str | None) -> str | None:
    # A name in clear text has no business at the server.
    return None if tenant is None else hashlib.sha256(b"semcache/salt/" + tenant.encode()).hexdigest()
