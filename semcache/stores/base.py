"""What every store promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from semcache.types import Entry, Key

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Selector(NamedTuple):
    """Which entries to delete: those that match every field that is set. A selector with nothing set is refused."""

    ids: tuple[int, ...] | None = None
    tag: str | None = None
    namespace: str | None = None
    tenant: str | None = None
    scope_id: int | None = None
    everything: bool = False


class Changes(NamedTuple):
    """A page of the store's change feed.

    Args:
        ids: int64 [n], entries added or replaced since the cursor, each with a vector of the asked fingerprint.
        scope_ids: int64 [n].
        vectors: float32 [n, d].
        removed: Ids of entries that went away.
        wrong_pairs: Pairs of entry ids reported wrong since the cursor, smaller id first.
        cursor: Where the next page starts.
        more: Whether another page is waiting.
        reset: The cursor was too old (or not of this store): forget everything, this page starts from the beginning.
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


class Store(Protocol):
    """Keeps entries, wrong pairs and ledger counters.

    Contract (each line is a test in ``semcache.testing.store_contract``):

    - ``get`` serves an entry only if its canonical bytes equal the key's; another entry in the slot is absent, and
      is reported to ``on_event`` as ``collision``.
    - ``get`` and ``fetch`` never return an expired entry, and never a torn one: bytes that cannot be read are absent,
      are removed, and are reported as ``entry_damaged``.
    - ``put`` replaces what is in the slot. When it returns, the entry survives ``kill -9`` (persistent stores) and is
      visible to every process on the store.
    - Entries may vanish at any time (TTL, capacity, another process).
    - Trouble raises ``StoreError`` within the store's time budget, and ``StoreUnavailable`` at once while its breaker
      is open. No other exception for I/O trouble; a wrong argument raises ConfigurationError at construction.
    - Safe for threads and usable after fork; several processes may share a persistent store.
    - ``changes`` with cursor ``None`` starts at the beginning and, followed until ``more`` is false, yields every live
      entry that has a vector of that fingerprint, then later changes (by any process) in order. Own changes are
      included. An added entry may be reported more than once; a removal is never lost (or ``reset`` is true).
    - ``mark_wrong`` pairs survive the deletion of their entries. They are bounded in number: the oldest go first.
    - Ledger counters are added up atomically across processes.

    ``inline_reads`` / ``inline_writes``: whether the call is quick enough (tens of microseconds, no network) to run
    on an event loop's own thread.
    """

    inline_reads: bool
    inline_writes: bool

    def get(self, key: Key) -> Entry | None:
        """The live entry of this key. One round trip."""

    def fetch(self, ids: Sequence[int]) -> list[Entry | None]:
        """Live entries by id, in order; ``None`` for those that are gone. One round trip."""

    def put(self, entry: Entry) -> None:
        """Keep an entry, replacing the one in its slot."""

    def delete(self, selector: Selector) -> int:
        """Delete what matches; return how many."""

    def changes(self, cursor: str | None, *, fingerprint: str, limit: int = 1000) -> Changes | None:
        """What changed since ``cursor``; ``None`` when nothing did (must be very cheap in that case)."""

    def mark_wrong(self, a: int, b: int) -> None:
        """Remember that the questions with these entry ids must never answer each other."""

    def add_counters(self, deltas: Mapping[str, int]) -> None:
        """Add to named ledger counters."""

    def counters(self, prefix: str = "") -> dict[str, int]:
        """All ledger counters whose name starts with ``prefix``."""

    def scopes(self, limit: int = 1000) -> dict[int, int]:
        """Scope ids with their number of entries, largest first."""

    def stats(self) -> StoreStats: ...

    def ping(self) -> None:
        """Raise StoreError if the store cannot be used now."""

    def close(self) -> None: ...
