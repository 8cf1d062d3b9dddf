"""Simulated traffic of which the true rates are known, tuned by the real code.

Run as a program, it prints how often and how far a certified threshold breaks its budget: as assumed, when the traffic
drifts after the data were taken, and when hits come in clusters. ``docs/tuning.md`` quotes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from semcache.tuning.bounds import Budget, Count
from semcache.tuning.choose import GRID, Sample, choose

LEVELS = np.linspace(0.5, 1.0, 501)
"""Similarities that occur."""


@dataclass(frozen=True)
class Traffic:
    """Requests that are drawn independently.

    Args:
        near: Share of requests that have an admissible candidate at all.
        slope: How fast the chance to be wrong falls with the similarity, on the logit scale.
        even: Similarity at which a hit is as often wrong as right.
        traps: Share of candidates that are wrong whatever their similarity: one-word traps that no guard sees.
    """

    near: float = 0.5
    slope: float = 40.0
    even: float = 0.75
    traps: float = 0.0

    @property
    def chance_wrong(self) -> npt.NDArray[np.float64]:
        smooth = 1.0 / (1.0 + np.exp(self.slope * (LEVELS - self.even)))
        return self.traps + (1.0 - self.traps) * smooth

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Of the similarities, among requests that have a candidate: most at 0.8."""
        density = (LEVELS - 0.5) ** 3 * (1.0001 - LEVELS) ** 2
        return density / density.sum()

    def draw(self, count: int, rng: np.random.Generator, cluster: int = 1) -> Sample:
        """``count`` requests, in clusters of so many that fare alike."""
        size = -(-count // cluster)
        place = rng.choice(len(LEVELS), size=size, p=self.weights)
        wrong = rng.random(size) < self.chance_wrong[place]
        levels = np.where(rng.random(size) < self.near, LEVELS[place], -np.inf)
        return Sample(np.repeat(levels, cluster)[:count], np.repeat(wrong, cluster)[:count])

    def risk(self, threshold: float, per: str) -> float:
        """The true rate of wrong hits at a threshold."""
        hit = np.greater_equal(LEVELS, threshold - 1e-9)
        hits = self.near * self.weights[hit].sum()
        wrong = self.near * (self.weights * self.chance_wrong)[hit].sum()
        return float(wrong / hits if per == "hits" else wrong)


@dataclass(frozen=True)
class Runs:
    """Thresholds chosen in many draws, ``None`` where none passed."""

    budget: Budget
    thresholds: tuple[float | None, ...]

    def risks(self, traffic: Traffic) -> npt.NDArray[np.float64]:
        """True rates of the traffic that follows, for the draws in which a threshold was chosen."""
        risk = {t: traffic.risk(t, self.budget.per) for t in self.thresholds if t is not None}
        return np.array([risk[t] for t in self.thresholds if t is not None])

    def broken(self, traffic: Traffic) -> int:
        """Draws after which the traffic that follows breaks the budget."""
        return int((self.risks(traffic) > self.budget.rate).sum())

    @property
    def on(self) -> int:
        """Draws in which a threshold was chosen."""
        return len(self.thresholds) - self.thresholds.count(None)


Chooser = Callable[[Sample, Sample, Budget], float | None]


def certified(fit: Sample, later: Sample, budget: Budget) -> float | None:
    """The threshold of the real code."""
    chosen = choose(fit, later.count, budget).chosen
    return None if chosen is None else chosen.threshold


def naive(fit: Sample, later: Sample, budget: Budget) -> float | None:
    """What one would do without statistics: the lowest threshold that keeps the budget on the data."""
    counts: list[Count] = Sample.joined([fit, later]).counts(GRID)
    kept = [t for t, count in zip(GRID, counts, strict=True) if (budget.observed(count) or 0.0) <= budget.rate]
    return min(kept, default=None)


def simulate(
    traffic: Traffic,
    budget: Budget,
    *,
    requests: int,
    draws: int,
    seed: int,
    cluster: int = 1,
    chooser: Chooser = certified,
) -> Runs:
    """Draw data, and choose a threshold by it, many times."""
    rng = np.random.default_rng(seed)
    halves = ([traffic.draw(requests // 2, rng, cluster) for _ in range(2)] for _ in range(draws))
    return Runs(budget, tuple(chooser(fit, later, budget) for fit, later in halves))


def main() -> None:
    """Print the table of ``docs/tuning.md``."""
    traffic, budget, draws = Traffic(traps=0.005), Budget(0.02), 1000

    def runs(chooser: Chooser = certified, cluster: int = 1) -> Runs:
        return simulate(traffic, budget, requests=20_000, draws=draws, seed=1, cluster=cluster, chooser=chooser)

    chosen = runs()
    cases = [
        ("as assumed", chosen, traffic),
        *(
            (f"drift: wrong candidates come {shift} nearer", chosen, replace(traffic, even=traffic.even + shift))
            for shift in (0.01, 0.02, 0.05)
        ),
        *(
            (f"drift: traps go from 0.5 % to {100 * traps:.0f} %", chosen, replace(traffic, traps=traps))
            for traps in (0.01, 0.02, 0.05)
        ),
        *((f"requests in clusters of {size} that fare alike", runs(cluster=size), traffic) for size in (2, 5, 20)),
        ("no test: the lowest threshold that looked right", runs(chooser=naive), traffic),
    ]
    print("| traffic | switched on | budget broken | true rate, mean | 95th percentile |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, run, then in cases:
        risks = run.risks(then)
        mean, high = 100 * risks.mean(), 100 * np.quantile(risks, 0.95)
        on, broken = 100 * run.on / draws, 100 * run.broken(then) / draws
        print(f"| {name} | {on:.1f} % | {broken:.1f} % | {mean:.2f} % | {high:.2f} % |")


if __name__ == "__main__":
    main()
