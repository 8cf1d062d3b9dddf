"""What every index asks of its arguments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semcache_indexes.protocol import Ids, Vectors

NORM_TOLERANCE = 0.01
"""How far the length of a vector may be from 1. Vectors that went through float16 are within 0.001."""

_NOT_UNIT = "vectors must be finite and of length 1"


def check_dim(dim: int) -> int:
    """``dim``, or ValueError if vectors cannot have that length."""
    if dim < 1:
        raise ValueError(f"dim must be at least 1, not {dim}")
    return dim


def check_batch(
    ids: Sequence[int] | Ids, vectors: Vectors, partitions: Sequence[int] | Ids, dim: int
) -> tuple[Ids, Vectors, Ids]:
    """The arguments of ``add`` as int64 [n], contiguous float32 [n, dim] and int64 [n], each id once (its last row).

    Raises:
        ValueError: A wrong shape, a negative id, or a vector that is not finite or not of length 1.
    """
    names = _integers(ids, "ids")
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    keys = _integers(partitions, "partitions")
    if rows.shape != (len(names), dim):
        raise ValueError(f"vectors must have shape ({len(names)}, {dim}), not {rows.shape}")
    if len(keys) != len(names):
        raise ValueError(f"{len(names)} ids but {len(keys)} partitions")
    if len(names) and int(names.min()) < 0:
        raise ValueError(f"ids must not be negative: {int(names.min())}")
    if len(rows) == 1:
        _check_length(rows[0])
    else:
        _check_lengths(np.einsum("ij,ij->i", rows, rows))
    if len(names) > 1:
        _, last = np.unique(names[::-1], return_index=True)
        if len(last) < len(names):
            kept = np.sort(len(names) - 1 - last)
            names, rows, keys = names[kept], rows[kept], keys[kept]
    return names, rows, keys


def check_query(vector: Vectors, k: int, dim: int) -> Vectors:
    """The query as contiguous float32 [dim].

    Raises:
        ValueError: A wrong shape, ``k`` below 1, or a vector that is not finite or not of length 1.
    """
    query = np.ascontiguousarray(vector, dtype=np.float32)
    if query.shape != (dim,):
        raise ValueError(f"vector must have shape ({dim},), not {query.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    _check_length(query)
    return query


# Both are written so that NaN fails too; near 1 the square is off by twice as much as the length.


def _check_length(vector: Vectors) -> None:
    # Python's own arithmetic takes a fifth of the time of numpy's on a single number.
    if not abs(float(np.dot(vector, vector)) - 1.0) <= 2 * NORM_TOLERANCE:
        raise ValueError(_NOT_UNIT)


def _check_lengths(squares: npt.NDArray[np.float32]) -> None:
    if not np.all(np.abs(squares - 1.0) <= 2 * NORM_TOLERANCE):
        raise ValueError(_NOT_UNIT)


def _integers(values: Sequence[int] | Ids, what: str) -> Ids:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integers, not {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{what} must have one dimension, not {array.ndim}")
    return array.astype(np.int64)
