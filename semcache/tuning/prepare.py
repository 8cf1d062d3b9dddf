"""Makes labelled pairs, or a log, ready to be tuned on: cut in two, the scoring fitted to the first half."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from semcache.guards import fold, language
from semcache.policy import Policy
from semcache.tuning.choose import Sample, Samples
from semcache.tuning.pairs import DEFAULT_NAMESPACE, grouped_split
from semcache.tuning.refit import Asked, refit, rows
from semcache.tuning.replay import request_of
from semcache.tuning.scoring import Progress, similarities
from semcache.tuning.settings import SOFT, Levels, Rule, rules, switched_off
from semcache.tuning.streams import Looked, SharedStream, Stream, asked, looked_up
from semcache.tuning.tune import Halves, Part, Table
from semcache.types import Candidate

if TYPE_CHECKING:
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.pairs import Pair
    from semcache.tuning.remembered import Remembered

Measured: TypeAlias = "tuple[Pair, float | None]"
"""A labelled pair and its cosine; ``None`` where the embedder cannot read it."""

SwitchOff = Literal["none", "soft", "all"]
"""Guards that may be switched off: none; those in :data:`~semcache.tuning.settings.SOFT`; or also all at once."""

_NO_SLICE: Final = ""
"""Where questions without a category, or in a language that is not recognised, are counted."""


@dataclass(frozen=True)
class Space:
    """What is tried.

    Args:
        closed: Whether to try rules that compare answers as well; ``None`` if the policy does. Of logs only.
        switch_off: Guards that may be switched off where labels speak for it.
    """

    closed: bool | None = None
    switch_off: SwitchOff = "soft"


class Prepared(NamedTuple):
    """What is tuned on.

    Args:
        policy: The one to start from, with the scoring that was fitted, if one was.
        fitted_to: Pairs that it was fitted to; 0 if it was not.
        parts: By slice, of which none changes what another hits.
        shared: Instead: slices that share what is stored.
    """

    policy: Policy
    fitted_to: int
    parts: dict[str, Part]
    shared: SharedStream | None = None

    @property
    def costless(self) -> bool:
        """Whether a test is a count, and no replay."""
        return all(isinstance(part, Halves) for part in self.parts.values())


def of_pairs(
    pairs: Sequence[Pair],
    policy: Policy,
    embedder: Remembered,
    progress: Progress = lambda done: None,
    *,
    space: Space = Space(),
    slice_by: Table = "namespaces",
) -> Prepared:
    """Labelled pairs, dealt into two halves by group."""
    earlier, later = (
        list(zip(half, similarities(half, embedder, progress), strict=True)) for half in grouped_split(pairs)
    )
    policy, fitted_to, tried = _fitted([_asked(one) for one in earlier], policy, embedder.fingerprint, space)
    judges = Levels(policy, embedder.fingerprint, tried)
    sides = [_samples(half, judges, tried, slice_by) for half in (earlier, later)]
    nothing: Samples = dict.fromkeys(tried, Sample.of([], []))
    names = sorted({name for side in sides for name in side})
    return Prepared(policy, fitted_to, {name: Halves(*(side.get(name, nothing) for side in sides)) for name in names})


def of_log(
    records: Sequence[LogRecord],
    policy: Policy,
    embedder: Remembered,
    *,
    space: Space = Space(),
    slice_by: Table = "namespaces",
    cold: bool = False,
) -> Prepared:
    """A log in the order of time, cut in the middle; each namespace by itself, unless slices go across them.

    Args:
        cold: Ask for a cache that begins empty, in both halves, and not for one that the earlier half has filled.
    """
    middle = len(records) // 2
    looked = looked_up(records[:middle], policy, embedder, warm=not cold)
    policy, fitted_to, tried = _fitted(list(asked(looked)), policy, embedder.fingerprint, space)
    fill, later = [] if cold else records[:middle], records[middle:]
    if slice_by != "namespaces":
        whole = Stream(looked, later, fill, policy, embedder, tried)
        return Prepared(policy, fitted_to, {}, SharedStream(whole, _slice_of(slice_by)))
    names = sorted({record.namespace or DEFAULT_NAMESPACE for record in records})
    counted, filling = _by_namespace(later), _by_namespace(fill)
    seen: dict[str, list[Looked]] = defaultdict(list)
    for one in looked:
        seen[one.namespace].append(one)
    return Prepared(
        policy,
        fitted_to,
        {name: Stream(seen[name], counted[name], filling[name], policy, embedder, tried) for name in names},
    )


def _fitted(
    asked: Sequence[Asked], policy: Policy, fingerprint: str, space: Space
) -> tuple[Policy, int, tuple[Rule, ...]]:
    """The policy with a scoring of these questions, if they make one, and the rules to try with it.

    Never with a scoring of another embedder.
    """
    if policy.scoring is not None and policy.scoring.fingerprint != fingerprint:
        policy = replace(policy, scoring=None)
    may = tuple(name for name in policy.guards if name in SOFT and space.switch_off != "none")
    firm = tuple(name for name in policy.guards if name not in may)
    found = list(rows(asked, firm))
    made = refit(found, fingerprint)
    if made is not None:
        policy = replace(policy, scoring=made)
    switched = switched_off(asked, firm, may)
    if space.switch_off == "all":
        switched = (*switched, policy.guards)
    closed = policy.answers == "closed" if space.closed is None else space.closed
    return policy, 0 if made is None else len(found), rules(policy, fingerprint, closed=closed, switched=switched)


def _asked(measured: Measured) -> Asked:
    pair, similarity = measured
    near = [] if pair.right is None or similarity is None else [(Candidate(0, pair.b, similarity), pair.right)]
    return Asked(pair.a, near, pair.group or fold(pair.a))


def _samples(pairs: Sequence[Measured], judges: Levels, tried: Sequence[Rule], by: Table) -> dict[str, Samples]:
    found: dict[str, dict[Rule, list[tuple[float, bool]]]] = defaultdict(lambda: {rule: [] for rule in tried})
    for pair, similarity in pairs:
        near = [] if similarity is None else [Candidate(0, pair.b, similarity)]
        name = {"namespaces": pair.namespace, "categories": pair.category, "languages": language(pair.a)}[by]
        for rule, level, _ in judges.of(pair.a, near, pair.namespace, pair.category):
            found[name or _NO_SLICE][rule].append((level, pair.right is False))
    return {
        name: {rule: Sample.of(*zip(*rows, strict=True)) for rule, rows in side.items()} for name, side in found.items()
    }


def _slice_of(by: Table) -> Callable[[LogRecord], str | None]:
    if by == "categories":
        return lambda record: record.category
    return lambda record: language(request_of(record).text or "") or None


def _by_namespace(records: Sequence[LogRecord]) -> dict[str, list[LogRecord]]:
    found: dict[str, list[LogRecord]] = defaultdict(list)
    for record in records:
        found[record.namespace or DEFAULT_NAMESPACE].append(record)
    return found
