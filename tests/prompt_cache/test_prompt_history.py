"""Sightings add up the same in any order, directly and as counters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.prompt_cache import History, Sightings, advance, decode, encode, merge
from semcache.prompt_cache.history import SLOT, Seen

START = 1_700_000_000
TIMES = st.lists(st.integers(START, START + 5 * SLOT), max_size=30).map(sorted)
SIGHTINGS = st.builds(
    Sightings,
    slots=st.dictionaries(st.integers(39_000, 39_004), st.lists(st.integers(0, 99), min_size=9, max_size=9)),
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
