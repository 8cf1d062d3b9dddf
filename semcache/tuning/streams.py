"""Hits of a query log at every setting, roughly in one pass, or at one setting, exactly in a real replay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from semcache.tuning.bounds import Count
from semcache.tuning.choose import Sample, Samples
from semcache.tuning.pairs import DEFAULT_NAMESPACE, Pair
from semcache.tuning.refit import Asked
from semcache.tuning.replay import LogClock, Played, answer_of, options_of, replay, replay_cache, request_of
from semcache.tuning.scoring import everywhere
from semcache.tuning.settings import Levels, Rule, Setting

if TYPE_CHECKING:
    from semcache.cache import SemanticCache
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

    @property
    def namespace(self) -> str:
        return self.record.namespace or DEFAULT_NAMESPACE


@dataclass(frozen=True)
class Stream:
    """A log in time order, cut in two; or the records of one namespace, which shares no answer with another.

    Args:
        looked: The earlier part, :func:`looked_up`.
        later: What is counted.
        before: What fills the cache first.
    """

    looked: Sequence[Looked]
    later: Sequence[LogRecord]
    before: Sequence[LogRecord]
    policy: Policy
    embedder: Remembered
    rules: Sequence[Rule]

    @cached_property
    def fit(self) -> Samples:
        """The hits of the earlier part."""
        return samples(self.looked, self.policy, self.embedder.fingerprint, self.rules)

    def held_out(self, setting: Setting) -> Count:
        """The hits of the later part at one setting, in a real replay."""
        policy = setting.policy(self.policy, self.embedder.fingerprint)
        return served(self.later, policy, self.embedder, before=self.before)


@dataclass(frozen=True)
class SharedStream:
    """A log in time order, cut in two, in slices that share what is stored: those of categories or languages.

    Args:
        slice_of: The slice of a record; ``None`` if it is in none.
    """

    whole: Stream
    slice_of: Callable[[LogRecord], str | None]

    @cached_property
    def fits(self) -> dict[str | None, Samples]:
        """The hits of the earlier part, by slice."""
        whole = self.whole
        sliced: dict[str | None, list[Looked]] = defaultdict(list)
        for one in whole.looked:
            sliced[self.slice_of(one.record)].append(one)
        return {
            name: samples(some, whole.policy, whole.embedder.fingerprint, whole.rules) for name, some in sliced.items()
        }

    def held_out(self, policy: Policy, alone: Collection[str | None]) -> dict[str | None, Count]:
        """The hits of the later part in one real replay: of the slices that stand alone, and of the rest (``None``)."""
        whole = self.whole
        found: dict[str | None, list[Played]] = {name: [] for name in (*alone, None)}
        for one in _played(whole.later, policy, whole.embedder, whole.before):
            name = self.slice_of(one.record)
            found[name if name in alone else None].append(one)
        return {name: _counted(played) for name, played in found.items()}


def samples(looked: Sequence[Looked], policy: Policy, fingerprint: str, rules: Sequence[Rule]) -> Samples:
    """The labelled requests among those looked up, under each rule."""
    judges = Levels(policy, fingerprint, rules)
    found: dict[Rule, list[tuple[float, bool]]] = {rule: [] for rule in rules}
    for one in looked:
        if one.record.label is None or (one.exact and None in one.given.values()):
            continue
        for rule, level, chosen in judges.of(one.text, one.candidates, one.namespace, one.record.category):
            given = None if chosen is None else one.given[chosen.entry_id]
            if chosen is None or given is not None:
                found[rule].append((level, chosen is not None and given != one.record.label))
    return {rule: Sample.of([level for level, _ in rows], [wrong for _, wrong in rows]) for rule, rows in found.items()}


def asked(looked: Iterable[Looked]) -> Iterator[Asked]:
    """The labelled requests among those looked up, each with its labelled candidates."""
    for one in looked:
        if one.record.label is not None:
            given = [(candidate, one.given[candidate.entry_id]) for candidate in one.candidates]
            near = [(candidate, label == one.record.label) for candidate, label in given if label is not None]
            yield Asked(one.text, near, one.record.label)


def unsure(records: Sequence[LogRecord], policy: Policy, embedder: Remembered) -> list[Pair]:
    """Semantic hits that there would be at some threshold, as pairs: what was asked, and what was stored.

    A pair is labelled if both of its records are.
    """
    judges = Levels(policy, embedder.fingerprint, [Rule.of(policy)])
    pairs = []
    for one in looked_up(records, policy, embedder):
        category = one.record.category
        for _, _, chosen in judges.of(one.text, one.candidates, one.namespace, category):
            if chosen is not None:
                given = one.given[chosen.entry_id]
                known = one.record.label is not None and given is not None
                right = given == one.record.label if known else None
                pairs.append(Pair(one.text, chosen.text, right, namespace=one.namespace, category=category))
    return pairs


def served(
    records: Sequence[LogRecord], policy: Policy, embedder: Remembered, before: Sequence[LogRecord] = ()
) -> Count:
    """What the semantic tier serves of some records in a real replay; exact hits count as requests only.

    Args:
        before: Replayed first, to fill the cache; not counted.
    """
    return _counted(_played(records, policy, embedder, before))


def served_by_half(
    records: Sequence[LogRecord], policy: Policy, embedder: Remembered, before: Sequence[LogRecord] = ()
) -> tuple[Count, Count]:
    """The same for the first half of the records, and for the second: a cache that fills up serves other things."""
    played = _played(records, policy, embedder, before)
    middle = len(played) // 2
    return _counted(played[:middle]), _counted(played[middle:])


def _played(
    records: Sequence[LogRecord], policy: Policy, embedder: Remembered, before: Sequence[LogRecord]
) -> Sequence[Played]:
    with replay_cache(policy, embedder=embedder) as cache:
        return replay(cache, [*before, *records]).played[len(before) :]


def _counted(played: Sequence[Played]) -> Count:
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


def looked_up(
    records: Sequence[LogRecord], policy: Policy, embedder: Remembered, *, warm: bool = False
) -> list[Looked]:
    """Each record in order, with the nearest questions that were stored before it.

    One pass stands for all settings, and so is an approximation: every answer is stored, whereas a cache at some
    setting stores none for a request that it served. The candidates seen here are therefore at least as near, and
    hits a little too many. Good enough to choose which settings to test; never to certify one.

    Args:
        warm: Look a second time, when all is stored: each record then meets all others, as what comes next will.
    """
    labels: dict[int, str | None] = {}
    with replay_cache(_finds_and_serves_nothing(policy), embedder=embedder) as cache:
        looked = [_look(cache, record, labels) for record in records]
        return [_look_again(cache, one, labels) for one in looked] if warm else looked


def _look(cache: SemanticCache, record: LogRecord, labels: dict[int, str | None]) -> Looked:
    clock = cache.engine.clock
    if isinstance(clock, LogClock) and record.ts is not None:
        clock.now = max(clock.now, record.ts)
    request = request_of(record)
    text = request.text or ""
    with options_of(cache, record):
        found = cache.lookup(request)
        key, decision = found.outcome.key, found.outcome.decision
        if found.outcome.layer == "exact" and key is not None:
            return Looked(record, text, (), {key.id: labels.get(key.id)}, True)
        stored = cache.store(request, answer_of(record, request))
    candidates = () if decision is None else tuple(one.candidate for one in decision.judged)
    given = {one.entry_id: labels.get(one.entry_id) for one in candidates}
    if stored.key is not None:
        labels[stored.key.id] = record.label
    return Looked(record, text, candidates, given, False)


def _look_again(cache: SemanticCache, one: Looked, labels: Mapping[int, str | None]) -> Looked:
    """What a record finds besides itself: no question is a candidate for itself."""
    if one.exact:
        return one
    with options_of(cache, one.record):
        found = cache.explain(request_of(one.record))
    candidates = () if found.decision is None else tuple(each.candidate for each in found.decision.judged)
    return one._replace(candidates=candidates, given={each.entry_id: labels.get(each.entry_id) for each in candidates})


def _finds_and_serves_nothing(policy: Policy) -> Policy:
    """A policy under which every candidate is found, compared by answer, and found wanting."""
    nothing = everywhere(policy, threshold=1.0, min_probability=0.0, guards=(), answers="closed", min_agreement=1.0)
    return replace(nothing, verifier=None)
