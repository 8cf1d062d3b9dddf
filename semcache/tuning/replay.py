"""Replays a query log through the cache itself, to learn its hit rate before it is switched on.

Each record becomes a request in the OpenAI chat format and goes, in the order of the log, through the same engine
that serves live traffic. The upstream answers with the record's answer class, so a hit is wrong exactly when the class
that was stored with the answer is not the class of the record. Texts are embedded in bulk, a stretch of the log at
a time: the figures for latency are those of the look-up without the embedding, which is reported beside them.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import orjson

from semcache.cache import SemanticCache
from semcache.guards import GUARDS
from semcache.money.ledger import Ledger
from semcache.report import RunReport
from semcache.stores import MemoryStore
from semcache.types import Event, Layer, Reply, Request
from semcache.wire.openai_chat import OpenAIChat

if TYPE_CHECKING:
    from semcache.embedders import Embedder
    from semcache.engine import Engine
    from semcache.policy import Policy
    from semcache.tuning.logs import LogRecord
    from semcache.types import Decision, Outcome

TENANT: Final = "replay"
"""Entries of a replay are this tenant's: their answers are class names and must never meet real traffic."""

STRETCH: Final = 1024
"""Records whose texts are embedded together; fewer than the embedding queue remembers."""

Progress = Callable[[Literal["embedding", "replaying"], int], None]
"""Told how many more records have been embedded, or replayed."""


class LogClock:
    """The time of the log, for the cache and its store: Unix seconds, set by the replay and never going back."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Vetoed(NamedTuple):
    """A stored question that was near enough to answer, and that something else kept from it.

    Args:
        text: The stored question.
        label: The answer class that was stored with it.
        guards: Names of the guards that objected, and ``probability`` where the score did.
    """

    text: str
    label: str | None
    similarity: float
    guards: tuple[str, ...]


@dataclass(slots=True)
class Played:
    """One request of a replay.

    Args:
        layer: The tier that answered; ``None`` where the upstream had to.
        asked: The text that may match by meaning.
        stored: The question whose answer was served; ``None`` on a miss.
        similarity: Cosine of a semantic hit, 1.0 for an exact one.
        given: The answer class that was served.
        wrong: Whether the answer is wrong; ``None`` if nobody has said. A miss never is.
        answerable: Whether an answer of the right class was in the cache; ``None`` without a label.
        scope: The scope's id: requests of different scopes share no answer.
        seconds: Wall time of the look-up, without embedding.
        usd_micro: What the call did cost, or would have; ``None`` if it is not known.
    """

    record: LogRecord
    layer: Layer | None
    asked: str | None
    stored: str | None
    similarity: float | None
    given: str | None
    wrong: bool | None
    vetoed: Vetoed | None
    answerable: bool | None
    scope: int | None
    seconds: float
    usd_micro: int | None


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay came to.

    Args:
        report: Hits, wrong hits, savings and latencies.
        played: Every request, in the order of the replay.
        embedded: Distinct texts that were embedded.
        embedding_s: Seconds that took, loading the model included.
        lookup_s: Seconds of all calls, without embedding.
        span_s: Seconds of real time that the log covers, ``None`` without time stamps.
    """

    report: RunReport
    played: Sequence[Played]
    embedded: int
    embedding_s: float
    lookup_s: float
    span_s: float | None

    @property
    def latency_saved_s(self) -> float | None:
        """How much sooner hits came than the calls in the log, embedding left out; ``None`` if none has a time."""
        hits = [one for one in self.played if one.layer is not None]
        saved = [one.record.latency_s - one.seconds for one in hits if one.record.latency_s is not None]
        return sum(saved) if saved or not hits else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the report's keys, which are stable, and those of the replay."""
        return {
            **self.report.to_dict(),
            "latency_saved_s": self.latency_saved_s,
            "embedding": {"texts": self.embedded, "seconds": self.embedding_s},
            "lookup_seconds": self.lookup_s,
            "requests_per_second": self.report.books.requests / self.lookup_s if self.lookup_s else None,
            "span_seconds": self.span_s,
        }


