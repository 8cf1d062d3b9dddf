"""One daemon thread for all that this process has yet to write; it sleeps while there is nothing."""

from __future__ import annotations

import atexit
import threading
import time
from contextlib import suppress
from typing import Final, Protocol

from semcache._fork import renew_in_child
from semcache.events import logger

INTERVAL_S: Final = 1.0
"""Seconds after which something that waits is written."""


class Flushes(Protocol):
    """Something with counts that wait to be written."""

    def flush(self) -> object:
        """Write them. What it raises is logged."""


class Flusher:
    """The thread, and what waits for it. What waits at the exit of the interpreter is written then."""

    def __init__(self) -> None:
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: nothing waits, and the thread is the parent's."""
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._thread: threading.Thread | None = None
        # Strong references: what was dropped without being closed still gets its counts written.
        self._waiting: set[Flushes] = set()

    def wake(self, item: Flushes) -> None:
        """Flush this within a second or so."""
        with self._lock:
            self._waiting.add(item)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="semcache-flusher", daemon=True)
                with suppress(RuntimeError):  # no more threads: the next call tries again, or the exit flushes
                    thread.start()
                    self._thread = thread
        self._work.set()

    def forget(self, item: Flushes) -> None:
        """Do not flush this any more."""
        with self._lock:
            self._waiting.discard(item)

    def flush_waiting(self) -> None:
        """Flush all that waits, now."""
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for item in waiting:
            try:
                item.flush()
            except Exception:  # the others wait for this thread too
                logger.exception("counts could not be written")

    def _run(self) -> None:
        while True:
            self._work.wait()
            time.sleep(INTERVAL_S)
            self._work.clear()
            self.flush_waiting()


flusher: Final = Flusher()
atexit.register(flusher.flush_waiting)
