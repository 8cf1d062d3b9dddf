"""Folding: moving the rows of a partition's table into its segment, beside searches, adds and removes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np

from semcache_indexes._checks import check_query
from semcache_indexes._codec import Coding, rank
from semcache_indexes._partitioned import Partition, PartitionedIndex
from semcache_indexes._rows import Table, members
from semcache_indexes._segment import Rows, Segment, merge
from semcache_indexes.protocol import Ids, Match, Vectors

Exact = Callable[[Ids], Vectors]
"""Gives the exact vectors of ids, float32 [n, dim]; a row of NaN for an id that it does not know."""

RESCORED = 4
"""With an exact source, this many times ``k`` candidates are scored again."""

SCORE_SLACK = 0.02
"""How far below ``min_similarity`` a candidate's coded cosine may be to be scored again."""

_LARGEST_TABLE = 8192  # Rows beside a segment: scanning them takes about 0.2 ms.


class _Cut(NamedTuple):
    """A partition as it was when a fold began."""

    segment: Segment | None
    dead: frozenset[int]
    rows: Rows


class FoldingIndex(PartitionedIndex):
    """Base of the indexes whose large partitions are folded into segments.

    Args:
        dim: Length of the vectors.
        fold_from: Rows from which a partition gets a segment.
        exact: If given, the best candidates are scored again with these vectors, outside any lock. Otherwise
            cosines are those of 8-bit codes (segments) and of float16 (all else).
    """

    coding: ClassVar[Coding] = "fp16"

    def __init__(self, dim: int, *, fold_from: int, exact: Exact | None = None) -> None:
        if fold_from < 2:
            raise ValueError(f"fold_from must be at least 2, not {fold_from}")
        super().__init__(dim)
        self._fold_from = fold_from
        self._exact = exact

    def search(self, vector: Vectors, *, partition: int, k: int = 8, min_similarity: float = -1.0) -> list[Match]:
        if self._exact is None:
            return super().search(vector, partition=partition, k=k, min_similarity=min_similarity)
        query = check_query(vector, k, self.dim)
        floor = max(-1.0, min_similarity - SCORE_SLACK)
        ids = [id for id, _ in self._nearest(query, partition, k * RESCORED, floor)]
        if not ids:
            return []
        cosines = np.clip(np.einsum("ij,j->i", self._exact(np.array(ids, dtype=np.int64)), query), -1.0, 1.0)
        matches = [Match(*pair) for pair in zip(ids, cosines.tolist(), strict=True) if pair[1] >= min_similarity]
        return sorted(matches, key=rank)[:k]

    def compact(self) -> None:
        """Fold every large partition now, in this thread: the least memory, and the quickest searches.

        For use after a bulk load; without it folds come by themselves as a partition grows.
        """
        with self._lock.reading:
            parts = [
                part for part in self._large.values() if part.segment is not None or part.table.count >= self._fold_from
            ]
        for part in parts:
            self._fold(part)

    def _make_large(self, key: int, table: Table) -> Partition:
        part = super()._make_large(key, table)
        part.fold_at = self._fold_from
        return part

    def _set_segment(self, part: Partition, segment: Segment) -> None:
        super()._set_segment(part, segment)
        part.fold_at = min(max(self._fold_from // 16, len(segment) // 32, 1), _LARGEST_TABLE)

    def _fold(self, part: Partition, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Make a new segment of a partition and put it in place, unless a fold of it is running.

        Raises:
            Cancelled: ``cancelled`` returned true; the partition is as it was.
        """
        cut = self._begin(part)
        if cut is None:
            return
        try:
            segment = merge(cut.segment, cut.dead, cut.rows, cancelled)
        except BaseException:
            with self._lock.writing:
                part.touched = None
                part.fold_at = min(part.fold_at * 2, sys.maxsize)  # do not try again on every add
            raise
        with self._lock.writing:
            self._end(part, cut, segment)

    def _begin(self, part: Partition) -> _Cut | None:
        with self._lock.writing:
            if self._large.get(part.key) is not part or part.touched is not None:
                return None
            dead = frozenset(part.segment.dead) if part.segment is not None else frozenset()
            if not part.table.count and not dead:
                return None
            part.touched = set()
            rows = Rows(part.table.ids.copy(), part.table.codes.copy(), self._codec)
            return _Cut(part.segment, dead, rows)

    def _end(self, part: Partition, cut: _Cut, segment: Segment) -> None:
        touched = part.touched
        if self._large.get(part.key) is not part or touched is None:
            return  # all its rows were removed meanwhile
        part.touched = None
        segment.dead.update(segment.held(list(touched)))
        folded = set(cut.rows.ids.tolist()) - touched
        part.table = part.table.where(~members(part.table.ids, folded))
        for id in folded:
            del self._where[id]
        if len(folded) > len(self._where):
            self._where = dict(self._where.items())  # a dict does not shrink by itself
        self._set_segment(part, segment)
