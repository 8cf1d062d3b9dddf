"""A graph index, for comparison only: see the notes on :class:`HnswIndex` for why it is no default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

import numpy as np

from semcache_indexes import _snapshot
from semcache_indexes._checks import check_batch, check_dim, check_query
from semcache_indexes._codec import rank, single_threaded_faiss
from semcache_indexes._lock import ReadersWriterLock
from semcache_indexes._rows import by_partition
from semcache_indexes.protocol import Ids, IndexDamaged, IndexStats, Match, Vectors

_LINKS = 32
_EF_CONSTRUCTION = 40
_EF_SEARCH = 64


class _Graph:
    """The graph of one partition. Rows are numbered as they come; a removed row stays as a way-point."""

    def __init__(self, dim: int, index: Any = None, ids: Sequence[int] = (), dead: Sequence[int] = ()) -> None:
        faiss = single_threaded_faiss()
        if index is None:
            index = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = _EF_CONSTRUCTION
        self.index = index
        self.ids = list(ids)
        self.dead = set(dead)
        self.rows = {id: row for row, id in enumerate(self.ids) if row not in self.dead}
        self._select()

    def _select(self) -> None:
        faiss = single_threaded_faiss()
        rows = np.fromiter(self.dead, np.int64, len(self.dead))
        self._selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(rows)) if self.dead else None

    def add(self, ids: list[int], vectors: Vectors) -> None:
        single_threaded_faiss()
        self.rows.update(zip(ids, range(len(self.ids), len(self.ids) + len(ids)), strict=True))
        self.ids += ids
        self.index.add(vectors)

    def remove(self, ids: list[int]) -> None:
        self.dead.update(self.rows.pop(id) for id in ids)
        self._select()

    def rebuilt(self) -> _Graph:
        """A graph of the live rows only."""
        vectors = self.index.reconstruct_n(0, len(self.ids))
        graph = _Graph(self.index.d)
        graph.add(list(self.rows), vectors[list(self.rows.values())])
        return graph

    def search(self, query: Vectors, k: int, floor: float) -> list[Match]:
        faiss = single_threaded_faiss()
        wanted = min(k, len(self.rows))
        params = faiss.SearchParametersHNSW(sel=self._selector, efSearch=max(_EF_SEARCH, wanted))
        cosines, rows = self.index.search(query[None, :], wanted, params=params)
        found = zip(rows[0].tolist(), np.clip(cosines[0], -1.0, 1.0).tolist(), strict=True)
        matches = [Match(self.ids[row], cosine) for row, cosine in found if row >= 0 and cosine >= floor]
        return sorted(matches, key=rank)


class HnswIndex:
    """One FAISS HNSW graph over float32 vectors for each partition.

    Why it is not the default: it needs 1.9 kB a vector, an add costs 0.1–0.3 ms under the lock that searches wait
    for, recall falls on clustered data (0.8–0.9 at a million), and nothing can be removed. A removal here is a mark:
    a selector hides the row, which goes on costing memory and time until half of the graph is dead and it is built
    anew, in the thread that removes.

    Args:
        dim: Length of the vectors.
    """

    kind: ClassVar[str] = "hnsw"

    def __init__(self, dim: int) -> None:
        self._dim = check_dim(dim)
        self._lock = ReadersWriterLock()  # an add beside a search would kill the process
        self._graphs: dict[int, _Graph] = {}
        self._where: dict[int, int] = {}

    @property
    def dim(self) -> int:
        return self._dim

    def add(self, ids: Sequence[int] | Ids, vectors: Vectors, partitions: Sequence[int] | Ids) -> None:
        names, rows, keys = check_batch(ids, vectors, partitions, self._dim)
        for key, members in by_partition(keys):
            chosen = names[members].tolist()
            with self._lock.writing:
                self._drop(chosen)
                self._graphs.setdefault(key, _Graph(self._dim)).add(chosen, rows[members])
                self._where.update(dict.fromkeys(chosen, key))

    def remove(self, ids: Sequence[int] | Ids) -> int:
        with self._lock.writing:
            return self._drop(np.unique(np.asarray(ids, dtype=np.int64)).tolist())

    def _drop(self, ids: list[int]) -> int:
        known = [id for id in ids if id in self._where]
        groups: dict[int, list[int]] = {}
        for id in known:
            groups.setdefault(self._where.pop(id), []).append(id)
        for key, gone in groups.items():
            graph = self._graphs[key]
            graph.remove(gone)
            if not graph.rows:
                del self._graphs[key]
            elif len(graph.dead) > len(graph.rows):
                self._graphs[key] = graph.rebuilt()
        return len(known)

    def search(self, vector: Vectors, *, partition: int, k: int = 8, min_similarity: float = -1.0) -> list[Match]:
        query = check_query(vector, k, self._dim)
        with self._lock.reading:
            graph = self._graphs.get(partition)
            return graph.search(query, k, min_similarity) if graph is not None else []

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, id: object) -> bool:
        return id in self._where

    def stats(self) -> IndexStats:
        with self._lock.reading:
            rows = sum(len(graph.ids) for graph in self._graphs.values())
            # Vector, links of the bottom layer and a few above it, level and offset, and the two dicts.
            row_bytes = 4 * self._dim + 4 * (2 * _LINKS + 2) + 12 + 250
            return IndexStats(self.kind, len(self._where), len(self._graphs), rows * row_bytes)

    def close(self) -> None:
        """Nothing runs in the background here."""

    def save(self, path: str | PathLike[str], meta: Mapping[str, str] | None = None) -> None:
        faiss = single_threaded_faiss()
        arrays: dict[str, Any] = {}
        with self._lock.reading:
            for key, graph in self._graphs.items():
                arrays[f"{key}/graph"] = faiss.serialize_index(graph.index)
                arrays[f"{key}/ids"] = np.array(graph.ids, dtype=np.int64)
                arrays[f"{key}/dead"] = np.fromiter(graph.dead, np.int64, len(graph.dead))
        _snapshot.write(path, _snapshot.Snapshot(self.kind, self._dim, dict(meta or {}), arrays))

    def restore(self, snapshot: _snapshot.Snapshot) -> None:
        """Take the rows of a snapshot into this index, which must be new.

        Raises:
            IndexDamaged: The snapshot is of another kind or dimension, or its arrays do not belong together.
        """
        _snapshot.expect(snapshot, self.kind, self._dim)
        faiss = single_threaded_faiss()
        try:
            for key in {int(name.partition("/")[0]) for name in snapshot.arrays}:
                data, ids, dead = (snapshot.arrays[f"{key}/{part}"] for part in ("graph", "ids", "dead"))
                graph = _Graph(self._dim, faiss.deserialize_index(data), ids.tolist(), dead.tolist())
                if (graph.index.d, graph.index.ntotal) != (self._dim, len(ids)):
                    raise ValueError(f"graph {key} does not fit its ids")
                self._graphs[key] = graph
                self._where.update(dict.fromkeys(graph.rows, key))
        except (KeyError, ValueError, RuntimeError) as error:
            raise IndexDamaged(f"the snapshot's arrays do not fit: {error}") from error
