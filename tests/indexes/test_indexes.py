"""Each index against the contract that ships with the package."""

from __future__ import annotations

from functools import partial

from semcache_indexes import FlatIndex, HnswIndex, IvfIndex, LadderIndex
from semcache_indexes.testing import VectorIndexContract


class TestFlat(VectorIndexContract):
    make = staticmethod(FlatIndex)


class TestHnsw(VectorIndexContract):
    make = staticmethod(HnswIndex)
    recall = 0.95


class TestIvf(VectorIndexContract):
    make = staticmethod(partial(IvfIndex, fold_from=40))
    recall = 0.95
    score_error = 0.02


class TestLadder(VectorIndexContract):
    """Promoted at 40 rows, so that most tests run beside a fold."""

    make = staticmethod(partial(LadderIndex, fold_from=40))
    recall = 0.95
    score_error = 0.02


class TestLadderWhileFlat(VectorIndexContract):
    make = staticmethod(LadderIndex)
    score_error = 1e-3
