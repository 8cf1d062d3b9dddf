"""Keys of prompts: what several processes send together with one of them, and who stays with his."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from semcache.marking import Marker
from semcache.prompt_cache.shards import KEPT, KEY_RATE, PREFIX, Rates, counter_name
from semcache.stores import MemoryStore
from semcache.types import Prompt

START = 1_700_000_000.0


class Sent(NamedTuple):
    at: float
    thread: int
    key: str


class Fleet:
    """Processes with caches of their own on one store, which they read and write every ten seconds."""

    def __init__(self, processes: int) -> None:
        self.now = START
        self.store = store = MemoryStore()
        self.markers = [
            Marker(store, lambda event: pytest.fail(event.message), lambda: self.now) for _ in range(processes)
        ]
        for marker in self.markers:
            marker.shared._due = float("inf")  # synced below, by the fleet's clock

    def run(self, requests: Iterator[tuple[float, int]]) -> list[Sent]:
        sent, synced = [], START
        for number, (at, thread) in enumerate(requests):
            while synced + 10 <= at:
                synced += 10
                for marker in self.markers:
                    marker.shared.sync()
            self.now = at
            turns = [{"role": "user", "content": f"{thread}"}, {"role": "user", "content": f"question {number}"}]
            body = {"messages": [{"role": "system", "content": "You answer. " * 500}, *turns]}
            marked = self.markers[number % len(self.markers)].mark(
                Prompt("openai_chat", body, "api.openai.com", "gpt-5-mini"), None
            )
            assert marked is not None
            assert marked.body is not None
            sent.append(Sent(at, thread, marked.body["prompt_cache_key"]))
        return sent


def traffic(rate: float, minutes: float, threads: int, seed: int = 5) -> Iterator[tuple[float, int]]:
    """Random requests, ``rate`` a minute, of so many conversations."""
    rng, now = random.Random(seed), START
    while (now := now + rng.expovariate(rate / 60)) < START + 60 * minutes:
        yield now, rng.randrange(threads)


def by_key_and_minute(sent: list[Sent], after: float) -> list[int]:
    return list(Counter((each.key, int(each.at) // 60) for each in sent if each.at >= START + after).values())


@pytest.mark.parametrize("processes", [1, 4, 16])
@pytest.mark.parametrize("threads", [1, 1_000], ids=["one prompt", "many"])
def test_processes_keep_to_a_keys_rate_together(processes: int, threads: int) -> None:
    sent = Fleet(processes).run(traffic(120, 12, threads))
    counts = by_key_and_minute(sent, after=120)
    over = sum(count for count in counts if count > KEY_RATE)
    assert over <= 0.12 * sum(counts)
    assert max(counts) <= 2 * KEY_RATE
    assert len({each.key for each in sent}) <= 20, "no more keys than it takes: each holds a copy of the prefix"


def test_a_quiet_prompt_has_one_key() -> None:
    assert len({each.key for each in Fleet(4).run(traffic(4, 30, 1_000))}) == 1


def test_a_conversation_stays_with_its_key() -> None:
    sent = Fleet(4).run(traffic(120, 12, 200))
    kept = moved = 0
    last: dict[int, str] = {}
    for each in sent:
        if each.at > START + 300:
            kept += last.get(each.thread) == each.key
            moved += last.get(each.thread, each.key) != each.key
        last[each.thread] = each.key
    assert moved < 0.25 * kept


def test_after_a_busy_while_there_are_fewer_keys_again() -> None:
    rates = Rates()
    busy = {rates.send(1, thread, START) for thread in range(100)}
    quiet = {rates.send(1, thread, START + 60 * (KEPT + 1)) for thread in range(10)}
    assert len(busy) > 5
    assert quiet == {0}


def test_what_a_store_has_counted_for_all_decides() -> None:
    rates = Rates()
    old, new = counter_name(1, START), counter_name(1, START + 60 * KEPT)
    assert old.startswith(PREFIX)
    assert rates.learn({old: 3, new: 400}, {new: 2}) == [old]
    keys = {rates.send(1, thread, START + 60 * KEPT) for thread in range(100)}
    assert 30 < max(keys) <= 50
    assert {rates.send(2, thread, START + 60 * KEPT) for thread in range(10)} == {0}


def test_what_is_forgotten_leaves_no_counter_with_a_prompts_hash() -> None:
    fleet = Fleet(2)
    fleet.run(traffic(60, 2, 10))
    assert fleet.store.counters(PREFIX)
    for marker in fleet.markers:
        marker.forget()
    assert fleet.store.counters(PREFIX) == {}


def test_a_prompt_that_never_comes_again_costs_the_store_nothing() -> None:
    marker = Marker(store := MemoryStore(), lambda event: pytest.fail(event.message), lambda: START)
    for number in (1, 2, 3, 3, 3):
        body = {
            "messages": [{"role": "system", "content": f"It is {number} o'clock."}, {"role": "user", "content": "?"}]
        }
        marker.mark(Prompt("openai_chat", body, "api.openai.com", "gpt-5-mini"), None)
    marker.shared.sync()
    assert list(store.counters(PREFIX).values()) == [2]
