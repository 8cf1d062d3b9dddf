"""The first step: what the cache can answer, and what must be sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semcache import flow
from semcache.batch.files import Line, digest, distinct, read_requests, replaced, result_line
from semcache.batch.together import perform_together
from semcache.money.books import Line as Sum
from semcache.types import Outcome
from semcache.wire._json import dumps, loads_object

if TYPE_CHECKING:
    from semcache.cache import SemanticCache
    from semcache.steps import Step


@dataclass(slots=True)
class Split:
    """What became of a batch file's requests: each is a hit, a copy, or sent.

    Args:
        exact_hits: Answered by the same request.
        semantic_hits: Answered by one of the same meaning.
        copies: Equal to another one in the file, which is sent for both.
        sent: In the file of the rest.
        uncached: Of those that are sent, how many the cache has nothing to do with, by reason.
        saved: What hits save, at the price of a batch where that is known.
    """

    exact_hits: int = 0
    semantic_hits: int = 0
    copies: int = 0
    sent: int = 0
    uncached: dict[str, int] = field(default_factory=dict)
    saved: Sum = field(default_factory=Sum)

    @property
    def requests(self) -> int:
        return self.exact_hits + self.semantic_hits + self.copies + self.sent


def split(
    cache: SemanticCache,
    source: str | os.PathLike[str],
    *,
    hits: str | os.PathLike[str],
    rest: str | os.PathLike[str],
    upstream: str | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Split:
    """Look every request of a batch file up; write what is answered to one file, and what must be sent to another.

    Equal requests are sent once. Nothing is booked yet: :func:`merge` does that.

    Args:
        source: A batch file: a JSON object a line with ``custom_id``, ``method``, ``url`` and ``body``.
        hits: Is written: a result line for each hit, and for each copy whose it is.
        rest: Is written: the lines of ``source`` that must be sent, byte for byte.
        upstream: The label by which wrapped clients know who answers; by default OpenAI itself.
        progress: Called with 1 after each request.

    Raises:
        InputError: A line cannot be used; nothing is written.
        ConfigurationError: Two of the files are one.
    """
    source, hits, rest = Path(source), Path(hits), Path(rest)
    distinct(("source", source), ("hits", hits), ("rest", rest))
    report = Split()
    leaders: dict[bytes, str] = {}  # by digest: a large file's requests would fill the memory
    looks = (_look(cache, line, upstream, leaders, report) for line in read_requests(source))
    with replaced(rest) as to_send, replaced(hits) as known:
        for line, found in perform_together(cache.engine, looks):
            if found is None:
                report.sent += 1
                to_send.write(line.raw + b"\n")
            else:
                known.write(found + b"\n")
            progress(1)
    return report


def _look(
    cache: SemanticCache, line: Line, upstream: str | None, leaders: dict[bytes, str], report: Split
) -> Generator[Step, Any, tuple[Line, bytes | None]]:
    """A request, and the line that answers it; ``None`` if it must be sent."""
    ctx = cache.engine.context(line.parse(upstream).request)
    answered = yield from flow.lookup(ctx)
    if answered.body is not None:
        body = loads_object(answered.body)
        assert body is not None, "stored answers are JSON objects"
        outcome = ctx.outcome
        if outcome.layer == "semantic":
            report.semantic_hits += 1
        else:
            report.exact_hits += 1
        _save(cache, report, outcome)
        made_of = {"layer": outcome.layer, "similarity": outcome.similarity, "entry_id": outcome.entry_id}
        id = f"semcache-{outcome.entry_id or 0:016x}"
        return line, result_line(line.custom_id, id, body, semcache={"request": line.digest, **made_of})
    if ctx.outcome.status == "bypass" or ctx.key is None:
        _count(report.uncached, ctx.outcome.reason)
        return line, None
    leader = leaders.setdefault(digest(ctx.key.canonical), line.custom_id)
    if leader == line.custom_id:
        return line, None
    report.copies += 1
    return line, dumps({"custom_id": line.custom_id, "same_as": leader, "semcache": {"request": line.digest}})


def _save(cache: SemanticCache, report: Split, outcome: Outcome) -> None:
    usage = outcome.usage
    price = None if usage is None else cache.engine.ledger.prices.cost(outcome.model, usage, batch=True)
    report.saved.enter(usage, price)


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
