"""Makes labelled pairs, or a log, ready to be tuned on: cut in two, the scoring fitted to the first half."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from semcache.guards import fold
from semcache.policy import Policy
from semcache.tuning.choose import Sample, Samples
from semcache.tuning.pairs import grouped_split
from semcache.tuning.refit import Row, refit, row
from semcache.tuning.scoring import Progress, similarities
from semcache.tuning.settings import Levels, Rule, rules
from semcache.tuning.streams import Stream, looked_up
from semcache.tuning.streams import rows as rows_of_stream
from semcache.tuning.tune import Halves, Part
from semcache.types import Candidate

if TYPE_CHECKING:
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.pairs import Pair
    from semcache.tuning.remembered import Remembered

Measured: TypeAlias = "tuple[Pair, float | None]"
"""A labelled pair and its cosine; ``None`` where the embedder cannot read it."""


class Prepared(NamedTuple):
    """What :func:`~semcache.tuning.tune.tune` takes.

    Args:
        policy: The one to start from, with the scoring that was fitted, if one was.
        fitted_to: Pairs that it was fitted to; 0 if it was not.
    """

    policy: Policy
    parts: dict[str, Part]
    fitted_to: int


def of_pairs(
    pairs: Sequence[Pair], policy: Policy, embedder: Remembered, progress: Progress = lambda done: None
) -> Prepared:
    """Labelled pairs, dealt into two halves by group."""
    earlier, later = (
        list(zip(half, similarities(half, embedder, progress), strict=True)) for half in grouped_split(pairs)
    )
    policy, fitted_to = _fitted(policy, list(_rows(earlier)), embedder.fingerprint)
    tried = rules(policy, embedder.fingerprint)
    judges = Levels(policy, embedder.fingerprint, tried)
    sides = [_samples(half, judges, tried) for half in (earlier, later)]
    nothing: Samples = dict.fromkeys(tried, Sample.of([], []))
    names = sorted({name for side in sides for name in side})
    parts: dict[str, Part] = {name: Halves(*(side.get(name, nothing) for side in sides)) for name in names}
    return Prepared(policy, parts, fitted_to)


def of_log(
    records: Sequence[LogRecord], policy: Policy, embedder: Remembered, *, closed: bool | None = None
) -> Prepared:
    """A log in the order of time, cut in the middle; each namespace by itself.

    Args:
        closed: Whether to try rules that compare answers as well; ``None`` if the policy does.
    """
    middle = len(records) // 2
    earlier, later = _by_namespace(records[:middle]), _by_namespace(records[middle:])
    names = sorted({*earlier, *later})
    looked = {name: list(looked_up(earlier.get(name, []), policy, embedder)) for name in names}
    fitting = [one for found in looked.values() for one in rows_of_stream(found)]
    compared = policy.answers == "closed" if closed is None else closed
    policy, fitted_to = _fitted(policy, fitting, embedder.fingerprint)
    tried = rules(policy, embedder.fingerprint, closed=compared)
    parts: dict[str, Part] = {
        name: Stream(earlier.get(name, []), later.get(name, []), looked[name], policy, embedder, tried)
        for name in names
    }
    return Prepared(policy, parts, fitted_to)


def _fitted(policy: Policy, found: Sequence[Row], fingerprint: str) -> tuple[Policy, int]:
    """The policy with a scoring of these rows, if they make one; never with that of another embedder."""
    if policy.scoring is not None and policy.scoring.fingerprint != fingerprint:
        policy = replace(policy, scoring=None)
    made = refit(found, fingerprint)
    return (policy, 0) if made is None else (replace(policy, scoring=made), len(found))


def _rows(pairs: Sequence[Measured]) -> Iterator[Row]:
    for pair, similarity in pairs:
        if pair.right is not None and similarity is not None:
            found = row(pair.a, Candidate(0, pair.b, similarity), pair.right, pair.group or fold(pair.a))
            if found is not None:
                yield found


def _samples(pairs: Sequence[Measured], judges: Levels, tried: Sequence[Rule]) -> dict[str, Samples]:
    found: dict[str, dict[Rule, list[tuple[float, bool]]]] = defaultdict(lambda: {rule: [] for rule in tried})
    for pair, similarity in pairs:
        near = [] if similarity is None else [Candidate(0, pair.b, similarity)]
        for rule, level, _ in judges.of(pair.a, near, pair.namespace):
            found[pair.namespace][rule].append((level, pair.right is False))
    return {
        name: {rule: Sample.of(*zip(*rows, strict=True)) for rule, rows in side.items()} for name, side in found.items()
    }


def _by_namespace(records: Sequence[LogRecord]) -> dict[str, list[LogRecord]]:
    found: dict[str, list[LogRecord]] = defaultdict(list)
    for record in records:
        found[record.namespace or ""].append(record)
    return found
