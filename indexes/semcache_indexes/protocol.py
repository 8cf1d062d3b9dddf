"""What every vector index promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class Match(NamedTuple):
    """One search result. ``similarity`` is cosine in [-1, 1], higher is closer."""

    id: int
    similarity: float


class IndexStats(NamedTuple):
    """Size of an index. ``bytes`` counts the memory of vectors and book-keeping, as nearly as can be told."""

    kind: str
    vectors: int
    partitions: int
    bytes: int


class IndexDamaged(Exception):
    """A saved index that is torn, corrupt, or of another format, kind or dimension. Rebuild it."""


@runtime_checkable
class VectorIndex(Protocol):
    """Vectors with integer ids in, scored ids out, inside partitions.

    Contract (each line is a test in ``semcache_indexes.testing``):

    - Ids are the caller's, stable, any int64 >= 0; an id lives in one partition. ``add`` of a known id replaces it.
    - ``search`` never returns an id of another partition, at any size, however few the partition holds.
    - ``search`` returns at most ``k`` matches, best first, none below ``min_similarity``, no id twice.
    - A partition that does not exist is empty, not an error.
    - ``remove`` of unknown ids is not an error; it returns how many were there. A removed id is never returned again.
    - Vectors are L2-normalised float32; a vector of wrong shape, not finite, or whose length is off by more than 0.01
      raises ValueError and changes nothing. So do a negative id and a ``k`` below 1.
    - Searches may run beside searches, adds and removes from any thread; a search sees an id wholly or not at all.
    - ``save`` is atomic: a crash leaves the old file or the new one. ``load`` of a damaged file raises IndexDamaged.
    """

    @property
    def dim(self) -> int:
        """Length of the vectors."""

    def add(self, ids: Sequence[int] | Ids, vectors: Vectors, partitions: Sequence[int] | Ids) -> None:
        """Add or replace; ``vectors`` is float32 [n, dim], ``ids`` and ``partitions`` have length n."""

    def remove(self, ids: Sequence[int] | Ids) -> int:
        """Remove ids; return how many were there."""

    def search(self, vector: Vectors, *, partition: int, k: int = 8, min_similarity: float = -1.0) -> list[Match]:
        """The ``k`` nearest of one partition; ``vector`` is float32 [dim]."""

    def save(self, path: str | PathLike[str], meta: Mapping[str, str] | None = None) -> None:
        """Write a checksummed snapshot to one file, atomically, with the caller's own notes.

        :func:`semcache_indexes.load` gives both back.
        """

    def stats(self) -> IndexStats: ...

    def close(self) -> None:
        """Stop background work; wait for it."""

    def __len__(self) -> int: ...

    def __contains__(self, id: object) -> bool: ...
