"""Hits of a query log at every threshold, roughly in one pass, or at one threshold, exactly in a real replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from semcache.cache import SemanticCache
from semcache.ledger import Ledger
from semcache.stores import MemoryStore
from semcache.tuning.bounds import Count
from semcache.tuning.choose import Sample
from semcache.tuning.pairs import Pair
from semcache.tuning.replay import TENANT, replay
from semcache.tuning.scoring import FLOOR, NEVER, at_threshold
from semcache.wire.openai_chat import OpenAIChat

if TYPE_CHECKING:
    from semcache.policy import Policy
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.remembered import Remembered
    from semcache.types import Outcome, Request


@dataclass(frozen=True)
class Stream:
    """The part of a log in one namespace, in time order, cut in two.

    Namespaces share no answers, so each can be replayed alone.
    """

    earlier: Sequence[LogRecord]
    later: Sequence[LogRecord]
    namespace: str
    policy: Policy
    embedder: Remembered

    @cached_property
    def fit(self) -> Sample:
        """The hits of the earlier part, from :func:`recorded`."""
        return recorded(self.earlier, self.policy, self.embedder, self.namespace)

    def held_out(self, threshold: float) -> Count:
        """The hits of the later part at one threshold, after a replay of the earlier."""
        policy = at_threshold(self.policy, threshold)
        return served(self.later, policy, self.embedder, self.namespace, before=self.earlier)


def recorded(records: Sequence[LogRecord], policy: Policy, embedder: Remembered, namespace: str) -> Sample:
    """Labelled requests in order, each with the similarity of the nearest stored question that the guards let through.

    One pass stands for all thresholds, and so is an approximation: every answer is stored, whereas a cache at some
    threshold stores none for a request that it served. The candidates seen here are therefore at least as near, and
    hits a little too many. Good enough to choose which thresholds to test; never to certify one.
    """
    levels: list[float] = []
    wrong: list[bool] = []
    for record, outcome, given in _looked_up(records, policy, embedder, namespace):
        if record.label is None or (outcome.hit and given is None):
            continue
        semantic = outcome.layer == "semantic"
        levels.append(NEVER if not semantic or outcome.similarity is None else outcome.similarity)
        wrong.append(semantic and given != record.label)
    return Sample.of(levels, wrong)


def unsure(records: Sequence[LogRecord], policy: Policy, embedder: Remembered, namespace: str) -> list[Pair]:
    """Semantic hits that there would be at some threshold, as pairs: what was asked, and what was stored.

    As approximate as :func:`recorded`. A pair is labelled if both of its records are.
    """
    pairs = []
    for record, outcome, given in _looked_up(records, policy, embedder, namespace):
        decision, request = outcome.decision, outcome.request
        if outcome.layer != "semantic" or decision is None or decision.chosen is None or request is None:
            continue
        known = record.label is not None and given is not None
        right = given == record.label if known else None
        pairs.append(Pair(request.text or "", decision.chosen.text, right, namespace=namespace))
    return pairs


def _looked_up(
    records: Sequence[LogRecord], policy: Policy, embedder: Remembered, namespace: str
) -> Iterator[tuple[LogRecord, Outcome, str | None]]:
    """Each record with its look-up at the lowest threshold, and the class of the answer found.

    Every answer is kept, that to a semantic hit too.
    """
    with _cache(at_threshold(policy, FLOOR), embedder) as cache:
        for record in records:
            request = request_of(record)
            with cache.options(namespace=namespace):
                found = cache.lookup(request)
                if found.outcome.layer != "exact":
                    cache.store(request, {"cls": record.label})
            yield record, found.outcome, None if found.response is None else found.response["cls"]


def served(
    records: Sequence[LogRecord],
    policy: Policy,
    embedder: Remembered,
    namespace: str,
    before: Sequence[LogRecord] = (),
) -> Count:
    """What the semantic tier serves of some records in a real replay; exact hits count as requests only.

    Args:
        before: Replayed first, to fill the cache; not counted.
    """
    tally = _Tally([record.label for record in (*before, *records)], skip=len(before))
    with _cache(policy, embedder) as cache, cache.options(namespace=namespace):
        cache.on_outcome(tally)
        if before:
            replay(cache, before)
        replay(cache, records)
    assert tally.seen == len(before) + len(records)
    return tally.count


def request_of(record: LogRecord) -> Request:
    """The request of a record, in the OpenAI chat format."""
    body: dict[str, Any] = {"messages": list(record.messages)}
    if record.model is not None:
        body["model"] = record.model
    return OpenAIChat().parse(body, upstream="tuning", headers={})


def texts(records: Sequence[LogRecord], embedder: Remembered) -> list[str]:
    """The texts that a replay of the records will embed."""
    asked = [request_of(record) for record in records]
    return [
        request.text
        for request in asked
        if request.text is not None and not request.bypass and not request.exact_only and embedder.fits(request.text)
    ]


@contextmanager
def _cache(policy: Policy, embedder: Remembered) -> Iterator[SemanticCache]:
    store = MemoryStore(max_entries=None, max_bytes=None)
    with SemanticCache(
        store=store, policy=policy, embedder=embedder, ledger=Ledger(MemoryStore()), tenant=TENANT
    ) as cache:
        yield cache


class _Tally:
    """Counts the semantic hits of a replay, which makes exactly one outcome of each record."""

    def __init__(self, labels: Sequence[str | None], skip: int) -> None:
        self._labels = labels
        self._skip = skip
        self._answers: dict[int, str | None] = {}
        self.seen = 0
        self.count = Count(0, 0, 0)

    def __call__(self, outcome: Outcome) -> None:
        label = self._labels[self.seen]
        self.seen += 1
        if outcome.stored and outcome.entry_id is not None:
            self._answers[outcome.entry_id] = label
        if self.seen <= self._skip or label is None:
            return
        given = label if not outcome.hit or outcome.entry_id is None else self._answers[outcome.entry_id]
        if given is not None:
            semantic = outcome.hit and outcome.layer == "semantic"
            self.count += Count(1, int(semantic), int(semantic and given != label))
