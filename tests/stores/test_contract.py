"""Every store keeps the shipped contract, on every server that the tests can start."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from semcache.stores import MemoryStore, RedisStore, SqliteStore, Store
from semcache.testing.servers import RedisClusterServers, RedisServer
from semcache.testing.store_contract import SharedStoreContract, StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    def reopen(self) -> Callable[[], Store]:
        return MemoryStore


class TestSqlite(SharedStoreContract):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], Store]:
        # Other work on the machine may hold a write up for longer than a cache would wait.
        return lambda: SqliteStore(tmp_path / "store.db", budget_s=5)

    def spoil(self, store: Store, id: int) -> None:
        assert isinstance(store, SqliteStore)
        with closing(sqlite3.connect(store.path)) as db, db:
            db.execute("UPDATE entries SET data = substr(data, 1, length(data) - 1) WHERE id = ?", (id,))


@pytest.fixture(scope="module", params=["redis-8.2", "redis-6.2", "valkey-9.1"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisClusterServers]:
    with RedisClusterServers() as servers:
        yield servers


class TestRedis(SharedStoreContract):
    @pytest.fixture
    def reopen(self, server: RedisServer) -> Callable[[], Store]:
        with closing(server.client()) as client:
            client.flushall()
        return lambda: RedisStore(server.url, budget_s=5)

    def spoil(self, store: Store, id: int) -> None:
        assert isinstance(store, RedisStore)
        assert store._client.setrange(store._key(id), 20, b"spoilt")


class TestRedisCluster(SharedStoreContract):
    @pytest.fixture
    def reopen(self, cluster: RedisClusterServers) -> Iterator[Callable[[], Store]]:
        with closing(cluster.client()) as client:
            client.flushall(target_nodes=client.PRIMARIES)
            yield lambda: RedisStore(client)

    def spoil(self, store: Store, id: int) -> None:
        assert isinstance(store, RedisStore)
        assert store._client.setrange(store._key(id), 20, b"spoilt")
