"""Reading entries that are kept as bytes: what is absent, expired, damaged or another request's."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from semcache.errors import EntryDamaged
from semcache.stores.base import log_event
from semcache.stores.entry_codec import decode
from semcache.types import Entry, Event, Key


class PersistentStore(ABC):
    """``get`` and ``fetch`` over bytes."""

    def __init__(self) -> None:
        self.on_event: Callable[[Event], None] = log_event

    @abstractmethod
    def _load(self, id: int) -> bytes | None:
        """The bytes in a slot."""

    @abstractmethod
    def _load_many(self, ids: Sequence[int]) -> list[bytes | None]:
        """The bytes in many slots, in order."""

    @abstractmethod
    def _forget(self, ids: Sequence[int]) -> int:
        """Remove entries and tell the feed; return how many there were."""

    def get(self, key: Key) -> Entry | None:
        entry = self._read(key.id, self._load(key.id))
        if entry is None or entry.key.canonical == key.canonical:
            return entry
        self.on_event(Event("collision", f"two requests with the id {key.id:x}"))
        return None

    def fetch(self, ids: Sequence[int]) -> list[Entry | None]:
        return [self._read(id, data) for id, data in zip(ids, self._load_many(ids), strict=True)]

    def _read(self, id: int, data: bytes | None) -> Entry | None:
        if data is None:
            return None
        try:
            entry = decode(data)
        except EntryDamaged as error:
            self._forget((id,))
            self.on_event(Event("entry_damaged", f"entry {id:x}: {error}", error))
            return None
        return None if entry.expired(time.time()) else entry
