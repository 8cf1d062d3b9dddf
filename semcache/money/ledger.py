"""Keeps the books of a cache (see :mod:`semcache.money.books`) by day, namespace and model, in its store."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from semcache._fork import renew_in_child
from semcache.events import EventHook, emit
from semcache.money.books import Books, Line, Overhead
from semcache.money.estimates import Meter
from semcache.money.flusher import flusher
from semcache.money.prices import Prices
from semcache.money.rows import PREFIX, Row, RowKey, Stats, decode, encode
from semcache.types import Event, Outcome, Usage

if TYPE_CHECKING:
    from semcache.stores.base import Store

__all__ = ["ROWS_A_DAY", "Books", "Ledger", "Row", "Stats"]

ROWS_A_DAY: Final = 10_000
"""Namespaces and models may come from callers. Beyond so many pairs a day, a process books the rest as ``OTHER``."""

OTHER: Final = "(other)"

_DAY_S: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)


class Ledger:
    """Keeps the books: adds in memory on the call's own thread, writes to the store from a thread of its own.

    What was added is written at most once a second, and by :meth:`flush`, :meth:`close` and the exit of the
    interpreter. A store that fails costs one event ``ledger_error``; what it did not take is kept and tried
    again, and is counted once also where it had been taken and only the answer was lost. A forked child starts with
    nothing pending, since the parent writes that.

    Args:
        store: Where counters are kept. ``None`` keeps the books in memory.
        prices: Prices of models; by default the table of this package.
        on_event: Hooks for trouble.
        clock: Unix seconds; replaced in tests.

    ``meter`` says what a call used. The functions in ``on_paid`` are called with namespace and micro-dollars
    (``None``: no known price) of each call that was paid for.
    """

    def __init__(
        self,
        store: Store | None = None,
        prices: Prices | None = None,
        *,
        on_event: Iterable[EventHook] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.prices = Prices() if prices is None else prices
        self.meter = Meter(store, clock=clock)
        self.on_paid: list[Callable[[str, int | None], None]] = []
        self._store = store
        self._on_event = on_event
        self._clock = clock
        self._pending: dict[RowKey, Books] = {}
        self._unwritten: tuple[str, dict[str, int]] | None = None
        self._rows: set[RowKey] = set()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._awaited = False
        self._failing = False
        self._closed = False
        renew_in_child(self)

    def attach(self, store: Store, on_event: Iterable[EventHook] = ()) -> None:
        """Use this store and these hooks, unless the ledger was built with a store."""
        if self._store is None:
            self._store = store
            self._on_event = on_event
            self.meter.attach(store)

    def record(self, outcome: Outcome) -> None:
        """Book one finished call; prices it (``outcome.usd_micro``) if that has not been done."""
        self._price(outcome)
        self._add(outcome.namespace, outcome.model, lambda books: books.enter(outcome))
        if outcome.spent and outcome.usage is not None:
            self._tell_paid(outcome.namespace, outcome.usd_micro)

    def record_overhead(
        self, kind: Overhead, namespace: str, model: str | None, usage: Usage | None, usd_micro: int | None = None
    ) -> None:
        """Book one call that the cache itself made.

        Args:
            model: Of that call, which need not be the caller's.
            usd_micro: What it cost, where that is known better than by the model's price.
        """
        if usd_micro is None and usage is not None:
            usd_micro = self.prices.cost(model, usage)

        def enter(books: Books) -> None:
            line: Line = getattr(books, kind)
            line.enter(usage, usd_micro)

        self._add(namespace, model, enter)
        self._tell_paid(namespace, usd_micro)

    def watch(self, kind: Overhead, part: object, namespace: str) -> None:
        """Book what a part pays for from now on, if it can tell: one that calls a provider has an ``on_usage``."""
        if hasattr(part, "on_usage"):
            part.on_usage = lambda model, usage: self.record_overhead(kind, namespace, model, usage)

    def record_audit(self, namespace: str, model: str | None, usage: Usage | None) -> None:
        """Book what one audit call cost."""
        self.record_overhead("audit", namespace, model, usage)

    def _tell_paid(self, namespace: str, usd_micro: int | None) -> None:
        for hook in self.on_paid:
            hook(namespace, usd_micro)

    def _price(self, outcome: Outcome) -> None:
        price, usage, would = self.prices.find(outcome.model), outcome.usage, outcome.would_serve
        if price is None:
            return
        if usage is not None and outcome.usd_micro is None:
            outcome.price_id = price.id
            if outcome.spent:
                outcome.usd_micro, *moved = price.split(usage)
                outcome.prompt_cache_usd_micro = (moved[0], moved[1])
            else:
                expected = outcome.expected_read_tokens
                if expected is None and outcome.collapsed:
                    expected = usage.cache_read_tokens  # at the same moment: what one call wrote another cannot read
                outcome.usd_micro = price.again(usage, expected)
        if would is not None and would.usage is not None and would.usd_micro is None:
            would.usd_micro = price.again(would.usage, outcome.expected_read_tokens)

    def _add(self, namespace: str, model: str | None, enter: Callable[[Books], None]) -> None:
        key = (int(self._clock() // _DAY_S), namespace, model)
        with self._lock:
            enter(self._pending.get(key) or self._row(key))
        if not self._awaited and self._store is not None:
            self._await_flush()

    def _row(self, key: RowKey) -> Books:
        if key not in self._rows:
            if self._rows and next(iter(self._rows))[0] != key[0]:
                self._rows.clear()
            if len(self._rows) >= ROWS_A_DAY:
                key = (key[0], OTHER, OTHER)
            else:
                self._rows.add(key)
        return self._pending.setdefault(key, Books())

    def flush(self) -> bool:
        """Write what is pending to the store; false if the store failed and it is still pending."""
        if self._store is None:
            return True
        with self._writing:
            self._awaited = False
            try:
                self._write()  # what has failed before
                self._unwritten = self._take()
                self._write()
            except Exception as error:  # whatever a store raises, the counts are not lost
                self._tell_failure(error)
                return False
        return True

    def _write(self) -> None:
        if self._unwritten is not None and self._store is not None:
            name, counts = self._unwritten
            self._store.add_counters(counts, once=name)
            self._unwritten, self._failing = None, False

    def _take(self) -> tuple[str, dict[str, int]] | None:
        """What is to be written next, under a name that lets it be tried again without counting twice."""
        with self._lock:
            pending, self._pending = self._pending, {}
        return (uuid.uuid4().hex, encode(pending)) if pending else None

    def report(self, *, namespace: str | None = None, since: date | None = None) -> Stats:
        """The books of the store, from every process that writes to it, and what is pending here.

        Args:
            namespace: Only this one.
            since: First UTC day.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._writing:
            stored = {} if self._store is None else self._store.counters(PREFIX)
            with self._lock:
                pending = encode(self._pending)
            unwritten = {} if self._unwritten is None else self._unwritten[1]
        found: dict[RowKey, Books] = {}
        for counters in (stored, unwritten, pending):
            for key, name, value in decode(counters):
                found.setdefault(key, Books()).add(name, value)
        rows: list[Row] = []
        totals = Books()
        for key in sorted(found, key=lambda key: (key[0], key[1], key[2] or "")):
            row = Row(_EPOCH + timedelta(days=key[0]), key[1], key[2], found[key])
            if (namespace is None or row.namespace == namespace) and (since is None or row.day >= since):
                rows.append(row)
                totals.merge(row.books)
        return Stats(tuple(rows), totals)

    def close(self) -> None:
        """Write what is pending; a store that fails now is not tried again. Closing twice does nothing."""
        self.meter.flush()
        flusher.forget(self.meter)
        self._closed = True
        if not self.flush():
            flusher.forget(self)
            emit(self._on_event, Event("ledger_error", "closed with counts that could not be written"))

    def _await_flush(self) -> None:
        self._awaited = True
        flusher.wake(self)

    def _tell_failure(self, error: Exception) -> None:
        if not self._closed:  # else so is its store, most likely, and what comes late would be tried for ever
            self._await_flush()
        if not self._failing:
            self._failing = True
            message = f"the ledger could not be written, its counts are kept and tried again: {error}"
            emit(self._on_event, Event("ledger_error", message, error))

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._awaited = False
        if self._store is not None:
            self._pending, self._unwritten = {}, None
