"""No store grows without end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from semcache.errors import ConfigurationError
from semcache.stores import MemoryStore, RedisStore, SqliteStore, Store, _feed
from semcache.testing.servers import RedisServer
from semcache.testing.store_contract import FINGERPRINT, Follower, as_stored, make_entry

Make = Callable[..., Store]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return MemoryStore
    return lambda **bounds: SqliteStore(tmp_path / "store.db", budget_s=5, **bounds)


def test_the_number_of_entries_is_bounded_and_the_newest_stay(make: Make) -> None:
    store = make(max_entries=10)
    follower = Follower(store)
    entries = [make_entry(str(i)) for i in range(25)]
    for entry in entries:
        store.put(entry)
        follower.follow()
    assert store.stats().entries == 10
    assert [store.get(entry.key) is not None for entry in entries] == [False] * 15 + [True] * 10
    assert set(follower.vectors) == {entry.key.id for entry in entries[15:]}


def test_the_bytes_are_bounded(make: Make) -> None:
    store = make(max_bytes=100_000)
    for i in range(50):
        store.put(replace(make_entry(str(i)), response=bytes(10_000)))
        size = store.stats().bytes
        assert size is not None
        assert size <= 100_000
    assert store.stats().entries in (8, 9)


def test_one_large_entry_makes_room_for_itself(make: Make) -> None:
    store = make(max_bytes=100_000)
    for i in range(10):
        store.put(replace(make_entry(str(i)), response=bytes(2_000)))
    large = replace(make_entry("large"), response=bytes(95_000))
    store.put(large)
    assert store.get(large.key) == as_stored(large)
    size = store.stats().bytes
    assert size is not None
    assert size <= 100_000


def test_an_entry_larger_than_the_store_is_not_kept_and_drives_nothing_out(make: Make) -> None:
    store = make(max_bytes=100_000)
    small, huge = make_entry("small"), replace(make_entry("huge"), response=bytes(200_000))
    store.put(small)
    store.put(huge)
    assert store.get(huge.key) is None
    assert store.get(small.key) == as_stored(small)


def test_expired_entries_are_cleared_away_by_later_puts(make: Make) -> None:
    store = make()
    for i in range(10):
        store.put(make_entry(str(i), ttl=0.05))
    follower = Follower(store).follow()
    time.sleep(0.06)
    for i in range(5):
        store.put(make_entry(f"late {i}"))
    assert store.stats().entries == 5
    assert len(follower.follow().vectors) == 5


def test_used_entries_outlive_unused_ones_in_memory() -> None:
    store = MemoryStore(max_entries=3)
    used, unused = make_entry("used"), make_entry("unused")
    store.put(used)
    store.put(unused)
    for i in range(2):
        assert store.get(used.key) is not None
        store.put(make_entry(str(i)))
    assert store.get(used.key) is not None
    assert store.get(unused.key) is None


@pytest.mark.parametrize("bounds", [{"max_entries": 0}, {"max_bytes": -1}])
def test_a_bound_below_one_is_refused(make: Make, bounds: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        make(**bounds)


def test_without_bounds_nothing_goes(make: Make) -> None:
    store = make(max_entries=None, max_bytes=None)
    for i in range(50):
        store.put(make_entry(str(i)))
    assert store.stats().entries == 50


# What the feed remembers


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "store.db", budget_s=5)
    server: RedisServer = request.getfixturevalue("server")
    return RedisStore(server.url, budget_s=5, prefix=tmp_path.name)


@pytest.fixture(scope="module")
def server():  # type: ignore[no-untyped-def]
    with RedisServer() as server:
        yield server


def test_a_cursor_older_than_the_history_starts_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_feed, "HISTORY", 20)
    kept = make_entry("kept")
    store.put(kept)
    gone = make_entry("gone")
    store.put(gone)
    follower = Follower(store).follow()
    delete(store, gone.key.id)
    for i in range(300):  # Redis trims its log a hundred events at a time
        delete(store, put_id(store, str(i)))
    follower.follow()
    assert follower.resets == 1
    assert set(follower.vectors) == {kept.key.id}


def test_a_long_first_walk_is_not_thrown_back_by_old_removals(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_feed, "HISTORY", 20)
    entries = [make_entry(str(i)) for i in range(200)]
    for entry in entries:
        store.put(entry)
    for i in range(50):
        delete(store, put_id(store, f"removed {i}"))
    follower = Follower(store, limit=10).follow()
    assert follower.resets == 0
    assert set(follower.vectors) == {entry.key.id for entry in entries}


def test_wrong_pairs_are_bounded_and_the_oldest_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_feed, "MAX_WRONG_PAIRS", 5)
    for i in range(8):
        store.mark_wrong(i, 100)
    assert Follower(store).follow().wrong == {(i, 100) for i in range(3, 8)}


def test_expired_cards_are_swept_out_of_redis(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semcache.stores.redis._SWEEP_EVERY", 1)
    store = RedisStore(server.url, budget_s=5, prefix="sweep")
    for i in range(10):
        store.put(make_entry(str(i), ttl=2.0))
    follower = Follower(store).follow()
    assert len(follower.vectors) == 10
    time.sleep(2.05)
    late = make_entry("late")
    store.put(late)
    assert store.stats().entries == 1
    assert set(follower.follow().vectors) == {late.key.id}


def put_id(store: Store, text: str) -> int:
    entry = make_entry(text)
    store.put(entry)
    return entry.key.id


def delete(store: Store, id: int) -> None:
    from semcache.stores import Selector

    assert store.delete(Selector(ids=(id,))) == 1


def test_the_feed_of_another_fingerprint_is_its_own(store: Store) -> None:
    store.put(make_entry("one"))
    assert Follower(store, fingerprint="other").follow().vectors == {}
    assert len(Follower(store, fingerprint=FINGERPRINT).follow().vectors) == 1
