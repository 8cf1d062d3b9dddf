"""A readers–writer lock that favours writers, starves nobody, and is usable after fork."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from weakref import WeakSet


class ReadersWriterLock:
    """Many readers or one writer.

    New readers queue behind a waiting writer; the readers that queued while a writer held the lock go before the
    next writer. So neither side can starve the other. Not reentrant: a thread must not take it twice.

    A fork waits until the lock is free of writers and readers, so that the child copies a consistent state; the
    child then finds the lock free.

    Args:
        after_fork: Called in the child process, after the lock has been made new.
    """

    def __init__(self, after_fork: Callable[[], None] = lambda: None) -> None:
        self._after_fork = after_fork
        self.reading = _Side(self._acquire_read, self._release_read)
        self.writing = _Side(self._acquire_write, self._release_write)
        self._free()
        with _registry_mutex:
            _registry.add(self)

    def _free(self) -> None:
        self._mutex = threading.Lock()
        self._readers = 0
        self._written = False
        self._waiting_readers: deque[threading.Lock] = deque()
        self._waiting_writers: deque[threading.Lock] = deque()

    def _acquire_read(self) -> None:
        with self._mutex:
            if not self._written and not self._waiting_writers:
                self._readers += 1
                return
            turn = _taken_lock()
            self._waiting_readers.append(turn)
        self._await(turn, self._waiting_readers, self._release_read)

    def _release_read(self) -> None:
        with self._mutex:
            self._readers -= 1
            self._pass_on(readers_first=False)

    def _acquire_write(self) -> None:
        with self._mutex:
            if not self._written and not self._readers:
                self._written = True
                return
            turn = _taken_lock()
            self._waiting_writers.append(turn)
        self._await(turn, self._waiting_writers, self._release_write)

    def _release_write(self) -> None:
        with self._mutex:
            self._written = False
            self._pass_on(readers_first=True)

    def _pass_on(self, *, readers_first: bool) -> None:
        """Hand the lock to those whose turn it is. They are counted here, before they wake."""
        if self._readers or self._written:
            return
        if self._waiting_writers and not (readers_first and self._waiting_readers):
            self._written = True
            self._waiting_writers.popleft().release()
            return
        self._readers = len(self._waiting_readers)
        while self._waiting_readers:
            self._waiting_readers.popleft().release()

    def _await(self, turn: threading.Lock, queue: deque[threading.Lock], release: Callable[[], None]) -> None:
        try:
            turn.acquire()
        except BaseException:  # KeyboardInterrupt: give the turn back, or leave the queue
            with self._mutex:
                queued = turn in queue
                if queued:
                    queue.remove(turn)
                    self._pass_on(readers_first=False)
            if not queued:
                release()
            raise


class _Side:
    """One way to hold the lock, as a context manager without state, so that threads can share it."""

    __slots__ = ("acquire", "release")

    def __init__(self, acquire: Callable[[], None], release: Callable[[], None]) -> None:
        self.acquire = acquire
        self.release = release

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


_registry: WeakSet[ReadersWriterLock] = WeakSet()
_registry_mutex = threading.Lock()
_held_for_fork: list[ReadersWriterLock] = []


def _before_fork() -> None:
    _registry_mutex.acquire()
    for lock in list(_registry):
        lock.writing.acquire()
        _held_for_fork.append(lock)


def _after_fork_in_parent() -> None:
    while _held_for_fork:
        _held_for_fork.pop().writing.release()
    _registry_mutex.release()


def _after_fork_in_child() -> None:
    global _registry_mutex
    _registry_mutex = threading.Lock()
    while _held_for_fork:
        lock = _held_for_fork.pop()
        lock._free()
        lock._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
