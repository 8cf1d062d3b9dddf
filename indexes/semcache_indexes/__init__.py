"""Vectors with integer ids in, scored ids out, inside partitions.

Knows nothing of language models and never imports ``semcache``. Similarity is cosine everywhere, higher is closer.

::

    index = create("ladder", dim=384)
    index.add([1, 2], vectors, [0, 0])
    index.search(query, partition=0, k=8)           # [Match(id=2, similarity=0.97), ...]
    index.save("index.scix", {"cursor": "17"})
    index, meta = load("index.scix")

FAISS runs on one thread in every thread that calls an index, see ``_codec.single_threaded_faiss``.
"""

from __future__ import annotations

from os import PathLike
from typing import Final, Literal, get_args

from semcache_indexes import _snapshot
from semcache_indexes._folding import Exact
from semcache_indexes.flat import FlatIndex
from semcache_indexes.hnsw import HnswIndex
from semcache_indexes.ivf import IvfIndex
from semcache_indexes.ladder import LadderIndex
from semcache_indexes.protocol import IndexDamaged, IndexStats, Match, VectorIndex

Kind = Literal["flat", "ivf", "hnsw", "ladder"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

__all__ = [
    "KINDS",
    "Exact",
    "FlatIndex",
    "HnswIndex",
    "IndexDamaged",
    "IndexStats",
    "IvfIndex",
    "Kind",
    "LadderIndex",
    "Match",
    "VectorIndex",
    "create",
    "load",
]


def create(kind: Kind = "ladder", dim: int = 384, *, exact: Exact | None = None) -> VectorIndex:
    """An empty index.

    Args:
        kind: One of ``KINDS``.
        dim: Length of the vectors.
        exact: A source of exact vectors for ``ivf`` and ``ladder``; the others score exactly without one.

    Raises:
        ValueError: No such kind, or ``dim`` below 1.
    """
    return _empty(kind, dim, exact)


def load(
    path: str | PathLike[str],
    *,
    kind: Kind | None = None,
    dim: int | None = None,
    exact: Exact | None = None,
) -> tuple[VectorIndex, dict[str, str]]:
    """Read what ``save`` wrote: the index, and the notes that were saved with it.

    Args:
        path: The file.
        kind: The kind that is expected; ``None`` takes any.
        dim: The dimension that is expected; ``None`` takes any.
        exact: As for :func:`create`; it is not part of the file.

    Raises:
        IndexDamaged: The file is cut short, changed, of another format version, kind or dimension.
        OSError: It cannot be read; FileNotFoundError if it is not there.
    """
    snapshot = _snapshot.read(path)
    _snapshot.expect(snapshot, kind or snapshot.kind, dim or snapshot.dim)
    try:
        index = _empty(snapshot.kind, snapshot.dim, exact)
    except ValueError as error:
        raise IndexDamaged(f"{path}: {error}") from error
    index.restore(snapshot)
    return index, snapshot.meta


def _empty(kind: str, dim: int, exact: Exact | None) -> FlatIndex | HnswIndex | IvfIndex | LadderIndex:
    if kind == "flat":
        return FlatIndex(dim)
    if kind == "hnsw":
        return HnswIndex(dim)
    if kind == "ivf":
        return IvfIndex(dim, exact=exact)
    if kind == "ladder":
        return LadderIndex(dim, exact=exact)
    raise ValueError(f"no index of kind {kind!r}; there are {', '.join(KINDS)}")
