"""Replays a query log through the cache itself, to learn its hit rate before it is switched on.

Each record becomes a request in the OpenAI chat format and goes, in the order of the log, through the same engine
that serves live traffic. The upstream answers with the record's answer class, so a hit is wrong exactly when the class
that was stored with the answer is not the class of the record. Texts are embedded in bulk, a stretch of the log at
a time: the figures for latency are those of the look-up without the embedding, which is reported beside them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from semcache.report import RunReport
from semcache.types import Reply, Request

if TYPE_CHECKING:
    from semcache.cache import SemanticCache
    from semcache.engine import Engine
    from semcache.tuning.logs import LogRecord

TENANT: Final = "replay"
"""Entries of a replay are this tenant's: their answers are class names and must never meet real traffic."""

STRETCH: Final = 1024
"""Records whose texts are embedded together; fewer than the embedding queue remembers."""

Progress = Callable[[Literal["embedding", "replaying"], int], None]
"""Told how many more records have been embedded, or replayed."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay came to.

    Args:
        report: Hits, wrong hits, savings and latencies.
        embedded: Distinct texts that were embedded.
        embedding_s: Seconds that took, loading the model included.
        lookup_s: Seconds of all calls, without embedding.
        span_s: Seconds of real time that the log covers, ``None`` without time stamps.
    """

    report: RunReport
    embedded: int
    embedding_s: float
    lookup_s: float
    span_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the report's keys, which are stable, and those of the replay."""
        return {
            **self.report.to_dict(),
            "latency_saved_s": None,  # the upstream of a replay takes no time
            "embedding": {"texts": self.embedded, "seconds": self.embedding_s},
            "lookup_seconds": self.lookup_s,
            "requests_per_second": self.report.books.requests / self.lookup_s if self.lookup_s else None,
            "span_seconds": self.span_s,
        }


def replay(cache: SemanticCache, records: Sequence[LogRecord], progress: Progress = lambda phase, done: None) -> Replay:
    """Send the records through a cache, in order.

    Args:
        cache: Should be empty, of tenant :data:`TENANT`, and have a ledger of its own.
    """
    engine, report = cache.engine, RunReport()
    texts: set[str] = set()
    embedding_s = lookup_s = 0.0
    for stretch in _stretches(records):
        requests = [_request(record) for record in stretch]
        started = time.perf_counter()
        _embed(engine, requests, texts, progress)
        embedded = time.perf_counter()
        for record, request in zip(stretch, requests, strict=True):
            _play(engine, record, request, report)
            progress("replaying", 1)
        embedding_s += embedded - started
        lookup_s += time.perf_counter() - embedded
    times = [record.ts for record in records if record.ts is not None]
    span_s = max(times) - min(times) if times else None
    return Replay(report, len(texts), embedding_s, lookup_s, span_s)


def _stretches(records: Sequence[LogRecord]) -> Iterator[Sequence[LogRecord]]:
    for start in range(0, len(records), STRETCH):
        yield records[start : start + STRETCH]


def _request(record: LogRecord) -> Request:
    from semcache.wire.openai_chat import OpenAIChat

    body: dict[str, Any] = {"messages": list(record.messages)}
    if record.model is not None:
        body["model"] = record.model
    return OpenAIChat().parse(body, upstream="replay", headers={})


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


def _play(engine: Engine, record: LogRecord, request: Request, report: RunReport) -> None:
    body = orjson.dumps({"cls": record.label})
    started = time.perf_counter()
    served = engine.run(request, lambda: Reply(None, body, record.usage))
    seconds = time.perf_counter() - started
    given = record.label if served.body is None else orjson.loads(served.body)["cls"]
    wrong = None if record.label is None or given is None else given != record.label
    report.record(served.outcome, wrong, seconds)
