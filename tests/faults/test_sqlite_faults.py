"""SQLite: killed writers, many writers, a writer that does not let go, and damaged files."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from semcache.errors import StoreError
from semcache.stores import SqliteStore
from semcache.testing.store_contract import (
    Follower,
    as_stored,
    exit_code,
    make_entry,
    run_in_child,
    start_child,
)
from semcache.types import Entry, Event

PATIENCE_S = 20.0
BUDGET_S = 1.0


def numbered_entry(number: int) -> Entry:
    """An entry whose content follows from its id, some of several pages."""
    text = f"question {number} " + "x" * (number * 7919 % 8_000)
    return make_entry(text, id=number, tags=("t",) if number % 3 == 0 else ())


def test_a_writer_killed_fifty_times_loses_nothing_it_was_told_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    rng = random.Random(7)
    watcher = SqliteStore(path, budget_s=PATIENCE_S)
    acknowledged: list[int] = []
    for attempt in range(50):
        heard, say = os.pipe()

        def write(first: int = attempt * 10_000, heard: int = heard, say: int = say) -> None:
            os.close(heard)
            store = SqliteStore(path, budget_s=PATIENCE_S)
            for number in range(first, first + 10_000):
                store.put(numbered_entry(number))
                os.write(say, number.to_bytes(8, "little"))

        writer = start_child(write)
        os.close(say)
        first_word = os.read(heard, 8)
        if attempt >= 25:  # another process is connected, so that the log outlives the writer
            watcher.ping()
        time.sleep(rng.uniform(0, 0.02))
        os.kill(writer, signal.SIGKILL)
        assert exit_code(writer) == -signal.SIGKILL
        with open(heard, "rb") as words:
            told = first_word + words.read()
        numbers = [int.from_bytes(told[at : at + 8], "little") for at in range(0, len(told), 8)]
        assert numbers, "the writer was killed before its first entry"
        acknowledged += numbers
        reader = SqliteStore(path, budget_s=PATIENCE_S)
        for number, entry in zip(numbers, reader.fetch(numbers), strict=True):
            assert entry is not None, number
            assert entry.response == numbered_entry(number).response
            assert entry.key == numbered_entry(number).key
        # The one that was being written is there wholly or not at all.
        pending = numbers[-1] + 1
        last = reader.get(numbered_entry(pending).key)
        assert last is None or last.response == numbered_entry(pending).response
        reader.close()
    watcher.close()
    survivor = SqliteStore(path, budget_s=PATIENCE_S)
    assert None not in survivor.fetch(acknowledged)
    assert set(acknowledged) <= set(Follower(survivor).follow().vectors)
    survivor.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        entries, size = db.execute("SELECT count(*), sum(length(data)) FROM entries").fetchone()
        heads, size_of_heads = db.execute("SELECT count(*), sum(length(data)) FROM heads").fetchone()
        assert heads == 1
        assert db.execute("SELECT entries, bytes FROM meta").fetchone() == (entries, size + size_of_heads)


def test_processes_and_threads_write_together(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, budget_s=PATIENCE_S)
    follower = Follower(store)

    def work(process: int) -> None:
        def in_thread(thread: int) -> None:
            for i in range(25):
                entry = numbered_entry(process * 10_000 + thread * 1000 + i)
                store.put(entry)
                assert store.get(entry.key) == as_stored(entry)
                store.add_counters({"puts": 1})

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(in_thread, range(4)))

    children = [start_child(partial(work, process)) for process in range(4)]
    seen = 0
    while seen < 400 and (store.counters().get("puts", 0) < 400 or not seen):
        seen = len(follower.follow().vectors)
    assert [exit_code(child) for child in children] == [0] * 4
    numbers = [p * 10_000 + t * 1000 + i for p in range(4) for t in range(4) for i in range(25)]
    assert None not in store.fetch(numbers)
    assert store.counters() == {"puts": 400}
    assert set(follower.follow().vectors) == set(numbers)
    assert store.stats().entries == 400


def hold_the_write_lock(path: Path) -> tuple[int, Callable[[], None]]:
    """A process that writes and does not finish; returns its id and how to make it finish."""
    ready, say_ready = os.pipe()
    finish, say_finish = os.pipe()

    def work() -> None:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        os.write(say_ready, b"x")
        os.read(finish, 1)
        db.execute("COMMIT")

    pid = start_child(work)
    os.read(ready, 1)
    return pid, lambda: os.close(say_finish) if os.write(say_finish, b"x") else None


def test_a_process_that_holds_the_write_lock_costs_the_budget_and_no_reads(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", budget_s=BUDGET_S)
    entry = make_entry()
    store.put(entry)
    holder, finish = hold_the_write_lock(store.path)
    writes: list[Callable[[], object]] = [
        lambda: store.put(make_entry()),
        lambda: store.add_counters({"a": 1}),
        lambda: store.mark_wrong(1, 2),
    ]
    for write in writes:
        began = time.monotonic()
        with pytest.raises(StoreError, match="locked"):
            write()
        assert time.monotonic() - began < 4 * BUDGET_S
        assert store.get(entry.key) == as_stored(entry)
        assert Follower(store).follow().vectors.keys() == {entry.key.id}
    finish()
    assert exit_code(holder) == 0
    store.add_counters({"a": 1})
    assert store.counters() == {"a": 1}


def test_threads_that_queue_behind_it_are_bounded_too(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", budget_s=BUDGET_S)
    holder, finish = hold_the_write_lock(store.path)

    def put(i: int) -> float:
        began = time.monotonic()
        with pytest.raises(StoreError):
            store.put(make_entry(str(i)))
        return time.monotonic() - began

    with ThreadPoolExecutor(6) as pool:
        assert max(pool.map(put, range(6))) < 4 * BUDGET_S
    finish()
    assert exit_code(holder) == 0


# Damage


def damage_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"\x00" * 100)


def damage_pages(path: Path) -> None:
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(200)
        file.write(b"\xff" * (size - 200))


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def fill_with_text(path: Path) -> None:
    path.write_text("this is not a database\n" * 1000)


DAMAGES = [damage_header, damage_pages, cut_off, fill_with_text]


def filled(path: Path) -> list[Entry]:
    store = SqliteStore(path, budget_s=PATIENCE_S)
    entries = [make_entry(f"{i} " + "x" * 3000) for i in range(50)]
    for entry in entries:
        store.put(entry)
    store.close()
    return entries


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_damaged_before_it_is_opened_is_moved_aside(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "store.db"
    entries = filled(path)
    damage(path)
    store = SqliteStore(path, budget_s=PATIENCE_S)
    use_until_sound(store, entries)
    assert len(list(tmp_path.glob("store.db.damaged-*"))) == 1


# A header that is overwritten in use comes back from the log with the next put.
@pytest.mark.parametrize("damage", DAMAGES[1:])
def test_a_file_damaged_while_it_is_used_is_moved_aside(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "store.db"
    entries = filled(path)
    store = SqliteStore(path, budget_s=PATIENCE_S)
    events: list[Event] = []
    store.on_event = events.append
    follower = Follower(store).follow()
    damage(path)
    use_until_sound(store, entries)
    assert len(list(tmp_path.glob("store.db.damaged-*"))) == 1
    assert [event.kind for event in events] == ["store_error"]
    assert "damaged" in events[0].message
    follower.follow()
    assert follower.resets == 1


def use_until_sound(store: SqliteStore, entries: list[Entry]) -> None:
    """Whatever is read is right; trouble is a StoreError; and soon the store works again."""
    troubles = 0
    for entry in entries:
        try:
            assert store.get(entry.key) in (None, as_stored(entry))
        except StoreError:
            troubles += 1
    for entry in entries:
        try:
            store.put(entry)
        except StoreError:
            troubles += 1
    assert troubles <= 2
    store.put(entries[0])
    assert store.get(entries[0].key) == as_stored(entries[0])


def test_of_two_processes_that_find_the_damage_one_moves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    entries = filled(path)
    store = SqliteStore(path, budget_s=PATIENCE_S)
    found, say_found = os.pipe()

    def work() -> None:
        mine = SqliteStore(path, budget_s=PATIENCE_S)
        assert mine.get(entries[0].key) is not None
        os.write(say_found, b"x")
        while not list(tmp_path.glob("*.damaged-*")):
            time.sleep(0.001)
        for _ in range(3):
            try:
                mine.put(entries[1])
            except StoreError:
                continue
        assert mine.get(entries[1].key) is not None

    child = start_child(work)
    os.read(found, 1)
    damage_pages(path)
    use_until_sound(store, entries)
    assert exit_code(child) == 0
    assert len(list(tmp_path.glob("store.db.damaged-*[0-9]"))) == 1
    assert store.get(entries[0].key) == as_stored(entries[0])


def test_a_damaged_log_loses_at_most_what_was_in_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    early, late = make_entry("early"), make_entry("late")
    store = SqliteStore(path, budget_s=PATIENCE_S)
    store.put(early)
    store.close()

    def write_and_die() -> None:
        SqliteStore(path, budget_s=PATIENCE_S).put(late)
        os.kill(os.getpid(), signal.SIGKILL)

    assert run_in_child(write_and_die) == -signal.SIGKILL
    with open(f"{path}-wal", "r+b") as log:
        log.seek(100)
        log.write(b"\xff" * 2000)
    reopened = SqliteStore(path, budget_s=PATIENCE_S)
    assert reopened.get(early.key) == as_stored(early)
    assert reopened.get(late.key) is None
    reopened.put(late)
    assert reopened.get(late.key) == as_stored(late)
