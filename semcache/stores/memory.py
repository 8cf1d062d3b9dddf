"""Entries in this process: bounded, least recently used go first."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from typing import Final, TypeVar

from semcache._fork import hold_over_fork
from semcache.errors import ConfigurationError
from semcache.stores import _feed
from semcache.stores.base import Changes, Selector, StoreStats, log_event
from semcache.stores.entry_codec import pack_vector
from semcache.types import Entry, Event, Key

_K = TypeVar("_K")

OBJECT_BYTES: Final = 800
"""What CPython takes for an entry and its places in the dictionaries, beside its parts (measured: 795)."""


class MemoryStore:
    """A store that lives and dies with the process.

    Args:
        max_entries: Above it the least recently used entry goes; ``None`` for no bound.
        max_bytes: The same for memory, estimated from the lengths of an entry's parts. An entry larger than all of
            it is not kept.
        clock: Unix seconds, by which entries expire. A replay gives the time of its log.

    Raises:
        ConfigurationError: A bound below 1.
    """

    inline_reads = True
    inline_writes = True

    def __init__(
        self,
        max_entries: int | None = 100_000,
        max_bytes: int | None = 512 * 2**20,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name, bound in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if bound is not None and bound < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {bound}")
        self.on_event: Callable[[Event], None] = log_event
        self.keep_expired_s = 0.0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._id = uuid.uuid4().hex
        self._entries: OrderedDict[int, Entry] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._now = 0  # the last number given out, see _feed
        self._put_at: dict[int, int] = {}  # id -> number, ascending
        self._removed_at: dict[int, int] = {}
        self._wrong_at: dict[tuple[int, int], int] = {}
        self._counters: Counter[str] = Counter()
        hold_over_fork(self)

    # Reading ------------------------------------------------------------------------------------------------------

    def get(self, key: Key, *, stale_s: float = 0.0) -> Entry | None:
        with self._lock:
            entry = self._live(key.id, stale_s)
        if entry is None or entry.key.canonical == key.canonical:
            return entry
        self.on_event(Event("collision", f"two requests with the id {key.id:x}"))
        return None

    def fetch(self, ids: Sequence[int]) -> list[Entry | None]:
        with self._lock:
            return [self._live(id) for id in ids]

    def _live(self, id: int, stale_s: float = 0.0) -> Entry | None:
        entry = self._entries.get(id)
        if entry is None:
            return None
        if entry.expires_at is not None and (late := self._clock() - entry.expires_at) >= stale_s:
            if late >= self.keep_expired_s:
                self._remove((id,))
            return None
        self._entries.move_to_end(id)
        return entry

    def scopes(self, limit: int = 1000) -> dict[int, int]:
        with self._lock:
            return dict(Counter(e.key.scope_id for e in self._entries.values()).most_common(limit))

    def stats(self) -> StoreStats:
        with self._lock:
            return StoreStats("memory", "in this process", len(self._entries), self._bytes)

    # Writing ------------------------------------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        entry = replace(entry, vector=pack_vector(entry.vector) or None)
        id, size = entry.key.id, _size(entry)
        if self._max_bytes is not None and size > self._max_bytes:
            return
        with self._lock:
            old = self._entries.pop(id, None)
            self._put_at.pop(id, None)
            self._removed_at.pop(id, None)
            self._entries[id] = entry
            self._bytes += size - (0 if old is None else _size(old))
            self._put_at[id] = self._tick()
            self._shrink()

    def _shrink(self) -> None:
        now = self._clock() - self.keep_expired_s
        self._remove([id for id, entry in islice(self._entries.items(), 4) if entry.expired(now)])
        while (self._max_entries is not None and len(self._entries) > self._max_entries) or (
            self._max_bytes is not None and self._bytes > self._max_bytes
        ):
            self._remove((next(iter(self._entries)),))

    def delete(self, selector: Selector) -> int:
        selector.check()
        with self._lock:
            return self._remove([id for id, entry in self._entries.items() if _selected(selector, entry)])

    def erase(self, selector: Selector) -> int:
        """As :meth:`delete`, wrong pairs included."""
        selector.check()
        with self._lock:
            chosen = {id for id, entry in self._entries.items() if _selected(selector, entry)}
            self._wrong_at = {pair: at for pair, at in self._wrong_at.items() if not chosen.intersection(pair)}
            return self._remove(chosen)

    def _remove(self, ids: Iterable[int]) -> int:
        count = 0
        for id in ids:
            self._bytes -= _size(self._entries.pop(id))
            del self._put_at[id]
            self._removed_at[id] = self._tick()
            count += 1
        while self._removed_at and next(iter(self._removed_at.values())) < self._now - _feed.HISTORY:
            del self._removed_at[next(iter(self._removed_at))]
        return count

    def mark_wrong(self, a: int, b: int) -> None:
        pair = (min(a, b), max(a, b))
        with self._lock:
            self._wrong_at.pop(pair, None)
            self._wrong_at[pair] = self._tick()
            if len(self._wrong_at) > _feed.MAX_WRONG_PAIRS:
                del self._wrong_at[next(iter(self._wrong_at))]

    def _tick(self) -> int:
        self._now += 1
        return self._now

    # Feed and counters --------------------------------------------------------------------------------------------

    def changes(self, cursor: str | None, *, fingerprint: str, limit: int = 1000) -> Changes | None:
        with self._lock:
            at, reset = _feed.resume(cursor, store_id=self._id, now=self._now)
            if at.position == self._now and cursor is not None and not reset:
                return None
            put = list(_after(self._put_at, at.position))[::-1]
            more = len(put) > limit
            upto = self._put_at[put[limit - 1]] if more else self._now
            removed = [id for id in _after(self._removed_at, at.removals_from) if self._removed_at[id] <= upto]
            pairs = [pair for pair in _after(self._wrong_at, at.position) if self._wrong_at[pair] <= upto]
            added, now = [], self._clock()
            for id in put[:limit]:
                entry = self._entries[id]
                if entry.fingerprint != fingerprint or entry.vector is None:
                    if self._put_at[id] > at.removals_from:  # it may have replaced one with such a vector
                        removed.append(id)
                elif not entry.expired(now):
                    added.append((id, entry.key.scope_id, pack_vector(entry.vector)))
        return _feed.page(
            added,
            removed=removed,
            wrong_pairs=pairs,
            cursor=str(at._replace(position=upto)),
            more=more,
            reset=reset,
            first=cursor is None,
        )

    def add_counters(self, deltas: Mapping[str, int], *, once: str | None = None) -> None:
        # Nothing fails half-way here, so there is nothing to remember for ``once``.
        with self._lock:
            self._counters.update(deltas)

    def counters(self, prefix: str = "") -> dict[str, int]:
        with self._lock:
            return {name: value for name, value in self._counters.items() if name.startswith(prefix)}

    def drop_counters(self, names: Sequence[str]) -> None:
        with self._lock:
            for name in names:
                self._counters.pop(name, None)

    # Life ---------------------------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Always usable."""

    def close(self) -> None:
        """Nothing to let go of before the object itself goes."""

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork(self) -> None:
        self._lock.release()


def _after(numbered: dict[_K, int], number: int) -> Iterator[_K]:
    """Keys with a number above ``number``, latest first."""
    return takewhile(lambda key: numbered[key] > number, reversed(numbered))


def _selected(selector: Selector, entry: Entry) -> bool:
    return selector.matches(
        entry.key.id,
        scope_id=entry.key.scope_id,
        namespace=entry.namespace,
        tenant=entry.tenant,
        tags=entry.tags,
    )


def _size(entry: Entry) -> int:
    vector = 0 if entry.vector is None else len(entry.vector)
    return OBJECT_BYTES + len(entry.key.canonical) + len(entry.text or "") + vector + len(entry.response)
