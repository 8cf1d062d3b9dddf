"""The default index: flat while a partition is small, clustered in the background when it has grown."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import ClassVar

from semcache_indexes._folding import Exact, FoldingIndex
from semcache_indexes._partitioned import Partition
from semcache_indexes._segment import Cancelled

FOLD_FROM = 8_192
"""Here a flat search takes about 0.3 ms and starts to be felt beside the embedding; clusters take a third."""

logger = logging.getLogger("semcache_indexes")


class LadderIndex(FoldingIndex):
    """Partitions of any number and size, each at the rung that suits it.

    - up to 32 vectors: one block of bytes; about 0.3 kB a partition and 0.9 kB a vector (d = 384);
    - up to ``fold_from``: float16 rows, scanned whole, 0.9 kB a vector;
    - beyond: 8-bit codes in clusters, 0.4 kB a vector, and a float16 table of the newest rows that is folded in when
      it reaches 1/32 of the partition.

    Folds run one at a time in a thread that lives only as long as there is work. Memory for two more copies of a
    partition's codes is needed while it is folded. A fold that fails is logged (logger ``semcache_indexes``) and
    tried again when the table has doubled; until then searches are slower, not wrong.

    Args:
        dim: Length of the vectors.
        fold_from: Rows from which a partition is clustered.
        exact: If given, the best candidates are scored again with these vectors, outside any lock. Otherwise
            cosines are those of float16 (off by less than 1e-4) or of 8-bit codes (by up to about 0.002).
    """

    kind: ClassVar[str] = "ladder"

    def __init__(self, dim: int, *, fold_from: int = FOLD_FROM, exact: Exact | None = None) -> None:
        super().__init__(dim, fold_from=fold_from, exact=exact)
        self._closed = False
        self._reset_worker()

    def _reset_worker(self) -> None:
        self._mutex = threading.Lock()
        self._queue: list[Partition] = []
        self._worker: threading.Thread | None = None

    def _after_fork(self) -> None:
        super()._after_fork()
        self._reset_worker()

    def _fold_due(self, due: Iterable[Partition]) -> None:
        with self._mutex:
            self._queue += [part for part in due if part not in self._queue]
            if self._queue and self._worker is None and not self._closed:
                self._worker = threading.Thread(target=self._work, name="semcache-index")
                self._worker.start()

    def _work(self) -> None:
        while True:
            with self._mutex:
                if not self._queue or self._cancelled():
                    self._worker = None
                    return
                part = self._queue.pop(0)
            try:
                self._fold(part, self._cancelled)
                if part.due:  # it grew meanwhile
                    self._fold_due([part])
            except Cancelled:
                pass
            except Exception:
                logger.exception("a partition of %d vectors was not folded", len(part))

    def _cancelled(self) -> bool:
        # The thread is no daemon, since one that dies inside FAISS takes the process with it; so the interpreter
        # waits for it at exit, and it must see that.
        return self._closed or not threading.main_thread().is_alive()

    def settle(self) -> None:
        """Wait until no fold is running or due."""
        while (worker := self._worker) is not None:
            worker.join()

    def compact(self) -> None:
        self.settle()
        super().compact()

    def close(self) -> None:
        self._closed = True
        self.settle()
