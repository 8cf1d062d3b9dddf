from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.tuning.bounds import Budget, Count
from semcache.tuning.choose import GRID, Sample, candidates, choose

levels = st.one_of(st.just(-math.inf), st.floats(0.5, 1.0))
samples = st.lists(st.tuples(levels, st.booleans()), max_size=300).map(
    lambda rows: Sample.of([level for level, _ in rows], [wrong for _, wrong in rows])
)


def test_the_grid_falls_in_steps_that_a_person_can_read() -> None:
    assert (GRID[0], GRID[1], GRID[-1]) == (0.995, 0.99, 0.5)
    assert list(GRID) == sorted(set(GRID), reverse=True)


@given(samples, st.floats(0.4, 1.0))
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_a_plain_loop(sample: Sample, threshold: float) -> None:
    hits = [bool(wrong) for level, wrong in zip(sample.levels, sample.wrong, strict=True) if level >= threshold]
    assert sample.count(threshold) == Count(len(sample.levels), len(hits), sum(hits))


@given(samples, samples)
@settings(max_examples=30, deadline=None)
def test_counts_of_joined_samples_add_up(one: Sample, other: Sample) -> None:
    assert Sample.joined([one, other]).count(0.8) == one.count(0.8) + other.count(0.8)


@given(samples, st.sampled_from(["hits", "requests"]), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_candidates_fall_from_the_surest_to_the_lowest_that_keeps_the_budget(
    sample: Sample, per: str, most: int
) -> None:
    budget = Budget(0.05, per)  # type: ignore[arg-type]
    found = candidates(sample, budget, most)
    assert 1 <= len(found) <= most
    assert found == sorted(set(found), reverse=True)
    assert budget.p_value(sample.count(found[0])) == min(budget.p_value(count) for count in sample.counts(GRID))
    if len(found) > 1:
        assert (budget.observed(sample.count(found[-1])) or 0.0) <= budget.rate


def test_a_threshold_is_chosen_by_the_held_out_part_alone() -> None:
    fit = Sample.of([0.95] * 400 + [0.85] * 400, [False] * 800)
    choice = choose(fit, lambda threshold: Count(800, 800, 80), Budget(0.01))
    assert choice.chosen is None
    assert len(choice.tested) == 1
    assert choice.best == choice.tested[0]


def test_the_lowest_threshold_that_passes_is_chosen() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0.7, 1.0, 4000)
    sample = Sample.of(values.tolist(), (values < 0.8).tolist())
    choice = choose(sample, sample.count, Budget(0.02))
    assert choice.chosen is not None
    assert 0.79 <= choice.chosen.threshold <= 0.8
    assert choice.to_dict()["tested"][0]["passed"] is True


def test_no_data_choose_nothing() -> None:
    nothing = Sample.of([], [])
    for per in ("hits", "requests"):
        assert choose(nothing, nothing.count, Budget(0.1, per)).chosen is None  # type: ignore[arg-type]
