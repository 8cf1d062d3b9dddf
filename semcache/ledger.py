"""What the cache cost and what it saved, by day, namespace and model.

Every call is in the books once, under one of six headings: exact hit, semantic hit, stale, collapsed, miss,
bypass. Its tokens and money are in one of three lines:

- *saved*: answered from the cache (exact, semantic, stale);
- *collapsed*: answered by another caller's call in flight: no hit, though it spared the provider too;
- *spent*: the provider was called (miss, bypass).

A call is priced as it was made: tokens that the provider read from its own prompt cache count at that price,
and a hit saves what that call did cost, not its list price. A call whose usage or price is unknown counts as
*unpriced* in its line, and money of a line that holds nothing else is ``None``, never 0.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from semcache.events import EventHook, emit
from semcache.prices import Prices
from semcache.types import Event, Outcome

if TYPE_CHECKING:
    from semcache.stores.base import Store

PREFIX: Final = "ledger1|"
"""Start of every counter's name; the number is the version of the encoding."""

FLUSH_INTERVAL_S: Final = 1.0

_DAY_S: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)
_COUNTS: Final = ("exact_hits", "semantic_hits", "stale", "misses", "stored", "latency_saved_ms")
_LINES: Final = ("saved", "collapsed", "spent")
_REASONS_KEPT: Final = 64

_Key = tuple[int, str, str | None]
"""Days since 1970-01-01 UTC, namespace, model."""


@dataclass(slots=True)
class Line:
    """Calls with their tokens and money.

    Args:
        calls: How many calls.
        tokens: Input and output tokens of the calls whose usage is known.
        unmetered: How many of ``calls`` are not in ``tokens``.
        usd_micro: Millionths of a dollar of the calls whose price is known.
        unpriced: How many of ``calls`` are not in ``usd_micro``.
    """

    calls: int = 0
    tokens: int = 0
    unmetered: int = 0
    usd_micro: int = 0
    unpriced: int = 0

    @property
    def known_tokens(self) -> int | None:
        """Tokens, or ``None`` if there are calls and the usage of none is known."""
        return None if self.calls and self.unmetered >= self.calls else self.tokens

    @property
    def usd(self) -> Decimal | None:
        """Dollars, or ``None`` if there are calls and the price of none is known."""
        return None if self.calls and self.unpriced >= self.calls else Decimal(self.usd_micro).scaleb(-6)


