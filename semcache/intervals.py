"""Exact intervals for a share. Pure Python: the base install has no SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable

_EPSILON = 1e-15


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a binomial share (Clopper and Pearson, Biometrika 26, 1934).

    Raises:
        ValueError: Not ``0 <= successes <= trials`` with at least one trial, or ``confidence`` outside (0, 1).
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is no share")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    tail = (1.0 - confidence) / 2.0
    low, high = 0.0, 1.0
    if successes > 0:
        low = _solve(lambda p: incomplete_beta(successes, trials - successes + 1, p), tail)
    if successes < trials:
        high = 1.0 - _solve(lambda q: incomplete_beta(trials - successes, successes + 1, q), tail)
    return low, high


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for a, b > 0 and x in [0, 1].

    By its continued fraction (NIST Digital Library of Mathematical Functions, 8.17.22), evaluated from the front by
    Lentz's method.
    """
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast only below
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a + 1.0) - math.lgamma(b)
    c, d, fraction, change, step = 1.0, 0.0, 1.0, 0.0, 0
    while abs(change - 1.0) > _EPSILON:
        step += 1
        coefficient = _coefficient(a, b, x, step)
        d = 1.0 / (1.0 + coefficient * d)
        c = 1.0 + coefficient / c
        change = c * d
        fraction *= change
    return math.exp(log_front) / fraction


def _coefficient(a: float, b: float, x: float, step: int) -> float:
    m = step // 2
    if step % 2:
        return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))


def _solve(rising: Callable[[float], float], target: float) -> float:
    """Where a function that rises on [0, 1] reaches ``target``, to the last bits of a float."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2.0) < high:
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return high
