"""Reading entries that are kept as bytes: what is absent, expired, damaged or another request's."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from semcache.errors import EntryDamaged
from semcache.stores.base import Selector, log_event
from semcache.stores.entry_codec import decode
from semcache.stores.sealing import Keyring, KeySource, Locked, is_sealed
from semcache.types import Entry, Event, Key

Stored = tuple[bytes, ...]
"""An entry as a store keeps it: in one piece, or its own part and the shared one, each encrypted by itself."""

SHARED_SLOT: Final = 0
"""The slot under which shared parts are encrypted: they are of many entries, whose own parts say which they go with."""


class PersistentStore(ABC):
    """``get`` and ``fetch`` over bytes.

    Args:
        key: Keys to encrypt with; ``None`` writes plain entries.
    """

    def __init__(self, key: KeySource | None = None) -> None:
        self.on_event: Callable[[Event], None] = log_event
        self.keep_expired_s = 0.0
        self._keyring = None if key is None else Keyring(key)
        self._locked_told: set[str] = set()

    @property
    def mask_key(self) -> bytes | None:
        """A secret that all processes with the store's key have, for masking."""
        return None if self._keyring is None else self._keyring.mask_key

    @abstractmethod
    def _load(self, id: int) -> Stored | None:
        """What is in a slot."""

    @abstractmethod
    def _load_many(self, ids: Sequence[int]) -> list[Stored | None]:
        """What is in many slots, in order."""

    @abstractmethod
    def _forget(self, ids: Sequence[int]) -> int:
        """Remove entries and tell the feed; return how many there were."""

    def _seal(self, slot: int, data: bytes) -> bytes:
        """Bytes as they are written."""
        return data if self._keyring is None else self._keyring.seal(slot, data)

    def _name(self, kind: str, text: str) -> str:
        """A tenant, namespace or tag as it is written beside the entries."""
        return text if self._keyring is None else self._keyring.name(kind, text)

    def _selectors(self, selector: Selector) -> list[Selector]:
        """A selector in the names that are written beside the entries; an entry may match any of them."""
        return [selector] if self._keyring is None else self._keyring.selectors(selector)

    def get(self, key: Key, *, stale_s: float = 0.0) -> Entry | None:
        entry = self._read(key.id, self._load(key.id), stale_s)
        if entry is None or entry.key.canonical == key.canonical:
            return entry
        self.on_event(Event("collision", f"two requests with the id {key.id:x}"))
        return None

    def fetch(self, ids: Sequence[int]) -> list[Entry | None]:
        return [self._read(id, stored) for id, stored in zip(ids, self._load_many(ids), strict=True)]

    def _read(self, id: int, stored: Stored | None, stale_s: float = 0.0) -> Entry | None:
        if stored is None:
            return None
        try:
            entry = decode(id, self._open(id, *stored))
        except Locked as error:
            self._tell_locked(error)
            return None
        except EntryDamaged as error:
            self._forget((id,))
            self.on_event(Event("entry_damaged", f"entry {id:x}: {error}", error))
            return None
        return None if entry.expired(time.time() - stale_s) else entry

    def _open(self, id: int, own: bytes, shared: bytes = b"") -> bytes:
        """What :func:`decode` reads."""
        if self._keyring is not None:
            return self._keyring.open(id, own) + (self._keyring.open(SHARED_SLOT, shared) if shared else b"")
        if is_sealed(own):
            raise Locked("encrypted, and this process was given no key")
        return own + shared

    def _tell_if_locked(self, slot: int, data: bytes) -> None:
        """Say so of what cannot be opened: nobody here can tell whose it is."""
        try:
            self._open(slot, data)
        except Locked as error:
            self._tell_locked(error)
        except EntryDamaged:
            pass  # whoever reads it next removes it

    def _tell_locked(self, error: Locked) -> None:
        """Say so once: a whole store may be locked. The entries stay, since others may have the key."""
        if str(error) not in self._locked_told:
            self._locked_told.add(str(error))
            self.on_event(Event("entry_locked", f"entries are {error}: they are misses here", error))
