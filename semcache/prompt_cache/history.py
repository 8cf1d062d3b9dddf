"""How often prompt prefixes come back *on misses*, as values that processes can add up.

The response cache takes the hits away, so the provider sees a prefix only as often as it misses. What decides
whether a cache point pays is the gap between two such misses.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import expm1, inf, log, log1p
from typing import Final, NamedTuple

import xxhash

from semcache.prompt_cache.rules import SECONDS

EDGES: Final = (60, 300, 900, 1800, 3600, 10_800, 43_200)
"""Upper edges of the gap classes in seconds, the ends of all lifetimes on offer among them; one more class is open."""
READY_S: Final = 3.0
"""Seconds after which an entry can be read: it is usable once the answer to the request that wrote it has begun."""
SLOT: Final = 43_200
"""Seconds of traffic that share one set of counts. Slots age as a whole, so counts stay integers that add up."""
HALF_LIFE: Final = 64
"""Newer counts that make an older one weigh half, and the most that one slot weighs: a rare prefix has a long memory,
and one that was busy does not take long to be seen as rare."""
POOL_HALF_LIFE: Final = 1024
"""The same for a pool, whose counts are those of many prefixes."""
KEPT: Final = 120
"""Slots (60 days) after which counts are dropped, if newer ones have not outweighed them before."""
HALF_BACK: Final[Mapping[str, float]] = {"head": 36.0, "turns": 300.0}
"""By kind, seconds within which half of all prefixes are taken to come back, where nothing is known of them; the rate
of return, in log time, stays the same after that. Weighs as much as one sight. By the first figure, a first system
prompt is marked for the shorter lifetime, save where reads cost next to nothing: least is lost if it never returns."""
STEADY: Final = 8.0
"""How many sights it weighs that a rate of return, in log time, stays the same from one gap class to the next."""
ALIKE: Final = 1 / 3
"""Correlation of the gaps of one prefix where nothing is known of it."""
ALIKE_PAIRS: Final = 8.0
"""How many pairs of gaps that weighs."""
PREFIX: Final = "prompt2"
"""Start of every counter's name; the number is the version of the encoding and of ``EDGES`` and ``SLOT``."""

# A slot's counts: gaps by class, the last one open. Then, for pools only: sights that stayed without return up to each
# edge, pairs of successive gaps of one prefix, and those of them that fell into one class.
_GAPS: Final = slice(0, len(EDGES) + 1)
_OPEN: Final = len(EDGES)
_PASSED: Final = _OPEN + 1
_PAIRS: Final = _PASSED + len(EDGES)
_AGREED: Final = _PAIRS + 1
_WIDTH: Final = _AGREED + 1


class Seen(NamedTuple):
    """A prefix in a request. ``kind`` names the pool it shares experience with."""

    prefix: int
    kind: str


class _Decayed(NamedTuple):
    """Counts of the slots before ``before``, and how many they would be if no slot had a most that it weighs."""

    before: int
    counts: list[float]
    made: float


