"""How often prompt prefixes come back *on misses*, as values that processes can add up.

The response cache takes the hits away, so the provider sees a prefix only as often as it misses. What decides
whether a cache point pays is the gap between two such misses.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import xxhash

from semcache.prompt_cache.rules import SECONDS

EDGES: Final = (300, 1800, 3600, 43_200)
"""Upper edges of the gap classes in seconds, both ends of every lifetime on offer; one more class is open."""
SLOT: Final = 43_200
"""Seconds of traffic that share one set of counts. Slots age as a whole, so counts stay integers that add up."""
HALF_LIFE: Final = 64
"""Newer counts that make an older one weigh half, and the most that one slot weighs: a rare prefix has a long memory,
and one that was busy does not take long to be seen as rare."""
KEPT: Final = 120
"""Slots (60 days) after which counts are dropped, if newer ones have not outweighed them before."""
PRIOR: Final = 2.0
"""How many gaps of its own outweigh what is known of prefixes in general."""
UNSEEN: Final = (0.5, 0.2, 0.25, 0.17)
"""Chance that a prefix of which nothing is known comes back within each gap class, if it has not come back before.
Weighs as much as one sight."""
PREFIX: Final = "prompt1"
"""Start of every counter's name; the number is the version of the encoding and of ``EDGES`` and ``SLOT``."""

# A slot's counts: gaps by class, the last one open; then sights of a pool that stayed without return up to each edge.
_GAPS: Final = slice(0, len(EDGES) + 1)
_PASSED: Final = len(EDGES) + 1
_WIDTH: Final = 2 * len(EDGES) + 1


class Seen(NamedTuple):
    """A prefix in a request. ``kind`` names the pool it shares experience with."""

    prefix: int
    kind: str


@dataclass(slots=True)
class Sightings:
    """What is known of one prefix, or of a pool of them.

    Args:
        slots: Slot number (``time // SLOT``) to counts: gaps up to each of ``EDGES``, longer gaps, and (pools
            only) sights that stayed without return up to each edge.
        last: Whole seconds of the newest miss; 0 for never.
        marked: Lifetime to whole seconds of the newest request that carried a cache point of it here.
    """

    slots: dict[int, list[int]] = field(default_factory=dict)
    last: int = 0
    marked: dict[str, int] = field(default_factory=dict)
    _older: tuple[int, list[float]] | None = field(default=None, init=False, repr=False, compare=False)

    def count(self, now: float, index: int) -> None:
        """Add one to a count of the present slot."""
        slot = int(now) // SLOT
        counts = self.slots.get(slot)
        if counts is None:
            self._forget(slot)
            self._older = None
            counts = self.slots[slot] = [0] * _WIDTH
        counts[index] += 1

    def decayed(self) -> list[float]:
        """The counts of all slots, older ones weighing less."""
        if not self.slots:
            return [0.0] * _WIDTH
        newest = max(self.slots)
        counts = self.slots[newest]
        mine = sum(counts)
        share, rest = self.share(), 0.5 ** (mine / HALF_LIFE)
        if self._older is None or self._older[0] != newest:
            self._older = newest, self._decay(newest)
        return [share * n + rest * old for n, old in zip(counts, self._older[1], strict=True)]

    def share(self) -> float:
        """What a count of the newest slot weighs."""
        mine = sum(self.slots[max(self.slots)]) if self.slots else 0
        return min(1.0, HALF_LIFE / max(mine, 1))

    def _decay(self, before: int) -> list[float]:
        total, newer = [0.0] * _WIDTH, 0
        for slot in sorted(self.slots, reverse=True):
            if slot < before:
                counts = self.slots[slot]
                mine = sum(counts)
                weight = 0.5 ** (newer / HALF_LIFE) * min(1.0, HALF_LIFE / max(mine, 1))
                total = [t + weight * n for t, n in zip(total, counts, strict=True)]
                newer += mine
        return total

    def _forget(self, slot: int) -> None:
        newer = 0
        for known in sorted(self.slots, reverse=True):
            if newer > 8 * HALF_LIFE or known <= slot - KEPT:
                del self.slots[known]
            else:
                newer += sum(self.slots[known])

    def warm(self, now: float) -> str | None:
        """The lifetime under which the provider should still hold this prefix; the one that lasts longest."""
        left = {ttl: at + SECONDS[ttl] - now for ttl, at in self.marked.items()}
        ttl = max(left, key=left.__getitem__, default=None)
        return ttl if ttl is not None and left[ttl] > 0 else None


