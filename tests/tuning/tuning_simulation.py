"""Simulated traffic of which the true rates are known, tuned by the real code.

Run as a program, it prints how often and how far a certified threshold breaks its budget: as assumed, when the traffic
drifts after the data were taken, and when hits come in clusters. ``docs/tuning.md`` quotes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from semcache.policy import Policy
from semcache.tuning.bounds import Budget, Count
from semcache.tuning.choose import GRID, Sample, Samples, choose
from semcache.tuning.settings import Rule, Setting

LEVELS = np.linspace(0.5, 1.0, 501)
"""Similarities that occur."""


MANY = 64
"""About as many rules as tune has: least probabilities, times sets of guards that are switched off."""


@dataclass(frozen=True)
class Traffic:
    """Requests that are drawn independently.

    Args:
        near: Share of requests that have an admissible candidate at all.
        slope: How fast the chance to be wrong falls with the similarity, on the logit scale.
        even: Similarity at which a hit is as often wrong as right.
        traps: Share of candidates that are wrong whatever their similarity: one-word traps that no guard sees.
        rules: How many rules there are to choose from beside the threshold. Rule ``n`` lets candidates through that
            have evidence of at least ``n``; with each eighth of the steps a candidate is half as often wrong, traps
            apart.
    """

    near: float = 0.5
    slope: float = 40.0
    even: float = 0.75
    traps: float = 0.0
    rules: int = 1

    @property
    def chance_wrong(self) -> npt.NDArray[np.float64]:
        """By evidence and similarity."""
        smooth = 1.0 / (1.0 + np.exp(self.slope * (LEVELS - self.even)))
        return self.traps + (1.0 - self.traps) * smooth * 0.5 ** (8 * np.arange(self.rules) / self.rules)[:, None]

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Of the similarities, among requests that have a candidate: most at 0.8."""
        density = (LEVELS - 0.5) ** 3 * (1.0001 - LEVELS) ** 2
        return density / density.sum()

    def draw(self, count: int, rng: np.random.Generator, cluster: int = 1) -> Samples:
        """``count`` requests, in clusters of so many that fare alike."""
        size = -(-count // cluster)
        place = rng.choice(len(LEVELS), size=size, p=self.weights)
        evidence = rng.integers(self.rules, size=size)
        wrong = rng.random(size) < self.chance_wrong[evidence, place]
        near = rng.random(size) < self.near
        return {
            Rule(n / 100): Sample(
                np.repeat(np.where(near & (evidence >= n), LEVELS[place], -np.inf), cluster)[:count],
                np.repeat(wrong, cluster)[:count],
            )
            for n in range(self.rules)
        }

    def risk(self, setting: Setting, per: str) -> float:
        """The true rate of wrong hits at a setting."""
        hit = np.greater_equal(LEVELS, setting.threshold - 1e-9)
        share = self.near / self.rules * self.weights
        least = round(100 * setting.rule.min_probability)
        hits = (self.rules - least) * share[hit].sum()
        wrong = (share * self.chance_wrong)[least:, hit].sum()
        return float(wrong / hits if per == "hits" else wrong)


@dataclass(frozen=True)
class Runs:
    """Settings chosen in many draws, ``None`` where none passed."""

    budget: Budget
    settings: tuple[Setting | None, ...]

    def risks(self, traffic: Traffic) -> npt.NDArray[np.float64]:
        """True rates of the traffic that follows, for the draws in which a setting was chosen."""
        risk = {one: traffic.risk(one, self.budget.per) for one in self.settings if one is not None}
        return np.array([risk[one] for one in self.settings if one is not None])

    def broken(self, traffic: Traffic) -> int:
        """Draws after which the traffic that follows breaks the budget."""
        return int((self.risks(traffic) > self.budget.rate).sum())

    @property
    def on(self) -> int:
        """Draws in which a setting was chosen."""
        return len(self.settings) - self.settings.count(None)


@dataclass(frozen=True)
class Slices:
    """Slices of categories that share a cache, each with traffic of its own; ``None`` is the traffic of no category."""

    fits: Mapping[str | None, Samples]
    later: Mapping[str | None, Samples]

    @classmethod
    def draw(cls, traffic: Mapping[str | None, Traffic], requests: int, rng: np.random.Generator) -> Slices:
        """``requests`` of each slice, half of them to be tested on."""
        halves = ({name: one.draw(requests // 2, rng) for name, one in traffic.items()} for _ in range(2))
        return cls(*halves)

    def held_out(self, policy: Policy, alone: Collection[str | None]) -> dict[str | None, Count]:
        found = dict.fromkeys((*alone, None), Count(0, 0, 0))
        for name, samples in self.later.items():
            rules = policy.rules("default", name)
            if rules.semantic:
                count = samples[Rule(rules.min_probability)].count(rules.threshold)
            else:
                count = Count(len(next(iter(samples.values())).levels), 0, 0)
            found[name if name in alone else None] += count
        return found


Chooser = Callable[[Samples, Samples, Budget], Setting | None]


def certified(fit: Samples, later: Samples, budget: Budget) -> Setting | None:
    """The setting of the real code."""
    chosen = choose(fit, lambda one: later[one.rule].count(one.threshold), budget).chosen
    return None if chosen is None else chosen.setting


def naive(fit: Samples, later: Samples, budget: Budget) -> Setting | None:
    """What one would do without statistics: of the settings that keep the budget on the data, that of most hits."""
    counted: list[tuple[Setting, Count]] = [
        (Setting(threshold, rule), count)
        for rule in fit
        for threshold, count in zip(GRID, Sample.joined([fit[rule], later[rule]]).counts(GRID), strict=True)
    ]
    kept = [(count.hits, setting) for setting, count in counted if (budget.observed(count) or 0.0) <= budget.rate]
    return max(kept)[1] if kept else None


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
    """Draw data, and choose a setting by it, many times."""
    rng = np.random.default_rng(seed)
    halves = ([traffic.draw(requests // 2, rng, cluster) for _ in range(2)] for _ in range(draws))
    return Runs(budget, tuple(chooser(fit, later, budget) for fit, later in halves))


def main() -> None:
    """Print the table of ``docs/tuning.md``."""
    traffic, budget, draws = Traffic(traps=0.005), Budget(0.02), 1000

    def runs(
        chooser: Chooser = certified, cluster: int = 1, traffic: Traffic = traffic, requests: int = 20_000
    ) -> Runs:
        return simulate(traffic, budget, requests=requests, draws=draws, seed=1, cluster=cluster, chooser=chooser)

    chosen, ruled, many = runs(), replace(traffic, rules=8), replace(traffic, rules=MANY)
    cases = [
        ("as assumed", chosen, traffic),
        ("as assumed, 8 rules to choose from", runs(traffic=ruled), ruled),
        (f"6,000 requests, {MANY} rules to choose from", runs(traffic=many, requests=6_000), many),
        *(
            (f"drift: wrong candidates come {shift} nearer", chosen, replace(traffic, even=traffic.even + shift))
            for shift in (0.01, 0.02, 0.05)
        ),
        *(
            (f"drift: traps go from 0.5 % to {100 * traps:.0f} %", chosen, replace(traffic, traps=traps))
            for traps in (0.01, 0.02, 0.05)
        ),
        *((f"requests in clusters of {size} that fare alike", runs(cluster=size), traffic) for size in (2, 5, 20)),
        ("no test: most hits of what looked right", runs(chooser=naive), traffic),
        ("the same, 8 rules to choose from", runs(chooser=naive, traffic=ruled), ruled),
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
