"""Over many draws a certified threshold breaks its budget as seldom as promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from tuning_simulation import Runs, Traffic, naive, simulate

from semcache.tuning.bounds import Budget
from semcache.tuning.settings import Rule, Setting
from semcache.tuning.tune import Halves, tune

DRAWS = 1000
ALLOWED = stats.binom.ppf(0.999, DRAWS, 0.05)
"""Breaches in 1,000 draws that a true rate of 5 % exceeds once in 1,000 times; the seeds below are fixed."""

SMOOTH = Traffic(traps=0.005)
FLAT = Traffic(traps=0.021, slope=200.0, even=0.5)
"""The worst case: every setting is just over a budget of 2 %."""


@pytest.mark.parametrize(
    ("traffic", "budget"),
    [
        (FLAT, Budget(0.02)),
        (SMOOTH, Budget(0.02)),
        (SMOOTH, Budget(0.01, "requests")),
        (replace(FLAT, rules=8), Budget(0.02)),
        (replace(SMOOTH, rules=8), Budget(0.02)),
    ],
    ids=["flat", "smooth", "per request", "flat, 8 rules", "smooth, 8 rules"],
)
def test_the_budget_is_broken_in_at_most_one_of_twenty_draws(traffic: Traffic, budget: Budget) -> None:
    runs = simulate(traffic, budget, requests=6000, draws=DRAWS, seed=7)
    assert runs.broken(traffic) <= ALLOWED
    assert runs.on > 0


def test_without_the_test_the_same_traffic_breaks_it_often() -> None:
    """So the simulation would notice a wrong rule."""
    runs = simulate(SMOOTH, Budget(0.02), requests=8000, draws=200, seed=7, chooser=naive)
    assert runs.broken(SMOOTH) > 0.15 * 200


def test_slices_hold_together() -> None:
    """Three slices, each in the worst case: in 19 of 20 draws all of them keep the budget."""
    rng = np.random.default_rng(3)
    broken = 0
    for _ in range(200):
        parts = {str(i): Halves(FLAT.draw(2000, rng), FLAT.draw(2000, rng)) for i in range(3)}
        tuning = tune(parts, Budget(0.02), sliced=True)
        assert len(tuning.slices) == 3
        broken += tuning.semantic
    assert broken <= stats.binom.ppf(0.999, 200, 0.05)


def test_a_drift_breaks_it_by_as_much_as_the_traffic_has_changed() -> None:
    """The bound speaks of traffic like the data. Ten times the traps are no such traffic."""
    drifted = Traffic(traps=0.05)
    runs = simulate(SMOOTH, Budget(0.02), requests=8000, draws=200, seed=7)
    assert runs.broken(drifted) == runs.on > 0
    assert np.median(runs.risks(drifted)) > 0.05


def test_runs_count_a_breach_only_where_something_is_served() -> None:
    runs = Runs(Budget(0.02), (None, Setting(0.9, Rule(0.0)), None))
    assert (runs.on, runs.broken(Traffic(traps=0.5))) == (1, 1)