def merge(a: Sightings, b: Sightings) -> Sightings:
    """What two processes saw, together. Commutative and associative; ``Sightings()`` changes nothing."""
    slots = {slot: list(counts) for slot, counts in a.slots.items()}
    for slot, counts in b.slots.items():
        slots[slot] = [x + y for x, y in zip(slots.get(slot, [0] * _WIDTH), counts, strict=True)]
    marked = {ttl: max(a.marked.get(ttl, 0), b.marked.get(ttl, 0)) for ttl in a.marked | b.marked}
    return Sightings(slots, max(a.last, b.last), marked)


def encode(prefix: int, seen: Sightings, writer: str) -> dict[str, int]:
    """As named counters that stores only ever add to.

    Counts of gaps are shared by all writers. A time is one counter per writer, which adds its own advance to it:
    the newest of all writers is the maximum on reading. ``writer`` is a process's own name, without ``|``. To
    save, add the difference (:func:`advance`) to what this writer saved before.
    """
    name = f"{PREFIX}|{prefix:016x}"
    counters = {f"{name}|gap|{s}|{i}": n for s, counts in seen.slots.items() for i, n in enumerate(counts) if n}
    if seen.last:
        counters[f"{name}|last|{writer}"] = seen.last
    counters |= {f"{name}|{ttl}|{writer}": at for ttl, at in seen.marked.items() if at}
    return counters


