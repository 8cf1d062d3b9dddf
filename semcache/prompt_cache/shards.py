"""With which of several ``prompt_cache_key`` a prompt goes out, so that all processes together keep to a key's rate.

OpenAI sends what has one key to one machine, up to some rate, and beyond it to machines with caches of their own. All
processes divide the rate that they share by the same figure; a conversation keeps its key.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Final

import xxhash

KEY_RATE: Final = 15
"""Requests a minute that one key takes. Source: OpenAI's prompt-caching page, read 2026-10."""
FILLED: Final = 10
"""Requests a minute that each of several keys is meant to get: random traffic then seldom exceeds ``KEY_RATE``."""
KEPT: Final = 10
"""Minutes whose busiest decides."""
PREFIX: Final = "rate1|"
"""Start of every counter's name; the number is the version of the encoding."""

_MINUTE_S: Final = 60
_RECENT: Final = 64
"""Requests by which it is told how much of a head's traffic is one conversation, or one document."""


@dataclass(slots=True)
class _Head:
    """``minutes``: requests of all processes, by minute. ``recent``: threads of the last ones of this process."""

    minutes: dict[int, int] = field(default_factory=dict)
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=_RECENT))


class Rates:
    """Requests a minute by the head of their prompt. No I/O and no clock.

    Args:
        limit: Most heads to remember.
        turn: Any number that other processes do not have, so that not all use the same key at a time.
    """

    def __init__(self, limit: int = 1024, turn: int = 0) -> None:
        self._limit = limit
        self._turn = turn
        self._heads: OrderedDict[int, _Head] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._heads)

    def knows(self, head: int) -> bool:
        """Whether a head has been sent before, here or by another process."""
        return head in self._heads

    def send(self, head: int, thread: int, now: float) -> int:
        """Count a request, and choose the number of its key.

        Args:
            head: Hash of the tools and the system prompt.
            thread: Hash of what all requests of one conversation begin with after that.
            now: Unix seconds.
        """
        known = self._of(head)
        minute = int(now) // _MINUTE_S
        known.minutes[minute] = known.minutes.get(minute, 0) + 1
        known.recent.append(thread)
        rate = _busiest(known.minutes, minute)
        if rate <= KEY_RATE:
            return 0
        order = sorted(range(ceil(rate / FILLED)), key=lambda key: xxhash.xxh3_64_intdigest(b"%x|%d" % (thread, key)))
        # A thread that alone is more than one key takes has as many of them as it needs, in turn.
        alone = rate * (known.recent.count(thread) - 1) / len(known.recent)
        self._turn += 1
        return order[self._turn % max(ceil(alone / FILLED), 1)]

    def learn(self, totals: Mapping[str, int], unsaved: Mapping[str, int]) -> list[str]:
        """Take over what a store has counted for all processes, with what this one has yet to add.

        Returns:
            Counters that tell nothing any more.
        """
        minutes = {name: int(name.rpartition("|")[2]) for name in totals}
        newest = max(minutes.values(), default=0)
        for name, minute in minutes.items():
            if minute > newest - KEPT:
                head = int(name.split("|")[1], 16)
                self._of(head).minutes[minute] = totals[name] + unsaved.get(name, 0)
        return [name for name, minute in minutes.items() if minute <= newest - KEPT]

    def _of(self, head: int) -> _Head:
        known = self._heads.setdefault(head, _Head())
        self._heads.move_to_end(head)
        if len(self._heads) > self._limit:
            self._heads.popitem(last=False)
        return known


def _busiest(minutes: dict[int, int], minute: int) -> int:
    """Requests of the busiest of the last minutes; older ones are forgotten."""
    for old in [each for each in minutes if each <= minute - KEPT]:
        del minutes[old]
    return max(minutes.values())


def counter_name(head: int, now: float) -> str:
    """The counter of the requests with one head in the minute of ``now``."""
    return f"{PREFIX}{head:016x}|{int(now) // _MINUTE_S}"
