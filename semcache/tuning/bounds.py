"""Statistics of wrong hits: exact tests, exact bounds, and the search for a threshold that keeps both honest.

A *budget* is a statement such as "at most 1 % of semantic hits are wrong, at 95 % confidence". It is shown for one
setting by an exact binomial test: were the true rate above the budget, so few wrong ones would be seen with
probability 5 % at most. Testing many settings and keeping the best would not be a test any more. Two known ways out
meet in :func:`fixed_sequence`:

- *Learn then test* (Angelopoulos, Bates, Candès, Jordan, Lei, 2021, arXiv:2110.01052, fixed-sequence testing). The
  order of settings is set by other data. They are tested in that order, each at the full level, up to the first
  that fails; with probability ``confidence`` none of those that passed is over budget, whatever the shape of the risk.
- *Risk-controlling prediction sets* (Bates, Angelopoulos, Lei, Malik, Jordan, 2021, arXiv:2101.02703). Where the risk
  can only fall as the threshold rises, as wrong hits / requests does, the lowest threshold above which every upper
  bound stays within the budget. With the exact binomial bound this is the same walk, from any start that passes:
  all thresholds above it then pass too.

All assume that what comes is drawn like the data, independently. ``docs/tuning.md`` says what follows if it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Generic, Literal, NamedTuple, TypeVar

from semcache.intervals import clopper_pearson, incomplete_beta

T = TypeVar("T")

MAX_LABELS = 1 << 40
"""Where the search for a number of labels ends: no one labels more."""


@lru_cache(maxsize=4096)  # neighbouring thresholds often count alike
def p_value(wrong: float, trials: float, rate: float) -> float:
    """P(X <= wrong) for X ~ Binomial(trials, rate): how well the data fit a true rate of ``rate`` or more.

    Fractional counts are interpolated by the incomplete beta function.

    Raises:
        ValueError: Not ``0 <= wrong <= trials``, or ``rate`` outside (0, 1).
    """
    if not 0 <= wrong <= trials:
        raise ValueError(f"{wrong} of {trials} is no share")
    if not 0.0 < rate < 1.0:
        raise ValueError(f"a rate must lie between 0 and 1, not {rate}")
    if wrong == trials:
        return 1.0
    return incomplete_beta(trials - wrong, wrong + 1, 1.0 - rate)


def upper_bound(wrong: int, trials: int, confidence: float = 0.95) -> float:
    """The exact one-sided upper bound of a binomial share (Clopper and Pearson, Biometrika 26, 1934); 1 of nothing.

    At most ``r`` exactly when ``p_value(wrong, trials, r) <= 1 - confidence``.

    Raises:
        ValueError: Not ``0 <= wrong <= trials``, or ``confidence`` outside (0.5, 1).
    """
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0.5 and 1, not {confidence}")
    return clopper_pearson(wrong, trials, 2.0 * confidence - 1.0)[1] if trials else 1.0


def labels_needed(rate: float, confidence: float = 0.95, wrong: int = 0) -> int:
    """The least number of trials that show ``rate`` when ``wrong`` of them are wrong: 299 for 1 %, 598 for 0.5 %."""
    return _least(wrong + 1, lambda trials: p_value(wrong, trials, rate) <= 1.0 - confidence)


def labels_needed_at(share: float, rate: float, confidence: float = 0.95) -> int | None:
    """About how many trials show ``rate`` if ``share`` of them are wrong; ``None`` if no number does."""
    if share >= rate:
        return None
    return _least(1, lambda trials: p_value(share * trials, trials, rate) <= 1.0 - confidence)


def _least(start: int, enough: Callable[[int], bool]) -> int:
    """The least number from ``start`` on that is enough, given that all above it are."""
    low, high = start - 1, start
    while not enough(high):
        low, high = high, 2 * high
        if high > MAX_LABELS:
            return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


class Count(NamedTuple):
    """What one threshold did on some labelled data: requests, semantic hits, and wrong ones among the hits."""

    requests: int
    hits: int
    wrong: int

    def __add__(self, other: object) -> Count:
        if not isinstance(other, Count):
            return NotImplemented
        return Count(self.requests + other.requests, self.hits + other.hits, self.wrong + other.wrong)


@dataclass(frozen=True)
class Budget:
    """How many hits may be wrong.

    Args:
        rate: The greatest allowed share, in (0, 1).
        per: Of what: ``"hits"`` makes it a false-hit rate, ``"requests"`` an unsafe-served rate.
        confidence: Of showing it, in (0.5, 1).
    """

    rate: float
    per: Literal["hits", "requests"] = "hits"
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"a budget must lie between 0 and 1, not {self.rate}")
        if not 0.5 < self.confidence < 1.0:
            raise ValueError(f"confidence must lie between 0.5 and 1, not {self.confidence}")

    def shared(self, among: int) -> Budget:
        """The budget of each of several tests that are all to hold together (Bonferroni)."""
        return replace(self, confidence=1.0 - (1.0 - self.confidence) / among)

    def trials(self, count: Count) -> int:
        return count.hits if self.per == "hits" else count.requests

    def observed(self, count: Count) -> float | None:
        """The share seen, ``None`` of nothing."""
        trials = self.trials(count)
        return count.wrong / trials if trials else None

    def p_value(self, count: Count) -> float:
        """See :func:`p_value`."""
        return p_value(count.wrong, self.trials(count), self.rate)

    def upper(self, count: Count) -> float:
        """See :func:`upper_bound`."""
        return upper_bound(count.wrong, self.trials(count), self.confidence)

    def lower(self, count: Count) -> float:
        """The exact one-sided lower bound of the share; 0 of nothing."""
        trials = self.trials(count)
        return clopper_pearson(count.wrong, trials, 2.0 * self.confidence - 1.0)[0] if trials else 0.0

    def shown(self, count: Count) -> bool:
        """Whether this count alone shows that the budget is kept."""
        return self.p_value(count) <= 1.0 - self.confidence

    def still_needed(self, count: Count) -> Needed:
        """How many more trials would show it."""
        trials = self.trials(count)
        at_least = labels_needed(self.rate, self.confidence, count.wrong)
        likely = labels_needed_at(count.wrong / trials, self.rate, self.confidence) if trials else at_least
        return Needed(max(0, at_least - trials), None if likely is None else max(0, likely - trials))


class Needed(NamedTuple):
    """How many more labelled trials show a budget.

    Args:
        at_least: If all of them are right.
        likely: If as many are wrong as so far, on average; ``None`` if that is over the budget.
    """

    at_least: int
    likely: int | None


@dataclass(frozen=True, slots=True)
class Trial(Generic[T]):
    """One setting, what it did, and whether that shows the budget."""

    setting: T
    count: Count
    passed: bool


def fixed_sequence(settings: Iterable[T], count: Callable[[T], Count], budget: Budget) -> list[Trial[T]]:
    """Test settings in their order, up to the first that fails. See the head of this module.

    With probability ``budget.confidence`` no setting that passed is over the budget, if the order was chosen without
    the data that ``count`` counts. The last that passed is the one to use.
    """
    tested: list[Trial[T]] = []
    for setting in settings:
        counted = count(setting)
        tested.append(Trial(setting, counted, budget.shown(counted)))
        if not tested[-1].passed:
            break
    return tested


def percent(share: float) -> str:
    """A share for a person, in three digits: ``0.997 %``."""
    return f"{float(f'{100 * share:.3g}'):g} %" if math.isfinite(share) else "?"
