"""Any sequence of calls leaves a store as a dictionary would be left, and an index that follows the feed too."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from semcache.stores import MemoryStore, RedisStore, Selector, SqliteStore, Store
from semcache.testing.servers import RedisServer
from semcache.testing.store_contract import FINGERPRINT, Follower, as_stored, make_entry
from semcache.types import Entry

numbers = st.integers(0, 5)
VECTORS = [None, b"\x00\x3c" + bytes(6), bytes(6) + b"\x00\x3c"]


class StoreModel(RuleBasedStateMachine):
    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, Entry] = {}
        self.wrong: set[tuple[int, int]] = set()
        self.counters: Counter[str] = Counter()
        self.follower = Follower(self.store, limit=3)

    @rule(
        id=numbers,
        vector=st.sampled_from(VECTORS),
        fingerprint=st.sampled_from([FINGERPRINT, "other"]),
        scope=st.sampled_from("xy"),
        namespace=st.sampled_from(["n", "m"]),
        tags=st.sampled_from([(), ("t",), ("t", "u")]),
        ttl=st.sampled_from([None, 1000, -1]),
    )
    def put(
        self,
        id: int,
        vector: bytes | None,
        fingerprint: str,
        scope: str,
        namespace: str,
        tags: tuple[str, ...],
        ttl: float | None,
    ) -> None:
        # An id stands for one request: its canonical form, and so its scope, is always the same.
        entry = make_entry(
            f"text {id}",
            id=id,
            scope=f"{scope}{id}",
            vector=vector,
            fingerprint=fingerprint,
            namespace=namespace,
            tags=tags,
            ttl=ttl,
        )
        self.store.put(entry)
        if entry.expired(time.time()):
            self.live.pop(id, None)
        else:
            self.live[id] = as_stored(entry)

    @rule(id=numbers)
    def get(self, id: int) -> None:
        entry = self.live.get(id)
        key = make_entry(id=id).key if entry is None else entry.key
        assert self.store.get(key) == entry

    @rule(ids=st.lists(numbers, max_size=4))
    def fetch(self, ids: list[int]) -> None:
        assert self.store.fetch(ids) == [self.live.get(id) for id in ids]

    @rule(
        selector=st.builds(
            Selector,
            ids=st.none() | st.lists(numbers, max_size=3).map(tuple),
            tag=st.sampled_from([None, "t", "u"]),
            namespace=st.sampled_from([None, "n"]),
            tenant=st.none(),
            scope_id=st.none(),
            everything=st.just(True),
        )
    )
    def delete(self, selector: Selector) -> None:
        self.store.delete(selector)
        for id, entry in list(self.live.items()):
            if selector.matches(
                id,
                scope_id=entry.key.scope_id,
                namespace=entry.namespace,
                tenant=entry.tenant,
                tags=entry.tags,
            ):
                del self.live[id]

    @rule(a=numbers, b=numbers)
    def mark_wrong(self, a: int, b: int) -> None:
        self.store.mark_wrong(a, b)
        self.wrong.add((min(a, b), max(a, b)))

    @rule(name=st.sampled_from(["a", "b", "ab"]), delta=st.integers(-5, 5))
    def count(self, name: str, delta: int) -> None:
        self.store.add_counters({name: delta})
        self.counters[name] += delta

    @rule()
    def follow(self) -> None:
        self._compare(self.follower)

    @rule()
    def follow_from_the_beginning(self) -> None:
        self._compare(Follower(self.store, limit=2))

    def _compare(self, follower: Follower) -> None:
        follower.follow()
        expected = {
            id: (1.0, 0.0, 0.0, 0.0) if entry.vector == VECTORS[1] else (0.0, 0.0, 0.0, 1.0)
            for id, entry in self.live.items()
            if entry.vector is not None and entry.fingerprint == FINGERPRINT
        }
        # An entry that has expired may stay in an index until the store has noticed.
        assert {id: v for id, v in follower.vectors.items() if id in self.live} == expected
        assert follower.wrong == self.wrong
        assert follower.resets == 0

    @invariant()
    def books_are_right(self) -> None:
        assert {name: value for name, value in self.store.counters().items() if value} == {
            name: value for name, value in self.counters.items() if value
        }
        assert self.store.counters("a").keys() <= {"a", "ab"}

    def teardown(self) -> None:
        self.store.close()


SETTINGS = settings(max_examples=50, stateful_step_count=25, deadline=None)


class MemoryModel(StoreModel):
    def __init__(self) -> None:
        self.store = MemoryStore()
        super().__init__()


class SqliteModel(StoreModel):
    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = SqliteStore(Path(self.folder.name) / "store.db", budget_s=5)
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestMemoryModel = MemoryModel.TestCase
TestMemoryModel.settings = SETTINGS
TestSqliteModel = SqliteModel.TestCase
TestSqliteModel.settings = SETTINGS


def test_redis_model() -> None:
    with RedisServer() as server, closing(server.client()) as client:

        class RedisModel(StoreModel):
            def __init__(self) -> None:
                client.flushall()
                self.store = RedisStore(server.url, budget_s=5)
                super().__init__()

        run_state_machine_as_test(RedisModel, settings=SETTINGS)
