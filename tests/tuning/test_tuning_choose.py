from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.tuning.bounds import Budget, Count
from semcache.tuning.choose import GRID, Sample, candidates, choose, doubt
from semcache.tuning.settings import Rule, Setting

RULE = Rule(0.0)

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


@given(st.lists(samples, min_size=1, max_size=3), st.sampled_from(["hits", "requests"]), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_candidates_go_from_the_surest_to_the_one_of_most_hits_that_keeps_the_budget(
    drawn: list[Sample], per: str, most: int
) -> None:
    budget = Budget(0.05, per)  # type: ignore[arg-type]
    fit = {Rule(place / 10): sample for place, sample in enumerate(drawn)}
    found = candidates(fit, budget, most)
    counts = [fit[one.rule].count(one.threshold) for one in found]
    every = [count for sample in drawn for count in sample.counts(GRID)]
    assert 1 <= len(found) <= most
    assert doubt(counts[0], budget) == min(doubt(count, budget) for count in every)
    for before, after in pairwise(counts):
        assert after.hits > before.hits
        assert doubt(after, budget) >= doubt(before, budget)
        assert (budget.observed(after) or 0.0) <= budget.rate
    if most > 1:
        kept = [count.hits for count in every if (budget.observed(count) or 0.0) <= budget.rate]
        assert counts[-1].hits == max([counts[0].hits, *kept])


def test_a_few_hits_that_happen_to_be_right_are_not_surest() -> None:
    """1 wrong of 291 is a smaller p-value than 9 of 711, and comes about by luck more easily."""
    few, many = (Sample.of([0.9] * n, [True] * wrong + [False] * (n - wrong)) for n, wrong in ((291, 1), (711, 9)))
    budget = Budget(0.03)
    assert budget.p_value(few.count(0.9)) < budget.p_value(many.count(0.9))
    assert candidates({Rule(0.0): few, Rule(0.9): many}, budget)[0].rule == Rule(0.9)


def test_of_settings_that_do_the_same_one_in_the_middle_is_tried() -> None:
    sample = Sample.of([0.9] * 400, [False] * 400)
    assert candidates({Rule(0.5): sample, Rule(0.8): sample}, Budget(0.02)) == [Setting(0.7, Rule(0.5))]


def test_a_rule_that_parts_right_from_wrong_is_chosen_over_a_threshold_that_does_not() -> None:
    wrong = [True] * 100 + [False] * 900
    cosine, scored = Sample.of([0.9] * 1000, wrong), Sample.of([-math.inf] * 100 + [0.9] * 900, wrong)
    fit = {Rule(0.0): cosine, Rule(0.9): scored}
    choice = choose(fit, lambda one: fit[one.rule].count(one.threshold), Budget(0.01))
    assert choice.chosen is not None
    assert choice.chosen.setting == Setting(0.7, Rule(0.9))


def test_a_threshold_is_chosen_by_the_held_out_part_alone() -> None:
    fit = {RULE: Sample.of([0.95] * 400 + [0.85] * 400, [False] * 800)}
    choice = choose(fit, lambda setting: Count(800, 800, 80), Budget(0.01))
    assert choice.chosen is None
    assert len(choice.tested) == 1
    assert choice.best == choice.tested[0]


def test_the_lowest_threshold_that_passes_is_chosen() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0.7, 1.0, 4000)
    sample = Sample.of(values.tolist(), (values < 0.8).tolist())
    choice = choose({RULE: sample}, lambda one: sample.count(one.threshold), Budget(0.02))
    assert choice.chosen is not None
    assert 0.79 <= choice.chosen.setting.threshold <= 0.8
    assert choice.to_dict()["tested"][0]["passed"] is True


def test_no_data_choose_nothing() -> None:
    nothing = Sample.of([], [])
    for per in ("hits", "requests"):
        budget = Budget(0.1, per)  # type: ignore[arg-type]
        assert choose({RULE: nothing}, lambda one: nothing.count(one.threshold), budget).chosen is None
