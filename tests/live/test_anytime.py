"""The bet and the interval, against simulation, against numeric integration, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from semcache.intervals import clopper_pearson
from semcache.live.anytime import broken, clean_audits, interval, log_e_value

RUNS, LENGTH = 1_000, 1_500
COUNTS = st.integers(0, 2_000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


def streams(rate: float, seed: int) -> np.ndarray:
    """Wrong ones so far, int [runs, length]."""
    return (np.random.default_rng(seed).random((RUNS, LENGTH)) < rate).cumsum(axis=1)


def thresholds(test) -> np.ndarray:
    """For each number of trials the least number of wrong ones that ``test(trials, wrong)`` holds for; int [length].

    The test holds for more wrong ones too, and the least number never falls: so a whole stream of looks, one after
    every audit, is one comparison.
    """
    least, found = 0, []
    for trials in range(1, LENGTH + 1):
        while least <= trials and not test(trials, least):
            least += 1
        found.append(least)
    return np.array(found)


@pytest.mark.parametrize("budget", [0.01, 0.05, 0.3])
def test_peeking_after_every_audit_raises_a_false_alarm_in_no_more_runs_than_promised(budget):
    alarm_at = thresholds(lambda trials, wrong: broken(trials, wrong, budget, 0.95))
    alarms = (streams(budget, seed=7) >= alarm_at).any(axis=1).sum()
    assert alarms <= 50 + 3 * math.sqrt(1_000 * 0.05 * 0.95)


def test_a_fixed_sample_test_would_not_keep_that_promise():
    alarm_at = 1 + stats.binom.isf(0.05, np.arange(1, LENGTH + 1), 0.05)
    assert (streams(0.05, seed=7) >= alarm_at).any(axis=1).mean() > 0.1


@pytest.mark.parametrize(("budget", "rate", "within"), [(0.01, 0.05, 250), (0.05, 0.2, 70), (0.01, 0.02, 1_500)])
def test_a_broken_budget_is_found(budget, rate, within):
    alarm_at = thresholds(lambda trials, wrong: broken(trials, wrong, budget, 0.95))[:within]
    assert (streams(rate, seed=3)[:, :within] >= alarm_at).any(axis=1).mean() > 0.7


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.2])
def test_the_interval_holds_at_all_times_at_once(rate):
    wrong = streams(rate, seed=11)[:300]
    looks = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1500]
    left = 0
    for run in wrong:
        bounds = [interval(trials, int(run[trials - 1])) for trials in looks]
        left += any(not low <= rate <= high for low, high in bounds)
    assert left <= 15 + 3 * math.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize(
    ("trials", "wrong", "budget"),
    [(0, 0, 0.01), (1, 0, 0.01), (1, 1, 0.01), (50, 4, 0.01), (400, 3, 0.01), (40, 30, 0.3), (9, 9, 0.5), (60, 1, 0.9)],
)
def test_the_closed_form_is_the_integral(trials, wrong, budget):
    prior = stats.beta(1, 1 / (4 * budget))

    def ratio(p):
        return prior.pdf(p) * (p / budget) ** wrong * ((1 - p) / (1 - budget)) ** (trials - wrong)

    middle = min(0.999, max(budget, wrong / max(1, trials)))
    parts = [integrate.quad(ratio, low, high, limit=500)[0] for low, high in ((budget, middle), (middle, 1.0))]
    assert math.exp(log_e_value(trials, wrong, budget)) == pytest.approx(sum(parts) / prior.sf(budget), rel=1e-6)


@pytest.mark.parametrize(("trials", "wrong"), [(1, 0), (10, 10), (37, 5), (1_000, 0), (1_000, 500)])
def test_the_ends_of_the_interval_are_where_the_bet_reaches_its_bar(trials, wrong):
    for end in interval(trials, wrong):
        if 0 < end < 1:
            mixture = stats.betabinom(trials, 0.5, 0.5).pmf(wrong) / stats.binom(trials, end).pmf(wrong)
            assert mixture == pytest.approx(20, rel=1e-6)


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.floats(0.001, 0.6))
@settings(max_examples=60, deadline=None)
def test_the_bet_cannot_be_expected_to_grow_while_the_budget_is_kept(counts, budget):
    trials, wrong = counts
    now = log_e_value(trials, wrong, budget)
    right, one_wrong = (log_e_value(trials + 1, wrong + more, budget) for more in (0, 1))
    for rate in (budget, budget / 2, 0.0):
        expected = rate * math.exp(one_wrong - now) + (1 - rate) * math.exp(right - now)
        assert expected <= 1 + 1e-6


@given(COUNTS)
@settings(max_examples=60, deadline=None)
def test_the_interval_holds_the_share_and_the_fixed_sample_interval(counts):
    trials, wrong = counts
    low, high = interval(trials, wrong)
    if trials == 0:
        assert (low, high) == (0.0, 1.0)
        return
    fixed_low, fixed_high = clopper_pearson(wrong, trials)
    assert 0 <= low <= fixed_low + 1e-12 <= wrong / trials + 1e-9
    assert wrong / trials <= fixed_high + 1e-9 <= high + 2e-9 <= 1 + 2e-9


def test_what_shows_a_budget_in_a_row():
    assert clean_audits(0.01, 0.95) == 299
    assert clean_audits(0.005, 0.95) == 598


@pytest.mark.parametrize("counts", [(1, 2, 0.5), (-1, 0, 0.5), (3, -1, 0.5), (3, 1, 0.0), (3, 1, 1.0)])
def test_what_makes_no_sense_is_refused(counts):
    with pytest.raises(ValueError, match=r"share|between"):
        log_e_value(*counts)
    with pytest.raises(ValueError, match=r"share|between"):
        interval(*counts)
