"""Sightings add up the same in any order, directly and as counters."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.prompt_cache import History, Sightings, advance, decode, encode, merge
from semcache.prompt_cache.history import EDGES, READY_S, SLOT, Seen, pool_id

START = 1_700_000_000
WIDTH = 2 * len(EDGES) + 3
TIMES = st.lists(st.integers(START, START + 5 * SLOT), max_size=30).map(sorted)
SIGHTINGS = st.builds(
    Sightings,
    slots=st.dictionaries(st.integers(39_000, 39_004), st.lists(st.integers(0, 99), min_size=WIDTH, max_size=WIDTH)),
    last=st.integers(0, 2_000_000_000),
    marked=st.dictionaries(st.sampled_from(["5m", "30m", "1h", "12h"]), st.integers(1, 2_000_000_000)),
)


def nonzero(seen: Sightings) -> Sightings:
    return Sightings({s: counts for s, counts in seen.slots.items() if any(counts)}, seen.last, seen.marked)


@given(SIGHTINGS, SIGHTINGS, SIGHTINGS)
@settings(max_examples=60, deadline=None)
def test_merging_needs_no_order(a: Sightings, b: Sightings, c: Sightings) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, Sightings()) == a


@given(SIGHTINGS, SIGHTINGS)
@settings(max_examples=60, deadline=None)
def test_counters_of_two_writers_are_their_sum(a: Sightings, b: Sightings) -> None:
    store: dict[str, int] = {}
    for writer, seen in (("w1", a), ("w2", b)):
        for name, value in advance({}, encode(7, seen, writer)).items():
            store[name] = store.get(name, 0) + value
    found = decode({**store, "ledger1|other": 3}).get(7, Sightings())
    assert nonzero(found) == nonzero(merge(a, b))


@given(TIMES, st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_saving_in_two_parts_is_saving_at_once(times: list[int], cut: int) -> None:
    def saved(history: History) -> dict[str, int]:
        return {name: n for prefix, seen in history.items() for name, n in encode(prefix, seen, "w").items()}

    history = History()
    for at in times[:cut]:
        history.see([Seen(5, "head")], at)
    before = saved(history)
    for at in times[cut:]:
        history.see([Seen(5, "head")], at)
    store = dict(before)
    for name, value in advance(before, saved(history)).items():
        store[name] = store.get(name, 0) + value
    assert store == saved(history)


@pytest.mark.parametrize(("gap", "low", "high"), [(20.0, 0.97, 1.0), (300.0, 0.53, 0.73), (7200.0, 0.0, 0.12)])
def test_chance_of_a_return_in_five_minutes(gap: float, low: float, high: float) -> None:
    rng, history, now = random.Random(3), History(), float(START)
    for _ in range(400):
        history.see([Seen(1, "head")], now)
        now += rng.expovariate(1 / gap)
    # Exponential gaps: 1 - exp(-300 / gap).
    assert low <= history.chances(Seen(1, "head"), now)["5m"] <= high


def test_prefixes_that_never_return_teach_about_new_ones() -> None:
    history = History()
    for i in range(200):
        history.see([Seen(i, "turns")], START + 30 * i)
    assert history.chances(Seen(999, "turns"), START + 6000.0)["5m"] < 0.05
    assert history.chances(Seen(999, "head"), START + 6000.0)["5m"] >= 0.5


def test_a_busy_prefix_that_becomes_rare_is_seen_as_rare() -> None:
    history, now = History(), float(START)
    for _ in range(3000):
        now += 10
        history.see([Seen(1, "head")], now)
    for _ in range(60):
        now += 6 * 3600
        history.see([Seen(1, "head")], now)
    assert history.chances(Seen(1, "head"), now)["1h"] < 0.5


def test_memory_is_bounded() -> None:
    history = History(limit=10)
    for i in range(100):
        history.see([Seen(i, "turns")], START + i)
    assert len(list(history.items())) == 11  # ten prefixes and the pool


def test_misses_that_come_together_cannot_read_what_the_first_writes() -> None:
    together, apart = History(), History()
    for i in range(60):
        for k in range(10):
            together.see([Seen(i, "turns")], START + 600 * i + k * READY_S / 20)
            apart.see([Seen(i, "turns")], START + 600 * i + k * READY_S * 2)
    now = START + 600 * 60.0
    assert together.chances(Seen(999, "turns"), now)["1h"] < 0.05
    assert apart.chances(Seen(999, "turns"), now)["1h"] > 0.8


def test_misses_stay_together_when_another_process_is_heard_of_between_them() -> None:
    history, prefix = History(), Seen(1, "turns")
    history.see([prefix], START)
    history.learn(1, Sightings(last=START - 400))
    history.see([prefix], START + READY_S / 2)
    known = history.find(1)
    assert known is not None
    assert [sum(counts[: len(EDGES)]) for counts in known.slots.values()] == [0]


def test_misses_that_come_together_can_read_what_was_written_before_them() -> None:
    history = History()
    for i in range(60):
        for k in range(10):
            history.see([Seen(1, "turns")], START + 200 * i + k * READY_S / 20)
    assert history.chances(Seen(1, "turns"), START + 200 * 60.0)["5m"] > 0.8


def test_one_long_gap_says_little_where_all_prefixes_are_alike() -> None:
    def after_long_gap(gap_of: Callable[[random.Random, int], float]) -> float:
        rng, history = random.Random(5), History()
        for i in range(150):
            now = START + 20.0 * i
            for _ in range(6):
                history.see([Seen(i, "turns")], now)
                now += gap_of(rng, i)
        for at in (0, 100, 200, 900, 1000):
            history.see([Seen(999, "turns")], START + 7200.0 + at)
        now = START + 8200.0
        general = history.chances(Seen(998, "turns"), now)["5m"]
        return general - history.chances(Seen(999, "turns"), now)["5m"]

    alike = after_long_gap(lambda rng, i: 800.0 if rng.random() < 0.25 else 40.0)
    unlike = after_long_gap(lambda rng, i: 800.0 if i % 4 == 0 else 40.0)
    assert abs(alike) < abs(unlike) / 2


def test_a_return_to_another_process_that_is_heard_of_late_leaves_the_others_alone() -> None:
    def chance(*, heard: bool) -> float:
        history = History()
        for i in range(40):
            history.see([Seen(i, "turns")], START + i)
        history.see([Seen(99, "turns")], START + 200)
        if heard:
            for i in range(20):
                history.learn(i, Sightings(last=START + i + 30))
        return history.chances(Seen(999, "turns"), START + 200)["5m"]

    assert 0 < chance(heard=False) < chance(heard=True) < 1


def test_sights_of_one_second_expire_once() -> None:
    history = History()
    for k in range(5):
        history.see([Seen(1, "turns")], START + k * 0.1)
    for i in range(2, 40):
        history.see([Seen(i, "turns")], START + 3600 * i)
    pool = history.find(pool_id("turns"))
    assert pool is not None
    passed = [sum(counts[len(EDGES) + 1] for counts in pool.slots.values())]
    # Four that came together with the one before them, the last of them, and one for each of the others but the newest.
    assert passed == [4 + 1 + 37]
