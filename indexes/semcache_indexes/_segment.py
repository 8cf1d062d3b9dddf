"""The large part of a large partition: rows sorted into clusters, one byte a component, never changed in place."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from semcache_indexes._codec import Codec, Codes, Nearest, single_threaded_faiss
from semcache_indexes._rows import members
from semcache_indexes.protocol import Ids, Vectors

PROBES = 16
"""Clusters scanned by a search. Among 94,000 MiniLM embeddings of real questions the nearest row, where its cosine was
at least 0.9, was among the first 8 found in all of 452 searches, and at 0.8 in 99.7 % of 785. Over all searches, with
or without a near row, recall@1 was 0.94, at 8 probes 0.92 and at 32 0.96 (in 0.8 and 1.8 times the time)."""

CLIP = 0.01
"""By how much cutting off components outside the code's range may move a vector, and so any cosine."""

_MATRICES = ("ranges", "centroids", "bounds", "ids", "codes")
_REGROW = 2  # Clusters are made anew when there are this many times the rows they were made for.
_SAMPLES = 32  # Vectors that k-means sees per cluster.
_ROUNDS = 10  # Rounds of k-means.
_CHUNK = 2048  # Rows decoded at a time.


class Cancelled(Exception):
    """The index is being closed: the work was given up."""


class Rows(NamedTuple):
    """Rows that are to go into a segment: ``ids`` is int64 [n], ``codes`` are of ``codec``."""

    ids: Ids
    codes: Codes
    codec: Codec


