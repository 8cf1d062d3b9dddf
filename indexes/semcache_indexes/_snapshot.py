"""Arrays in one file: written whole or not at all, and read only if every byte is as it was written.

Layout: magic, format version, length of the header (little-endian uint32 each), header (JSON), the arrays, and the
xxh3_128 digest of all that comes before it.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from semcache_indexes.protocol import IndexDamaged

MAGIC = b"SCIX"
VERSION = 1

Array = npt.NDArray[Any]

_PREFIX = struct.Struct("<4sII")
_DTYPES = frozenset({"<f4", "<i4", "<i8", "|u1"})


class Snapshot(NamedTuple):
    """What a file holds.

    Args:
        kind: The kind of index that wrote it.
        dim: Length of its vectors.
        meta: The caller's own notes.
        arrays: By name, each C-contiguous and owning its memory.
    """

    kind: str
    dim: int
    meta: dict[str, str]
    arrays: dict[str, Array]


def write(path: str | PathLike[str], snapshot: Snapshot) -> None:
    """Write a snapshot. A crash at any moment leaves the old file, or the new one.

    Raises:
        OSError: The file could not be written; the old one is as it was.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _write_to(file, snapshot)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    _sync_folder(target.parent)


def _write_to(file: BinaryIO, snapshot: Snapshot) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in snapshot.arrays.items()}
    described = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    fields = {"kind": snapshot.kind, "dim": snapshot.dim, "meta": snapshot.meta, "arrays": described}
    header = json.dumps(fields).encode()
    digest = xxhash.xxh3_128()
    parts: list[bytes | memoryview] = [_PREFIX.pack(MAGIC, VERSION, len(header)), header, *map(_raw, arrays.values())]
    for part in parts:
        digest.update(part)
        file.write(part)
    file.write(digest.digest())


def _raw(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: str | PathLike[str]) -> Snapshot:
    """Read a snapshot.

    Raises:
        IndexDamaged: The file is cut short, changed, or of another format or version.
        OSError: It cannot be read; FileNotFoundError if it is not there.
    """
    with open(path, "rb") as file:
        try:
            return _read_from(file)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise IndexDamaged(f"{os.fspath(path)}: {error}") from error


def _read_from(file: BinaryIO) -> Snapshot:
    digest = xxhash.xxh3_128()
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(_PREFIX.size)
    magic, version, header_length = _PREFIX.unpack(prefix)
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"not a snapshot of format version {VERSION}")
    header = file.read(min(header_length, size))
    digest.update(prefix)
    digest.update(header)
    fields = json.loads(header)
    described = [_array_of(name, *entry) for name, entry in fields["arrays"].items()]
    # Sizes are checked before memory is taken, since they may be wrong until the digest has been compared.
    expected = len(prefix) + len(header) + sum(each.bytes for each in described) + digest.digest_size
    if expected != size:
        raise ValueError(f"{size} bytes, expected {expected}")
    arrays: dict[str, Array] = {}
    for name, dtype, shape in described:
        array = np.empty(shape, dtype=dtype)
        raw = _raw(array)
        if file.readinto(raw) != len(raw):  # type: ignore[attr-defined]
            raise ValueError("cut short")
        digest.update(raw)
        arrays[name] = array
    if file.read() != digest.digest():
        raise ValueError("checksum does not match")
    return Snapshot(str(fields["kind"]), int(fields["dim"]), dict(fields["meta"]), arrays)


class _Described(NamedTuple):
    name: str
    dtype: str
    shape: list[int]

    @property
    def bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


def _array_of(name: str, dtype: str, shape: list[int]) -> _Described:
    if dtype not in _DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"unexpected array {dtype!r} {shape!r}")
    return _Described(name, dtype, shape)


def expect(snapshot: Snapshot, kind: str, dim: int) -> None:
    """Raise IndexDamaged if the snapshot is of another kind or dimension."""
    if (snapshot.kind, snapshot.dim) != (kind, dim):
        found = f"{snapshot.kind} index of dimension {snapshot.dim}"
        raise IndexDamaged(f"{found}, expected {kind} of dimension {dim}")