@dataclass(slots=True)
class Sightings:
    """What is known of one prefix, or of a pool of them.

    Args:
        slots: Slot number (``time // SLOT``) to counts: gaps up to each of ``EDGES``, longer gaps, and what only pools
            count.
        last: Whole seconds of the newest miss; 0 for never.
        marked: Lifetime to whole seconds of the newest request that carried a cache point of it here.
        half_life: See ``HALF_LIFE``.
    """

    slots: dict[int, list[int]] = field(default_factory=dict)
    last: int = 0
    marked: dict[str, int] = field(default_factory=dict)
    half_life: int = HALF_LIFE
    # The newest miss that did not come together with one before it, and its gap class; known to this process only.
    _began: float = field(default=-inf, init=False, repr=False, compare=False)
    _class: int | None = field(default=None, init=False, repr=False, compare=False)
    _older: _Decayed | None = field(default=None, init=False, repr=False, compare=False)

    def count(self, now: float, index: int, by: int = 1) -> None:
        """Add to a count of the present slot."""
        slot = int(now) // SLOT
        counts = self.slots.get(slot)
        if counts is None:
            self._forget(slot)
            self._older = None
            counts = self.slots[slot] = [0] * _WIDTH
        counts[index] += by

    def decayed(self) -> tuple[list[float], float]:
        """The counts of all slots, older ones weighing less, and what one of them weighs on average."""
        if not self.slots:
            return [0.0] * _WIDTH, 1.0
        newest = max(self.slots)
        if self._older is None or self._older.before != newest:
            self._older = self._decay(newest)
        older, counts = self._older, self.slots[newest]
        mine = sum(counts)
        share, rest = self._share(mine), 0.5 ** (mine / self.half_life)
        total = [share * n + rest * old for n, old in zip(counts, older.counts, strict=True)]
        return total, sum(total) / max(mine + rest * older.made, 1.0)

    def _share(self, mine: int) -> float:
        return min(1.0, self.half_life / max(mine, 1))

    def _decay(self, before: int) -> _Decayed:
        total, made, newer = [0.0] * _WIDTH, 0.0, 0
        for slot in sorted(self.slots, reverse=True):
            if slot < before:
                counts = self.slots[slot]
                mine = sum(counts)
                age = 0.5 ** (newer / self.half_life)
                weight = age * self._share(mine)
                total = [t + weight * n for t, n in zip(total, counts, strict=True)]
                made += age * mine
                newer += mine
        return _Decayed(before, total, made)

    def _forget(self, slot: int) -> None:
        newer = 0
        for known in sorted(self.slots, reverse=True):
            if newer > 8 * self.half_life or known <= slot - KEPT:
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
    return Sightings(slots, max(a.last, b.last), marked, max(a.half_life, b.half_life))


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
            known = self._prefixes.get(prefix)
            if known is None:
                self._prefixes[prefix] = known = Sightings()
            pool.see(prefix, known, now)
            self._prefixes.move_to_end(prefix)
        while len(self._prefixes) > self._limit:
            self._prefixes.popitem(last=False)

    def _new_pool(self, kind: str) -> _Pool:
        pool = self._pools[kind] = _Pool(kind, self._limit)
        # What others know of the kind may have been learned before this process saw one of it.
        pool.sum = merge(pool.sum, self._prefixes.pop(pool_id(kind), _NONE))
        return pool

    def mark(self, prefix: int, ttl: str, now: float) -> None:
        """A request that started at ``now`` carried a cache point of lifetime ``ttl`` at the end of ``prefix``."""
        known = self._prefixes.setdefault(prefix, Sightings())
        known.marked[ttl] = max(known.marked.get(ttl, 0), int(now))

    def chances(self, seen: Seen, now: float) -> dict[str, float]:
        """By lifetime, the probability that the next miss with this prefix can read what this one writes.

        The share of its own gaps that were short enough, drawn towards that of all prefixes of its kind as strongly
        as these are alike.
        """
        own = self._prefixes.get(seen.prefix, _NONE).decayed()[0][_GAPS]
        general, weight = (self._pools.get(seen.kind) or _Pool(seen.kind, 0)).expected(now)
        gaps = sum(own)
        return {
            ttl: (sum(own[: i + 1]) + weight * general[i]) / (gaps + weight)
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
        mine = self._prefixes.get(prefix, _NONE)
        self._prefixes[prefix] = both = merge(mine, other)
        both._began, both._class = mine._began, mine._class


@dataclass(slots=True, eq=False)
class _Sight:
    """A sight of ``prefix`` that waits for its return. ``index``: the gap class that it has come to."""

    at: int
    prefix: int
    index: int = 0


class _Pool:
    """All prefixes of a kind, and the sights of them that wait for their return."""

    def __init__(self, kind: str, limit: int) -> None:
        self.sum = Sightings(half_life=POOL_HALF_LIFE)
        self._unseen = log(2) / log(HALF_BACK.get(kind, max(HALF_BACK.values())))
        self._limit = limit
        self._open: dict[int, _Sight] = {}  # by prefix, oldest first
        self._waiting: list[deque[_Sight]] = [deque() for _ in EDGES]
        # By gap class, the open sights in it: how many, and the sum of their times.
        self._count = [0] * len(EDGES)
        self._times = [0] * len(EDGES)
        self._expected: tuple[float, list[float], float] | None = None

    def see(self, prefix: int, known: Sightings, now: float) -> None:
        """Count a sight of a prefix, here and in what is known of it."""
        self._expire(now)
        if now - known._began < READY_S:
            # What the first of them could not read, those that came with it could not either.
            index = _OPEN if known._class is None else known._class
            known.count(now, index)
            self._count_together(prefix, now, index)
        else:
            index = None
            if known.last:
                # Another process may be ahead of this one's clock.
                index = bisect_left(EDGES, max(now - known.last, 0.0))
                known.count(now, index)
                self._close(prefix, now)
                if known._class is not None:
                    self.sum.count(now, _PAIRS)
                    self.sum.count(now, _AGREED, int(known._class == index))
            known._began, known._class = now, index
        known.last = max(known.last, int(now))
        self._wait(prefix, known.last)
        self._expected = None

    def close_elsewhere(self, prefix: int, at: int) -> None:
        """A prefix has returned to another process, which then waits for it."""
        self._expire(at)
        if prefix in self._open and self._open[prefix].at < at:
            self._close(prefix, at)

    def expected(self, now: float) -> tuple[list[float], float]:
        """Chance of a return by each edge, and how many gaps of a prefix's own that outweighs."""
        if self._expected is None or self._expected[0] != now:
            self._expected = now, self._chances(now), self._weight()
        return self._expected[1:]

    def _wait(self, prefix: int, last: int) -> None:
        self._open[prefix] = sight = _Sight(last, prefix)
        self._waiting[0].append(sight)
        self._add(sight, 1)
        if len(self._open) > self._limit:
            self._end(next(iter(self._open)))

    def _close(self, prefix: int, now: float) -> None:
        if prefix in self._open:
            self.sum.count(now, self._end(prefix))

    def _count_together(self, prefix: int, now: float, index: int) -> None:
        if prefix in self._open:
            self._end(prefix)
        for passed in range(index):
            self.sum.count(now, _PASSED + passed)
        self.sum.count(now, index)

    def _end(self, prefix: int) -> int:
        sight = self._open.pop(prefix)
        self._add(sight, -1)
        return sight.index

    def _add(self, sight: _Sight, by: int) -> None:
        if sight.index < len(EDGES):
            self._count[sight.index] += by
            self._times[sight.index] += by * sight.at

    def _expire(self, now: float) -> None:
        """Count the sights that have now stayed without return up to an edge."""
        for edge, waiting in enumerate(self._waiting):
            while waiting and waiting[0].at + EDGES[edge] < now:
                sight = waiting.popleft()
                if self._open.get(sight.prefix) is not sight:
                    continue
                self.sum.count(now, _PASSED + edge)
                self._add(sight, -1)
                sight.index += 1
                self._add(sight, 1)
                if sight.index < len(EDGES):
                    self._waiting[sight.index].append(sight)

    def _chances(self, now: float) -> list[float]:
        """Product-limit estimate (Kaplan and Meier 1958) over the gap classes.

        Where little is known of a class, prefixes are taken to return at the rate, in log time, of the class before.
        A sight that still waits counts in its class by the share of it, in log time, that it has waited: so prefixes
        that never come back are known after a few, and long before the longest lifetime has passed.
        """
        counts, one = self.sum.decayed()
        away, rate, chances, start, assumed = 1.0, self._unseen, [], 1, one
        for i, end in enumerate(EDGES):
            span, waited = log(end / start), 0.0
            if self._count[i]:
                mean = now - self._times[i] / self._count[i]
                waited = self._count[i] * log(max(mean / start, 1.0)) / span
            at_risk = counts[i] + counts[_PASSED + i] + waited * one
            hazard = min((counts[i] - assumed * expm1(-rate * span)) / (at_risk + assumed), 1 - 1e-9)
            rate = -log1p(-hazard) / span
            away *= 1 - hazard
            chances.append(1 - away)
            start, assumed = end, STEADY * one
        return chances

    def _weight(self) -> float:
        """Concentration of a Dirichlet-multinomial whose successive gaps agree in class as often as those seen."""
        counts, one = self.sum.decayed()
        gaps, pairs = counts[_GAPS], counts[_PAIRS]
        by_chance = sum(n * n for n in gaps) / max(sum(gaps), 1e-9) ** 2
        known = ALIKE_PAIRS * one
        alike = (counts[_AGREED] - by_chance * pairs + ALIKE * known) / ((1 - by_chance) * pairs + known)
        alike = min(max(alike, 0.02), 0.5)
        return (1 - alike) / alike


def pool_id(kind: str) -> int:
    """The number under which a pool is kept beside the prefixes."""
    return xxhash.xxh3_64_intdigest(b"pool|" + kind.encode())


_NONE: Final = Sightings()
