"""The second step: one result for each request, in the order of the input; what is new is stored and booked."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semcache import flow
from semcache.batch.files import Line, Results, answer_in, digest, distinct, lines, read_requests, replaced
from semcache.batch.together import perform_together
from semcache.clients._exchange import Exchange
from semcache.errors import InputError
from semcache.money.books import Line as Sum
from semcache.types import Outcome, Reply
from semcache.wire import Codec
from semcache.wire._json import dumps, loads_object

if TYPE_CHECKING:
    from semcache.cache import SemanticCache
    from semcache.steps import Step


@dataclass(slots=True)
class Merged:
    """What became of a batch file's requests. Each is one of the first five.

    Args:
        hits: Answered by the cache.
        fresh: Answered by the batch.
        copies: Answered by the batch's answer to an equal request.
        failed: The batch has an error for them, or for the equal request; it is passed on.
        missing: ``custom_id`` of those that nothing answers: they are left out.
        strangers: ``custom_id`` of results to none of the requests: they are left out, too.
        stored: Answers that are in the cache now, and can answer again.
        saved, spent: At the price of a batch where that is known.
    """

    hits: int = 0
    fresh: int = 0
    copies: int = 0
    failed: int = 0
    missing: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    stored: int = 0
    saved: Sum = field(default_factory=Sum)
    spent: Sum = field(default_factory=Sum)

    @property
    def requests(self) -> int:
        return self.hits + self.fresh + self.copies + self.failed + len(self.missing)


def merge(
    cache: SemanticCache,
    source: str | os.PathLike[str],
    *,
    hits: str | os.PathLike[str],
    results: Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str],
    upstream: str | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Merged:
    """Put hits and results together in the order of ``source``; store fresh answers and keep the books.

    A result goes before a hit: it has been paid for. An answer goes before an error, so that results of a second try
    can stand beside those of the first. What ``out`` holds already has been booked, and is not booked again.

    Args:
        source, hits: As they were for :func:`split`.
        results: What the provider gave for the rest: output and error files, of any number of batches.
        out: Is written: a result line for each request. Answers, errors and ids are passed on as they came.
        upstream: As it was for :func:`split`.
        progress: Called with 1 after each request.

    Raises:
        InputError: A line cannot be used, or ``hits`` was made from another file; ``out`` is not written.
        ConfigurationError: Two of the files are one.
    """
    source, hits, out = Path(source), Path(hits), Path(out)
    given = [Path(path) for path in results]
    distinct(("source", source), ("hits", hits), ("out", out), *(("results", path) for path in given))
    asked = {line.custom_id for line in read_requests(source)}  # all of it is checked before anything is stored
    with Results([hits]) as known, Results(given) as fresh:
        merging = _Merging(cache, hits, known, fresh, upstream, _delivered(out))
        with replaced(out) as file:
            for result in perform_together(cache.engine, map(merging.result, read_requests(source))):
                if result is not None:
                    file.write(result + b"\n")
                progress(1)
        merging.report.strangers = [custom_id for custom_id in fresh if custom_id not in asked]
    for outcome in merging.to_book:
        cache.engine.finish(outcome)
    return merging.report


def _delivered(out: Path) -> frozenset[bytes]:
    """Digests of the lines that an earlier run has written and booked."""
    return frozenset(digest(raw) for _, _, raw in lines(out)) if out.exists() else frozenset()


class _Merging:
    """One merge under way. ``to_book``: outcomes of what has not been booked before, for when ``out`` is there."""

    def __init__(
        self,
        cache: SemanticCache,
        hits: Path,
        known: Results,
        fresh: Results,
        upstream: str | None,
        delivered: frozenset[bytes],
    ) -> None:
        self.report = Merged()
        self.to_book: list[Outcome] = []
        self._engine = cache.engine
        self._hits = hits
        self._known = known
        self._fresh = fresh
        self._upstream = upstream
        self._delivered = delivered

    def result(self, line: Line) -> Generator[Step, Any, bytes | None]:
        """The result line of a request, or ``None`` if nothing answers it."""
        if line.custom_id in self._fresh and (self._fresh.answers(line.custom_id) or line.custom_id not in self._known):
            return (yield from self._fresh_result(line))
        if line.custom_id in self._known:
            return self._hit(line)
        copy = self._known.copies.get(line.custom_id)
        if copy is not None and copy["same_as"] in self._fresh:
            self._check(line, copy)
            return self._copy(line, _parsed(self._fresh.read(copy["same_as"])))
        self.report.missing.append(line.custom_id)
        return None

    def _fresh_result(self, line: Line) -> Generator[Step, Any, bytes]:
        raw = self._fresh.read(line.custom_id)
        body = answer_in(_parsed(raw))
        if body is None:
            self.report.failed += 1
            return raw
        codec, ctx = self._asked(line)
        reply = Reply(None, None)  # nothing to keep
        if codec is not None:
            reply = Exchange(codec, line.body, ctx.request, None, refresh=False).whole(body)
        yield from flow.store(ctx, reply)
        self.report.fresh += 1
        self.report.stored += ctx.outcome.stored
        self._enter(self.report.spent, codec, body, ctx.outcome, raw)
        return raw

    def _hit(self, line: Line) -> bytes:
        found = _parsed(self._known.read(line.custom_id))
        noted = self._check(line, found)
        del found["semcache"]
        raw = dumps(found)
        codec, ctx = self._asked(line)
        outcome = ctx.outcome
        outcome.status = "hit"
        outcome.layer, outcome.similarity, outcome.entry_id = noted["layer"], noted["similarity"], noted["entry_id"]
        self.report.hits += 1
        self._enter(self.report.saved, codec, answer_in(found), outcome, raw)
        return raw

    def _copy(self, line: Line, found: dict[str, Any]) -> bytes:
        found["custom_id"] = line.custom_id
        body = answer_in(found)
        if body is None:
            self.report.failed += 1
            return dumps(found)
        codec, ctx = self._asked(line)
        shared = None if codec is None else codec.anonymous(body)
        if shared is not None:
            found["response"] = {**found["response"], "body": shared}
        raw = dumps(found)
        ctx.outcome.collapsed = True
        self.report.copies += 1
        self._enter(self.report.saved, codec, body, ctx.outcome, raw)
        return raw

    def _check(self, line: Line, found: dict[str, Any]) -> dict[str, Any]:
        """What ``split`` has noted of a line; InputError if that line was another request."""
        noted: dict[str, Any] = found.get("semcache") or {}
        if noted.get("request") != line.digest:
            message = f"custom_id {line.custom_id!r} was another request when this file was made; split again"
            raise InputError(message, path=str(self._hits))
        return noted

    def _asked(self, line: Line) -> tuple[Codec | None, flow.Call]:
        codec, request = line.parse(self._upstream)
        return codec, self._engine.context(request)

    def _enter(
        self, total: Sum, codec: Codec | None, body: dict[str, Any] | None, outcome: Outcome, raw: bytes
    ) -> None:
        usage = None if codec is None or body is None else codec.usage(body)
        outcome.usage = usage
        if usage is not None:
            outcome.usd_micro = self._engine.ledger.prices.cost(outcome.model, usage, batch=True)
        total.enter(usage, outcome.usd_micro)
        if digest(raw) not in self._delivered:
            # Without the request, or a large file's would all be held.
            self.to_book.append(replace(outcome, request=None, key=None, decision=None))


def _parsed(raw: bytes) -> dict[str, Any]:
    found = loads_object(raw)
    assert found is not None, "result lines are checked when they are found"
    return found
