"""What only the SQLite store has to answer for: its file."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from semcache.errors import ConfigurationError, StoreError
from semcache.stores import Selector, SqliteStore
from semcache.testing.store_contract import (
    FINGERPRINT,
    Follower,
    as_stored,
    exit_code,
    make_entry,
    run_in_child,
    start_child,
)
from semcache.types import Event


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new" / "store.db")
    store.put(make_entry())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    SqliteStore(tmp_path / "store.db")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_close_leaves_one_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    entry = make_entry()
    store.put(entry)
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]
    with pytest.raises(StoreError, match="closed"):
        store.get(entry.key)
    assert SqliteStore(tmp_path / "store.db").get(entry.key) == as_stored(entry)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE users (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["theirs.db"]


def test_a_store_of_another_format_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match=r"format 99.*format 2.*delete the file"):
        SqliteStore(path)


@pytest.mark.parametrize("name", ["", "file/store.db"])
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigurationError):
        SqliteStore(tmp_path / name)


def test_a_budget_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        SqliteStore(tmp_path / "store.db", budget_s=0)


def test_processes_may_create_the_file_at_once(tmp_path: Path) -> None:
    for attempt in range(5):
        path = tmp_path / f"{attempt}.db"
        gun, trigger = os.pipe()

        def work(id: int, path: Path = path, gun: int = gun, trigger: int = trigger) -> None:
            os.close(trigger)
            os.read(gun, 1)  # returns in all of them when the last writing end is closed
            SqliteStore(path, budget_s=5).put(make_entry(id=id))

        children = [start_child(partial(work, id)) for id in range(4)]
        os.close(gun)
        os.close(trigger)
        assert [exit_code(child) for child in children] == [0] * 4
        assert None not in SqliteStore(path).fetch(range(4))


def test_a_fork_leaves_the_log_to_both(tmp_path: Path) -> None:
    """SQLite's locks do not survive a fork. If the child kept the parent's connections, the parent would believe
    itself alone when it closes and would delete the log that the child goes on writing to."""
    path = tmp_path / "store.db"
    store = SqliteStore(path, budget_s=5)
    store.put(make_entry("before"))
    late = make_entry("after the parent has closed")
    closed, close = os.pipe()

    def work() -> None:
        store.put(make_entry("in the child"))
        os.read(closed, 1)
        store.put(late)
        os.kill(os.getpid(), signal.SIGKILL)

    child = start_child(work)
    while store.stats().entries < 2:
        time.sleep(0.001)
    store.put(make_entry("in the parent"))
    store.close()
    os.write(close, b"x")
    assert exit_code(child) == -signal.SIGKILL
    assert SqliteStore(path, budget_s=5).get(late.key) == as_stored(late)


def test_another_process_that_closes_leaves_the_log_in_use(tmp_path: Path) -> None:
    """POSIX drops a process's locks on a file whenever it closes any descriptor of that file."""
    store = SqliteStore(tmp_path / "store.db", budget_s=5)
    store.put(make_entry("a"))
    with store._file.reading(), store._file.reading():  # several connections, opened one after another
        assert len(store._file._all) > 1

    script = "import sys; from semcache.stores import SqliteStore; SqliteStore(sys.argv[1]).close()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, store.path], check=True, env=environment)
    assert (tmp_path / "store.db-wal").exists()


def test_connections_of_ended_threads_are_used_again(tmp_path: Path) -> None:
    from threading import Thread

    store = SqliteStore(tmp_path / "store.db", budget_s=5)
    for i in range(30):
        thread = Thread(target=store.put, args=(make_entry(str(i)),))
        thread.start()
        thread.join()
    descriptors = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
    assert descriptors.count(str(store.path)) == 1


def _is_link(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")


def test_the_feed_notices_other_connections_and_other_processes(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", budget_s=5)
    follower = Follower(store).follow()
    for work in (
        lambda entry: store.put(entry),
        lambda entry: SqliteStore(store.path, budget_s=5).put(entry),
        lambda entry: run_in_child(lambda: store.put(entry)),
    ):
        entry = make_entry()
        work(entry)
        assert entry.key.id in follower.follow().vectors
        assert store.changes(follower.cursor, fingerprint=FINGERPRINT) is None


def test_queries_on_many_entries_use_an_index(tmp_path: Path) -> None:
    from semcache.stores import sqlite

    store = SqliteStore(tmp_path / "store.db", budget_s=5)
    with closing(sqlite3.connect(store.path)) as db:

        def plan(query: str, values: object) -> str:
            return " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", values))

        assert "SCAN" not in plan(sqlite._GET, (1,))
        assert "SCAN" not in plan(*sqlite._query(Selector(tag="t")))
        assert "SCAN" not in plan(*sqlite._query(Selector(scope_id=1)))
        assert "COVERING INDEX" in plan(*sqlite._query(Selector(namespace="n", tenant="t")))
        removed = plan(sqlite._REMOVED, {"after": 1, "upto": 2, "embedder": 3})
        assert "SCAN" not in removed


def heads(store: SqliteStore) -> int:
    with closing(sqlite3.connect(store.path)) as db:
        (count,) = db.execute("SELECT count(*) FROM heads").fetchone()
    return int(count)


def test_what_a_scope_shares_is_written_once_and_goes_with_its_last_entry(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", budget_s=5)
    first = make_entry("0", scope="x" * 5000)
    store.put(first)
    alone = store.stats().bytes
    for i in range(1, 20):
        store.put(make_entry(str(i), scope="x" * 5000))
    assert alone is not None
    assert store.stats().bytes < alone + 19 * 500
    other = make_entry(tenant="other")
    exact_only = make_entry(vector=None)
    for entry in (other, replace(other, response=b"again"), exact_only):
        store.put(entry)
    assert heads(store) == 3
    assert store.get(other.key) == as_stored(replace(other, response=b"again"))
    store.delete(Selector(ids=(first.key.id, other.key.id, exact_only.key.id)))
    assert heads(store) == 1
    store.delete(Selector(everything=True))
    assert heads(store) == 0
    assert store.stats()[2:] == (0, 0)


def test_an_entry_without_a_vector_hides_none_of_its_scope_from_the_feed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", budget_s=5)
    store.put(replace(make_entry("exact only", vector=None), fingerprint=FINGERPRINT))
    store.put(entry := make_entry("both tiers"))
    changes = store.changes(None, fingerprint=FINGERPRINT)
    assert changes is not None
    assert changes.ids.tolist() == [entry.key.id]


def test_a_damaged_head_makes_misses_until_the_next_put(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", budget_s=5)
    events: list[Event] = []
    store.on_event = events.append
    entries = [make_entry(str(i)) for i in range(3)]
    for entry in entries:
        store.put(entry)
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE heads SET data = zeroblob(length(data))")
    assert store.get(entries[0].key) is None
    assert [event.kind for event in events] == ["entry_damaged"]
    store.put(entries[0])
    assert store.fetch([entry.key.id for entry in entries]) == [as_stored(entry) for entry in entries]


@pytest.mark.skipif(sys.platform != "linux", reason="the sizes of files are counted in Linux's way")
def test_a_full_file_has_little_beside_the_entries(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", budget_s=5)
    for i in range(2000):
        store.put(make_entry(f"{i:1000}", vector=bytes(768)))
    size = store.stats().bytes
    store.close()
    assert size is not None
    assert store.path.stat().st_size < 1.25 * size
