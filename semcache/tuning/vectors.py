"""An embedder whose vectors are on disk: what makes a long replay resumable.

The vectors of a log take minutes to hours, the replay of it seconds. So a checkpoint holds the vectors, each written as
soon as its batch is made, and no position: a run that was interrupted starts over, embeds only what is missing, and
comes to what it would have come to.

The file is one line of JSON (version, fingerprint of the embedder, length of a vector), then one row a text: 16 bytes
of xxh3_128 of its UTF-8, and its vector in little-endian float32. A row that a crash tore is cut off.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson
import xxhash

from semcache.errors import InputError
from semcache.tuning.appended import Appended
from semcache.tuning.remembered import Around

if TYPE_CHECKING:
    from semcache.embedders import Embedder
    from semcache.embedders.base import Vectors

_VERSION: Final = 1
_DIGEST: Final = 16


class VectorFile(Appended, Around):
    """Another embedder with its vectors in a file, which must be of that embedder.

    Raises:
        InputError: The file cannot be read or written, is none of these, or is of another embedder.
    """

    def __init__(self, embedder: Embedder, path: str | PathLike[str]) -> None:
        Appended.__init__(self, path)
        Around.__init__(self, embedder)
        self._vectors: dict[bytes, Vectors] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def embed(self, texts: Sequence[str]) -> Vectors:
        digests = [_digest(text) for text in texts]
        new = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in self._vectors}
        if new:
            rows = np.ascontiguousarray(self._embedder.embed(list(new.values())), "<f4")
            self._file.write(b"".join(digest + row.tobytes() for digest, row in zip(new, rows, strict=True)))
            self._file.flush()
            self._vectors.update(zip(new, rows, strict=True))
        return np.stack([self._vectors[digest] for digest in digests]) if texts else np.empty((0, self.dim), np.float32)

    def _resume(self) -> None:
        head = {"semcache-vectors": _VERSION, "fingerprint": self.fingerprint, "dim": self.dim}
        line = self._file.readline(4096)
        if not line:
            self._file.write(orjson.dumps(head) + b"\n")
            self._file.flush()
            return
        found = _head(line, self._path)
        if found != head:
            raise InputError(
                f"holds vectors of {found.get('fingerprint')!r}, not {self.fingerprint!r}; give another file",
                path=self._path,
            )
        size = _DIGEST + 4 * self.dim
        while len(row := self._file.read(size)) == size:
            self._vectors[row[:_DIGEST]] = np.frombuffer(row, "<f4", offset=_DIGEST).astype(np.float32, copy=False)
        if row:
            self._file.truncate(self._file.tell() - len(row))
            self._file.seek(0, os.SEEK_END)


def _head(line: bytes, path: str) -> dict[str, object]:
    try:
        head = orjson.loads(line)
    except orjson.JSONDecodeError:
        head = None
    if not isinstance(head, dict) or head.get("semcache-vectors") != _VERSION:
        raise InputError("is no file of vectors that this version has written; give another", path=path)
    return head


def _digest(text: str) -> bytes:
    return xxhash.xxh3_128(text.encode("utf-8", "surrogatepass")).digest()
