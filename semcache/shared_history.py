"""What processes on one store know together of prompt prefixes, and how well that predicted the provider's cache.

A call never waits for the store: what it saw is added in memory, and written and read by a thread of its own some
seconds later.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from semcache.errors import StoreUnavailable
from semcache.prompt_cache.history import HALF_BACK, KEPT, PREFIX, SLOT, History, advance, decode, encode, pool_id
from semcache.prompt_cache.predictions import PREFIX as PREDICTIONS
from semcache.prompt_cache.predictions import Predicted, count_name
from semcache.prompt_cache.predictions import decode as decode_predictions
from semcache.prompt_cache.shards import PREFIX as RATES
from semcache.prompt_cache.shards import Rates, counter_name
from semcache.types import Event

if TYPE_CHECKING:
    from semcache.stores.base import Store

SYNC_S: Final = 10.0
MAX_PREFIXES: Final = 1_024
"""Prefixes that a store keeps; beyond, those that were not seen for longest go."""
MAX_COUNTED: Final = 512
"""Heads of prompts that a process counts one by one; others are counted by model only."""

_TIME_KEPT_S: Final = 2 * 86_400
_AT_ONCE: Final = 64
"""Prefixes that are learned while a call may have to wait for the lock."""


class SharedHistory:
    """A :class:`~semcache.prompt_cache.History` with its lock, kept in a store's counters.

    Args:
        store: Its trouble is an event, and what could not be written is tried again with the next.
    """

    def __init__(self, store: Store, emit: Callable[[Event], None]) -> None:
        self._store = store
        self._emit = emit
        self._begin()

    def _begin(self) -> None:
        self.lock = threading.Lock()
        self._syncing = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._due = 0.0
        self._closed = False
        self._know_nothing()

    def _know_nothing(self) -> None:
        self.history = History()
        self._counted: set[int] = set()
        # A new one: counters of the old one hold times that this one has not written.
        self._writer = uuid.uuid4().hex
        self._rates = Rates(turn=int(self._writer[:8], 16))
        self._saved: dict[str, int] = {}
        self._touched: set[int] = set()

    def after_fork(self) -> None:
        """In a child: what the parent has seen is its own to write, and is read from the store."""
        self._begin()

    def touch(self, prefixes: Iterable[int]) -> None:
        """What is known of these has changed; to be called under the lock."""
        self._touched.update(prefixes)

    def count(self, model: str, head: int | None, values: Mapping[str, int]) -> None:
        """Add to the counts of a model, or of prompts with one head; to be called under the lock."""
        if head is not None:
            if head not in self._counted and len(self._counted) >= MAX_COUNTED:
                return
            self._counted.add(head)
        for name, value in values.items():
            self._counts[count_name(model, head, name)] += value

    def send(self, head: int, thread: int, now: float) -> int:
        """The number of the key that a prompt goes out with, see :class:`~semcache.prompt_cache.shards.Rates`; to be
        called under the lock."""
        if self._rates.knows(head):  # most heads that are sent once never come again: a time or a name stands in them
            self._counts[counter_name(head, now)] += 1
        return self._rates.send(head, thread, now)

    def predictions(self) -> list[Predicted]:
        """The counts of all processes.

        Raises:
            StoreError: The store cannot be written or read.
        """
        with self._syncing:
            self._push()
            return decode_predictions(self._store.counters(PREDICTIONS))

    def sync_soon(self) -> None:
        """Write and read on another thread, if that was not done within the last seconds."""
        if self._closed or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + SYNC_S
        threading.Thread(target=self.sync, name="semcache-prompts", daemon=True).start()

    def sync(self) -> None:
        """Write what is new here, and read what is new in the store. Trouble is an event."""
        with self._syncing:
            if self._closed:
                return
            try:
                self._push()
                self._pull()
            except StoreUnavailable:
                pass
            except Exception as error:  # whatever a store raises: nobody waits for this thread
                self._emit(Event("store_error", f"the history of prompts was not written or read: {error}", error))

    def forget(self) -> None:
        """Forget all prompts, here and in the store; see :func:`erase_prompts`.

        Raises:
            StoreError: The store cannot be read or written.
        """
        with self._syncing:
            with self.lock:
                self._know_nothing()
                for name in [name for name in self._counts if _names_a_prompt(name)]:
                    del self._counts[name]
            erase_prompts(self._store)

    def close(self) -> None:
        """Write what is new; a store that fails now is not tried again."""
        with self._syncing, suppress(Exception):
            self._closed = True
            self._push()

    def _push(self) -> None:
        with self.lock:
            touched, self._touched = self._touched, set()
            counts, self._counts = self._counts, Counter()
            after: dict[str, int] = {}
            for prefix in touched:
                if (seen := self.history.find(prefix)) is not None:
                    after |= encode(prefix, seen, self._writer)
        deltas = advance(self._saved, after)
        try:
            if deltas or counts:
                self._store.add_counters({**deltas, **counts})
        except Exception:
            with self.lock:
                self._touched |= touched
                self._counts.update(counts)
            raise
        self._saved.update(after)

    def _pull(self) -> None:
        self._pull_rates()
        stored = self._store.counters(f"{PREFIX}|")
        if stale := _stale(stored, time.time()):
            self._store.drop_counters(stale)
            for name in stale:
                del stored[name]
        news = decode(
            {
                name: value if _is_time(name) else value - self._saved.get(name, 0)
                for name, value in stored.items()
                if value > self._saved.get(name, 0)
            }
        )
        self._saved = stored
        prefixes = iter(news.items())
        while chunk := list(islice(prefixes, _AT_ONCE)):
            with self.lock:
                for prefix, seen in chunk:
                    self.history.learn(prefix, seen)

    def _pull_rates(self) -> None:
        if not self._rates:
            return
        totals = self._store.counters(RATES)
        with self.lock:
            stale = self._rates.learn(totals, self._counts)
        if stale:
            self._store.drop_counters(stale)


def erase_prompts(store: Store) -> None:
    """Erase what a store knows by the hash of a prompt; how prompts in general come back is kept.

    Whose prompts they are is not known, so they all go. What that costs is learned again within hours.

    Raises:
        StoreError: The store cannot be read or written.
    """
    stored = [name for prefix in (f"{PREFIX}|", PREDICTIONS, RATES) for name in store.counters(prefix)]
    store.drop_counters([name for name in stored if _names_a_prompt(name)])


_POOLS: Final = frozenset(f"{pool_id(kind):016x}" for kind in HALF_BACK)


def _names_a_prompt(counter: str) -> bool:
    prefix = counter.split("|", 2)[1]
    return bool(prefix) and prefix not in _POOLS


def _is_time(name: str) -> bool:
    return name.split("|", 3)[2] != "gap"


def _stale(stored: Mapping[str, int], now: float) -> list[str]:
    """Names of counters that tell nothing any more, or that are too many."""
    newest: dict[str, float] = {}
    old = []
    for name, value in stored.items():
        _, prefix, what, rest = name.split("|", 3)
        at = int(rest.partition("|")[0]) * SLOT if what == "gap" else value
        if at < now - (KEPT * SLOT if what == "gap" else _TIME_KEPT_S):
            old.append(name)
        else:
            newest[prefix] = max(newest.get(prefix, 0), at)
    if len(newest) <= MAX_PREFIXES:
        return old
    surplus = set(sorted(newest, key=newest.__getitem__)[:-MAX_PREFIXES])
    return [*old, *(name for name in stored.keys() - set(old) if name.split("|", 2)[1] in surplus)]
