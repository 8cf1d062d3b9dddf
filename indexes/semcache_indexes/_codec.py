"""Rows of codes, and the FAISS kernels that score them.

FAISS kills the process when an add runs beside a search, so no FAISS object here ever holds a vector: codes live in
numpy memory of ours, and FAISS only encodes, decodes and scans them. Its inverted-list scanner is the kernel, since
it takes plain pointers, runs on one thread and releases the GIL.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semcache_indexes.protocol import Ids, Vectors

Codes = npt.NDArray[np.uint8]
"""uint8 [n, row_bytes], C-contiguous."""

Coding = Literal["fp32", "fp16", "sq8"]

_threads = threading.local()


def single_threaded_faiss() -> Any:
    """The ``faiss`` module, with OpenMP at one thread for the calling thread.

    OpenMP keeps that setting per thread. With the default, one query on a busy machine waits for helper threads to
    spin up: 76 ms instead of 10 ms was measured. A thread that calls into an index keeps the setting of one.
    """
    import faiss

    if not hasattr(_threads, "limited"):
        faiss.omp_set_num_threads(1)
        _threads.limited = True
    return faiss


class Codec:
    """Turns unit vectors into rows of bytes and scores such rows against a query.

    Args:
        dim: Length of the vectors.
        coding: ``fp32`` (exact), ``fp16`` (cosines off by less than 1e-4), or ``sq8`` (one byte a
            component, linear within its range; components outside are clipped).
        ranges: For ``sq8`` only: lower and upper end for each component, both float32 [dim].
    """

    def __init__(self, dim: int, coding: Coding, ranges: tuple[Vectors, Vectors] | None = None) -> None:
        faiss = single_threaded_faiss()
        self.dim = dim
        self.coding = coding
        self._ranges = ranges
        # One empty IVF index serves as the factory of scanners; FAISS wants a coarse quantizer with it.
        self._coarse = faiss.IndexFlatIP(dim)
        metric = faiss.METRIC_INNER_PRODUCT
        if coding == "fp32":
            self._index = faiss.IndexIVFFlat(self._coarse, dim, 1, metric)
        else:
            quantizer = faiss.ScalarQuantizer
            kind = quantizer.QT_fp16 if coding == "fp16" else quantizer.QT_8bit
            self._index = faiss.IndexIVFScalarQuantizer(self._coarse, dim, 1, kind, metric, False)
        if ranges is not None:
            low, high = ranges
            faiss.copy_array_to_vector(np.concatenate([low, high - low]), self._index.sq.trained)
        self.row_bytes = int(self._index.code_size)

    @property
    def ranges(self) -> tuple[Vectors, Vectors]:
        """Lower and upper end for each component, of an ``sq8`` codec."""
        assert self._ranges is not None
        return self._ranges

    def encode(self, vectors: Vectors) -> Codes:
        """float32 [n, dim] to codes."""
        if self.coding == "fp32":
            return np.ascontiguousarray(vectors).view(np.uint8).reshape(len(vectors), self.row_bytes)
        if self.coding == "fp16":  # numpy rounds as FAISS does, in a third of the time for a single vector
            return vectors.astype(np.float16).view(np.uint8)
        single_threaded_faiss()
        codes: Codes = self._index.sq.compute_codes(vectors)
        return codes

    def decode(self, codes: Codes) -> Vectors:
        """Codes to float32 [n, dim]."""
        if self.coding == "fp32":
            return codes.view(np.float32).reshape(len(codes), self.dim)
        single_threaded_faiss()
        vectors: Vectors = self._index.sq.decode(np.ascontiguousarray(codes))
        return vectors

    def scanner(self, query: Vectors) -> Any:
        """A FAISS scanner for one query (float32 [dim], contiguous), to be used by one thread."""
        faiss = single_threaded_faiss()
        # Through the base class: from FAISS 1.10 on only that one has default arguments.
        scanner = faiss.IndexIVF.get_InvertedListScanner(self._index, False)
        scanner.set_query(faiss.swig_ptr(query))
        scanner.set_list(0, 0.0)
        return scanner


class Nearest:
    """Collects the ``k`` best rows of one query over any number of scans.

    Args:
        query: float32 [dim], contiguous.
        k: How many to keep, at least 1.
        floor: Rows that score below are left out.
    """

    def __init__(self, query: Vectors, k: int, floor: float = -1.0) -> None:
        self._query = query
        self._scores = np.empty(k, dtype=np.float32)
        self._scores.fill(_just_below(floor))
        self._ids = np.empty(k, dtype=np.int64)
        self._ids.fill(-1)

    def scan(self, codec: Codec, codes: Codes, ids: Ids) -> None:
        """Score rows; ``codes`` and ``ids`` are contiguous and of one length."""
        self.scan_lists(codec, codes, ids, [(0, len(ids))])

    def scan_lists(self, codec: Codec, codes: Codes, ids: Ids, bounds: list[tuple[int, int]]) -> None:
        """Score the rows ``start:stop`` of every pair in ``bounds``."""
        import faiss

        scanner = codec.scanner(self._query)
        scores, best = faiss.swig_ptr(self._scores), faiss.swig_ptr(self._ids)
        k = len(self._scores)
        for start, stop in bounds:
            rows, names = faiss.swig_ptr(codes[start:stop]), faiss.swig_ptr(ids[start:stop])
            scanner.scan_codes(stop - start, rows, names, scores, best, k)

    def ranked(self) -> list[tuple[int, float]]:
        """Ids and cosines, best first; equal ones by id."""
        found = [
            (id, min(1.0, max(-1.0, score)))
            for id, score in zip(self._ids.tolist(), self._scores.tolist(), strict=True)
            if id >= 0
        ]
        return sorted(found, key=rank)


@lru_cache(maxsize=64)
def _just_below(floor: float) -> float:
    """What a score has to exceed, since FAISS keeps only what is greater. Rounding may take a cosine past -1."""
    return -math.inf if floor <= -1.0 else float(np.nextafter(np.float32(floor), np.float32(-np.inf)))


def rank(match: tuple[int, float]) -> tuple[float, int]:
    """Sort key that puts matches best first, and equal ones by id."""
    return -match[1], match[0]