class Segment:
    """An inverted file over 8-bit codes: n rows take n * (dim + 12) bytes, and the centroids 2 * sqrt(n) * dim.

    The cosines are those of the codes. Over 94,000 MiniLM embeddings they were off by at most 0.0023.

    The arrays are never written after construction, so a search needs no lock for them. Removed rows are only named
    in ``dead``; the next :func:`merge` leaves them out.

    Args:
        codec: ``sq8``, with the ranges that ``codes`` and ``centroids`` were made with.
        centroids: uint8 [lists, row_bytes].
        bounds: int64 [lists + 1]; rows ``bounds[i]:bounds[i + 1]`` are list i.
        ids: int64 [n].
        codes: uint8 [n, row_bytes].
        trained_on: How many rows there were when the centroids were made.
        dead: Ids of removed rows. Changed by the owner, under its lock.
    """

    def __init__(
        self,
        codec: Codec,
        centroids: Codes,
        bounds: Ids,
        ids: Ids,
        codes: Codes,
        trained_on: int,
        dead: Collection[int] = (),
    ) -> None:
        self.codec = codec
        self.centroids = centroids
        self.bounds = bounds
        self.ids = ids
        self.codes = codes
        self.trained_on = trained_on
        self.dead = set(dead)
        # Finds an id in four bytes a row; a dict takes over a hundred.
        self._order = np.argsort(ids, kind="stable").astype(np.int32)
        self._lists = np.arange(len(centroids), dtype=np.int64)
        # Single items come out of a memoryview three times as fast as out of an array.
        self._id_at, self._row_at, self._bound_at = self.ids.data, self._order.data, self.bounds.data

    def __len__(self) -> int:
        return len(self.ids) - len(self.dead)

    @property
    def bytes(self) -> int:
        arrays = (self.centroids, self.bounds, self.ids, self.codes, self._order, self._lists)
        return sum(array.nbytes for array in arrays) + 8 * self.codec.dim + 96 * len(self.dead)

    def held(self, ids: list[int]) -> list[int]:
        """Those of ``ids`` that are here and not removed."""
        if not len(self.ids):
            return []
        if len(ids) < 32:
            return [id for id in ids if self._holds(id) and id not in self.dead]
        wanted = np.array(ids, dtype=np.int64)
        # numpy copies the order to int64 on each call, so this pays for many ids only.
        at = np.searchsorted(self.ids, wanted, sorter=self._order)
        at[at == len(self.ids)] = 0
        found = self.ids[self._order[at]] == wanted
        return [id for id in wanted[found].tolist() if id not in self.dead]

    def _holds(self, id: int) -> bool:
        ids, rows = self._id_at, self._row_at
        at = bisect_left(range(len(ids)), id, key=lambda rank: ids[rows[rank]])
        return at < len(ids) and ids[rows[at]] == id

    def search(self, query: Vectors, k: int, floor: float) -> list[tuple[int, float]]:
        """Ids and cosines of about the ``k`` nearest rows, best first, none of them removed."""
        lists = self._nearest_lists(query, k)
        found = self._scan(query, lists, k, floor)
        if len(found) == k and any(id in self.dead for id, _ in found):
            found = self._scan(query, lists, k + len(self.dead), floor)
        return [match for match in found if match[0] not in self.dead][:k]

    def _nearest_lists(self, query: Vectors, k: int) -> list[int]:
        """The lists to scan: more than ``PROBES`` only where those are likely to hold fewer than ``k`` live rows."""
        probes = PROBES
        while True:
            probes = min(probes, len(self.centroids))
            nearest = Nearest(query, probes)
            nearest.scan(self.codec, self.centroids, self._lists)
            lists = [number for number, _ in nearest.ranked()]
            rows = sum(stop - start for start, stop in self._spans(lists))
            if rows * len(self) >= k * len(self.ids) or probes == len(self.centroids):
                return lists
            probes *= 4

    def _scan(self, query: Vectors, lists: list[int], k: int, floor: float) -> list[tuple[int, float]]:
        nearest = Nearest(query, min(k, len(self.ids)), floor)
        nearest.scan_lists(self.codec, self.codes, self.ids, self._spans(lists))
        return nearest.ranked()

    def _spans(self, lists: list[int]) -> list[tuple[int, int]]:
        """First row of each list, and the row after its last."""
        at = self._bound_at
        return [(at[i], at[i + 1]) for i in lists]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as arrays, to be saved."""
        return {
            "ranges": np.stack(self.codec.ranges),
            "centroids": self.centroids,
            "bounds": self.bounds,
            "ids": self.ids,
            "codes": self.codes,
            "trained_on": np.array([self.trained_on], dtype=np.int64),
            "dead": np.fromiter(self.dead, np.int64, len(self.dead)),
        }

    @classmethod
    def from_arrays(cls, dim: int, arrays: Mapping[str, npt.NDArray[Any]]) -> Segment:
        """The reverse of :meth:`arrays`.

        Raises:
            KeyError: One of them is missing.
            ValueError: Their shapes do not belong together; a search would read memory that is not theirs.
        """
        ranges, centroids, bounds, ids, codes = (arrays[name] for name in _MATRICES)
        fit = (
            ranges.shape == (2, dim)
            and centroids.shape == (len(bounds) - 1, dim)
            and codes.shape == (len(ids), dim)
            and bounds[0] == 0
            and bounds[-1] == len(ids)
            and bool(np.all(np.diff(bounds) >= 0))
        )
        if not fit:
            raise ValueError("the arrays of a segment differ in length")
        codec = Codec(dim, "sq8", (ranges[0], ranges[1]))
        trained_on, dead = int(arrays["trained_on"][0]), arrays["dead"].tolist()
        return cls(codec, centroids, bounds, ids, codes, trained_on, dead)


def merge(
    base: Segment | None, dead: Collection[int], added: Rows, cancelled: Callable[[], bool] = lambda: False
) -> Segment:
    """A new segment: the rows of ``base`` that are not ``dead``, and the added ones.

    Works on no shared state, so it can run beside anything. 20,000 rows take about half a second, 100,000 two when
    clusters are made anew; memory for two more copies of the codes is needed meanwhile.

    Args:
        base: ``None`` for the first segment of a partition.
        dead: Ids to leave out of ``base``.
        added: At least one row where there is no base. None of their ids is live in ``base``.
        cancelled: Asked now and then.

    Raises:
        Cancelled: ``cancelled`` returned true.
    """
    codec = _fitting_codec(base, added)
    ids, codes = added.ids, _recode(added.codes, added.codec, codec, cancelled)
    lists = np.empty(0, dtype=np.int64)
    if base is not None:
        live = ~members(base.ids, dead)
        ids = np.concatenate([base.ids[live], ids])
        codes = np.concatenate([_recode(base.codes[live], base.codec, codec, cancelled), codes])
        lists = np.repeat(np.arange(len(base.centroids)), np.diff(base.bounds))[live]
    if base is None or len(ids) >= _REGROW * base.trained_on:
        trained_on = len(ids)
        centroids = _cluster(codec, codes, cancelled)
        lists = _assign(codec, codes, centroids, cancelled)
    else:
        trained_on = base.trained_on
        centroids = _recode(base.centroids, base.codec, codec, cancelled)
        lists = np.concatenate([lists, _assign(codec, codes[len(lists) :], centroids, cancelled)])
    order = np.argsort(lists, kind="stable")
    bounds = np.zeros(len(centroids) + 1, dtype=np.int64)
    np.cumsum(np.bincount(lists, minlength=len(centroids)), out=bounds[1:])
    return Segment(codec, centroids, bounds, ids[order], codes[order], trained_on)


def _fitting_codec(base: Segment | None, added: Rows) -> Codec:
    """The base's codec, or a wider one if that would cut some of the added rows by more than ``CLIP``."""
    dim = added.codec.dim
    low, high = np.full(dim, np.inf, np.float32), np.full(dim, -np.inf, np.float32)
    cut = np.inf if base is None else 0.0
    for vectors in _decoded(added.codes, added.codec):
        if base is not None:
            beyond = vectors - np.clip(vectors, *base.codec.ranges)
            cut = max(cut, float(np.linalg.norm(beyond, axis=1).max()))
        np.minimum(low, vectors.min(axis=0), out=low)
        np.maximum(high, vectors.max(axis=0), out=high)
    if base is not None:
        if cut <= CLIP:
            return base.codec
        low, high = np.minimum(low, base.codec.ranges[0]), np.maximum(high, base.codec.ranges[1])
    # Each change of codec adds rounding errors. With this margin two sufficed for seven data sets one after another.
    margin = 0.15 * (high - low)
    return Codec(dim, "sq8", (low - margin, high + margin))


