"""What a store must do, as tests that a store's author inherits.

::

    class TestMyStore(SharedStoreContract):
        @pytest.fixture
        def reopen(self, tmp_path):
            return lambda: MyStore(tmp_path / "store")

        def spoil(self, store, id):
            store.overwrite_raw_bytes(id, b"not an entry")
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from semcache.errors import ConfigurationError
from semcache.stores.base import Selector, Store
from semcache.testing._processes import exit_code, run_in_child, start_child
from semcache.testing._store_entries import FINGERPRINT, Follower, as_stored, make_entry
from semcache.types import Entry, Event

__all__ = [
    "FINGERPRINT",
    "Follower",
    "SharedStoreContract",
    "StoreContract",
    "as_stored",
    "exit_code",
    "make_entry",
    "run_in_child",
    "start_child",
]


class StoreContract:
    """Every store."""

    @pytest.fixture
    @abstractmethod
    def reopen(self) -> Callable[[], Store]:
        """Opens the store of this test. A shared store opened again has what was put before."""

    @pytest.fixture
    def store(self, reopen: Callable[[], Store]) -> Iterator[Store]:
        store = reopen()
        yield store
        store.close()

    @pytest.fixture
    def events(self, store: Store) -> list[Event]:
        seen: list[Event] = []
        store.on_event = seen.append
        return seen

    # get, fetch, put

    def test_an_entry_comes_back_as_it_was_put(self, store: Store) -> None:
        entry = make_entry("naïve “question” – 日本語 🎉", tenant="acme", tags=("a", "b"), ttl=60)
        store.put(entry)
        assert store.get(entry.key) == as_stored(entry)
        assert store.fetch([entry.key.id]) == [as_stored(entry)]

    def test_an_entry_with_nothing_optional_comes_back(self, store: Store) -> None:
        entry = replace(make_entry(vector=None), text=None, usage=None, model=None, response=b"")
        store.put(entry)
        assert store.get(entry.key) == entry

    def test_a_float32_vector_comes_back_as_float16(self, store: Store) -> None:
        import numpy as np

        vector = np.full(384, 384**-0.5, dtype=np.float32)
        entry = make_entry(vector=vector)
        store.put(entry)
        got = store.get(entry.key)
        assert got is not None
        embedding = got.embedding()
        assert embedding is not None
        assert embedding.dtype == np.float32
        np.testing.assert_allclose(embedding, vector, atol=1e-4)

    def test_what_was_not_put_is_absent(self, store: Store) -> None:
        assert store.get(make_entry().key) is None
        assert store.fetch([1, 2]) == [None, None]
        assert store.fetch([]) == []

    def test_another_request_in_the_slot_is_absent_and_reported(self, store: Store, events: list[Event]) -> None:
        entry = make_entry()
        store.put(entry)
        assert store.get(entry.key._replace(canonical=b"scope\nanother")) is None
        assert [event.kind for event in events] == ["collision"]
        assert store.get(entry.key) is not None

    def test_put_replaces_what_is_in_the_slot(self, store: Store) -> None:
        old = make_entry(tags=("old",))
        new = replace(old, response=b'"new"', tags=("new",))
        store.put(old)
        store.put(new)
        assert store.get(old.key) == as_stored(new)
        assert store.stats().entries == 1
        assert store.delete(Selector(tag="old")) == 0

    def test_fetch_keeps_the_order_and_marks_what_is_gone(self, store: Store) -> None:
        entries = [make_entry(f"question {i}") for i in range(3)]
        for entry in entries:
            store.put(entry)
        ids = [entries[2].key.id, 7, entries[0].key.id, entries[2].key.id]
        first, second, third = (as_stored(entry) for entry in entries)
        assert store.fetch(ids) == [third, None, first, third]
        assert second in store.fetch([entries[1].key.id])

    def test_an_expired_entry_is_absent(self, store: Store, events: list[Event]) -> None:
        late, soon, later, never = (make_entry(ttl=ttl) for ttl in (-1, 0.1, 3600, None))
        for entry in (late, soon, later, never):
            store.put(entry)
        time.sleep(0.12)
        assert store.get(late.key) is None
        assert store.get(soon.key) is None
        assert store.get(later.key) == as_stored(later)
        ids = [entry.key.id for entry in (late, soon, later, never)]
        assert store.fetch(ids) == [None, None, as_stored(later), as_stored(never)]
        assert events == []

    def test_an_expired_entry_can_be_asked_for(self, store: Store) -> None:
        store.keep_expired_s = 60.0
        late, later, live = make_entry(ttl=-1), make_entry(ttl=-30), make_entry(ttl=60)
        for entry in (late, later, live, *(make_entry(f"question {i}", vector=None) for i in range(200))):
            store.put(entry)  # many, so that those that look for expired ones come by
        for entry, stale_s in ((late, 10.0), (later, 31.0), (live, 10.0)):
            assert store.get(entry.key, stale_s=stale_s) == as_stored(entry)
        assert store.get(late.key) is None
        assert store.get(later.key, stale_s=10.0) is None
        assert store.fetch([late.key.id]) == [None]
        assert set(Follower(store).follow().vectors) == {live.key.id}

    def test_what_is_deleted_cannot_be_asked_for_though_it_had_expired(self, store: Store) -> None:
        store.keep_expired_s = 60.0
        entry = make_entry(ttl=-1, tags=("red",))
        store.put(entry)
        assert store.delete(Selector(tag="red")) == 1
        assert store.get(entry.key, stale_s=60.0) is None

    def test_the_extremes_of_ids_are_kept(self, store: Store) -> None:
        for id in (0, 2**63 - 1):
            entry = make_entry(id=id)
            store.put(entry)
            assert store.get(entry.key) == as_stored(entry)
        assert set(Follower(store).follow().vectors) == {0, 2**63 - 1}

    # delete

    def test_delete_takes_what_matches_every_field_that_is_set(self, store: Store) -> None:
        a = make_entry(scope="one", namespace="n1", tenant="t1", tags=("red", "blue"))
        b = make_entry(scope="one", namespace="n1", tenant="t2", tags=("red",))
        c = make_entry(scope="two", namespace="n2", tenant=None)

        def left_after(selector: Selector) -> list[bool]:
            for entry in (a, b, c):
                store.put(entry)
            deleted = store.delete(selector)
            left = [store.get(entry.key) is not None for entry in (a, b, c)]
            assert deleted == left.count(False)
            return left

        assert left_after(Selector(ids=(a.key.id, c.key.id, 7))) == [False, True, False]
        assert left_after(Selector(ids=())) == [True, True, True]
        assert left_after(Selector(tag="red")) == [False, False, True]
        assert left_after(Selector(tag="green")) == [True, True, True]
        assert left_after(Selector(namespace="n1")) == [False, False, True]
        assert left_after(Selector(tenant="t2")) == [True, False, True]
        assert left_after(Selector(scope_id=a.key.scope_id)) == [False, False, True]
        assert left_after(Selector(tag="red", tenant="t1")) == [False, True, True]
        assert left_after(Selector(ids=(b.key.id,), namespace="n2")) == [True, True, True]
        assert left_after(Selector(namespace="n1", everything=True)) == [False, False, True]
        assert left_after(Selector(everything=True)) == [False, False, False]

    @pytest.mark.parametrize(
        "selector", [Selector(), Selector(ids=(1, 2**63)), Selector(scope_id=-1)], ids=["empty", "id", "scope"]
    )
    def test_a_selector_that_makes_no_sense_is_refused(self, store: Store, selector: Selector) -> None:
        entry = make_entry()
        store.put(entry)
        with pytest.raises(ConfigurationError):
            store.delete(selector)
        assert store.get(entry.key) is not None

    def test_many_entries_are_deleted_at_once(self, store: Store) -> None:
        for i in range(1200):
            store.put(make_entry(f"question {i}", tags=("all",), vector=None))
        assert store.delete(Selector(tag="all")) == 1200
        assert store.stats().entries == 0

    # the feed

    def test_the_feed_yields_every_live_entry_of_the_fingerprint(self, store: Store) -> None:
        entries = [make_entry(f"question {i}", scope=f"s{i % 3}") for i in range(25)]
        for entry in entries:
            store.put(entry)
        store.put(make_entry("no vector", vector=None))
        store.put(make_entry("another embedder", fingerprint="other"))
        store.put(make_entry("expired", ttl=-1))
        for limit in (1, 7, 25, 1000):
            follower = Follower(store, limit=limit).follow()
            assert follower.scopes == {entry.key.id: entry.key.scope_id for entry in entries}
            assert set(follower.vectors.values()) == {(1.0, 0.0, 0.0, 0.0)}
            assert follower.resets == 0
        assert len(Follower(store, fingerprint="other").follow().vectors) == 1

    def test_the_feed_is_silent_when_nothing_changed(self, store: Store) -> None:
        first = store.changes(None, fingerprint=FINGERPRINT)
        assert first is not None
        assert len(first.ids) == 0
        assert store.changes(first.cursor, fingerprint=FINGERPRINT) is None
        entry = make_entry()
        store.put(entry)
        follower = Follower(store).follow()
        for _ in range(3):
            assert store.changes(follower.cursor, fingerprint=FINGERPRINT) is None
            store.get(entry.key)

    def test_the_feed_goes_on_with_later_changes(self, store: Store) -> None:
        kept, gone, late = make_entry("kept"), make_entry("gone"), make_entry("late")
        store.put(kept)
        store.put(gone)
        follower = Follower(store).follow()
        store.delete(Selector(ids=(gone.key.id,)))
        store.put(late)
        assert set(follower.follow().vectors) == {kept.key.id, late.key.id}

    def test_an_entry_that_came_back_is_added_again(self, store: Store) -> None:
        entry = make_entry()
        store.put(entry)
        follower = Follower(store).follow()
        store.delete(Selector(ids=(entry.key.id,)))
        store.put(entry)
        assert set(follower.follow().vectors) == {entry.key.id}
        store.delete(Selector(everything=True))
        assert follower.follow().vectors == {}

    def test_a_replaced_entry_is_reported_with_its_new_vector(self, store: Store) -> None:
        entry = make_entry()
        store.put(entry)
        follower = Follower(store).follow()
        store.put(replace(entry, vector=bytes(6) + b"\x00\x3c"))
        assert follower.follow().vectors == {entry.key.id: (0.0, 0.0, 0.0, 1.0)}

    def test_an_entry_that_lost_its_vector_is_removed(self, store: Store) -> None:
        bare, foreign = make_entry("bare"), make_entry("foreign")
        store.put(bare)
        store.put(foreign)
        follower = Follower(store).follow()
        store.put(replace(bare, vector=None, fingerprint=None))
        store.put(replace(foreign, fingerprint="other"))
        assert follower.follow().vectors == {}

    def test_no_removal_is_lost_while_a_first_walk_is_under_way(self, store: Store) -> None:
        entries = [make_entry(f"question {i}") for i in range(300)]
        for entry in entries:
            store.put(entry)
        follower = Follower(store, limit=100)
        page = store.changes(None, fingerprint=FINGERPRINT, limit=100)
        assert page is not None
        follower.vectors = dict.fromkeys(page.ids.tolist(), (0.0,))
        follower.cursor = page.cursor
        store.delete(Selector(ids=tuple(entry.key.id for entry in entries[::2])))
        late = make_entry("late")
        store.put(late)
        for _ in range(20):
            follower.follow()
        assert set(follower.vectors) == {entry.key.id for entry in entries[1::2]} | {late.key.id}

    @pytest.mark.parametrize("cursor", ["", "nonsense", "1:2:3", ":::", "00:9:9", "1-0:ab:", "0-0::5"])
    def test_a_cursor_of_another_store_starts_again(self, store: Store, cursor: str) -> None:
        entry = make_entry()
        store.put(entry)
        follower = Follower(store)
        follower.cursor, follower.vectors = cursor, {1: (0.0,)}
        assert set(follower.follow().vectors) == {entry.key.id}
        assert follower.resets == 1

    # wrong pairs

    def test_wrong_pairs_survive_their_entries(self, store: Store) -> None:
        a, b = make_entry("a", id=20), make_entry("b", id=10)
        store.put(a)
        store.put(b)
        follower = Follower(store).follow()
        store.mark_wrong(20, 10)
        store.mark_wrong(10, 20)
        assert follower.follow().wrong == {(10, 20)}
        store.delete(Selector(everything=True))
        assert Follower(store).follow().wrong == {(10, 20)}

    # counters and sizes

    def test_counters_add_up(self, store: Store) -> None:
        store.add_counters({})
        store.add_counters({"a:x": 1, "b%:ü": 2**40})
        store.add_counters({"a:x": -3, "a:y": 5})
        assert store.counters() == {"a:x": -2, "a:y": 5, "b%:ü": 2**40}
        assert store.counters("a*") == store.counters("[ab]") == store.counters("a?x") == {}
        assert store.counters("a:") == {"a:x": -2, "a:y": 5}
        assert store.counters("b%") == {"b%:ü": 2**40}
        assert store.counters("%") == {}
        store.drop_counters(["a:x", "never seen"])
        store.drop_counters([])
        assert store.counters() == {"a:y": 5, "b%:ü": 2**40}

    def test_counts_under_a_name_are_added(self, store: Store) -> None:
        store.add_counters({"a": 1, "b|ü": -2}, once="first")
        store.add_counters({"a": 1}, once="second")
        store.add_counters({}, once="third")
        assert store.counters() == {"a": 2, "b|ü": -2}

    def test_scopes_are_counted_largest_first(self, store: Store) -> None:
        for scope, count in (("one", 2), ("two", 3), ("three", 1)):
            for i in range(count):
                store.put(make_entry(str(i), scope=scope))
        id_of = {scope: make_entry(scope=scope).key.scope_id for scope in ("one", "two", "three")}
        assert list(store.scopes().items()) == [(id_of["two"], 3), (id_of["one"], 2), (id_of["three"], 1)]
        assert store.scopes(limit=1) == {id_of["two"]: 3}

    def test_stats_tell_the_size(self, store: Store) -> None:
        store.put(make_entry("a"))
        before = store.stats()
        store.put(replace(make_entry("b"), response=b"x" * 5000))
        after = store.stats()
        assert (before.entries, after.entries) == (1, 2)
        assert before.kind
        assert before.location
        if before.bytes is not None and after.bytes is not None:
            assert after.bytes - before.bytes > 5000
        store.delete(Selector(everything=True))
        assert store.stats().entries == 0
        assert store.stats().bytes in (0, None)

    # threads, forks, trouble

    def test_threads_do_not_disturb_each_other(self, store: Store) -> None:
        shared = make_entry("shared")

        def work(worker: int) -> int:
            mine = [make_entry(f"{worker}/{i}", tags=(f"w{worker}",)) for i in range(20)]
            for entry in mine:
                store.put(entry)
                store.put(shared)
                assert store.get(entry.key) == as_stored(entry)
                store.changes(None, fingerprint=FINGERPRINT, limit=5)
            store.add_counters({"all": len(mine)})
            return store.delete(Selector(tag=f"w{worker}"))

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(work, range(4))) == [20] * 4
        assert store.counters() == {"all": 80}
        assert store.get(shared.key) == as_stored(shared)
        assert store.stats().entries == 1

    def test_a_child_of_a_fork_can_use_the_store(self, store: Store) -> None:
        entry = make_entry()
        store.put(entry)
        stop = threading.Event()
        busy = threading.Thread(target=lambda: [store.get(entry.key) for _ in iter(stop.is_set, True)])
        busy.start()
        try:
            for _ in range(5):
                assert run_in_child(lambda: self._use(store, entry)) == 0
        finally:
            stop.set()
            busy.join()
        self._use(store, entry)

    @staticmethod
    def _use(store: Store, entry: Entry) -> None:
        assert store.get(entry.key) == as_stored(entry)
        another = make_entry("from the child")
        store.put(another)
        assert store.get(another.key) == as_stored(another)

    def test_ping_says_nothing_when_all_is_well(self, store: Store) -> None:
        store.ping()

    def test_close_may_be_called_twice(self, reopen: Callable[[], Store]) -> None:
        store = reopen()
        store.put(make_entry())
        store.close()
        store.close()


class SharedStoreContract(StoreContract):
    """A store outside the process, with entries as bytes."""

    @abstractmethod
    def spoil(self, store: Store, id: int) -> None:
        """Overwrite the stored bytes of an entry with something that is not an entry."""

    def test_a_damaged_entry_is_absent_removed_and_reported(self, store: Store, events: list[Event]) -> None:
        read, fetched, sound = (make_entry(f"question {i}") for i in range(3))
        for entry in (read, fetched, sound):
            store.put(entry)
        self.spoil(store, read.key.id)
        self.spoil(store, fetched.key.id)
        assert store.get(read.key) is None
        assert store.fetch([fetched.key.id, sound.key.id]) == [None, as_stored(sound)]
        assert [event.kind for event in events] == ["entry_damaged"] * 2
        assert store.stats().entries == 1
        store.put(read)
        assert store.get(read.key) == as_stored(read)

    def test_a_damaged_entry_does_not_stop_the_feed(self, store: Store, events: list[Event]) -> None:
        bad, good = make_entry("bad"), make_entry("good")
        store.put(bad)
        store.put(good)
        self.spoil(store, bad.key.id)
        assert set(Follower(store).follow().vectors) == {good.key.id}
        assert [event.kind for event in events] == ["entry_damaged"]

    def test_what_one_opening_puts_another_sees(self, store: Store, reopen: Callable[[], Store]) -> None:
        other = reopen()
        follower = Follower(other).follow()
        entry = make_entry()
        store.put(entry)
        store.mark_wrong(1, 2)
        store.add_counters({"a": 1})
        assert other.get(entry.key) == as_stored(entry)
        assert set(follower.follow().vectors) == {entry.key.id}
        assert follower.wrong == {(1, 2)}
        other.add_counters({"a": 1})
        assert store.counters() == {"a": 2}
        other.delete(Selector(everything=True))
        assert store.get(entry.key) is None
        other.close()

    def test_a_cursor_goes_on_in_another_opening(self, store: Store, reopen: Callable[[], Store]) -> None:
        store.put(make_entry("early"))
        follower = Follower(store).follow()
        late = make_entry("late")
        store.put(late)
        other = reopen()
        page = other.changes(follower.cursor, fingerprint=FINGERPRINT)
        assert page is not None
        assert page.ids.tolist() == [late.key.id]
        assert not page.reset
        other.close()

    def test_processes_share_the_store(self, store: Store, reopen: Callable[[], Store]) -> None:
        entry = make_entry("from the child")
        follower = Follower(store).follow()

        def work() -> None:
            mine = reopen()
            mine.put(entry)
            mine.add_counters({"puts": 1})
            mine.close()

        assert run_in_child(work) == 0
        assert store.get(entry.key) == as_stored(entry)
        assert store.counters() == {"puts": 1}
        assert set(follower.follow().vectors) == {entry.key.id}
