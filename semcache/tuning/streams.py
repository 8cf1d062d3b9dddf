"""Hits of a query log at every setting, roughly in one pass, or at one setting, exactly in a real replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from semcache.tuning.bounds import Count
from semcache.tuning.choose import Sample, Samples
from semcache.tuning.pairs import DEFAULT_SLICE, Pair
from semcache.tuning.refit import NEIGHBOURS, Row, row
from semcache.tuning.replay import LogClock, answer_of, replay, replay_cache, request_of
from semcache.tuning.scoring import everywhere
from semcache.tuning.settings import Levels, Rule, Setting

if TYPE_CHECKING:
    from semcache.policy import Policy
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.remembered import Remembered
    from semcache.types import Candidate


class Looked(NamedTuple):
    """One request of a log, and the stored questions that it found.

    Args:
        candidates: Most similar first, whether they may answer or not.
        given: The answer class of each candidate by its entry, or of the exact hit.
        exact: Whether the exact tier answered.
    """

    record: LogRecord
    text: str
    candidates: tuple[Candidate, ...]
    given: Mapping[int, str | None]
    exact: bool


@dataclass(frozen=True)
class Stream:
    """A log in time order, cut in two; or the records of one namespace, which shares no answer with another.

    Args:
        looked: The earlier part, :func:`looked_up`.
    """

    earlier: Sequence[LogRecord]
    later: Sequence[LogRecord]
    looked: Sequence[Looked]
    policy: Policy
    embedder: Remembered
    rules: Sequence[Rule]

    @cached_property
    def fit(self) -> Samples:
        """The hits of the earlier part."""
        return samples(self.looked, self.policy, self.embedder.fingerprint, self.rules)

    def held_out(self, setting: Setting) -> Count:
        """The hits of the later part at one setting, after a replay of the earlier."""
        policy = setting.policy(self.policy, self.embedder.fingerprint)
        return served(self.later, policy, self.embedder, before=self.earlier)


def samples(looked: Sequence[Looked], policy: Policy, fingerprint: str, rules: Sequence[Rule]) -> Samples:
    """The labelled requests among those looked up, under each rule."""
    judges = Levels(policy, fingerprint, rules)
    found: dict[Rule, list[tuple[float, bool]]] = {rule: [] for rule in rules}
    for one in looked:
        if one.record.label is None or (one.exact and None in one.given.values()):
            continue
        namespace = one.record.namespace or DEFAULT_SLICE
        for rule, level, chosen in judges.of(one.text, one.candidates, namespace):
            given = None if chosen is None else one.given[chosen.entry_id]
            if chosen is None or given is not None:
                found[rule].append((level, chosen is not None and given != one.record.label))
    return {rule: Sample.of([level for level, _ in rows], [wrong for _, wrong in rows]) for rule, rows in found.items()}


def rows(looked: Sequence[Looked]) -> Iterator[Row]:
    """The nearest labelled neighbours of labelled requests, for a fit of the scoring."""
    for one in looked:
        if one.record.label is None:
            continue
        for candidate in one.candidates[:NEIGHBOURS]:
            given = one.given[candidate.entry_id]
            found = None if given is None else row(one.text, candidate, given == one.record.label, one.record.label)
            if found is not None:
                yield found


def unsure(records: Sequence[LogRecord], policy: Policy, embedder: Remembered) -> list[Pair]:
    """Semantic hits that there would be at some threshold, as pairs: what was asked, and what was stored.

    A pair is labelled if both of its records are.
    """
    judges = Levels(policy, embedder.fingerprint, [Rule.of(policy)])
    pairs = []
    for one in looked_up(records, policy, embedder):
        namespace = one.record.namespace or DEFAULT_SLICE
        for _, _, chosen in judges.of(one.text, one.candidates, namespace):
            if chosen is not None:
                given = one.given[chosen.entry_id]
                known = one.record.label is not None and given is not None
                right = given == one.record.label if known else None
                pairs.append(Pair(one.text, chosen.text, right, namespace=namespace))
    return pairs


def served(
    records: Sequence[LogRecord], policy: Policy, embedder: Remembered, before: Sequence[LogRecord] = ()
) -> Count:
    """What the semantic tier serves of some records in a real replay; exact hits count as requests only.

    Args:
        before: Replayed first, to fill the cache; not counted.
    """
    with replay_cache(policy, embedder=embedder) as cache:
        played = replay(cache, [*before, *records]).played[len(before) :]
    labelled = [one for one in played if one.wrong is not None]
    hits = [one for one in labelled if one.layer == "semantic"]
    return Count(len(labelled), len(hits), sum(one.wrong is True for one in hits))


def texts(records: Sequence[LogRecord], embedder: Remembered) -> list[str]:
    """The texts that a replay of the records will embed."""
    asked = map(request_of, records)
    return [
        request.text
        for request in asked
        if request.text is not None and not request.bypass and not request.exact_only and embedder.fits(request.text)
    ]


def looked_up(records: Sequence[LogRecord], policy: Policy, embedder: Remembered) -> Iterator[Looked]:
    """Each record in order, with the nearest questions that were stored before it.

    One pass stands for all settings, and so is an approximation: every answer is stored, whereas a cache at some
    setting stores none for a request that it served. The candidates seen here are therefore at least as near, and
    hits a little too many. Good enough to choose which settings to test; never to certify one.
    """
    labels: dict[int, str | None] = {}
    with replay_cache(_finds_and_serves_nothing(policy), embedder=embedder) as cache:
        clock = cache.engine.clock
        for record in records:
            if isinstance(clock, LogClock) and record.ts is not None:
                clock.now = max(clock.now, record.ts)
            request = request_of(record)
            with nullcontext() if record.namespace is None else cache.options(namespace=record.namespace):
                found = cache.lookup(request)
                key = found.outcome.key
                if found.outcome.layer == "exact" and key is not None:
                    yield Looked(record, request.text or "", (), {key.id: labels.get(key.id)}, True)
                    continue
                decision = found.outcome.decision
                candidates = () if decision is None else tuple(one.candidate for one in decision.judged)
                given = {one.entry_id: labels.get(one.entry_id) for one in candidates}
                stored = cache.store(request, answer_of(record, request))
                if stored.key is not None:
                    labels[stored.key.id] = record.label
            yield Looked(record, request.text or "", candidates, given, False)


def _finds_and_serves_nothing(policy: Policy) -> Policy:
    """A policy under which every candidate is found, compared by answer, and found wanting."""
    nothing = everywhere(policy, threshold=1.0, min_probability=0.0, guards=(), answers="closed", min_agreement=1.0)
    return replace(nothing, verifier=None)
