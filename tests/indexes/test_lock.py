"""The readers–writer lock."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from semcache_indexes._lock import ReadersWriterLock


def test_a_writer_is_alone_and_readers_are_not() -> None:
    lock = ReadersWriterLock()
    state = {"readers": 0, "writers": 0, "together": 0}
    count = threading.Lock()
    all_in = threading.Barrier(2)

    def read() -> None:
        for _ in range(300):
            with lock.reading:
                with count:
                    state["readers"] += 1
                    state["together"] = max(state["together"], state["readers"])
                assert state["writers"] == 0
                with count:
                    state["readers"] -= 1
        with lock.reading:
            all_in.wait(30)  # breaks unless two readers hold it at once

    def write() -> None:
        for _ in range(300):
            with lock.writing:
                state["writers"] += 1
                assert (state["writers"], state["readers"]) == (1, 0)
                state["writers"] -= 1

    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(work) for work in (read, read, write, write, write)]:
            done.result(60)


def queued(lock: ReadersWriterLock, readers: int, writers: int) -> None:
    """Wait until so many are queued."""
    while (len(lock._waiting_readers), len(lock._waiting_writers)) != (readers, writers):
        threading.Event().wait(0.001)


def test_a_writer_goes_before_readers_that_came_later_and_they_before_the_next_writer() -> None:
    lock = ReadersWriterLock()
    order: list[str] = []

    def enter(name: str) -> None:
        with lock.writing if name.startswith("w") else lock.reading:
            order.append(name)

    threads = []
    lock.reading.acquire()
    for name, waiting in (("w1", (0, 1)), ("r1", (1, 1)), ("w2", (1, 2)), ("r2", (2, 2))):
        threads.append(threading.Thread(target=enter, args=(name,)))
        threads[-1].start()
        queued(lock, *waiting)
    lock.reading.release()
    for thread in threads:
        thread.join(30)
    assert order[0] == "w1"
    assert set(order[1:3]) == {"r1", "r2"}
    assert order[3] == "w2"


def test_a_wait_cut_short_by_ctrl_c_leaves_the_lock_usable() -> None:
    code = """
import signal, threading
from semcache_indexes._lock import ReadersWriterLock
lock = ReadersWriterLock()
for held, wanted, queue in (
    (lock.reading, lock.writing, lock._waiting_writers),
    (lock.writing, lock.writing, lock._waiting_writers),
    (lock.writing, lock.reading, lock._waiting_readers),
):
    held.acquire()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        wanted.acquire()
    except KeyboardInterrupt:
        print("interrupted", len(queue))
    others = threading.Thread(target=lambda: lock.reading.__enter__() or lock.reading.release())
    others.start()
    if held is lock.reading:
        others.join(30)
    held.release()
    others.join(30)
    with lock.writing:
        print("free")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split("\n")[:-1] == ["interrupted 0", "free"] * 3, done.stderr


def test_locks_go_away_with_their_owners() -> None:
    from semcache_indexes._lock import _registry

    lock = ReadersWriterLock()
    assert lock in _registry
    before = len(_registry)
    del lock
    import gc

    gc.collect()
    assert len(_registry) < before
