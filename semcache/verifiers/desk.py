"""Where verifiers work: off the caller's thread, so that no caller waits longer than the policy says."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from semcache._fork import renew_in_child
from semcache.errors import VerifierError
from semcache.verifiers.base import TextPair, Verifier, score_one

if TYPE_CHECKING:
    from semcache.steps import Verify
    from semcache.verifiers.kept import KeptVerdicts

_Task = tuple["Verify", "Future[float]"]


class VerifierDesk:
    """Takes pairs, has them verified by a few threads, and remembers the verdicts.

    A verdict that comes too late for the call that asked for it serves the next one that asks the same: so a deadline
    of zero means "miss now, serve the confirmed pair from the next time on". Pairs are verified once, also when many
    ask at a time. What failed is not remembered. Of the verdicts in this process the oldest go first; confirmed pairs
    are kept in the store too, and looked up there before the verifier is asked.

    Args:
        kept: Those in the store; ``None`` keeps none there.
        threads: How many calls to the verifier run at once.
        waiting: Pairs that may wait for a thread; one more is refused, since it would be late anyway.
        remembered: Verdicts kept.
    """

    def __init__(
        self,
        verifier: Verifier,
        kept: KeptVerdicts | None = None,
        *,
        threads: int = 2,
        waiting: int = 64,
        remembered: int = 8192,
    ) -> None:
        self._verifier = verifier
        self._kept = kept
        self._threads: Final = threads
        self._remembered: Final = remembered
        self._waiting: Final = waiting
        self._start_afresh()
        renew_in_child(self)

    def ask(self, asked: Verify) -> Future[float]:
        """The verdict on a pair, known or to come.

        Raises:
            VerifierError: Too many pairs wait.
            StoreError: The store could not be read.
        """
        pair = _pair(asked)
        with self._lock:
            future = self._verdicts.get(pair)
            if future is not None:
                self._verdicts.move_to_end(pair)
                return future
        known = None if self._kept is None else self._kept.recall(asked)
        with self._lock:
            future = self._verdicts.get(pair)
            if future is not None:
                return future
            future = Future()
            if known is not None:
                future.set_result(known)
                self._remember(pair, future)
                return future
            try:
                self._tasks.put_nowait((asked, future))
            except queue.Full:
                raise VerifierError(f"{self._waiting} pairs wait for the verifier already") from None
            self._remember(pair, future)
            if self._tasks.qsize() > self._idle and len(self._workers) < self._threads:
                worker = threading.Thread(target=self._work, name="semcache-verifier", daemon=True)
                self._workers.append(worker)
                worker.start()
        return future

    def _remember(self, pair: TextPair, future: Future[float]) -> None:
        self._verdicts[pair] = future
        if len(self._verdicts) > self._remembered:
            self._verdicts.popitem(last=False)

    def close(self) -> None:
        """Let the threads end; does not wait for a verifier that hangs."""
        for _ in self._workers:
            try:
                self._tasks.put_nowait(None)
            except queue.Full:  # they are daemons
                return

    def after_fork(self) -> None:
        known = [(pair, future) for pair, future in self._verdicts.copy().items() if future.done()]
        self._start_afresh()
        self._verdicts.update(known)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._tasks: queue.Queue[_Task | None] = queue.Queue(self._waiting)
        self._verdicts: OrderedDict[TextPair, Future[float]] = OrderedDict()
        self._workers: list[threading.Thread] = []
        self._idle = 0

    def _work(self) -> None:
        tasks = self._tasks
        while True:
            with self._lock:
                self._idle += 1
            task = tasks.get()
            with self._lock:
                self._idle -= 1
            if task is None:
                return
            asked, future = task
            pair = _pair(asked)
            try:
                probability = score_one(self._verifier, *pair)
                if self._kept is not None:
                    self._kept.keep(asked, probability)
                future.set_result(probability)
            except BaseException as error:
                with self._lock:
                    if self._verdicts.get(pair) is future:
                        del self._verdicts[pair]
                future.set_exception(error)


def _pair(asked: Verify) -> TextPair:
    return asked.query, asked.entry.text or ""