def advance(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What to add to counters that hold ``before`` so that they hold ``after``; dropped slots are left alone."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def decode(counters: Mapping[str, int]) -> dict[int, Sightings]:
    """The merged sightings of all writers; names that this version does not write are skipped."""
    found: dict[int, Sightings] = {}
    for name, value in counters.items():
        start, _, rest = name.partition("|")
        prefix, _, rest = rest.partition("|")
        what, _, rest = rest.partition("|")
        if start != PREFIX or not (what in ("gap", "last") or what in SECONDS):
            continue
        seen = found.setdefault(int(prefix, 16), Sightings())
        if what == "gap":
            slot, _, index = rest.partition("|")
            seen.slots.setdefault(int(slot), [0] * _WIDTH)[int(index)] += value
        elif what == "last":
            seen.last = max(seen.last, value)
        else:
            seen.marked[what] = max(seen.marked.get(what, 0), value)
    return found


class History:
    """The sightings of many prefixes, the least recent forgotten first. No I/O and no clock.

    Args:
        limit: Most prefixes to remember.
    """

    def __init__(self, limit: int = 16_384) -> None:
        self._limit = limit
        self._prefixes: OrderedDict[int, Sightings] = OrderedDict()
        self._pools: dict[str, _Pool] = {}

    def see(self, seen: Iterable[Seen], now: float) -> None:
        """Count the prefixes of one miss at ``now`` (seconds since any epoch, rising)."""
        for prefix, kind in seen:
            pool = self._pools.get(kind) or self._new_pool(kind)
            pool.expire(now)
            known = self._prefixes.get(prefix)
            if known is None:
                self._prefixes[prefix] = known = Sightings()
            elif known.last:
                # Another process may be ahead of this one's clock.
                index = bisect_left(EDGES, max(now - known.last, 0.0))
                known.count(now, index)
            pool.close(prefix, now)
            known.last = max(known.last, int(now))
            self._prefixes.move_to_end(prefix)
            pool.open(prefix, known.last, now)
        while len(self._prefixes) > self._limit:
            self._prefixes.popitem(last=False)

    def _new_pool(self, kind: str) -> _Pool:
        pool = self._pools[kind] = _Pool(self._limit)
        # What others know of the kind may have been learned before this process saw one of it.
        pool.sum = self._prefixes.pop(pool_id(kind), pool.sum)
        return pool

    def mark(self, prefix: int, ttl: str, now: float) -> None:
        """A request that started at ``now`` carried a cache point of lifetime ``ttl`` at the end of ``prefix``."""
        known = self._prefixes.setdefault(prefix, Sightings())
        known.marked[ttl] = max(known.marked.get(ttl, 0), int(now))

    def chances(self, seen: Seen, now: float) -> dict[str, float]:
        """By lifetime, the probability that the next miss with this prefix comes before it ends.

        The share of its own gaps that were short enough, drawn towards that of all prefixes of its kind by
        ``PRIOR`` gaps.
        """
        own = self._prefixes.get(seen.prefix, _NONE).decayed()[_GAPS]
        pool = self._pools.get(seen.kind)
        general = UNSEEN if pool is None else pool.chances(now)
        gaps = sum(own)
        return {
            ttl: (sum(own[: i + 1]) + PRIOR * general[i]) / (gaps + PRIOR)
            for ttl, seconds in SECONDS.items()
            for i in (EDGES.index(seconds),)
        }

    def warm(self, prefix: int, now: float) -> str | None:
        """See :meth:`Sightings.warm`."""
        return self._prefixes.get(prefix, _NONE).warm(now)

    def find(self, prefix: int) -> Sightings | None:
        """What is known of a prefix, or of a pool by its :func:`pool_id`."""
        found = self._prefixes.get(prefix)
        if found is None:
            found = next((pool.sum for kind, pool in self._pools.items() if pool_id(kind) == prefix), None)
        return found

    def items(self) -> Iterator[tuple[int, Sightings]]:
        """The prefixes, least recent first, and the pools that they share."""
        yield from self._prefixes.items()
        for kind, pool in self._pools.items():
            yield pool_id(kind), pool.sum

    def learn(self, prefix: int, other: Sightings) -> None:
        """Add what another process saw of a prefix, or of a pool by its :func:`pool_id`."""
        for kind, pool in self._pools.items():
            if prefix == pool_id(kind):
                pool.sum = merge(pool.sum, other)
                return
        for pool in self._pools.values():
            pool.close_elsewhere(prefix, other.last)
        self._prefixes[prefix] = merge(self._prefixes.get(prefix, _NONE), other)


class _Pool:
    """All prefixes of a kind, and the sights of them that wait for their return."""

    def __init__(self, limit: int) -> None:
        self.sum = Sightings()
        self._limit = limit
        self._open: dict[int, int] = {}  # prefix -> when it was last seen, oldest first
        self._waiting: list[deque[tuple[int, int]]] = [deque() for _ in EDGES]
        # By gap class, the open sights in it: how many, and the sum of their times.
        self._count = [0] * len(EDGES)
        self._times = [0] * len(EDGES)

    def open(self, prefix: int, last: int, now: float) -> None:
        """A sight begins to wait."""
        self._open[prefix] = last
        self._waiting[0].append((last, prefix))
        self._move(last, 0, 1)
        if len(self._open) > self._limit:
            self._close(next(iter(self._open)), now)

    def close(self, prefix: int, now: float) -> None:
        """A prefix has returned."""
        if prefix in self._open:
            self.sum.count(now, self._close(prefix, now))

    def close_elsewhere(self, prefix: int, at: int) -> None:
        """A prefix has returned to another process, which then waits for it."""
        if self._open.get(prefix, at) < at:
            self.close(prefix, at)

    def _close(self, prefix: int, now: float) -> int:
        last = self._open.pop(prefix)
        index = bisect_left(EDGES, now - last)
        self._move(last, index, -1)
        return index

    def _move(self, last: int, index: int, by: int) -> None:
        if index < len(EDGES):
            self._count[index] += by
            self._times[index] += by * last

    def expire(self, now: float) -> None:
        """Count the sights that have now stayed without return up to an edge."""
        for edge, waiting in enumerate(self._waiting):
            while waiting and waiting[0][0] + EDGES[edge] < now:
                last, prefix = waiting.popleft()
                if self._open.get(prefix) != last:
                    continue
                self.sum.count(now, _PASSED + edge)
                self._move(last, edge, -1)
                self._move(last, edge + 1, 1)
                if edge + 1 < len(EDGES):
                    self._waiting[edge + 1].append((last, prefix))

    def chances(self, now: float) -> list[float]:
        """Chance of a return by each edge: product-limit estimate (Kaplan and Meier 1958) over the gap classes.

        A sight that still waits counts in its class by the share of it that it has waited: an hour without
        return says little against a lifetime of twelve, and prefixes that never come back are known after a few.
        """
        counts, share = self.sum.decayed(), self.sum.share()
        away, chances, start = 1.0, [], 0
        for i, end in enumerate(EDGES):
            waited = max(self._count[i] * (now - start) - self._times[i], 0.0) / (end - start)
            at_risk = counts[i] + counts[_PASSED + i] + waited * share
            away *= 1 - (counts[i] + UNSEEN[i]) / (at_risk + 1)
            chances.append(1 - away)
            start = end
        return chances


def pool_id(kind: str) -> int:
    """The number under which a pool is kept beside the prefixes."""
    return xxhash.xxh3_64_intdigest(b"pool|" + kind.encode())


_NONE: Final = Sightings()
