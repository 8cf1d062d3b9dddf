"""What calls to providers may cost in a day, counted over all caches with a budget on one store.

A budget is looked at before each call upstream. What calls cost is known when they have ended, and what other processes
paid is read about once a second, so callers at the same time may go over it by what is then under way. Calls of models
without a known price cannot be counted, which an event says. Trouble in the store never keeps a call back: then each
process counts what it pays itself.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import quote, unquote

from semcache._fork import renew_in_child
from semcache.errors import BudgetExceeded, ConfigurationError, StoreUnavailable
from semcache.money.flusher import flusher
from semcache.money.prices import dollars
from semcache.types import Event

if TYPE_CHECKING:
    from semcache.stores.base import Store

PREFIX: Final = "budget1|"
"""Start of every counter's name; the number is the version of the encoding."""

ALERTS: Final = (50, 80, 100)
"""Percent of a budget at which there is an event, once a day in each process."""

LOOK_S: Final = 3.0
"""Age of what is known of other processes, in seconds, from which on a call looks itself before it goes upstream."""

NAMESPACES: Final = 1_000
"""Namespaces may come from callers. Beyond so many a day, a process counts the rest as ``OTHER``."""

OTHER: Final = "(other)"

_DAY_S: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)
_ALL: Final = "*"


@dataclass(frozen=True, slots=True)
class Budget:
    """What upstream calls, audits and other calls of the cache itself may cost in a UTC day.

    Hits are served whether or not it is used up, since they cost nothing.

    Args:
        usd_per_day: Dollars, above 0.
        namespace: Only calls of this one; ``None`` counts all of them together.
        on_exceed: What becomes of a call upstream once it is used up. ``"raise"``: it raises
            :class:`~semcache.errors.BudgetExceeded` (SDK clients over HTTP: their own error for status 402, not
            retried). ``"cache-only"``: the same with status 504, as for HTTP's ``only-if-cached``, and an expired
            answer is served first where ``Policy.stale_if_error`` allows one. A callable gets the
            :class:`BudgetState` and says whether the call may go on; one that raises changes nothing.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    usd_per_day: Decimal | float | str
    namespace: str | None = None
    on_exceed: Literal["raise", "cache-only"] | Callable[[BudgetState], bool] = "raise"

    def __post_init__(self) -> None:
        try:
            usable = Decimal(str(self.usd_per_day)).is_finite() and self.usd_micro > 0
        except InvalidOperation:
            usable = False
        if not usable or isinstance(self.usd_per_day, bool):
            raise ConfigurationError(f"usd_per_day must be dollars above 0, not {self.usd_per_day!r}")
        if self.on_exceed not in ("raise", "cache-only") and not callable(self.on_exceed):
            raise ConfigurationError(f"on_exceed is 'raise', 'cache-only' or a callable, not {self.on_exceed!r}")

    @property
    def usd_micro(self) -> int:
        """The budget in millionths of a dollar."""
        return int(Decimal(str(self.usd_per_day)).scaleb(6))

    def covers(self, namespace: str) -> bool:
        """Whether calls of this namespace count."""
        return self.namespace in (None, namespace)


class BudgetState(NamedTuple):
    """How a budget stands. ``spent_usd_micro``: as far as this process knows of it."""

    usd_micro: int
    namespace: str | None
    day: date
    spent_usd_micro: int

    @property
    def share(self) -> float:
        """The part of it that is spent; 1.0 and above is all."""
        return self.spent_usd_micro / self.usd_micro

    @property
    def exceeded(self) -> bool:
        return self.spent_usd_micro >= self.usd_micro

    def __str__(self) -> str:
        whose = "all namespaces" if self.namespace is None else f"namespace {self.namespace!r}"
        spent, whole = dollars(self.spent_usd_micro), dollars(self.usd_micro)
        return f"{spent} of the {whole} that {whose} may cost on {self.day} (UTC) are spent"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "namespace": self.namespace,
            "usd_per_day": self.usd_micro / 1e6,
            "day": self.day.isoformat(),
            "usd_spent": self.spent_usd_micro / 1e6,
            "share": self.share,
        }


class Budgets:
    """The budgets of one cache, and what has been paid today.

    Each process writes what it paid under a name of its own, so what it knows is exact for itself and a little old for
    the others.

    Args:
        store: Where counters are kept.
        emit: Takes the events ``budget``, ``ledger_error`` and ``hook_error``.
        clock: Unix seconds; replaced in tests.
    """

    def __init__(
        self,
        budgets: Iterable[Budget],
        store: Store,
        emit: Callable[[Event], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._budgets = tuple(budgets)
        self._store = store
        self._emit = emit
        self._clock = clock
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: the parent writes what it paid itself."""
        self._lock = threading.RLock()
        self._talking = threading.Lock()
        self._writer = uuid.uuid4().hex[:12]
        self._begin(self._today())

    def _begin(self, day: int) -> None:
        self._day = day
        self._mine: Counter[str] = Counter()
        self._written: Counter[str] = Counter()
        self._sending: _Written | None = None
        self._others: Counter[str] = Counter()
        self._declared = False
        self._looked_at = -LOOK_S
        self._alerted = [0] * len(self._budgets)
        self._blind = False

    def paid(self, namespace: str, usd_micro: int | None) -> None:
        """A call has cost so much; ``None`` if its price is unknown."""
        if not self._budgets:
            return
        with self._lock:
            self._turn()
            if usd_micro is None:
                events = self._blinded(namespace)
            else:
                if namespace not in self._mine and len(self._mine) >= NAMESPACES:
                    namespace = OTHER
                self._mine[namespace] += usd_micro
                events = self._alerts()
        self._tell(events)
        if usd_micro is not None:
            flusher.wake(self)

    def admit(self, namespace: str) -> None:
        """Let a call go upstream.

        Raises:
            BudgetExceeded: A budget is used up.
        """
        for budget in self._budgets:
            if not budget.covers(namespace):
                continue
            self.look()
            state = self._state(budget)
            if state.exceeded and not self._allowed(budget, state):
                raise BudgetExceeded(str(state), cache_only=budget.on_exceed == "cache-only")

    def exceeded(self, namespace: str) -> bool:
        """Whether a budget of a namespace is used up, as far as is known here and now."""
        return any(self._state(budget).exceeded for budget in self._budgets if budget.covers(namespace))

    def states(self) -> tuple[BudgetState, ...]:
        """How each budget stands."""
        self.look()
        return tuple(map(self._state, self._budgets))

    @property
    def must_look(self) -> bool:
        """Whether the next call will ask the store."""
        return bool(self._budgets) and time.monotonic() - self._looked_at >= LOOK_S

    def look(self) -> None:
        """Read what others paid, unless that was done a moment ago. Takes as long as the store's time budget allows."""
        if self.must_look:
            self.flush()

    def flush(self) -> None:
        """Write what this process paid, and read what others did."""
        if not self._budgets or not self._talking.acquire(blocking=False):
            return
        try:
            self._talk()
        except Exception as error:  # whatever a store raises is no trouble of the upstream's
            if not isinstance(error, StoreUnavailable):  # its breaker has said so once
                self._emit(Event("ledger_error", f"budgets know of this process alone: {error}", error))
        finally:
            self._talking.release()

    def close(self) -> None:
        """Write what this process paid; a store that fails now is not tried again."""
        self.flush()
        flusher.forget(self)

    def _talk(self) -> None:
        with self._lock:
            self._turn()
            self._looked_at = time.monotonic()
            day = self._day
            sending = self._sending = self._sending or self._unwritten()
        if sending is not None:
            self._store.add_counters(sending.deltas, once=sending.name)
            with self._lock:
                if day == self._day:
                    self._written, self._declared, self._sending = sending.mine, True, None
        counters = self._store.counters(PREFIX)
        old = [name for name in counters if _day_of(name) < day - 1]
        if old:
            self._store.drop_counters(old)
        with self._lock:
            if day != self._day:
                return
            paid = decode(counters, day).paid.items()
            self._others = _by_namespace((name, value) for (writer, name), value in paid if writer != self._writer)
            events = self._alerts()
        self._tell(events)

    def _unwritten(self) -> _Written | None:
        """What to write next; a store that fails is sent the same again, so that it is not counted twice."""
        start = f"{PREFIX}{self._day}|"
        deltas = {
            f"{start}paid|{self._writer}|{_name(namespace)}": paid - self._written[namespace]
            for namespace, paid in self._mine.items()
            if paid != self._written[namespace]
        }
        if not self._declared:
            deltas |= {f"{start}limit|{budget.usd_micro}|{_name(budget.namespace)}": 1 for budget in self._budgets}
        return _Written(uuid.uuid4().hex, self._mine.copy(), deltas) if deltas else None

    def _today(self) -> int:
        return int(self._clock() // _DAY_S)

    def _turn(self) -> None:
        """Begin a new day if it is one; what was paid a moment before its end and not written is lost to it."""
        if self._today() != self._day:
            self._begin(self._today())

    def _state(self, budget: Budget) -> BudgetState:
        with self._lock:
            self._turn()
            return _state(budget.usd_micro, budget.namespace, self._day, self._mine + self._others)

    def _allowed(self, budget: Budget, state: BudgetState) -> bool:
        if not callable(budget.on_exceed):
            return False
        try:
            return bool(budget.on_exceed(state))
        except Exception as error:
            self._emit(Event("hook_error", f"on_exceed of a budget failed: {error}", error))
            return True

    def _alerts(self) -> list[Event]:
        events = []
        for number, budget in enumerate(self._budgets):
            state = self._state(budget)
            reached = max((percent for percent in ALERTS if 100 * state.share >= percent), default=0)
            if reached > self._alerted[number]:
                self._alerted[number] = reached
                events.append(Event("budget", f"{reached} % reached: {state}"))
        return events

    def _blinded(self, namespace: str) -> list[Event]:
        if self._blind or not any(budget.covers(namespace) for budget in self._budgets):
            return []
        self._blind = True
        return [Event("budget", f"calls in namespace {namespace!r} have no known price and are not counted")]

    def _tell(self, events: Iterable[Event]) -> None:
        """Not under the lock: a hook may ask how the budgets stand, from any thread."""
        for event in events:
            self._emit(event)


class _Written(NamedTuple):
    """Counts on their way to the store under a name of their own, and all that was paid when they were taken."""

    name: str
    mine: Counter[str]
    deltas: dict[str, int]


class Paid(NamedTuple):
    """What counters tell of a day.

    Args:
        paid: Micro-dollars by writer and namespace.
        limits: Budgets that a cache was opened with: micro-dollars and namespace.
    """

    paid: dict[tuple[str, str], int]
    limits: set[tuple[int, str | None]]


def decode(counters: dict[str, int], day: int) -> Paid:
    """What the counters of a store tell of a day (since 1970-01-01 UTC)."""
    found = Paid({}, set())
    for full, value in counters.items():
        which, _, rest = full.removeprefix(PREFIX).partition("|")
        what, _, rest = rest.partition("|")
        if which != str(day):
            continue
        first, _, namespace = rest.partition("|")
        if what == "paid":
            found.paid[first, unquote(namespace)] = value
        elif what == "limit":
            found.limits.add((int(first), None if namespace == _ALL else unquote(namespace)))
    return found


def standing(store: Store, clock: Callable[[], float] = time.time) -> list[BudgetState]:
    """How the budgets stand today that caches on a store were opened with, for one who has no cache at hand.

    Raises:
        StoreError: The store cannot be read.
    """
    day = int(clock() // _DAY_S)
    told = decode(store.counters(PREFIX), day)
    paid = _by_namespace((namespace, value) for (_, namespace), value in told.paid.items())
    order = sorted(told.limits, key=lambda limit: (limit[1] or "", limit[0]))
    return [_state(usd_micro, namespace, day, paid) for usd_micro, namespace in order]


def _state(usd_micro: int, namespace: str | None, day: int, paid: Counter[str]) -> BudgetState:
    spent = paid.total() if namespace is None else paid[namespace]
    return BudgetState(usd_micro, namespace, _EPOCH + timedelta(days=day), spent)


def _by_namespace(paid: Iterable[tuple[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for namespace, usd_micro in paid:
        total[namespace] += usd_micro
    return total


def _name(namespace: str | None) -> str:
    # quote() leaves no asterisk in a namespace.
    return _ALL if namespace is None else quote(namespace, safe="", errors="replace")


def _day_of(counter: str) -> int:
    day = counter.removeprefix(PREFIX).partition("|")[0]
    return int(day) if day.isdecimal() else 0