@dataclass(slots=True)
class Books:
    """The counts of some set of calls.

    ``latency_saved_ms`` is how much sooner saved answers came than the calls that made them; it falls when
    the look-up takes longer than the call.
    """

    exact_hits: int = 0
    semantic_hits: int = 0
    stale: int = 0
    misses: int = 0
    stored: int = 0
    latency_saved_ms: int = 0
    bypassed: dict[str, int] = field(default_factory=dict)
    saved: Line = field(default_factory=Line)
    collapsed: Line = field(default_factory=Line)
    spent: Line = field(default_factory=Line)

    @property
    def hits(self) -> int:
        return self.exact_hits + self.semantic_hits

    @property
    def bypasses(self) -> int:
        return sum(self.bypassed.values())

    @property
    def requests(self) -> int:
        return self.hits + self.stale + self.collapsed.calls + self.misses + self.bypasses

    @property
    def hit_rate(self) -> float | None:
        """Hits per request, or ``None`` without requests."""
        return self.hits / self.requests if self.requests else None

    def enter(self, outcome: Outcome) -> None:
        """Book one call."""
        status = outcome.status
        if outcome.collapsed:
            line = self.collapsed
        elif status == "hit":
            line = self.saved
            if outcome.layer == "semantic":
                self.semantic_hits += 1
            else:
                self.exact_hits += 1
        elif status == "stale":
            line = self.saved
            self.stale += 1
        else:
            line = self.spent
            if status == "bypass":
                # What follows the colon may quote the request: what callers send must not multiply the counters.
                reason = outcome.reason.partition(":")[0]
                if reason not in self.bypassed and len(self.bypassed) >= _REASONS_KEPT:
                    reason = "other"
                self.bypassed[reason] = self.bypassed.get(reason, 0) + 1
            else:
                self.misses += 1
        if line is self.saved and outcome.upstream_latency_s is not None:
            took = outcome.seconds.get("total", 0.0)
            self.latency_saved_ms += round((outcome.upstream_latency_s - took) * 1000)
        self.stored += outcome.stored
        line.calls += 1
        if outcome.usage is None:
            line.unmetered += 1
        else:
            line.tokens += outcome.usage.total
        if outcome.usd_micro is None:
            line.unpriced += 1
        else:
            line.usd_micro += outcome.usd_micro

    def counters(self) -> Iterator[tuple[str, int]]:
        """Name and value of all that is not zero."""
        for name in _COUNTS:
            if value := getattr(self, name):
                yield name, value
        for name in _LINES:
            line: Line = getattr(self, name)
            for part in Line.__slots__:
                if value := getattr(line, part):
                    yield f"{name}.{part}", value
        for reason, value in self.bypassed.items():
            yield f"bypass.{reason}", value

    def add(self, name: str, value: int) -> None:
        """Add to one counter; a name of a later version is left alone."""
        head, _, tail = name.partition(".")
        if head == "bypass":
            self.bypassed[tail] = self.bypassed.get(tail, 0) + value
        elif head in _LINES and tail in Line.__slots__:
            line = getattr(self, head)
            setattr(line, tail, getattr(line, tail) + value)
        elif name in _COUNTS:
            setattr(self, name, getattr(self, name) + value)

    def merge(self, other: Books) -> None:
        """Add all that another one counts."""
        for name, value in other.counters():
            self.add(name, value)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; tokens and dollars are ``None`` where they are not known."""
        lines: dict[str, Line] = {name: getattr(self, name) for name in _LINES}
        return {
            "requests": self.requests,
            "hits": self.hits,
            "exact_hits": self.exact_hits,
            "semantic_hits": self.semantic_hits,
            "stale": self.stale,
            "collapsed": self.collapsed.calls,
            "misses": self.misses,
            "bypasses": self.bypasses,
            "bypassed": dict(sorted(self.bypassed.items())),
            "stored": self.stored,
            "hit_rate": self.hit_rate,
            **{f"tokens_{name}": line.known_tokens for name, line in lines.items()},
            **{f"usd_{name}": None if line.usd is None else float(line.usd) for name, line in lines.items()},
            "unpriced": sum(line.unpriced for line in lines.values()),
            "latency_saved_s": self.latency_saved_ms / 1000,
        }


class Row(NamedTuple):
    """The books of one UTC day, namespace and model."""

    day: date
    namespace: str
    model: str | None
    books: Books


@dataclass(frozen=True, slots=True)
class Stats:
    """A report: rows by day, namespace and model, and their sum."""

    rows: tuple[Row, ...]
    totals: Books

    def group(self, by: Literal["day", "namespace", "model"]) -> dict[Any, Books]:
        """Sums over the rows that share a day, namespace or model, in the order of the rows."""
        groups: dict[Any, Books] = {}
        for row in self.rows:
            groups.setdefault(getattr(row, by), Books()).merge(row.books)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "totals": self.totals.to_dict(),
            "rows": [
                {
                    "day": row.day.isoformat(),
                    "namespace": row.namespace,
                    "model": row.model,
                    **row.books.to_dict(),
                }
                for row in self.rows
            ],
        }


class Ledger:
    """Keeps the books: adds in memory on the call's own thread, writes to the store from a thread of its own.

    What was added is written at most once a second, and by :meth:`flush`, :meth:`close` and the exit of the
    interpreter. A store that fails costs one event ``ledger_error``; what it did not take is kept and tried
    again. (A store that fails *after* it has counted, as when the connection is lost before the reply, counts
    twice.) A forked child starts with nothing pending, since the parent writes that.

    Args:
        store: Where counters are kept. ``None`` keeps the books in memory.
        prices: Prices of models; by default the table of this package.
        on_event: Hooks for trouble.
        clock: Unix seconds; replaced in tests.
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
        self._store = store
        self._on_event = on_event
        self._clock = clock
        self._pending: dict[_Key, Books] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._awaited = False
        self._failing = False
        _flusher.know(self)

    def attach(self, store: Store, on_event: Iterable[EventHook] = ()) -> None:
        """Use this store and these hooks, unless the ledger was built with a store."""
        if self._store is None:
            self._store = store
            self._on_event = on_event

    def record(self, outcome: Outcome) -> None:
        """Book one finished call; prices it (``outcome.usd_micro``) if that has not been done."""
        if outcome.usd_micro is None and outcome.usage is not None:
            outcome.usd_micro = self.prices.cost(outcome.model, outcome.usage)
        key = (int(self._clock() // _DAY_S), outcome.namespace, outcome.model)
        with self._lock:
            books = self._pending.get(key)
            if books is None:
                books = self._pending[key] = Books()
            books.enter(outcome)
        if not self._awaited and self._store is not None:
            self._await_flush()

    def flush(self) -> bool:
        """Write what is pending to the store; false if the store failed and it is still pending."""
        if self._store is None:
            return True
        with self._writing:
            self._awaited = False
            with self._lock:
                pending, self._pending = self._pending, {}
            if not pending:
                return True
            try:
                self._store.add_counters(_encode(pending))
            except Exception as error:  # whatever a store raises, the counts are not lost
                self._take_back(pending, error)
                return False
            self._failing = False
        return True

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
                pending = _encode(self._pending)
        found: dict[_Key, Books] = {}
        for counters in (stored, pending):
            for key, name, value in _decode(counters):
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
        if not self.flush():
            _flusher.forget(self)
            emit(self._on_event, Event("ledger_error", "closed with counts that could not be written"))

    def _await_flush(self) -> None:
        self._awaited = True
        _flusher.wake(self)

    def _take_back(self, unwritten: dict[_Key, Books], error: Exception) -> None:
        with self._lock:
            for key, books in self._pending.items():
                unwritten.setdefault(key, Books()).merge(books)
            self._pending = unwritten
        self._await_flush()
        if not self._failing:
            self._failing = True
            message = f"the ledger could not be written, its counts are kept and tried again: {error}"
            emit(self._on_event, Event("ledger_error", message, error))

    def _reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._awaited = False
        if self._store is not None:
            self._pending = {}


class _Flusher:
    """One daemon thread for all ledgers of the process; it sleeps while there is nothing to write."""

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Ledger] = weakref.WeakSet()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._thread: threading.Thread | None = None
        # Strong references: a ledger that was dropped without being closed still gets its counts written.
        self._waiting: set[Ledger] = set()

    def know(self, ledger: Ledger) -> None:
        with self._lock:
            self._known.add(ledger)

    def wake(self, ledger: Ledger) -> None:
        with self._lock:
            self._waiting.add(ledger)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="semcache-ledger", daemon=True)
                self._thread.start()
        self._work.set()

    def forget(self, ledger: Ledger) -> None:
        with self._lock:
            self._waiting.discard(ledger)

    def flush_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for ledger in waiting:
            ledger.flush()

    def reset_after_fork(self) -> None:
        self._reset()
        for ledger in list(self._known):
            ledger._reset_after_fork()

    def _run(self) -> None:
        while True:
            self._work.wait()
            time.sleep(FLUSH_INTERVAL_S)
            self._work.clear()
            self.flush_waiting()


_flusher = _Flusher()
atexit.register(_flusher.flush_waiting)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_flusher.reset_after_fork)


def _encode(rows: Mapping[_Key, Books]) -> dict[str, int]:
    """One flat counter per number: ``ledger1|day|namespace|model|name``, each part percent-escaped."""
    return {
        f"{PREFIX}{day}|{_escape(namespace)}|{_escape(model)}|{_escape(name)}": value
        for (day, namespace, model), books in rows.items()
        for name, value in books.counters()
    }


def _decode(counters: Mapping[str, int]) -> Iterator[tuple[_Key, str, int]]:
    for full_name, value in counters.items():
        day, namespace, model, name = map(_unescape, full_name.removeprefix(PREFIX).split("|"))
        yield (int(day or 0), namespace or "", model), name or "", value


def _escape(part: str | None) -> str:
    # An absent model and a model of that name must stay apart: "-" is the absent one.
    if part is None:
        return "-"
    return "%2D" if part == "-" else part.replace("%", "%25").replace("|", "%7C")


def _unescape(part: str) -> str | None:
    return None if part == "-" else part.replace("%2D", "-").replace("%7C", "|").replace("%25", "%")
