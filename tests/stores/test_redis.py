"""What only the Redis store has to answer for: its keys, its round trips and its connection."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from semcache.errors import ConfigurationError, StoreError
from semcache.stores import RedisStore, Selector, open_store
from semcache.testing.servers import RedisClusterServers, RedisServer
from semcache.testing.store_contract import FINGERPRINT, Follower, as_stored, make_entry


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with closing(server.client()) as client:
        client.flushall()
        yield client


@pytest.fixture
def store(server: RedisServer, client: Any) -> Iterator[RedisStore]:
    store = RedisStore(server.url, budget_s=5)
    yield store
    store.close()


def commands(client: Any) -> dict[str, int]:
    """How often each command came since the last look, beside the look itself."""
    counts = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in client.info("commandstats").items()}
    client.config_resetstat()
    return {name: count for name, count in counts.items() if name not in ("info", "config|resetstat")}


def test_an_exact_hit_and_a_quiet_feed_are_one_command(store: RedisStore, client: Any) -> None:
    entry = make_entry()
    store.put(entry)
    follower = Follower(store).follow()
    commands(client)
    assert store.get(entry.key) == as_stored(entry)
    assert commands(client) == {"get": 1}
    store.fetch([entry.key.id, 1, 2])
    assert commands(client) == {"mget": 1}
    store.put(make_entry("other"))
    assert commands(client) == {"set": 1, "hset": 1, "xadd": 1}
    follower.follow()
    commands(client)
    assert store.changes(follower.cursor, fingerprint=FINGERPRINT) is None
    assert commands(client) == {"xrange": 1}


def test_entries_expire_in_the_server_too(store: RedisStore, client: Any) -> None:
    mortal, immortal = make_entry("mortal", ttl=100), make_entry("immortal")
    store.put(mortal)
    store.put(immortal)
    assert 99_000 < client.pttl(store._key(mortal.key.id)) <= 100_000
    assert client.pttl(store._key(immortal.key.id)) == -1
    store.put(make_entry("mortal", id=immortal.key.id, ttl=1))
    assert client.pttl(store._key(immortal.key.id)) > 0


def test_prefixes_keep_stores_apart(server: RedisServer, client: Any) -> None:
    one, two = (RedisStore(server.url, prefix=prefix, budget_s=5) for prefix in ("one", "two"))
    entry = make_entry()
    one.put(entry)
    one.add_counters({"a": 1})
    one.mark_wrong(1, 2)
    assert two.get(entry.key) is None
    assert two.counters() == {}
    assert Follower(two).follow().wrong == set()
    two.put(entry)
    assert one.delete(Selector(everything=True)) == 1
    assert two.get(entry.key) == as_stored(entry)
    assert all(key.startswith((b"one:2:", b"{one:2}:", b"two:2:", b"{two:2}:")) for key in client.keys("*"))


def test_counts_that_were_added_under_a_name_are_not_added_again(store: RedisStore, client: Any) -> None:
    for _ in range(3):
        store.add_counters({"a": 1, "b": 2}, once="mine")
    store.add_counters({"a": 1}, once="other")
    assert store.counters() == {"a": 2, "b": 2}
    [mark] = client.keys("*:once:mine")
    assert 3500 < client.ttl(mark) <= 3600


def test_who_asks_for_counters_of_one_kind_does_not_walk_over_the_others(store: RedisStore, client: Any) -> None:
    store.add_counters({f"many|{n}": 1 for n in range(30_000)} | {"few|a": 1, "plain": 2}, once="x")
    store.add_counters({"few|a": 1, "few|b": 3})
    commands(client)
    assert store.counters("few|") == {"few|a": 2, "few|b": 3}
    assert commands(client) == {"hscan": 1}
    assert store.counters("f") == {"few|a": 2, "few|b": 3}
    assert len(store.counters()) == 30_003
    store.drop_counters(["few|a", "plain", "many|7", "nobody|1"])
    assert store.counters("few|") == {"few|b": 3}
    assert len(store.counters()) == 30_000


def test_a_flushed_server_starts_the_feed_again(store: RedisStore, client: Any) -> None:
    store.put(make_entry("lost"))
    follower = Follower(store).follow()
    client.flushall()
    entry = make_entry("new")
    store.put(entry)
    assert set(follower.follow().vectors) == {entry.key.id}
    assert follower.resets == 1


def test_another_stores_event_of_the_same_time_is_not_taken_for_ones_own(server: RedisServer, client: Any) -> None:
    one, two = (RedisStore(server.url, prefix=prefix, budget_s=5) for prefix in ("one", "two"))
    one.put(make_entry())
    follower = Follower(one).follow()
    [(event, _)] = client.xrevrange("{one:2}:log", count=1)
    client.xadd("{two:2}:log", {"r": b""}, id=event)
    page = two.changes(follower.cursor, fingerprint=FINGERPRINT)
    assert page is not None
    assert page.reset


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_of_the_callers_is_used_and_left_open(server: RedisServer, client: Any, protocol: int) -> None:
    with closing(redis.Redis(port=server.port, protocol=protocol)) as own:
        store = RedisStore(own)
        entry = make_entry(ttl=50)
        store.put(entry)
        store.mark_wrong(1, 2)
        store.add_counters({"a": 1})
        assert store.get(entry.key) == as_stored(entry)
        follower = Follower(store).follow()
        store.put(make_entry("late"))
        assert len(follower.follow().vectors) == 2
        assert follower.wrong == {(1, 2)}
        assert len(store.scopes()) == 1
        store.close()
        assert own.ping()
        assert store.stats().location == f"redis://localhost:{server.port}"


def test_a_client_that_decodes_answers_is_refused(server: RedisServer) -> None:
    with (
        closing(redis.Redis(port=server.port, decode_responses=True)) as own,
        pytest.raises(ConfigurationError, match="decode_responses"),
    ):
        RedisStore(own)


@pytest.mark.parametrize("options", [{"prefix": ""}, {"prefix": "a{b}"}, {"budget_s": 0}])
def test_arguments_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RedisStore("redis://127.0.0.1/0", **options)


def test_users_and_passwords_come_from_the_url(server: RedisServer, client: Any) -> None:
    client.acl_setuser("app", enabled=True, passwords=["+s3cret/"], keys=["*"], commands=["+@all"])
    client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all"])
    entry = make_entry()
    right = open_store(f"redis://app:s3cret%2F@127.0.0.1:{server.port}/0")
    right.put(entry)
    assert right.get(entry.key) == as_stored(entry)
    wrong = open_store(f"redis://app:guess@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreError) as refusal:
        wrong.ping()
    assert "guess" not in str(refusal.value)
    client.acl_deluser("app")


def test_a_user_without_rights_is_a_store_error_and_no_outage(server: RedisServer, client: Any) -> None:
    client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@read", "+@connection"])
    entry = make_entry()
    RedisStore(server.url, budget_s=5).put(entry)
    reader = open_store(f"redis://reader:pw@127.0.0.1:{server.port}/0")
    for _ in range(3):
        with pytest.raises(StoreError, match=r"(?i)permission"):
            reader.put(entry)
        assert reader.get(entry.key) == as_stored(entry)
    client.acl_deluser("reader")


def test_a_full_server_refuses_writes_and_still_serves() -> None:
    with RedisServer(options=("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")) as server:
        store = RedisStore(server.url, budget_s=5)
        first = make_entry("first", vector=bytes(2 * 384))
        store.put(first)
        with pytest.raises(StoreError, match="maxmemory"):
            fill(store)
        assert store.get(first.key) == as_stored(first)


def fill(store: RedisStore) -> None:
    for i in range(10_000):
        store.put(make_entry(f"{i:5000}"))


def test_unix_sockets() -> None:
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        with RedisServer(options=("--unixsocket", str(socket))):
            store = open_store(f"unix://{socket}?db=2")
            entry = make_entry()
            store.put(entry)
            assert store.get(entry.key) == as_stored(entry)


def test_entries_spread_over_a_cluster_and_the_rest_is_in_one_slot() -> None:
    with RedisClusterServers() as servers, closing(servers.client()) as client:
        store = RedisStore(client)
        for i in range(60):
            store.put(make_entry(str(i)))
        store.mark_wrong(1, 2)
        store.add_counters({"a": 1})
        held = []
        control = []
        for node in servers.nodes:
            with closing(node.client()) as direct:
                keys = direct.keys("*")
            held.append(sum(key.startswith(b"semcache:2:") for key in keys))
            control.append(sum(key.startswith(b"{semcache:2}:") for key in keys))
        assert sum(held) == 60
        assert min(held) > 5
        assert sorted(control) == [0, 0, 5]
