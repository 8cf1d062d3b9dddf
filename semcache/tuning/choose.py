"""Chooses one setting: the order of trial from one part of the data, the test on another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from semcache.tuning.bounds import Budget, Count, Trial, fixed_sequence
from semcache.tuning.settings import FLOOR, Rule, Setting

if TYPE_CHECKING:
    import numpy.typing as npt

GRID: Final = tuple(round(0.995 - 0.005 * step, 3) for step in range(round((0.995 - FLOOR) / 0.005) + 1))
"""Thresholds that may be chosen, from high to low."""

MOST_TESTS: Final = 100
"""Settings tested at most, where a test costs next to nothing."""


_LUCK: Final = 2
"""Wrong hits added to each count before the surest is looked for: among many settings the luckiest would win else."""


@dataclass(frozen=True)
class Sample:
    """Labelled requests, each with its level: the highest threshold at which it is a semantic hit.

    Args:
        levels: float64 [n]; minus infinity where no threshold makes it a hit.
        wrong: bool [n]; whether that hit is wrong.
    """

    levels: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, levels: Sequence[float], wrong: Sequence[bool]) -> Sample:
        return cls(np.asarray(levels, np.float64), np.asarray(wrong, np.bool_))

    @classmethod
    def joined(cls, samples: Sequence[Sample]) -> Sample:
        """One sample of several (at least one)."""
        return cls(np.concatenate([s.levels for s in samples]), np.concatenate([s.wrong for s in samples]))

    def counts(self, thresholds: Sequence[float]) -> list[Count]:
        """What each threshold makes of the sample."""
        hits, wrong = (len(levels) - np.searchsorted(levels, thresholds) for levels in self._sorted)
        return [Count(len(self.levels), int(h), int(w)) for h, w in zip(hits, wrong, strict=True)]

    def count(self, threshold: float) -> Count:
        return self.counts([threshold])[0]

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The levels, and those of wrong hits."""
        return np.sort(self.levels), np.sort(self.levels[self.wrong])


Samples = Mapping[Rule, Sample]
"""The same requests under each rule."""


@dataclass(frozen=True)
class Choice:
    """What the tests on held-out data came to.

    Args:
        tested: Every setting that was tested, in order; only the last can have failed.
    """

    tested: tuple[Trial[Setting], ...]

    @property
    def chosen(self) -> Trial[Setting] | None:
        """The last setting that passed; ``None`` if the first one failed: the semantic tier has to stay off."""
        return next((one for one in reversed(self.tested) if one.passed), None)

    @property
    def best(self) -> Trial[Setting]:
        """The chosen setting, or the most promising one if none passed."""
        return self.chosen or self.tested[0]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "tested": [
                {"threshold": one.setting.threshold, **one.setting.rule._asdict(), **one.count._asdict()}
                | {"passed": one.passed}
                for one in self.tested
            ]
        }


def choose(
    fit: Samples, held_out: Callable[[Setting], Count], budget: Budget, *, max_tests: int = MOST_TESTS
) -> Choice:
    """The setting of most hits that is shown to keep the budget.

    Args:
        fit: Sets the order of trial, and nothing else.
        held_out: Counts on data that ``fit`` has not seen; called once for each setting that is tested.
        max_tests: How many settings to test at most.
    """
    return Choice(tuple(fixed_sequence(candidates(fit, budget, max_tests), held_out, budget)))


def candidates(fit: Samples, budget: Budget, most: int = MOST_TESTS) -> list[Setting]:
    """Settings worth a test, in order: from the surest on this sample to the one of most hits that kept the budget.

    Those in between are surer than any other of as many hits: *Pareto testing* (Laufer-Goldshtein, Fisch, Barzilay,
    Jaakkola, 2022, arXiv:2210.07913). The surest is not the strictest: few hits, even if all are right, show little.
    Of thresholds that do the same on this sample the middle one stands for all, of rules the first.
    """
    tried = [
        (Setting(thresholds[len(thresholds) // 2], rule), count)
        for rule, sample in fit.items()
        for count, thresholds in _alike(sample)
    ]
    front: list[Setting] = []
    most_hits = -1
    for setting, count in sorted(tried, key=lambda one: (doubt(one[1], budget), -one[1].hits)):
        kept = not front or (budget.observed(count) or 0.0) <= budget.rate
        if kept and count.hits > most_hits:
            front.append(setting)
            most_hits = count.hits
    places = np.unique(np.linspace(0, len(front) - 1, min(most, len(front))).round().astype(int))
    return [front[place] for place in places]


def doubt(count: Count, budget: Budget) -> float:
    """How little a count that was picked from many speaks for a setting, 0 to 1."""
    return budget.p_value(count._replace(wrong=min(count.wrong + _LUCK, budget.trials(count))))


def _alike(sample: Sample) -> Iterator[tuple[Count, list[float]]]:
    """Thresholds that make the same of a sample, and what."""
    counted = zip(sample.counts(GRID), GRID, strict=True)
    for count, group in groupby(counted, key=itemgetter(0)):
        yield count, [threshold for _, threshold in group]
