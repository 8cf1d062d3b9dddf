from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from semcache.tuning.bounds import (
    Budget,
    Count,
    Needed,
    Trial,
    fixed_sequence,
    labels_needed,
    labels_needed_at,
    p_value,
    percent,
    upper_bound,
)

RATES = st.sampled_from([0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3])
CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99])
COUNTS = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, min(n, 400)), st.just(n)))

moderate = settings(max_examples=60, deadline=None)


@given(COUNTS, RATES)
@moderate
def test_p_values_agree_with_scipy(count: tuple[int, int], rate: float) -> None:
    wrong, trials = count
    expected = stats.binomtest(wrong, trials, rate, alternative="less").pvalue
    assert p_value(wrong, trials, rate) == pytest.approx(expected, rel=1e-7, abs=1e-11)


@given(COUNTS, CONFIDENCES)
@moderate
def test_upper_bounds_agree_with_scipy(count: tuple[int, int], confidence: float) -> None:
    wrong, trials = count
    expected = 1.0 if wrong == trials else stats.beta.ppf(confidence, wrong + 1, trials - wrong)
    assert upper_bound(wrong, trials, confidence) == pytest.approx(expected, rel=1e-7)


@given(COUNTS, RATES, CONFIDENCES)
@moderate
def test_the_test_passes_exactly_when_the_bound_is_within_the_budget(
    count: tuple[int, int], rate: float, confidence: float
) -> None:
    wrong, trials = count
    budget = Budget(rate, confidence=confidence)
    assert budget.shown(Count(trials, trials, wrong)) == (upper_bound(wrong, trials, confidence) <= rate)


@given(COUNTS, RATES)
@moderate
def test_more_wrong_ones_say_less_and_more_right_ones_say_more(count: tuple[int, int], rate: float) -> None:
    wrong, trials = count
    assert p_value(wrong, trials + 1, rate) <= p_value(wrong, trials, rate) + 1e-12
    if wrong < trials:
        assert p_value(wrong + 1, trials, rate) >= p_value(wrong, trials, rate) - 1e-12
        assert upper_bound(wrong + 1, trials) > upper_bound(wrong, trials)
    assert upper_bound(wrong, trials, 0.99) > upper_bound(wrong, trials, 0.9) or wrong == trials


@given(RATES, CONFIDENCES, st.integers(0, 30))
@moderate
def test_the_labels_needed_are_the_fewest_that_do(rate: float, confidence: float, wrong: int) -> None:
    needed = labels_needed(rate, confidence, wrong)
    assert stats.binom.cdf(wrong, needed, rate) <= 1 - confidence
    assert stats.binom.cdf(wrong, needed - 1, rate) > 1 - confidence


def test_labels_needed_without_a_wrong_one() -> None:
    assert labels_needed(0.01) == 299
    assert labels_needed(0.005) == 598
    assert labels_needed(0.01, 0.99) == 459


def test_labels_needed_at_a_share() -> None:
    assert labels_needed_at(0.0, 0.01) == 299
    needed = labels_needed_at(0.005, 0.01)
    assert needed is not None
    assert needed > 3 * 299
    # About: with counts rounded in its favour it suffices, rounded against it nearly does.
    assert stats.binom.cdf(int(0.005 * needed), needed, 0.01) <= 0.05
    assert stats.binom.cdf(int(0.005 * needed) + 1, needed, 0.01) <= 0.07
    assert labels_needed_at(0.01, 0.01) is None
    assert labels_needed_at(0.0099999999, 0.01) is not None


@given(COUNTS, RATES, st.sampled_from(["hits", "requests"]))
@moderate
def test_what_is_still_needed_suffices(count: tuple[int, int], rate: float, per: str) -> None:
    wrong, trials = count
    budget = Budget(rate, per)  # type: ignore[arg-type]
    more = budget.still_needed(Count(trials, trials, wrong)).at_least
    assert budget.shown(Count(trials + more, trials + more, wrong))
    assert more == 0 or not budget.shown(Count(trials + more - 1, trials + more - 1, wrong))


def test_a_budget_over_which_the_data_are_needs_more_than_data() -> None:
    assert Budget(0.01).still_needed(Count(500, 100, 5)).likely is None
    assert Budget(0.01).still_needed(Count(500, 0, 0)) == Needed(299, 299)


def test_the_two_budgets_count_different_things() -> None:
    count = Count(1000, 100, 4)
    assert Budget(0.1).observed(count) == 0.04
    assert Budget(0.1, "requests").observed(count) == 0.004
    assert Budget(0.1).observed(Count(10, 0, 0)) is None
    assert Budget(0.01, "requests").shown(count)
    assert not Budget(0.01).shown(count)


def test_nothing_shows_nothing() -> None:
    nothing = Count(0, 0, 0)
    assert not Budget(0.5).shown(nothing)
    assert (Budget(0.5).lower(nothing), Budget(0.5).upper(nothing)) == (0.0, 1.0)


def test_a_shared_budget_is_tested_more_strictly() -> None:
    assert Budget(0.01).shared(1) == Budget(0.01)
    assert Budget(0.01).shared(5).confidence == pytest.approx(0.99)


def test_the_walk_ends_at_the_first_failure() -> None:
    counts = {0.9: Count(900, 400, 0), 0.8: Count(900, 500, 9), 0.7: Count(900, 800, 0)}
    asked: list[float] = []

    def count(threshold: float) -> Count:
        asked.append(threshold)
        return counts[threshold]

    tested = fixed_sequence([0.9, 0.8, 0.7], count, Budget(0.01))
    assert tested == [Trial(0.9, counts[0.9], True), Trial(0.8, counts[0.8], False)]
    assert asked == [0.9, 0.8]


@pytest.mark.parametrize(
    "call", [lambda: p_value(2, 1, 0.5), lambda: p_value(0, 1, 0.0), lambda: upper_bound(0, 1, 0.5)]
)
def test_what_makes_no_sense_is_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"share|rate|confidence"):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(("rate", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.1, 1.0), (0.1, 0.5)])
def test_a_budget_out_of_range_is_refused(rate: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="between"):
        Budget(rate, confidence=confidence)


@pytest.mark.parametrize(
    ("share", "written"), [(0.01, "1 %"), (0.0099678, "0.997 %"), (0.95, "95 %"), (0.9833, "98.3 %")]
)
def test_percent(share: float, written: str) -> None:
    assert percent(share) == written
