"""What an edge gets from the engine: an answer, or a stream that has begun and must be brought to its end."""

from __future__ import annotations

import threading
import time
from _thread import start_new_thread
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from semcache.types import Outcome, Reply

if TYPE_CHECKING:
    from semcache.engine import Engine
    from semcache.flow import Call, Flow

last: ContextVar[Outcome | None] = ContextVar("semcache_last_outcome", default=None)


def last_outcome() -> Outcome | None:
    """The outcome of the last call that went through a cache in this thread or task."""
    return last.get()


class Served(NamedTuple):
    """What an edge gets for a request.

    Args:
        body: The answer, when it came from the cache or from another caller's flight.
        value: The upstream's own value, untouched, on a miss or bypass.
        pending: Set when the upstream has begun a stream: the edge must complete or abandon it.
    """

    outcome: Outcome
    body: bytes | None = None
    value: Any = None
    pending: Pending | None = None


_BEGUN: Final[set[Pending]] = set()
"""Held until they end. Else the garbage collector would end the flow of a stream that was dropped, in whichever thread
it runs, which may hold the very locks that the flow wants."""


class Pending:
    """A call whose upstream is streaming. The edge ends it with ``complete`` or ``abandon``; the first one counts."""

    def __init__(self, engine: Engine, ctx: Call, flow: Flow) -> None:
        self.outcome = ctx.outcome
        self._ctx = ctx
        self._engine = engine
        self._flow: Flow | None = flow
        self._lock = threading.Lock()
        _BEGUN.add(self)

    def complete(self, reply: Reply) -> None:
        """The stream was read to its end."""
        flow = self._take()
        if flow is None:
            return
        try:
            step = flow.send(reply)
            while True:
                step = flow.send(self._engine.performer.step(step))
        except StopIteration:
            pass
        finally:
            flow.close()  # cancelled while writing: the flight must end all the same
            self._finish()

    async def acomplete(self, reply: Reply) -> None:
        flow = self._take()
        if flow is None:
            return
        try:
            step = flow.send(reply)
            while True:
                step = flow.send(await self._engine.performer.astep(step))
        except StopIteration:
            pass
        finally:
            flow.close()  # cancelled while writing: the flight must end all the same
            self._finish()

    def abandon(self, reason: str = "the stream was not read to its end") -> None:
        """The stream broke, was closed early, or was cancelled: nothing is stored, and a follower takes over."""
        flow = self._take()
        if flow is not None:
            flow.close()
            self.outcome.reason = reason
            self._finish()

    def drop(self) -> None:
        """As :meth:`abandon`, for finalizers: waits for no lock, since another thread does it."""
        with suppress(RuntimeError):  # the interpreter is about to end
            # Not threading.Thread: that has locks of its own.
            start_new_thread(self.abandon, ())

    def _finish(self) -> None:
        self.outcome.seconds["total"] = time.perf_counter() - self._ctx.started
        self._engine.finish(self.outcome, self._ctx)
        if self._engine.auditor is not None:
            self._engine.auditor.consider(self._ctx)

    def _take(self) -> Flow | None:
        with self._lock:
            flow, self._flow = self._flow, None
            _BEGUN.discard(self)
            return flow
