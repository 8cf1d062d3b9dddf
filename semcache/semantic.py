"""The semantic tier: embedder, vector index, and the store's change feed that keeps the index true.

The index is only a finder. What is served, and the similarity that is judged, comes from the entry in the store, so
an index that lags behind costs hits, never a wrong answer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semcache.breaker import Breaker
from semcache.errors import StoreError, VectorIndexError
from semcache.steps import Near
from semcache.types import Entry, Event, Key

if TYPE_CHECKING:
    from semcache_indexes import Kind as IndexKind
    from semcache_indexes.protocol import Match, VectorIndex

    from semcache.embedders.queue import EmbeddingQueue
    from semcache.policy import Policy
    from semcache.stores.base import Changes, Store
    from semcache.types import Vector

MAX_WRONG_PAIRS = 100_000
WARM_WAIT_S = 2.0
"""Seconds that a look-up waits for the index to be filled."""
SNAPSHOT_FROM = 2_000
"""Below this many vectors a rebuild from the store is as quick as reading a snapshot."""


class SemanticTier:
    """Finds stored questions near to a vector, inside one scope.

    The first use starts a warm-up in a thread of its own: a snapshot is loaded if there is a sound one, then the
    store's feed is followed to its end. Look-ups wait for it a little and then go on without the tier. One that fails
    is tried again after a pause.

    Args:
        store: Where entries live.
        queue: The embedder behind its queue.
        make_index: Makes an empty index for vectors of a given length.
        load_index: Loads a snapshot: path to (index, meta). Raises on a damaged one.
        snapshot: Where the snapshot lives; ``None`` keeps none.
        emit: Takes events.
    """

    def __init__(
        self,
        store: Store,
        queue: EmbeddingQueue,
        *,
        make_index: Callable[[int], VectorIndex],
        load_index: Callable[[Path], tuple[VectorIndex, dict[str, str]]],
        snapshot: Path | None,
        emit: Callable[[Event], None],
    ) -> None:
        self.queue = queue
        self._store = store
        self._make_index = make_index
        self._load_index = load_index
        self._snapshot = snapshot
        self._emit = emit
        self._wrong: dict[tuple[int, int], None] = {}
        self._reset_process_state()
        self._index: VectorIndex | None = None
        self._cursor: str | None = None

    def _reset_process_state(self) -> None:
        self._start = threading.Lock()
        self._sync = threading.Lock()
        self._warm = threading.Event()
        self._attempt: threading.Event | None = None
        self._breaker = Breaker()

    def after_fork(self) -> None:
        """In a child: locks and threads of the parent are gone; the index is a copy that is true up to the cursor."""
        was_warm = self._warm.is_set()
        self._reset_process_state()
        if was_warm:
            self._warm.set()
        else:
            self._index, self._cursor = None, None

    # Finding ------------------------------------------------------------------------------------------------------

    def search(self, key: Key, vector: Vector, k: int, floor: float) -> list[Match]:
        """Ids of the ``k`` nearest questions of the key's scope, approximate similarity at least ``floor``.

        Raises:
            CacheTrouble: The store's feed or the index failed.
        """
        if not self._ready():
            return []
        self.refresh()
        assert self._index is not None
        try:
            return self._index.search(vector, partition=key.scope_id, k=k, min_similarity=floor)
        except Exception as error:
            raise VectorIndexError(f"search failed: {error}") from error

    def near(self, key: Key, vector: Vector, entries: Sequence[Entry | None], floor: float) -> list[Near]:
        """Fetched candidates with their true cosine, best first, without the question itself or another scope's."""
        found = []
        fingerprint, scope = self.queue.fingerprint, key.scope
        for entry in entries:
            if entry is None or entry.fingerprint != fingerprint:
                continue
            stored = entry.embedding()
            if stored is None:
                continue
            if entry.key.scope != scope:  # two scopes with one 63-bit hash
                self._emit(Event("collision", f"scope {key.scope_id:x} has two meanings"))
                continue
            similarity = float(stored @ vector) / (math.sqrt(stored @ stored) or 1.0)
            if similarity >= floor:
                found.append(Near(entry, min(1.0, similarity), self.is_wrong(key.id, entry.key.id)))
        found.sort(key=lambda near: near.similarity, reverse=True)
        return found

    @property
    def any_wrong(self) -> bool:
        """Whether any pair was ever reported."""
        return bool(self._wrong)

    def is_wrong(self, a: int, b: int) -> bool:
        """Whether these two questions were reported not to share an answer."""
        return _pair(a, b) in self._wrong

    # Changing -----------------------------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Index an entry that this process has just stored, before the feed brings it round."""
        vector = entry.embedding()
        if vector is None or self._index is None or not self._warm.is_set():
            return
        try:
            self._index.add([entry.key.id], vector[None, :], [entry.key.scope_id])
        except Exception as error:
            raise VectorIndexError(f"add failed: {error}") from error

    def remove(self, ids: Sequence[int]) -> None:
        if self._index is not None:
            self._index.remove(list(ids))

    def forget(self) -> None:
        """Entries were erased from the store: keep none of their vectors, nor a snapshot that has them."""
        with self._sync:
            if self._snapshot is not None:
                self._snapshot.unlink(missing_ok=True)
            if self._index is not None:
                self._follow()

    def mark_wrong(self, a: int, b: int) -> None:
        self._wrong[_pair(a, b)] = None
        while len(self._wrong) > MAX_WRONG_PAIRS:
            del self._wrong[next(iter(self._wrong))]

    # Following the store ------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take over what changed in the store since the last look. One thread does it; others do not wait."""
        if self._sync.acquire(blocking=False):
            try:
                self._follow()
            finally:
                self._sync.release()

    def _follow(self) -> None:
        while True:
            changes = self._store.changes(self._cursor, fingerprint=self.queue.fingerprint)
            if changes is None:
                return
            self._apply(changes)
            if not changes.more:
                return

    def _apply(self, changes: Changes) -> None:
        if self._index is None or (changes.reset and len(self._index)):
            self._index = self._make_index(self.queue.dim)
        if changes.removed:
            self._index.remove(list(changes.removed))
        for a, b in changes.wrong_pairs:
            self.mark_wrong(a, b)
        if len(changes.ids):
            # An id stands for one text and the feed for one embedder, so a known id has this very vector already.
            new = [i for i, id in enumerate(changes.ids.tolist()) if id not in self._index]
            if new:
                self._index.add(changes.ids[new], changes.vectors[new], changes.scope_ids[new])
        self._cursor = changes.cursor

    def _ready(self) -> bool:
        if self._warm.is_set():
            return True
        with self._start:
            if self._attempt is None and self._breaker.allow():
                self._attempt = threading.Event()
                warm_up = threading.Thread(
                    target=self._warm_up, args=(self._attempt,), name="semcache-warm", daemon=True
                )
                try:
                    warm_up.start()
                except RuntimeError as error:  # else every look-up from now on would wait for it
                    self._attempt = None
                    self._breaker.failure()
                    raise VectorIndexError(f"the index could not be filled: {error}") from error
            attempt = self._attempt
        if attempt is not None:
            attempt.wait(WARM_WAIT_S)
        return self._warm.is_set()

    def _warm_up(self, attempt: threading.Event) -> None:
        try:
            with self._sync:
                self._load_snapshot()
                if self._index is None:
                    self._index = self._make_index(self.queue.dim)
                self._follow()
        except Exception as error:
            kind = "store_error" if isinstance(error, StoreError) else "index_error"
            self._breaker.failure()
            self._emit(Event(kind, f"the index could not be filled: {error}", error))
        else:
            self._breaker.success()
            self._warm.set()
        finally:
            self._attempt = None
            attempt.set()

    # Snapshots ----------------------------------------------------------------------------------------------------

    def _load_snapshot(self) -> None:
        if self._snapshot is None or self._cursor is not None or not self._snapshot.exists():
            return
        try:
            index, meta = self._load_index(self._snapshot)
            pairs = meta.get("wrong_pairs", "")
            wrong = [(int(a), int(b)) for a, b in (pair.split("-") for pair in pairs.split(",") if pair)]
            cursor = meta["cursor"]
        except Exception as error:
            self._emit(Event("index_rebuilt", f"{self._snapshot}: {error}; rebuilding from the store", error))
            return
        if meta.get("fingerprint") != self.queue.fingerprint:
            self._emit(Event("index_rebuilt", f"{self._snapshot} is of another embedder; rebuilding"))
            return
        self._index, self._cursor = index, cursor
        for a, b in wrong:
            self.mark_wrong(a, b)

    def save_snapshot(self) -> None:
        """Write the index beside the store, so that the next process need not rebuild it."""
        index = self._index
        if self._snapshot is None or index is None or self._cursor is None or len(index) < SNAPSHOT_FROM:
            return
        with self._sync:
            try:
                self._follow()  # what has been deleted since must not come back in a file
            except StoreError as error:
                self._emit(Event("store_error", f"{self._snapshot} was not written: {error}", error))
                return
            meta = {
                "cursor": self._cursor,
                "fingerprint": self.queue.fingerprint,
                "wrong_pairs": ",".join(f"{a}-{b}" for a, b in self._wrong),
            }
            try:
                index.save(self._snapshot, meta)
            except Exception as error:
                self._emit(Event("index_error", f"{self._snapshot} was not written: {error}", error))

    @property
    def warm(self) -> bool:
        """Whether the index has caught up with the store once."""
        return self._warm.is_set()

    @property
    def index(self) -> VectorIndex | None:
        return self._index

    def close(self) -> None:
        self.save_snapshot()
        self.queue.close()
        if self._index is not None:
            self._index.close()


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def open_tier(
    store: Store,
    index: IndexKind | Callable[[int], VectorIndex],
    embedder: Any,
    policy: Policy,
    emit: Callable[[Event], None],
) -> SemanticTier | None:
    """The tier that a policy asks for, or ``None`` if it asks for none. Loads no model.

    Raises:
        ConfigurationError: No embedder is installed, or the policy was made for another one.
    """
    if not policy.any_semantic:
        return None
    from semcache.embedders import EmbeddingQueue, resolve

    queue = EmbeddingQueue(resolve(embedder), budget_s=policy.embed_budget_s)
    if policy.evidence is not None or policy.scoring is not None:
        policy.check_embedder(queue.fingerprint)

    def make_index(dim: int) -> VectorIndex:
        if callable(index):
            return index(dim)
        import semcache_indexes

        return semcache_indexes.create(index, dim)

    def load_index(path: Path) -> tuple[VectorIndex, dict[str, str]]:
        import semcache_indexes

        return semcache_indexes.load(path)

    return SemanticTier(
        store,
        queue,
        make_index=make_index,
        load_index=load_index,
        snapshot=getattr(store, "snapshot_path", None),
        emit=emit,
    )
