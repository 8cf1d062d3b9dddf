"""Entries to put into a store, and a follower of its feed."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from semcache.stores.base import Store
from semcache.stores.entry_codec import pack_vector
from semcache.types import Entry, Key, Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FINGERPRINT = "test:4"
_random = random.SystemRandom()


def make_entry(
    text: str = "How do I reset my password?",
    *,
    scope: str = "scope",
    vector: npt.NDArray[np.float32] | bytes | None = b"\x00\x3c" + bytes(6),
    fingerprint: str | None = FINGERPRINT,
    namespace: str = "default",
    tenant: str | None = None,
    tags: tuple[str, ...] = (),
    ttl: float | None = None,
    id: int | None = None,
) -> Entry:
    """An entry like those that the cache writes. Its vector is (1, 0, 0, 0) unless another is given."""
    canonical = f"{scope}\n{text}".encode()
    scope_id = int.from_bytes(scope.encode()[:7], "big")
    now = time.time()
    return Entry(
        key=Key(_random.getrandbits(63) if id is None else id, scope_id, canonical, len(scope)),
        text=text,
        response=b'{"answer":"' + text.encode() + b'"}',
        api="function",
        namespace=namespace,
        tenant=tenant,
        model="some-model",
        created_at=now,
        expires_at=None if ttl is None else now + ttl,
        latency_s=0.5,
        usage=Usage(12, 34, 5, 6, 7),
        tags=tags,
        vector=vector,
        fingerprint=None if vector is None else fingerprint,
    )


def as_stored(entry: Entry) -> Entry:
    """The entry as a store hands it back: equal, with its vector as float16 bytes."""
    return replace(entry, vector=pack_vector(entry.vector) or None)


class Follower:
    """Follows a store's feed the way an index does."""

    def __init__(self, store: Store, *, fingerprint: str = FINGERPRINT, limit: int = 1000) -> None:
        self.store = store
        self.fingerprint = fingerprint
        self.limit = limit
        self.cursor: str | None = None
        self.vectors: dict[int, tuple[float, ...]] = {}
        self.scopes: dict[int, int] = {}
        self.wrong: set[tuple[int, int]] = set()
        self.resets = 0

    def follow(self) -> Follower:
        for _ in range(10_000):
            page = self.store.changes(self.cursor, fingerprint=self.fingerprint, limit=self.limit)
            if page is None:
                return self
            assert len(page.ids) == len(page.scope_ids) == len(page.vectors)
            assert str(page.vectors.dtype) == "float32"
            assert not set(page.ids.tolist()) & set(page.removed)
            if page.reset:
                self.resets += 1
                self.vectors.clear()
                self.scopes.clear()
                self.wrong.clear()
            for id in page.removed:
                self.vectors.pop(id, None)
                self.scopes.pop(id, None)
            for id, scope_id, vector in zip(page.ids.tolist(), page.scope_ids.tolist(), page.vectors, strict=True):
                self.vectors[id] = tuple(vector.tolist())
                self.scopes[id] = scope_id
            self.wrong.update(page.wrong_pairs)
            self.cursor = page.cursor
            if not page.more:
                return self
        raise AssertionError("the feed does not come to its end")
