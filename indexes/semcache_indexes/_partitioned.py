"""Partitions of any size behind one lock: what the flat, the IVF and the ladder index share.

A partition is a block of bytes up to ``SMALL`` rows, and a :class:`Partition` above that: a table, which is scanned
whole, and perhaps a segment, which is searched by clusters. An id is in exactly one of these places. ``_where`` names
the partition of every id outside segments; a segment looks its own ids up.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from os import PathLike
from typing import Any, ClassVar
from weakref import WeakMethod

import numpy as np

from semcache_indexes import _snapshot
from semcache_indexes._checks import check_batch, check_dim, check_query
from semcache_indexes._codec import Codec, Codes, Coding, Nearest, rank
from semcache_indexes._lock import ReadersWriterLock
from semcache_indexes._rows import Table, by_partition, members, pack, unpack
from semcache_indexes._segment import Segment
from semcache_indexes.protocol import Ids, IndexDamaged, IndexStats, Match, Vectors

SMALL = 32
"""Rows up to which a partition is one block of bytes. Adding to it copies it, 25 kB at most for d = 384."""

_SLICE = 256  # Rows changed under one hold of the lock, so that searches wait for no more than about a millisecond.


class Partition:
    """A partition of more than ``SMALL`` rows.

    Args:
        key: The caller's number of the partition.
        table: The rows that are not in the segment.
    """

    __slots__ = ("fold_at", "key", "segment", "table", "touched")

    def __init__(self, key: int, table: Table) -> None:
        self.key = key
        self.table = table
        self.segment: Segment | None = None
        self.touched: set[int] | None = None
        """While a fold runs: the ids removed or replaced since it began."""
        self.fold_at = sys.maxsize
        """A fold is due at this many rows in the table, or dead ones in the segment."""

    def __len__(self) -> int:
        return self.table.count + (len(self.segment) if self.segment is not None else 0)

    @property
    def due(self) -> bool:
        dead = len(self.segment.dead) if self.segment is not None else 0
        return self.touched is None and max(self.table.count, dead) >= self.fold_at


class PartitionedIndex:
    """Base of the indexes over partitions; see :class:`semcache_indexes.protocol.VectorIndex` for what they promise.

    Args:
        dim: Length of the vectors.
    """

    kind: ClassVar[str]
    coding: ClassVar[Coding]

    def __init__(self, dim: int) -> None:
        self._codec = Codec(check_dim(dim), self.coding)
        after_fork = WeakMethod(self._after_fork)
        self._lock = ReadersWriterLock(lambda: (after_fork() or _nothing)())
        self._small: dict[int, bytes] = {}
        self._large: dict[int, Partition] = {}
        self._segmented: dict[int, Partition] = {}
        """Those of ``_large`` that have a segment."""
        self._where: dict[int, int] = {}

    @property
    def dim(self) -> int:
        return self._codec.dim

    # Changing ---------------------------------------------------------------------------------------------------

    def add(self, ids: Sequence[int] | Ids, vectors: Vectors, partitions: Sequence[int] | Ids) -> None:
        names, rows, keys = check_batch(ids, vectors, partitions, self.dim)
        codes = self._codec.encode(rows)
        for start in range(0, len(names), _SLICE):
            part = slice(start, start + _SLICE)
            with self._lock.writing:
                self._drop(names[part].tolist())
                due = self._insert(names[part], codes[part], keys[part])
            self._fold_due(due)

    def remove(self, ids: Sequence[int] | Ids) -> int:
        names = np.unique(np.asarray(ids, dtype=np.int64)).tolist()
        removed = 0
        for start in range(0, len(names), _SLICE):
            with self._lock.writing:
                removed += self._drop(names[start : start + _SLICE])
                due = [part for part in self._segmented.values() if part.due]
            self._fold_due(due)
        return removed

    def _fold_due(self, due: Iterable[Partition]) -> None:
        """Called without the lock, with partitions that have outgrown their table. Nothing is done about it here."""

    def _insert(self, ids: Ids, codes: Codes, keys: Ids) -> list[Partition]:
        """Put rows in whose ids are nowhere; return the partitions that are due for a fold."""
        due = []
        for key, rows in by_partition(keys):
            part = self._large.get(key)
            if part is None:
                part = self._insert_small(key, ids[rows], codes[rows])
            else:
                part.table.append(ids[rows], codes[rows])
            if part is not None and part.due:
                due.append(part)
            self._where.update(zip(ids[rows].tolist(), repeat(key if part is None else part.key), strict=False))
        return due

    def _insert_small(self, key: int, ids: Ids, codes: Codes) -> Partition | None:
        """Put rows into a block; return the partition if that made it a large one."""
        block = self._small.get(key)
        if block is not None:
            old_ids, old_codes = unpack(block, self._codec.row_bytes)
            ids, codes = np.concatenate([old_ids, ids]), np.concatenate([old_codes, codes])
        if len(ids) <= SMALL:
            self._small[key] = pack(ids, codes)
            return None
        self._small.pop(key, None)
        return self._make_large(key, Table(ids, codes))

    def _make_large(self, key: int, table: Table) -> Partition:
        part = self._large[key] = Partition(key, table)
        return part

    def _drop(self, ids: list[int]) -> int:
        """Take ids out of wherever they are; return how many there were."""
        groups: dict[int, set[int]] = defaultdict(set)
        elsewhere = []
        for id in ids:
            key = self._where.pop(id, None)
            if key is None:
                elsewhere.append(id)
            else:
                groups[key].add(id)
        for key, gone in groups.items():
            self._drop_rows(key, gone)
        dropped = sum(map(len, groups.values()))
        for part in list(self._segmented.values()):
            dropped += self._drop_from_segment(part, elsewhere)
        return dropped

    def _drop_rows(self, key: int, gone: set[int]) -> None:
        part = self._large.get(key)
        if part is None:
            ids, codes = unpack(self._small.pop(key), self._codec.row_bytes)
            keep = ~members(ids, gone)
            if keep.any():
                self._small[key] = pack(ids[keep], codes[keep])
            return
        part.table.remove(gone)
        if part.touched is not None:
            part.touched |= gone
        self._discard_if_empty(part)

    def _drop_from_segment(self, part: Partition, ids: list[int]) -> int:
        assert part.segment is not None
        gone = part.segment.held(ids)
        if gone:
            part.segment.dead.update(gone)
            if part.touched is not None:
                part.touched.update(gone)
            self._discard_if_empty(part)
        return len(gone)

    def _discard_if_empty(self, part: Partition) -> None:
        if not len(part):
            del self._large[part.key]
            self._segmented.pop(part.key, None)

    # Searching --------------------------------------------------------------------------------------------------

    def search(self, vector: Vectors, *, partition: int, k: int = 8, min_similarity: float = -1.0) -> list[Match]:
        query = check_query(vector, k, self.dim)
        return [Match(*found) for found in self._nearest(query, partition, k, min_similarity)]

    def _nearest(self, query: Vectors, partition: int, k: int, floor: float) -> list[tuple[int, float]]:
        """Ids and scores, best first."""
        with self._lock.reading:
            block = self._small.get(partition)
            if block is not None:
                ids, codes = unpack(block, self._codec.row_bytes)
                return self._scan(query, ids, codes, k, floor)
            part = self._large.get(partition)
            if part is None:
                return []
            found = self._scan(query, part.table.ids, part.table.codes, k, floor)
            if part.segment is not None:
                found += part.segment.search(query, k, floor)
                found.sort(key=rank)
            return found[:k]

    def _scan(self, query: Vectors, ids: Ids, codes: Codes, k: int, floor: float) -> list[tuple[int, float]]:
        if not len(ids):
            return []
        nearest = Nearest(query, min(k, len(ids)), floor)
        nearest.scan(self._codec, codes, ids)
        return nearest.ranked()

    def __len__(self) -> int:
        with self._lock.reading:
            return self._count()

    def _count(self) -> int:
        segments = (part.segment for part in self._segmented.values())
        return len(self._where) + sum(len(segment) for segment in segments if segment is not None)

    def __contains__(self, id: object) -> bool:
        if not isinstance(id, (int, np.integer)):
            return False
        name = int(id)
        with self._lock.reading:
            return name in self._where or any(
                part.segment is not None and part.segment.held([name]) for part in self._segmented.values()
            )

    def stats(self) -> IndexStats:
        with self._lock.reading:
            partitions = len(self._small) + len(self._large)
            return IndexStats(self.kind, self._count(), partitions, self._bytes())

    def _bytes(self) -> int:
        """Memory of rows and book-keeping; what the allocator adds is not known."""
        tabled = sum(part.table.count for part in self._large.values())
        in_blocks = len(self._where) - tabled
        # An int object takes 32 bytes: each id is one, and each row of a block may have brought its own key.
        blocks = in_blocks * (8 + self._codec.row_bytes + 32) + len(self._small) * (33 + 32)
        tables = sum(part.table.bytes + 512 for part in self._large.values())
        segments = sum(part.segment.bytes for part in self._segmented.values() if part.segment is not None)
        dicts = sum(map(sys.getsizeof, (self._small, self._large, self._segmented, self._where)))
        return blocks + tables + segments + dicts + 32 * len(self._where)

    def close(self) -> None:
        """Nothing runs in the background here."""

    # Forks and files --------------------------------------------------------------------------------------------

    def _after_fork(self) -> None:
        """In a child: threads of the parent, and their half-made segments, do not exist."""
        for part in self._large.values():
            part.touched = None

    def save(self, path: str | PathLike[str], meta: Mapping[str, str] | None = None) -> None:
        with self._lock.reading:
            arrays = dict(self._arrays())
        _snapshot.write(path, _snapshot.Snapshot(self.kind, self.dim, dict(meta or {}), arrays))

    def _arrays(self) -> Iterator[tuple[str, Any]]:
        """All rows outside segments, partition by partition, as four arrays; and seven for each segment."""
        blocks = [(key, *unpack(block, self._codec.row_bytes)) for key, block in self._small.items()]
        tables = [(part.key, part.table.ids, part.table.codes) for part in self._large.values()]
        rows = blocks + tables
        yield "keys", np.array([key for key, _, _ in rows], dtype=np.int64)
        yield "counts", np.array([len(ids) for _, ids, _ in rows], dtype=np.int64)
        no_ids, no_codes = np.empty(0, np.int64), np.empty((0, self._codec.row_bytes), np.uint8)
        yield "ids", np.concatenate([no_ids, *(ids for _, ids, _ in rows)])
        yield "codes", np.concatenate([no_codes, *(codes for _, _, codes in rows)])
        for part in self._segmented.values():
            if part.segment is not None:
                for name, array in part.segment.arrays().items():
                    yield f"{part.key}/{name}", array

    def restore(self, snapshot: _snapshot.Snapshot) -> None:
        """Take the rows of a snapshot into this index, which must be new.

        Raises:
            IndexDamaged: The snapshot is of another kind or dimension, or its arrays do not belong together.
        """
        _snapshot.expect(snapshot, self.kind, self.dim)
        try:
            self._take(snapshot.arrays)
        except (KeyError, ValueError, IndexError) as error:
            raise IndexDamaged(f"the snapshot's arrays do not fit: {error}") from error

    def _take(self, arrays: Mapping[str, Any]) -> None:
        keys, counts, ids, codes = (arrays[name] for name in ("keys", "counts", "ids", "codes"))
        if codes.shape != (len(ids), self._codec.row_bytes) or int(counts.sum()) != len(ids):
            raise ValueError("counts, ids and codes differ in length")
        names: dict[int, list[str]] = defaultdict(list)
        for name in arrays:
            if "/" in name:
                names[int(name.partition("/")[0])].append(name)
        ends = np.cumsum(counts).tolist()
        for key, count, end in zip(keys.tolist(), counts.tolist(), ends, strict=True):
            rows = slice(end - count, end)
            segment = {name.partition("/")[2]: arrays[name] for name in names.get(key, ())}
            if count <= SMALL and not segment:
                self._small[key] = pack(ids[rows], codes[rows])
            else:
                part = self._make_large(key, Table(ids[rows].copy(), codes[rows].copy()))
                if segment:
                    self._set_segment(part, Segment.from_arrays(self.dim, segment))
            self._where.update(zip(ids[rows].tolist(), repeat(key), strict=False))

    def _set_segment(self, part: Partition, segment: Segment) -> None:
        part.segment = segment
        self._segmented[part.key] = part


def _nothing() -> None: ...
