"""How often a cache is wrong, told at any time: a test and an interval that may be looked at after every audit.

A fixed-sample test (``semcache.intervals``) is valid for one look at a number of trials that was set beforehand. A
running cache is looked at after every audit, and a fixed-sample test looked at for ever raises a false alarm with
certainty. What holds at all times at once is a bet against the hypothesis: a process that starts at 1 and, while the
hypothesis is true, cannot be expected to grow. It exceeds 1/α *ever* with probability α at most (Ville, "Étude critique
de la notion de collectif", 1939). The bet is a likelihood ratio, averaged over a Beta prior of what the rate may be
instead (Robbins, Annals of Mathematical Statistics 41, 1970; Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49, 2021, arXiv:1810.08240; Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024, arXiv:2010.09686).

Its value depends on two counts alone, trials and wrong ones. So processes that add to shared counters hold one bet
together, in whatever order their audits end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from semcache.intervals import incomplete_beta

_PRIOR_MEAN = 4.0
"""Rates over the budget are expected around so many times the budget: found quickly from 2 to 20 times over."""


def log_e_value(trials: int, wrong: int, budget: float) -> float:
    """Natural logarithm of the bet against "the rate is at most ``budget``".

    The mean of the likelihood ratio (p/p0)^w ((1-p)/(1-p0))^(n-w) over p ~ Beta(1, 1/(4 p0)), cut off below p0. Each
    factor has an expectation of at most 1 under every rate up to p0, which makes it a test of all of them. Where far
    fewer are wrong than the budget allows, it may be ``-inf``: less than a float can hold on the way.

    Raises:
        ValueError: Not ``0 <= wrong <= trials``, or ``budget`` outside (0, 1).
    """
    _check(trials, wrong, budget)
    a, b = 1.0, 1.0 / (_PRIOR_MEAN * budget)
    right = trials - wrong
    above = incomplete_beta(b + right, a + wrong, 1.0 - budget)
    if above <= 0.0:
        return -math.inf
    return (
        _log_beta(a + wrong, b + right)
        + math.log(above)
        - _log_beta(a, b)
        - b * math.log1p(-budget)  # the share of Beta(1, b) above the budget is (1 - budget)^b
        - _log_likelihood(trials, wrong, budget)
    )


def broken(trials: int, wrong: int, budget: float, confidence: float) -> bool:
    """Whether the rate is over the budget, with a false alarm *ever* in at most ``1 - confidence`` of all runs.

    Raises:
        ValueError: As :func:`log_e_value`, or ``confidence`` outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    return log_e_value(trials, wrong, budget) >= -math.log(1.0 - confidence)


def interval(trials: int, wrong: int, confidence: float = 0.95) -> tuple[float, float]:
    """A two-sided confidence sequence for the rate: with probability ``confidence`` it holds at *all* times.

    The rates against which the same kind of bet, with the prior Beta(1/2, 1/2) and no cut, has not reached 1/α. It is
    wider than the interval of a fixed sample, 1.5 to 2 times up to 10,000 trials: the price of looking always.

    Raises:
        ValueError: Not ``0 <= wrong <= trials``, or ``confidence`` outside (0, 1).
    """
    _check(trials, wrong, confidence)
    if trials == 0:
        return 0.0, 1.0
    mixture = _log_beta(wrong + 0.5, trials - wrong + 0.5) - _log_beta(0.5, 0.5)
    least = mixture + math.log(1.0 - confidence)
    share = wrong / trials

    def excluded(rate: float) -> bool:
        return _log_likelihood(trials, wrong, rate) <= least

    low = 0.0 if wrong == 0 else _edge(0.0, share, excluded)
    high = 1.0 if wrong == trials else _edge(1.0, share, excluded)
    return low, high


def clean_audits(budget: float, confidence: float) -> int:
    """How many right ones in a row show a rate below the budget: 299 for 1 % at 95 %."""
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-budget))


def _edge(outside: float, inside: float, excluded: Callable[[float], bool]) -> float:
    """The border between a rate that is excluded and one that is not; on its outer side."""
    while (middle := (outside + inside) / 2.0) not in (outside, inside):
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_likelihood(trials: int, wrong: int, rate: float) -> float:
    if (wrong and rate <= 0.0) or (wrong < trials and rate >= 1.0):
        return -math.inf
    missed = (trials - wrong) * math.log1p(-rate) if wrong < trials else 0.0
    return missed + (wrong * math.log(rate) if wrong else 0.0)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _check(trials: int, wrong: int, share: float) -> None:
    if not 0 <= wrong <= trials:
        raise ValueError(f"{wrong} of {trials} is no share")
    if not 0.0 < share < 1.0:
        raise ValueError(f"must lie between 0 and 1: {share}")