def _decoded(codes: Codes, codec: Codec, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Vectors]:
    """The vectors of codes, a chunk at a time: all at once they would need four times the memory of the segment."""
    for start in range(0, len(codes), _CHUNK):
        if cancelled():
            raise Cancelled
        yield codec.decode(codes[start : start + _CHUNK])


def _recode(codes: Codes, old: Codec, new: Codec, cancelled: Callable[[], bool]) -> Codes:
    if old is new:
        return codes
    recoded = np.empty((len(codes), new.row_bytes), dtype=np.uint8)
    for at, vectors in enumerate(_decoded(codes, old, cancelled)):
        recoded[at * _CHUNK : (at + 1) * _CHUNK] = new.encode(vectors)
    return recoded


def _cluster(codec: Codec, codes: Codes, cancelled: Callable[[], bool]) -> Codes:
    """Centroids of about 2 * sqrt(n) clusters, by spherical k-means on a sample."""
    faiss = single_threaded_faiss()
    lists = min(2 * math.isqrt(len(codes)), len(codes))
    random = np.random.default_rng(0)
    chosen = random.permutation(len(codes))[: lists * _SAMPLES]
    sample = codec.decode(codes[chosen])
    centroids: Any = None
    for _ in range(_ROUNDS):  # one round a call, so that closing the index need not wait for all of them
        if cancelled():
            raise Cancelled
        kmeans = faiss.Kmeans(
            codec.dim, lists, niter=1, spherical=True, min_points_per_centroid=1, seed=1,
            max_points_per_centroid=len(sample),
        )  # fmt: skip
        kmeans.train(sample, init_centroids=centroids)
        centroids = kmeans.centroids
    return codec.encode(centroids)


def _assign(codec: Codec, codes: Codes, centroids: Codes, cancelled: Callable[[], bool]) -> npt.NDArray[np.int64]:
    """int64 [n]: the list that each row belongs to."""
    faiss = single_threaded_faiss()
    centers = codec.decode(centroids)
    lists = [np.empty(0, dtype=np.int64)]
    for vectors in _decoded(codes, codec, cancelled):
        _, nearest = faiss.knn(vectors, centers, 1, metric=faiss.METRIC_INNER_PRODUCT)
        lists.append(nearest[:, 0])
    return np.concatenate(lists)
