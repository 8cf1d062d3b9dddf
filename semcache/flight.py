"""Collapsed calls: equal requests in flight share one upstream call.

A flight is keyed by the canonical bytes, not by their hash, so a collision cannot hand one request's answer to
another. When a leader fails or is cancelled the flight ends without an answer; the followers join again, and the
first of them to do so leads the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, NamedTuple

from semcache.types import Entry, Layer, Usage

if TYPE_CHECKING:
    from semcache.policy import Rules

Owner = tuple[int, object]
"""Thread ident and, on an event loop, the task: who must never wait for this flight."""


class Found(NamedTuple):
    """What the cache had for a leader: an entry, how near it is, and why it was served although it had expired.

    ``rules``: what held for the leader. ``compared``: its question as it was compared with the entry's, if that was not
    the request's own text.
    """

    entry: Entry
    rules: Rules
    similarity: float = 1.0
    layer: Layer = "exact"
    stale: str = ""
    compared: str | None = None


class Landed(NamedTuple):
    """A leader's answer, as its followers get it: the upstream's own, or what the cache had (``found``).

    Neither: the upstream's answer cannot be shared.
    """

    body: bytes | None = None
    usage: Usage | None = None
    latency_s: float = 0.0
    found: Found | None = None


class Flight:
    """One call in flight. The leader ends it with :meth:`land` or :meth:`fail`; the first of the two counts."""

    __slots__ = ("_flights", "_key", "future", "owner")

    def __init__(self, flights: Flights, key: bytes, owner: Owner) -> None:
        self._flights = flights
        self._key = key
        self.owner = owner
        self.future: Future[Landed | None] = Future()

    def land(self, answer: Landed) -> None:
        self._end(answer)

    def fail(self) -> None:
        self._end(None)

    def _end(self, answer: Landed | None) -> None:
        if self._flights.leave(self._key, self):
            self.future.set_result(answer)


class Flights:
    """The calls in flight of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[bytes, Flight] = {}

    def join(self, key: bytes, owner: Owner) -> tuple[Flight, bool]:
        """The flight of this key, and whether the caller leads it."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Flight(self, key, owner)
            return flight, True

    def leave(self, key: bytes, flight: Flight) -> bool:
        """Take a flight off the table; false if it had ended before."""
        with self._lock:
            if self._flights.get(key) is not flight:
                return False
            del self._flights[key]
            return True

    def __len__(self) -> int:
        return len(self._flights)


def wait(flight: Flight, timeout_s: float) -> Landed | None:
    """Wait for a flight's end; ``None`` when it ended without an answer.

    Raises:
        TimeoutError: It is still under way.
    """
    try:
        return flight.future.result(timeout_s)
    except FutureTimeout:
        raise TimeoutError from None


async def wait_async(flight: Flight, timeout_s: float) -> Landed | None:
    """As :func:`wait`. A cancelled follower leaves the flight and its other followers alone."""
    loop = asyncio.get_running_loop()
    # asyncio.wrap_future would hand a follower's cancellation on to the future that all of them share.
    woken: asyncio.Future[None] = loop.create_future()

    def wake(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the follower's loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_set, woken)

    flight.future.add_done_callback(wake)
    try:
        await asyncio.wait_for(woken, timeout_s)
    except asyncio.TimeoutError:
        raise TimeoutError from None
    return flight.future.result()


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
