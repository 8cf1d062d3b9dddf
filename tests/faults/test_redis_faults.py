"""Redis: away, hanging, back again, or not Redis at all."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from semcache.breaker import Breaker
from semcache.errors import StoreError, StoreUnavailable
from semcache.stores import RedisStore, Selector
from semcache.testing.servers import RedisServer, available_servers, free_port
from semcache.testing.store_contract import FINGERPRINT, Follower, as_stored, make_entry
from semcache.types import Event

BUDGET_S = 1.0
PATIENCE_S = 20.0
COOLDOWN_S = 1.5


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class Clock:
    """The breaker's, which goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Open = Callable[..., tuple[RedisStore, list[Event]]]


@pytest.fixture
def open_at(clock: Clock) -> Open:
    def open_at(url: str, budget_s: float = BUDGET_S) -> tuple[RedisStore, list[Event]]:
        store = RedisStore(url, budget_s=budget_s, breaker=Breaker(cooldown_s=COOLDOWN_S, clock=clock))
        events: list[Event] = []
        store.on_event = events.append
        return store, events

    return open_at


def calls(store: RedisStore) -> list[Callable[[], object]]:
    return [
        lambda: store.get(make_entry().key),
        lambda: store.fetch([1, 2]),
        lambda: store.put(make_entry()),
        lambda: store.delete(Selector(everything=True)),
        lambda: store.delete(Selector(ids=(1,))),
        lambda: store.changes(None, fingerprint=FINGERPRINT),
        lambda: store.changes("1-0:ab:", fingerprint=FINGERPRINT),
        lambda: store.mark_wrong(1, 2),
        lambda: store.add_counters({"a": 1}),
        lambda: store.counters(),
        lambda: store.scopes(),
        lambda: store.stats(),
        lambda: store.ping(),
    ]


def assert_costs_the_budget_once(store: RedisStore, events: list[Event], call: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(StoreError) as first:
        call()
    assert time.monotonic() - began < 4 * BUDGET_S
    assert not isinstance(first.value, StoreUnavailable)
    assert [event.kind for event in events] == ["store_open"]
    began = time.monotonic()
    others = calls(store)
    for other in others:
        with pytest.raises(StoreUnavailable):
            other()
    assert time.monotonic() - began < len(others) * BUDGET_S / 2


@pytest.mark.parametrize("number", range(13))
def test_every_call_on_a_hanging_server_costs_the_budget_at_most(
    server: RedisServer, open_at: Open, number: int
) -> None:
    store, events = open_at(server.url)
    if number % 2:
        store.ping()  # half of them find a connection that was sound
    server.pause()
    assert_costs_the_budget_once(store, events, calls(store)[number])


def test_the_list_of_calls_is_whole() -> None:
    assert len(calls(RedisStore("redis://127.0.0.1:1/0"))) == 13


def test_threads_on_a_hanging_server_wait_side_by_side(server: RedisServer, open_at: Open) -> None:
    store, events = open_at(server.url)
    server.pause()
    ready = threading.Barrier(8, timeout=PATIENCE_S)

    def get(_: int) -> float:
        ready.wait()
        began = time.monotonic()
        with pytest.raises(StoreError):
            store.get(make_entry().key)
        return time.monotonic() - began

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(get, range(8))) < 4 * BUDGET_S
    assert [event.kind for event in events] == ["store_open"]


def test_a_server_that_goes_on_is_used_again_and_has_kept_everything(
    server: RedisServer, open_at: Open, clock: Clock
) -> None:
    store, events = open_at(server.url)
    entry = make_entry()
    store.put(entry)
    server.pause()
    assert_costs_the_budget_once(store, events, lambda: store.get(entry.key))
    server.resume()
    clock.now += COOLDOWN_S
    assert store.get(entry.key) == as_stored(entry)
    late = make_entry("late")
    store.put(late)
    assert store.get(late.key) == as_stored(late)


def test_refused_connections(server: RedisServer, open_at: Open) -> None:
    store, events = open_at(server.url)
    store.ping()
    server.kill()
    assert_costs_the_budget_once(store, events, store.ping)


def test_a_server_that_was_never_there(open_at: Open) -> None:
    store, events = open_at(f"redis://127.0.0.1:{free_port()}/0")
    assert_costs_the_budget_once(store, events, lambda: store.get(make_entry().key))


def test_a_restarted_server_is_used_again_after_the_cooldown(server: RedisServer, open_at: Open, clock: Clock) -> None:
    store, events = open_at(server.url)
    lost = make_entry("lost")
    store.put(lost)
    follower = Follower(store).follow()
    server.kill()
    assert_costs_the_budget_once(store, events, store.ping)
    server.start()
    clock.now += COOLDOWN_S
    assert store.get(lost.key) is None
    entry = make_entry("new")
    store.put(entry)
    assert set(follower.follow().vectors) == {entry.key.id}
    assert follower.resets == 1


def test_a_restart_between_two_calls_goes_unnoticed(server: RedisServer, open_at: Open) -> None:
    """The connection in the pool is dead; that must not cost a call."""
    store, events = open_at(server.url, PATIENCE_S)
    store.ping()
    server.restart()
    entry = make_entry()
    store.put(entry)
    assert store.get(entry.key) == as_stored(entry)
    assert events == []


def test_a_server_that_accepts_no_connections(open_at: Open) -> None:
    """A full backlog: the connection itself hangs."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            crowd = stack.enter_context(socket.socket())
            crowd.setblocking(False)
            crowd.connect_ex(("127.0.0.1", port))
        store, events = open_at(f"redis://127.0.0.1:{port}/0")
        assert_costs_the_budget_once(store, events, store.ping)


def test_a_server_that_is_not_redis_is_a_store_error(open_at: Open) -> None:
    class Web(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            # The client may hang up at any moment, and a thread's exception would be held against some later test.
            with suppress(ConnectionError):
                self.request.recv(1000)
                self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Web) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            store, _ = open_at(f"redis://127.0.0.1:{server.server_address[1]}/0")
            with pytest.raises(StoreError):
                store.get(make_entry().key)
        finally:
            server.shutdown()
            serving.join()


# The servers of the tests themselves


def test_a_server_stops_with_its_test(server: RedisServer) -> None:
    assert server.client().ping()
    pid = server._pid
    server.pause()
    server.stop()
    assert not Path(f"/proc/{pid}").exists()


def test_a_server_that_is_not_there_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(RuntimeError, match=r"no redis-0\.1 server.*redis-8\.2.*pip install"):
        RedisServer("redis-0.1")


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no-such-option"), RedisServer(options=("--no-such-option", "1")):
        pass


def test_the_servers_of_the_dev_dependencies_are_found() -> None:
    assert list(available_servers())[:3] == ["redis-8.2", "redis-6.2", "valkey-9.1"]
