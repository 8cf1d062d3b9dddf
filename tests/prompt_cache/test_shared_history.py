"""What processes on one store learn of each other's prompts, on every kind of store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semcache.errors import StoreError
from semcache.marking import Marker
from semcache.prompt_cache import History
from semcache.prompt_cache.history import PREFIX, SLOT, Seen, pool_id
from semcache.prompt_cache.predictions import PREFIX as PREDICTIONS
from semcache.prompt_cache.predictions import Counts, count_name, decode, lines
from semcache.shared_history import MAX_PREFIXES, SharedHistory
from semcache.stores import MemoryStore, SqliteStore, Store, open_store
from semcache.testing.servers import RedisServer
from semcache.testing.store_contract import run_in_child
from semcache.types import Event, Prompt, Usage

NOW = time.time()
LONG = "You answer questions about the harbour lifts. " * 400


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return lambda: open_store(f"{server.url}?prefix={tmp_path.name}&budget_s=5")
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "store.db", budget_s=5)
    store = MemoryStore()
    return lambda: store


def shared(store: Store) -> SharedHistory:
    return SharedHistory(store, lambda event: pytest.fail(event.message))


def see(one: SharedHistory, prefix: int, at: float, mark: str = "") -> None:
    with one.lock:
        one.history.see([Seen(prefix, "head")], at)
        one.touch([prefix, pool_id("head")])
        if mark:
            one.history.mark(prefix, mark, at)


def counts(one: SharedHistory, prefix: int) -> int:
    seen = one.history.find(prefix)
    return 0 if seen is None else sum(map(sum, seen.slots.values()))


def test_two_processes_know_what_either_saw(reopen: Callable[[], Store]) -> None:
    a, b = shared(reopen()), shared(reopen())
    see(a, 1, NOW, mark="1h")
    a.sync()
    b.sync()
    see(b, 1, NOW + 100)  # a gap between processes
    see(b, 2, NOW + 100)
    b.sync()
    a.sync()
    assert counts(a, 1) == counts(b, 1) == 1
    assert a.history.warm(1, NOW + 200) == b.history.warm(1, NOW + 200) == "1h"
    late = shared(reopen())
    late.sync()
    assert counts(late, 1) == 1
    assert late.history.find(2) is not None


def test_nothing_is_counted_twice_however_often_it_is_synced(reopen: Callable[[], Store]) -> None:
    a, b = shared(reopen()), shared(reopen())
    for step in range(6):
        see(a if step % 2 else b, 1, NOW + 400 * step)
        for one in (a, b, a, b):
            one.sync()
    assert counts(a, 1) == counts(b, 1) == 5
    assert counts(shared_after(reopen), 1) == 5


def shared_after(reopen: Callable[[], Store]) -> SharedHistory:
    one = shared(reopen())
    one.sync()
    return one


def test_a_return_to_another_process_counts_for_the_kind(reopen: Callable[[], Store]) -> None:
    a, b = shared(reopen()), shared(reopen())
    for prefix in range(20):
        see(a, prefix, NOW + prefix)
    a.sync()
    b.sync()
    for prefix in range(20):
        see(b, prefix, NOW + 100 + prefix)
    b.sync()
    a.sync()
    new = Seen(99, "head")
    assert a.history.chances(new, NOW + 130)["5m"] > History().chances(new, NOW)["5m"]


def test_processes_that_forked_share_too(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    one = shared(SqliteStore(path, budget_s=5))
    see(one, 1, NOW)
    one.sync()

    def work() -> None:
        mine = shared(SqliteStore(path, budget_s=5))
        mine.sync()
        see(mine, 1, NOW + 100)
        mine.close()

    assert run_in_child(work) == 0
    one.sync()
    assert counts(one, 1) == 1


def test_a_forked_child_writes_nothing_of_its_parents(tmp_path: Path) -> None:
    one = shared(SqliteStore(tmp_path / "store.db", budget_s=5))
    for step in range(3):
        see(one, 1, NOW + 100 * step)

    def work() -> None:
        one.after_fork()
        one.sync()
        see(one, 1, NOW + 300)
        one.close()

    assert run_in_child(work) == 0
    one.close()
    assert counts(shared_after(lambda: SqliteStore(tmp_path / "store.db")), 1) == 2


def test_what_tells_nothing_any_more_is_dropped() -> None:
    store = MemoryStore()
    old = int(NOW) // SLOT - 200
    store.add_counters({f"{PREFIX}|{1:016x}|gap|{old}|0": 3, f"{PREFIX}|{1:016x}|last|w": int(NOW) - 10 * 86_400})
    recent = {f"{PREFIX}|{i:016x}|last|w": int(NOW) - 10 * 3600 + i for i in range(2, MAX_PREFIXES + 10)}
    store.add_counters(recent)
    one = shared(store)
    one.sync()
    assert len(store.counters()) == MAX_PREFIXES
    assert one.history.find(1) is None
    assert one.history.find(2) is None
    assert one.history.find(MAX_PREFIXES) is not None


def test_a_store_in_trouble_costs_an_event_and_no_counts() -> None:
    class Failing(MemoryStore):
        failing = True

        def add_counters(self, deltas: Any) -> None:
            if self.failing:
                raise StoreError("away")
            super().add_counters(deltas)

    store, events = Failing(), list[Event]()
    one = SharedHistory(store, events.append)
    see(one, 1, NOW)
    see(one, 1, NOW + 100)
    one.sync()
    assert [event.kind for event in events] == ["store_error"]
    store.failing = False
    one.sync()
    assert counts(shared_after(lambda: store), 1) == 1


# Predictions --------------------------------------------------------------------------------------------------------


def body(text: str, system: str = LONG) -> dict[str, Any]:
    return {"model": "claude-sonnet-5", "system": system, "messages": [{"role": "user", "content": text}]}


def prompt(text: str, system: str = LONG) -> Prompt:
    return Prompt("anthropic", body(text, system), "api.anthropic.com", "claude-sonnet-5")


def test_a_store_with_a_bug_costs_no_more() -> None:
    class Broken(MemoryStore):
        def counters(self, prefix: str = "") -> dict[str, int]:
            raise ZeroDivisionError("a bug")

    events: list[Event] = []
    one = SharedHistory(Broken(), events.append)
    see(one, 1, NOW)
    one.sync()
    assert [(event.kind, type(event.error)) for event in events] == [("store_error", ZeroDivisionError)]


def test_predictions_add_up_over_processes(reopen: Callable[[], Store]) -> None:
    now = [NOW]
    for _ in range(2):
        store = reopen()
        marker = Marker(store, lambda event: None, lambda: now[0])
        marker.shared.sync()
        for number in range(3):
            now[0] += 30
            marked = marker.mark(prompt(f"Question {number}?"), None)
            assert marked is not None
            marker.reconcile(
                marked, Usage(4800, 9, cache_read_tokens=4500 if marked.expected else 0, cache_write_tokens=300)
            )
        marker.close()
    (row,) = decode(reopen().counters(PREDICTIONS))
    assert row.model == "anthropic/claude-sonnet-5"
    assert row.counts.calls == 6
    assert row.counts.read == 4500 * (row.counts.calls - 1)
    assert row.counts.expected > 4000 * 4
    (of_prefix,) = row.prefixes.values()
    assert of_prefix.calls == 5
    assert "6 misses marked" in next(lines([row]))


def test_a_prefix_that_is_not_there_is_shown() -> None:
    counters = {
        count_name("anthropic/m", None, "calls"): 9,
        count_name("anthropic/m", 7, "expected"): 9000,
        count_name("anthropic/m", 7, "cold"): 2,
        f"{PREDICTIONS}|something new|anthropic/m": 3,
    }
    (row,) = decode(counters)
    assert row.prefixes == {f"{7:016x}": Counts(expected=9000, cold=2)}
    assert list(lines([row]))[1] == f"  prefix {7:016x}: 2 times not there; 0 tokens read, 9,000 expected."
    assert row.to_dict()["prefixes"][f"{7:016x}"]["cold"] == 2


def test_a_hit_is_told_what_the_provider_would_have_read() -> None:
    marker = Marker(MemoryStore(), lambda event: None, lambda: NOW)
    assert marker.expected(prompt("Hi?")) is None
    for number in range(2):
        marked = marker.mark(prompt(f"Question {number}?"), None)
        assert marked is not None
        marker.reconcile(marked, Usage(4800, 9, cache_write_tokens=4500))
    assert marker.expected(prompt("Hi?")) == pytest.approx(4500, rel=0.1)
    assert marker.expected(prompt("Hi?", system="Another. " * 2000)) == 0
    assert marker.expected(Prompt("anthropic", body("Hi?"), "example.org", "claude-sonnet-5")) is None


def test_a_prefix_that_the_provider_found_too_short_is_not_taken_for_warm() -> None:
    marker = Marker(MemoryStore(), lambda event: pytest.fail(event.message), lambda: NOW)
    for number in range(3):
        marked = marker.mark(prompt(f"Question {number}?"), None)
        assert marked is not None
        assert marked.expected == 0
        marker.reconcile(marked, Usage(900, 9))


@pytest.mark.parametrize("odd", ["Hi?", "half a pair: \ud83d"])
def test_what_a_repeated_hit_would_have_read_follows_what_is_warm(odd: str) -> None:
    now = [NOW]
    marker = Marker(MemoryStore(), lambda event: pytest.fail(event.message), lambda: now[0])
    for number in range(3):
        now[0] += 30.0
        marked = marker.mark(prompt(f"Question {number}?"), None)
        assert marked is not None
        assert marker.expected(prompt(odd)) is None  # nothing has been written yet
    marker.reconcile(marked, Usage(9000, 9, cache_write_tokens=8000))
    first = marker.expected(prompt(odd))
    assert first is not None
    assert first > 1000
    assert marker.expected(prompt(odd)) == first
    now[0] += 7200.0  # known by its bytes still, and cold
    assert not marker.expected(prompt(odd))


def test_characters_a_token_are_learned_from_what_is_reported() -> None:
    marker = Marker(MemoryStore(), lambda event: None, lambda: NOW)
    for number in range(20):
        marked = marker.mark(prompt(f"Question {number}?"), None)
        assert marked is not None
        marker.reconcile(marked, Usage(9300, 9, cache_read_tokens=9200))  # two characters a token
    assert marked.expected == pytest.approx(9200, rel=0.02)
    assert marked.marks.points[-1].tokens == marked.expected


def test_a_key_of_the_callers_own_is_not_spread() -> None:
    marker = Marker(MemoryStore(), lambda event: None, lambda: NOW)
    sent = {"model": "gpt-4o", "messages": [{"role": "system", "content": LONG}, {"role": "user", "content": "Hi"}]}
    keys = set()
    for own in ({}, {"prompt_cache_key": "mine"}):
        for _ in range(20):
            marked = marker.mark(Prompt("openai_chat", {**sent, **own}, "api.openai.com", "gpt-4o"), None)
            assert marked is not None
            keys.add((marked.body or {**sent, **own})["prompt_cache_key"])
    assert len(keys) == 3


def test_nothing_is_read_or_written_once_it_is_closed() -> None:
    store = MemoryStore()
    one = shared(store)
    see(one, 1, NOW)
    one.close()
    written = store.counters()
    see(one, 2, NOW)
    one.sync()
    assert store.counters() == written != {}
