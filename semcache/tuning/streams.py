"""Hits of a query log at every threshold, roughly in one pass, or at one threshold, exactly in a real replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from semcache.tuning.bounds import Count
from semcache.tuning.choose import Sample
from semcache.tuning.pairs import DEFAULT_SLICE, Pair
from semcache.tuning.replay import LogClock, answer_of, replay, replay_cache, request_of
from semcache.tuning.scoring import FLOOR, NEVER, at_threshold

if TYPE_CHECKING:
    from semcache.policy import Policy
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.remembered import Remembered
    from semcache.types import Outcome


@dataclass(frozen=True)
class Stream:
    """A log in time order, cut in two; or the records of one namespace, which shares no answer with another."""

    earlier: Sequence[LogRecord]
    later: Sequence[LogRecord]
    policy: Policy
    embedder: Remembered

    @cached_property
    def fit(self) -> Sample:
        """The hits of the earlier part, from :func:`recorded`."""
        return recorded(self.earlier, self.policy, self.embedder)

    def held_out(self, threshold: float) -> Count:
        """The hits of the later part at one threshold, after a replay of the earlier."""
        return served(self.later, at_threshold(self.policy, threshold), self.embedder, before=self.earlier)


def recorded(records: Sequence[LogRecord], policy: Policy, embedder: Remembered) -> Sample:
    """Labelled requests in order, each with the similarity of the nearest stored question that the guards let through.

    One pass stands for all thresholds, and so is an approximation: every answer is stored, whereas a cache at some
    threshold stores none for a request that it served. The candidates seen here are therefore at least as near, and
    hits a little too many. Good enough to choose which thresholds to test; never to certify one.
    """
    levels: list[float] = []
    wrong: list[bool] = []
    for record, outcome, given in _looked_up(records, policy, embedder):
        if record.label is None or (outcome.hit and given is None):
            continue
        semantic = outcome.layer == "semantic"
        levels.append(NEVER if not semantic or outcome.similarity is None else outcome.similarity)
        wrong.append(semantic and given != record.label)
    return Sample.of(levels, wrong)


def unsure(records: Sequence[LogRecord], policy: Policy, embedder: Remembered) -> list[Pair]:
    """Semantic hits that there would be at some threshold, as pairs: what was asked, and what was stored.

    As approximate as :func:`recorded`. A pair is labelled if both of its records are.
    """
    pairs = []
    for record, outcome, given in _looked_up(records, policy, embedder):
        decision, request = outcome.decision, outcome.request
        if outcome.layer != "semantic" or decision is None or decision.chosen is None or request is None:
            continue
        known = record.label is not None and given is not None
        pairs.append(
            Pair(
                request.text or "",
                decision.chosen.text,
                given == record.label if known else None,
                namespace=record.namespace or DEFAULT_SLICE,
            )
        )
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


def _looked_up(
    records: Sequence[LogRecord], policy: Policy, embedder: Remembered
) -> Iterator[tuple[LogRecord, Outcome, str | None]]:
    """Each record with its look-up at the lowest threshold, and the class of the answer found.

    Every answer is kept, that to a semantic hit too.
    """
    with replay_cache(at_threshold(policy, FLOOR), embedder=embedder) as cache:
        clock = cache.engine.clock
        for record in records:
            if isinstance(clock, LogClock) and record.ts is not None:
                clock.now = max(clock.now, record.ts)
            request = request_of(record)
            with nullcontext() if record.namespace is None else cache.options(namespace=record.namespace):
                found = cache.lookup(request)
                if found.outcome.layer != "exact":
                    cache.store(request, answer_of(record, request))
            yield record, found.outcome, None if found.response is None else found.response["cls"]
