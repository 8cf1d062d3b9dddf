"""Rows of one partition: immutable blocks of bytes while there are few, a growable table from then on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from semcache_indexes._codec import Codes
from semcache_indexes.protocol import Ids

_ID_BYTES = 8

Mask = npt.NDArray[np.bool_]
Array = TypeVar("Array", Ids, Codes)


def pack(ids: Ids, codes: Codes) -> bytes:
    """A block: the ids, then the codes. One object with 33 bytes of overhead that the garbage collector ignores."""
    return ids.tobytes() + codes.tobytes()


def unpack(block: bytes, row_bytes: int) -> tuple[Ids, Codes]:
    """Read-only views of a block."""
    n = len(block) // (_ID_BYTES + row_bytes)
    ids: Ids = np.frombuffer(block, np.int64, n)
    codes: Codes = np.frombuffer(block, np.uint8, n * row_bytes, n * _ID_BYTES).reshape(n, row_bytes)
    return ids, codes


def members(ids: Ids, wanted: Collection[int]) -> Mask:
    """bool [n]: which of ``ids`` are wanted."""
    if len(wanted) <= 4:  # np.isin sorts; a few plain comparisons are quicker
        mask = np.zeros(len(ids), dtype=np.bool_)
        for id in wanted:
            mask |= ids == id
        return mask
    return np.isin(ids, np.fromiter(wanted, np.int64, len(wanted)))


def by_partition(keys: Ids) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Each distinct key, with the numbers of the rows that have it in their order."""
    if not len(keys):
        return
    if len(keys) == 1 or (keys == keys[0]).all():  # nearly always: a process adds what it stores one by one
        yield int(keys[0]), np.arange(len(keys))
        return
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    for rows in np.split(order, ends):
        yield int(keys[rows[0]]), rows


class Table:
    """Growable rows in no particular order: appending and removing move no more than the rows concerned.

    Args:
        ids: int64 [n], taken over.
        codes: uint8 [n, row_bytes], taken over.
    """

    __slots__ = ("_codes", "_ids", "count")

    def __init__(self, ids: Ids, codes: Codes) -> None:
        self._ids = ids
        self._codes = codes
        self.count = len(ids)

    @property
    def ids(self) -> Ids:
        return self._ids[: self.count]

    @property
    def codes(self) -> Codes:
        return self._codes[: self.count]

    @property
    def bytes(self) -> int:
        return int(self._ids.nbytes + self._codes.nbytes)

    def append(self, ids: Ids, codes: Codes) -> None:
        start, self.count = self.count, self.count + len(ids)
        if self.count > len(self._ids):
            room = max(self.count, len(self._ids) * 3 // 2)
            self._ids, self._codes = _resized(self._ids, room), _resized(self._codes, room)
        self._ids[start : self.count] = ids
        self._codes[start : self.count] = codes

    def remove(self, wanted: Collection[int]) -> None:
        """Remove ids that are here; the last rows move into the holes."""
        gone = members(self.ids, wanted)
        kept = self.count - int(np.count_nonzero(gone))
        holes = np.flatnonzero(gone[:kept])
        movers = kept + np.flatnonzero(~gone[kept:])
        self._ids[holes] = self._ids[movers]
        self._codes[holes] = self._codes[movers]
        self.count = kept
        if kept < len(self._ids) // 4:
            self._ids, self._codes = _resized(self._ids, kept), _resized(self._codes, kept)

    def where(self, keep: Mask) -> Table:
        """A new table of the rows in the mask."""
        return Table(self.ids[keep], self.codes[keep])


def _resized(array: Array, rows: int) -> Array:
    """A copy with room for ``rows`` rows; the new ones are not initialised."""
    resized = np.empty((rows, *array.shape[1:]), dtype=array.dtype)
    kept = min(rows, len(array))
    resized[:kept] = array[:kept]
    return cast(Array, resized)
