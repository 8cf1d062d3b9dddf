"""The record of every namespace of a store, shared by all processes on it."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from semcache.errors import StoreUnavailable
from semcache.live.anytime import broken, clean_audits
from semcache.live.record import (
    OTHERS,
    PREFIX,
    Record,
    Standing,
    Verdicts,
    Weight,
    counter,
    decode,
    entry_counters,
    weigh,
)
from semcache.money.flusher import flusher
from semcache.types import Event

if TYPE_CHECKING:
    from semcache.policy import Policy
    from semcache.stores.base import Selector, Store

REFRESH_S: Final = 1.0
"""Age in seconds from which what is known of other processes is read again, in the background."""

STALE_S: Final = 3.0
"""Age in seconds at which a look-up reads by itself: the first after a pause, or while the background is late."""

MAX_ENTRIES: Final = 1_000
"""Entries of a namespace with a record. Beyond, those with the fewest wrong, then right verdicts are forgotten."""

MAX_NAMESPACES: Final = 256
"""Namespaces with a record of their own; callers may name as many as they like. Those that come later share one
record, so that a broken budget among them switches all of them off."""

_CHUNK: Final = 64
"""How many entries are fetched at a time."""

_NOTHING: Final = Record()


class Evidence:
    """Reads and writes the counters of :mod:`semcache.live.record`, and switches a tier off when a budget is broken.

    What a process learns is written at once, and kept and tried again if the store fails. What others wrote is read
    about every other second while there are look-ups (:meth:`refresh`), and no look-up goes by what is older than
    ``STALE_S``. A switch is a counter too, so every process on the store obeys it.

    Args:
        policy: Its ``max_false_hit_rate`` and ``audit_confidence`` are the budget; without one nothing is switched off.
        emit: Takes ``semantic_off``, ``semantic_on`` and ``store_error``.
    """

    def __init__(self, store: Store, policy: Policy, emit: Callable[[Event], None]) -> None:
        self._store = store
        self._policy = policy
        self._emit = emit
        self._stored: Mapping[str, int] = {}
        self._records: dict[str, Record] = {}
        self._off: dict[str, str] = {}
        self._unwritten: Counter[str] = Counter()
        self._sending: tuple[str, Counter[str]] | None = None
        self._dropped: deque[str] = deque()  # namespaces, added to without the lock
        self._read_at = -math.inf
        self._lock = threading.RLock()

    def after_fork(self) -> None:
        """In a child: the parent writes what is unwritten."""
        self._lock = threading.RLock()
        self._unwritten.clear()
        self._sending = None
        self._dropped.clear()

    def close(self) -> None:
        """Write what is unwritten; a store that fails now is not tried again."""
        flusher.forget(self)
        self._learn("", {})

    # Reading ------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """See that what other processes have written is taken over. Trouble changes nothing."""
        age = time.monotonic() - self._read_at
        if age >= STALE_S:
            self.flush()
        elif age >= REFRESH_S:
            flusher.wake(self)  # reading takes milliseconds where much is known, and callers should not wait for it

    def flush(self) -> None:
        """Read and write now, unless another thread is at it."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._read()
        except Exception as error:
            self._trouble(error)
        finally:
            self._lock.release()

    def _read(self) -> None:
        with self._lock:
            self._read_at = time.monotonic()
            self._write()
            stored = self._store.counters(PREFIX)
            if stored != self._stored:  # a caller waits, and nearly always nothing is new
                self._stored, self._records = stored, decode(stored)
            self._notice()

    def off(self, namespace: str) -> str:
        """Why the semantic tier of a namespace is off; empty if it is on."""
        return self._off.get(self._known_as(namespace), "")

    def weigh(self, namespace: str, entry_id: int) -> Weight | None:
        """What an entry's record means for its next hit; ``None`` if it has none."""
        record = self._records.get(self._known_as(namespace), _NOTHING)
        verdicts = record.entries.get(entry_id)
        return None if verdicts is None else weigh(verdicts, record.expected_wrong)

    def standings(self) -> dict[str, Standing]:
        """How each namespace stands of which anything is known, as of now.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._lock:
            self._read()
            return {namespace: record.standing for namespace, record in sorted(self._records.items())}

    def _known_as(self, namespace: str) -> str:
        """Under which name the record of a namespace stands."""
        records = self._records
        if namespace in records or len(records) < MAX_NAMESPACES:
            return namespace
        return OTHERS

    # Learning -----------------------------------------------------------------------------------------------------

    def audited(self, namespace: str, entry_id: int, right: bool | None, *, judged: bool) -> None:
        """A judge has spoken. ``judged``: it can say "wrong" too; else its verdicts make no rate."""
        namespace = self._known_as(namespace)
        if right is None:
            self._learn(namespace, {"unknown": 1})
        elif not judged:
            self._learn(namespace, {"agreed": 1, **_of_entry(entry_id, right)})
        else:
            with self._lock:
                self._learn(namespace, {**self._count(namespace, right), **_of_entry(entry_id, right)})
                self._decide(namespace)
                self._notice()
        self._bound(namespace, entry_id)

    def reported(self, namespace: str, entry_id: int, right: bool) -> None:
        """A person or program has said whether a semantic hit was right.

        Reports are no random sample, so they speak of the entry and not of the rate.
        """
        self._learn(namespace, _report(entry_id, right))
        self._bound(namespace, entry_id)

    def corrected(self, namespace: str, entry_id: int, right: bool) -> None:
        """As :meth:`reported`, by one who had said the opposite of the same hit and takes it back."""
        self._learn(namespace, {**_report(entry_id, right), **_report(entry_id, not right, -1)})
        self._bound(namespace, entry_id)

    def failed(self, namespace: str) -> None:
        """An audit's call or judge raised."""
        self._learn(namespace, {"failed": 1})

    def dropped(self, namespace: str) -> None:
        """The queue was full. Written with what is learned next: this may be an event loop's thread, which must wait
        neither for the store nor for the lock of one that writes to it.
        """
        self._dropped.append(namespace)

    def resume(self, namespace: str) -> bool:
        """Switch the semantic tier of a namespace on again; false if it was not off.

        Raises:
            StoreError: The store cannot be read or written.
        """
        with self._lock:
            self._read()
            namespace = self._known_as(namespace)
            if not self.off(namespace):
                return False
            self._add(namespace, {f"resumed.{self._records[namespace].epoch}": 1})
            self._write()
            self._notice()
        return True

    def forget(self, selector: Selector) -> None:
        """Drop the records of single entries that are about to be erased, and of those that have gone before.

        A record names its entry by a hash of the question. Of one that has gone nobody can tell whose it was. What an
        entry taught of its namespace as a whole stays.

        Raises:
            StoreError: The store cannot be read or written.
        """
        with self._lock:
            self._read()
            for namespace, record in self._records.items():
                ids = list(_leaving(self._store, selector, record.entries))
                for id in ids:
                    del record.entries[id]
                if ids:
                    self._store.drop_counters(list(entry_counters(namespace, ids)))

    def _count(self, namespace: str, right: bool) -> dict[str, int]:
        record = self._records.get(namespace, _NOTHING)
        epoch, standing = record.epoch, record.standing
        if standing.off:
            return {f"clean.{epoch}": 1 if right else -standing.clean}
        return {f"audited.{epoch}": 1, f"wrong.{epoch}": int(not right)}

    def _decide(self, namespace: str) -> None:
        budget, confidence = self._policy.max_false_hit_rate, self._policy.audit_confidence
        if budget is None:
            return
        record = self._records[namespace]
        standing = record.standing
        if not standing.off and broken(standing.audited, standing.wrong, budget, confidence):
            self._learn(namespace, {f"off.{record.epoch}": 1})
        elif standing.off and standing.clean >= clean_audits(budget, confidence):
            self._learn(namespace, {f"resumed.{record.epoch}": 1})

    def _learn(self, namespace: str, deltas: Mapping[str, int]) -> None:
        with self._lock:
            self._add(namespace, deltas)
            try:
                self._write()
            except Exception as error:  # whatever a store raises: what is learned is not lost
                self._trouble(error)

    def _add(self, namespace: str, deltas: Mapping[str, int]) -> None:
        namespace = self._known_as(namespace)
        for name, value in deltas.items():
            if value:
                record = self._records.setdefault(namespace, Record())
                record.add(name, value)
                self._unwritten[counter(namespace, name)] += value

    @property
    def must_write(self) -> bool:
        """Whether :meth:`refresh` would not only read."""
        return bool(self._unwritten or self._sending or self._dropped)

    def _write(self) -> None:
        while self._dropped:
            self._add(self._dropped.popleft(), {"dropped": 1})
        while self._sending or self._unwritten:
            if self._sending is None:
                self._sending, self._unwritten = (uuid.uuid4().hex, self._unwritten), Counter()
            name, counts = self._sending
            self._store.add_counters(counts, once=name)
            self._sending = None

    def _bound(self, namespace: str, newest: int) -> None:
        with self._lock:
            namespace = self._known_as(namespace)
            entries = self._records.get(namespace, _NOTHING).entries  # the store may have lost it since
            if len(entries) <= MAX_ENTRIES:
                return
            least = sorted(entries.keys() - {newest}, key=lambda id: entries[id].weight)[: MAX_ENTRIES // 10]
            for id in least:
                del entries[id]
            try:
                self._store.drop_counters(list(entry_counters(namespace, least)))
            except Exception as error:
                self._trouble(error)

    def _notice(self) -> None:
        """Tell once of each switch, whichever process made it."""
        standings = {namespace: record.standing for namespace, record in self._records.items()}
        off = {namespace: standing.reason for namespace, standing in standings.items() if standing.off}
        before, self._off = self._off, off
        for namespace in off.keys() - before.keys():
            self._emit(Event("semantic_off", f"{namespace!r}: {off[namespace]}"))
        for namespace in before.keys() - off.keys():
            self._emit(Event("semantic_on", f"{namespace!r}: the semantic tier serves again"))

    def _trouble(self, error: Exception) -> None:
        if not isinstance(error, StoreUnavailable):  # its breaker has said so once
            self._emit(Event("store_error", str(error), error))


def _of_entry(entry_id: int, right: bool, count: int = 1) -> dict[str, int]:
    return {f"e|{entry_id:x}|{Verdicts._fields[not right]}": count}


def _report(entry_id: int, right: bool, count: int = 1) -> dict[str, int]:
    return {"reported_right" if right else "reported_wrong": count, **_of_entry(entry_id, right, count)}


def _leaving(store: Store, selector: Selector, ids: Iterable[int]) -> Iterator[int]:
    """Ids of the entries that match a selector, or are not there."""
    left = iter(ids)
    while chunk := list(islice(left, _CHUNK)):
        for id, entry in zip(chunk, store.fetch(chunk), strict=True):
            if entry is None or selector.matches(
                id, scope_id=entry.key.scope_id, namespace=entry.namespace, tenant=entry.tenant, tags=entry.tags
            ):
                yield id
