"""Chooses one threshold: the order of trial from one part of the data, the test on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from semcache.tuning.bounds import Budget, Count, Trial, fixed_sequence
from semcache.tuning.scoring import FLOOR

if TYPE_CHECKING:
    import numpy.typing as npt

GRID: Final = tuple(round(0.995 - 0.005 * step, 3) for step in range(round((0.995 - FLOOR) / 0.005) + 1))
"""Thresholds that may be chosen, from high to low."""


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
        hits, wrong = (
            len(levels) - np.searchsorted(np.sort(levels), thresholds) for levels in (self.levels, self._wrong_levels)
        )
        return [Count(len(self.levels), int(h), int(w)) for h, w in zip(hits, wrong, strict=True)]

    def count(self, threshold: float) -> Count:
        return self.counts([threshold])[0]

    @property
    def _wrong_levels(self) -> npt.NDArray[np.float64]:
        return self.levels[self.wrong]


@dataclass(frozen=True)
class Choice:
    """What the tests on held-out data came to.

    Args:
        tested: Every threshold that was tested, in order; only the last can have failed.
    """

    tested: tuple[Trial, ...]

    @property
    def chosen(self) -> Trial | None:
        """The last threshold that passed; ``None`` if the first one failed: the semantic tier has to stay off."""
        return next((one for one in reversed(self.tested) if one.passed), None)

    @property
    def best(self) -> Trial:
        """The chosen threshold, or the most promising one if none passed."""
        return self.chosen or self.tested[0]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "tested": [{"threshold": one.threshold, **one.count._asdict(), "passed": one.passed} for one in self.tested]
        }


def choose(fit: Sample, held_out: Callable[[float], Count], budget: Budget, *, max_tests: int = len(GRID)) -> Choice:
    """The lowest threshold that is shown to keep the budget.

    Args:
        fit: Sets the order of trial, and nothing else.
        held_out: Counts on data that ``fit`` has not seen; called once for each threshold that is tested.
        max_tests: How many thresholds to test at most.
    """
    return Choice(tuple(fixed_sequence(candidates(fit, budget, max_tests), held_out, budget)))


def candidates(fit: Sample, budget: Budget, most: int = len(GRID)) -> list[float]:
    """Thresholds worth a test, in order: from the surest one down to the lowest that kept the budget on this sample.

    The surest is not the highest: few hits, even if all are right, show little.
    """
    counts = fit.counts(GRID)
    surest = min(range(len(GRID)), key=lambda place: (budget.p_value(counts[place]), -place))
    kept = [place for place in range(surest, len(GRID)) if (budget.observed(counts[place]) or 0.0) <= budget.rate]
    lowest = max(kept, default=surest)
    places = np.unique(np.linspace(surest, lowest, min(most, lowest - surest + 1)).round().astype(int))
    return [GRID[place] for place in places]