@contextmanager
def replay_cache(
    policy: Policy | None = None,
    *,
    embedder: Embedder | None = None,
    max_entries: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Iterator[SemanticCache]:
    """An empty cache in memory that lives in the time of the log it is given, for one replay.

    Args:
        max_entries: Above it the least recently used entry goes; ``None`` for no bound.
    """
    clock = LogClock()
    store = MemoryStore(max_entries, None, clock=clock)
    policy = None if policy is None else policy.offline()
    with SemanticCache(
        store=store, policy=policy, embedder=embedder, ledger=Ledger(MemoryStore()), tenant=TENANT, clock=clock
    ) as cache:
        if on_event is not None:
            cache.on_event(on_event)
        yield cache


def replay(cache: SemanticCache, records: Sequence[LogRecord], progress: Progress = lambda phase, done: None) -> Replay:
    """Send the records through a cache, in order.

    Args:
        cache: Should be empty, of tenant :data:`TENANT`, and have a ledger of its own, as :func:`replay_cache` makes
            it. Time passes as in the log only if it has a :class:`LogClock`.
    """
    player = _Player(cache)
    texts: set[str] = set()
    played: list[Played] = []
    embedding_s = lookup_s = 0.0
    with _collector_paused():
        for start in range(0, len(records), STRETCH):
            stretch = records[start : start + STRETCH]
            requests = [request_of(record) for record in stretch]
            started = time.perf_counter()
            _embed(cache.engine, requests, texts, progress)
            embedded = time.perf_counter()
            for record, request in zip(stretch, requests, strict=True):
                played.append(player.play(record, request))
                progress("replaying", 1)
            embedding_s += embedded - started
            lookup_s += time.perf_counter() - embedded
    report = player.report
    for one in played:
        report.grade(one.layer is not None, one.wrong)
    times = [record.ts for record in records if record.ts is not None]
    span_s = max(times) - min(times) if times else None
    return Replay(report, played, len(texts), embedding_s, lookup_s, span_s)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Hardly anything that a replay makes is garbage: going through all of it again and again takes a sixth of it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def request_of(record: LogRecord, upstream: str = TENANT) -> Request:
    """The request of a record, in the OpenAI chat format."""
    body: dict[str, Any] = {**record.params, "messages": list(record.messages)}
    if record.model is not None:
        body["model"] = record.model
    return _CODEC.parse(body, upstream=upstream, headers={})


def options_of(cache: SemanticCache, record: LogRecord) -> AbstractContextManager[object]:
    """The options that a caller gives with a request like this record."""
    if record.namespace is None and record.category is None:
        return nullcontext()
    return cache.options(namespace=record.namespace, category=record.category)


def answer_of(record: LogRecord, request: Request) -> dict[str, Any]:
    """What stands for the answer to a record: its class. Where that is not known no two answers are alike."""
    return {"cls": record.label} if record.label is not None else {"cls": None, "to": request.text}


_CODEC: Final = OpenAIChat()


def _embed(engine: Engine, requests: Sequence[Request], seen: set[str], progress: Progress) -> None:
    """Let the queue remember the vectors of a stretch, so that its calls find them there."""
    if engine.semantic is None:
        return
    queue = engine.semantic.queue
    asked = dict.fromkeys(r.text for r in requests if r.text is not None and not r.bypass and not r.exact_only)
    new = [text for text in asked if text not in seen and queue.fits(text)]
    progress("embedding", len(requests) - len(new))
    queue.embed_many(new, lambda done: progress("embedding", done))
    seen.update(new)


class _Player:
    """Plays records one by one, and knows what the cache holds."""

    def __init__(self, cache: SemanticCache) -> None:
        self.report = RunReport()
        self._cache = cache
        self._clock = cache.engine.clock if isinstance(cache.engine.clock, LogClock) else None
        self._labels: dict[int, str | None] = {}  # by entry
        self._fresh_until: dict[tuple[int, str], float] = {}  # by scope and class

    def play(self, record: LogRecord, request: Request) -> Played:
        if self._clock is not None and record.ts is not None:
            self._clock.now = max(self._clock.now, record.ts)
        body = orjson.dumps(answer_of(record, request))
        with options_of(self._cache, record):
            started = time.perf_counter()
            served = self._cache.engine.run(request, lambda: Reply(None, body, record.usage))
            seconds = time.perf_counter() - started
        outcome = served.outcome
        self.report.enter(outcome, seconds)
        # An exact hit is of the same question, though another answer may have been given to it.
        given = None if served.body is None else orjson.loads(served.body)["cls"]
        decision = outcome.decision
        chosen = None if decision is None else decision.chosen
        played = Played(
            record=record,
            layer=outcome.layer,
            asked=request.text,
            stored=None if not outcome.hit else request.text if chosen is None else chosen.text,
            similarity=outcome.similarity,
            given=given,
            wrong=_is_wrong(record, given, outcome.hit),
            vetoed=None if outcome.hit else self._vetoed(decision),
            answerable=self._answerable(record, outcome),
            scope=None if outcome.key is None else outcome.key.scope_id,
            seconds=seconds,
            usd_micro=outcome.usd_micro,
        )
        self._note(record, outcome)
        return played

    def _note(self, record: LogRecord, outcome: Outcome) -> None:
        if not outcome.stored or outcome.key is None:
            return
        self._labels[outcome.key.id] = record.label
        if record.label is not None:
            until = math.inf if outcome.ttl_s is None else self._cache.engine.clock() + outcome.ttl_s
            self._fresh_until[outcome.key.scope_id, record.label] = until

    def _answerable(self, record: LogRecord, outcome: Outcome) -> bool | None:
        if record.label is None or outcome.key is None:
            return None
        return self._fresh_until.get((outcome.key.scope_id, record.label), -math.inf) > self._cache.engine.clock()

    def _vetoed(self, decision: Decision | None) -> Vetoed | None:
        for one in () if decision is None else decision.judged:
            if one.verdicts and one.reasons:  # near enough that the guards were asked
                candidate = one.candidate
                against = tuple(dict.fromkeys(map(_objector, one.reasons)))
                return Vetoed(candidate.text, self._labels.get(candidate.entry_id), candidate.similarity, against)
        return None


def _objector(reason: str) -> str:
    """Who gave a reason: a guard, or else the rule that its first word names."""
    guard = reason.partition(":")[0]
    return guard if guard in GUARDS else reason.partition(" ")[0]


def _is_wrong(record: LogRecord, given: str | None, hit: bool) -> bool | None:
    if record.label is None:
        return None
    if not hit:
        return False
    return None if given is None else given != record.label
