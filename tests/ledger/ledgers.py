"""Ledgers at one noon, and a store that fails when told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import date

from semcache.errors import StoreError
from semcache.money.ledger import Ledger
from semcache.stores.memory import MemoryStore
from semcache.types import Outcome

DAY = date(2026, 11, 21)
NOON = (DAY - date(1970, 1, 1)).days * 86_400 + 43_200.0


class FailingStore(MemoryStore):
    """A memory store whose counters can be switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False

    def add_counters(self, deltas: Mapping[str, int], *, once: str | None = None) -> None:
        if self.down:
            raise StoreError("switched off")
        super().add_counters(deltas, once=once)


def at_noon(store: MemoryStore | None = None, **kwargs: object) -> Ledger:
    return Ledger(store, clock=lambda: NOON, **kwargs)  # type: ignore[arg-type]


def exact(**kwargs: object) -> Outcome:
    return Outcome("hit", "exact", **kwargs)  # type: ignore[arg-type]


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
