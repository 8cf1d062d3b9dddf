"""What every store promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from semcache.errors import ConfigurationError
from semcache.events import emit
from semcache.types import Entry, Event, Key

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


DEFAULT_BUDGET_S: Final = 0.05
"""Seconds that trouble with a store may cost a call."""


class Selector(NamedTuple):
    """Which entries to delete: those that match every field that is set. With nothing set it is refused."""

    ids: tuple[int, ...] | None = None
    tag: str | None = None
    namespace: str | None = None
    tenant: str | None = None
    scope_id: int | None = None
    everything: bool = False

    def check(self) -> None:
        """
        Raises:
            ConfigurationError: Nothing is set, or an id is not of 63 bits.
        """
        if self == Selector():
            raise ConfigurationError("nothing is selected; to delete all entries set everything=True")
        for id in (*(self.ids or ()), self.scope_id or 0):
            if not 0 <= id < 2**63:
                raise ConfigurationError(f"{id} is no id: ids are from 0 to {2**63 - 1}")

    def matches(self, id: int, *, scope_id: int, namespace: str, tenant: str | None, tags: Sequence[str]) -> bool:
        """Whether an entry with these properties is selected."""
        return (
            (self.ids is None or id in self.ids)
            and (self.tag is None or self.tag in tags)
            and (self.namespace is None or self.namespace == namespace)
            and (self.tenant is None or self.tenant == tenant)
            and (self.scope_id is None or self.scope_id == scope_id)
        )


class Changes(NamedTuple):
    """A page of the store's change feed. No id is both in ``ids`` and in ``removed``.

    Args:
        ids: int64 [n], entries added or replaced since the cursor, each with a vector of the asked fingerprint.
        scope_ids: int64 [n].
        vectors: float32 [n, d].
        removed: Ids that went away, or are no longer of the asked fingerprint. Some may never have been reported.
        wrong_pairs: Pairs of entry ids reported wrong since the cursor, smaller id first.
        cursor: Where the next page starts.
        more: Whether another page is waiting.
        reset: The cursor was too old (or not of this store): forget everything, this page starts from the
            beginning.
    """

    ids: npt.NDArray[np.int64]
    scope_ids: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    removed: tuple[int, ...]
    wrong_pairs: tuple[tuple[int, int], ...]
    cursor: str
    more: bool
    reset: bool


class StoreStats(NamedTuple):
    """Size of a store; ``bytes`` is what the entries take, ``None`` where it cannot be told cheaply."""

    kind: str
    location: str
    entries: int
    bytes: int | None


def log_event(event: Event) -> None:
    """What ``Store.on_event`` is until a cache takes the store."""
    emit((), event)


class Store(Protocol):
    """Keeps entries, wrong pairs and ledger counters.

    Contract (each line is a test in ``semcache.testing.store_contract``):

    - ``get`` serves an entry only if its canonical bytes equal the key's; another entry in the slot is absent,
      and is reported to ``on_event`` as ``collision``.
    - ``get`` and ``fetch`` never return an expired entry, and never a torn one: bytes that cannot be read are
      absent, are removed, and are reported as ``entry_damaged``.
    - ``get`` with ``stale_s`` returns one that expired less than so many seconds ago; it is kept that long, if that is
      not longer than ``keep_expired_s``.
    - ``put`` replaces what is in the slot. When it returns, the entry survives ``kill -9`` (persistent stores)
      and is visible to every process on the store.
    - Entries may vanish at any time (TTL, capacity, another process).
    - An entry is not changed by anyone once it was put or got: stores may hand out one object to many.
    - Trouble raises ``StoreError`` within the store's time budget, and ``StoreUnavailable`` at once while its
      breaker is open. No other exception for I/O trouble; a wrong argument raises ConfigurationError at
      construction.
    - Safe for threads and usable after fork; several processes may share a persistent store.
    - ``changes`` with cursor ``None`` starts at the beginning and, followed until ``more`` is false or nothing
      comes, yields every live entry that has a vector of that fingerprint, then later changes (by any process)
      in order. Own changes are included. An added entry may be reported more than once; a deletion is never lost
      (or ``reset`` is true).
    - ``mark_wrong`` pairs survive the deletion of their entries. They are bounded in number: the oldest go first.
    - Ledger counters are added up atomically across processes.

    ``inline_reads`` / ``inline_writes``: whether the call is quick enough (tens of microseconds, no network) to
    run on an event loop's own thread. ``on_event`` takes what the store has to report beside its answers, and
    ``keep_expired_s`` is for how many seconds expired entries are kept: both are set by the cache that uses the store.
    """

    inline_reads: bool
    inline_writes: bool
    on_event: Callable[[Event], None]
    keep_expired_s: float

    def get(self, key: Key, *, stale_s: float = 0.0) -> Entry | None:
        """The live entry of this key, or one that expired less than ``stale_s`` seconds ago. One round trip."""

    def fetch(self, ids: Sequence[int]) -> list[Entry | None]:
        """Live entries by id, in order; ``None`` for those that are gone. One round trip."""

    def put(self, entry: Entry) -> None:
        """Keep an entry, replacing the one in its slot."""

    def delete(self, selector: Selector) -> int:
        """Delete what matches; return how many."""

    def erase(self, selector: Selector) -> int:
        """As ``delete``, and leave nothing behind that could be read: copies, logs, free space, wrong pairs.

        Entries under a key that this process was not given stay, and are reported as ``entry_locked``.
        """

    def changes(self, cursor: str | None, *, fingerprint: str, limit: int = 1000) -> Changes | None:
        """What changed since ``cursor``; ``None`` when nothing did (must be very cheap in that case).

        Without a cursor it is never ``None``. ``limit`` is about how many entries a page has.
        """

    def mark_wrong(self, a: int, b: int) -> None:
        """Remember that the questions with these entry ids must never answer each other.

        One of the two may be the id of an answer, which must then never answer the other.
        """

    def add_counters(self, deltas: Mapping[str, int], *, once: str | None = None) -> None:
        """Add to named ledger counters. After a StoreError some or all may have been added.

        With a name of the caller's own in ``once``, a call that raised can be made again under that name for an hour:
        the counts are added once, whatever had become of it.
        """

    def counters(self, prefix: str = "") -> dict[str, int]:
        """All ledger counters whose name starts with ``prefix``."""

    def drop_counters(self, names: Sequence[str]) -> None:
        """Remove named counters; those that are not there do not matter."""

    def scopes(self, limit: int = 1000) -> dict[int, int]:
        """Scope ids with their number of entries, largest first."""

    def stats(self) -> StoreStats: ...

    def ping(self) -> None:
        """Raise StoreError if the store cannot be used now."""

    def close(self) -> None: ...
