"""An inverted file that is always as folded as can be: for bulk loads, and to compare with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from semcache_indexes._folding import Exact, FoldingIndex
from semcache_indexes._partitioned import Partition

FOLD_FROM = 1024
"""Below this many rows clusters save no time."""


class IvfIndex(FoldingIndex):
    """FAISS clusters and 8-bit codes, made and remade in the thread that adds.

    An add that makes a fold due waits for it: about half a second at 20,000 rows of a partition, two at 100,000. The
    ladder does that work in the background.

    Args:
        dim: Length of the vectors.
        fold_from: Rows from which a partition is clustered; below it is scanned whole.
        exact: If given, the best candidates are scored again with these vectors, outside any lock. Otherwise
            cosines are off by up to about 0.002, those of 8-bit codes.
    """

    kind: ClassVar[str] = "ivf"

    def __init__(self, dim: int, *, fold_from: int = FOLD_FROM, exact: Exact | None = None) -> None:
        super().__init__(dim, fold_from=fold_from, exact=exact)

    def _fold_due(self, due: Iterable[Partition]) -> None:
        for part in due:
            self._fold(part)
