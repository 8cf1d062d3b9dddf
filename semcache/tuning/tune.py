"""From labelled data to a policy with evidence: one threshold for each slice that has enough data, else pooled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final, Protocol

from semcache.policy import Evidence, Override, Policy
from semcache.tuning.bounds import Budget, Count, labels_needed, percent
from semcache.tuning.choose import GRID, Choice, Sample, choose
from semcache.tuning.scoring import Progress, at_threshold, levels, similarities

if TYPE_CHECKING:
    from semcache.tuning.pairs import Pair
    from semcache.tuning.remembered import Remembered

POOLED: Final = None
"""Name of the slice of all that have too little data of their own."""


class Part(Protocol):
    """The data of one slice, in two parts that share nothing."""

    @property
    def fit(self) -> Sample: ...

    def held_out(self, threshold: float) -> Count: ...


@dataclass(frozen=True)
class Halves:
    """A part whose hits are known beforehand: pairs."""

    fit: Sample
    later: Sample

    def held_out(self, threshold: float) -> Count:
        return self.later.count(threshold)


def halves(
    fit: Sequence[Pair],
    later: Sequence[Pair],
    policy: Policy,
    embedder: Remembered,
    progress: Progress = lambda done: None,
) -> dict[str, Part]:
    """Labelled pairs in two halves, by namespace."""
    sides = []
    for pairs in (fit, later):
        found = levels(pairs, similarities(pairs, embedder, progress), policy, embedder.fingerprint)
        side: dict[str, list[tuple[float, bool]]] = defaultdict(list)
        for pair, level in zip(pairs, found, strict=True):
            side[pair.namespace].append((level, pair.right is False))
        sides.append({name: Sample.of(*zip(*rows, strict=True)) for name, rows in side.items()})
    nothing = Sample.of([], [])
    names = sorted({name for side in sides for name in side})
    return {name: Halves(*(side.get(name, nothing) for side in sides)) for name in names}


@dataclass(frozen=True)
class Pool:
    """Several parts as one."""

    parts: Sequence[Part]

    @property
    def fit(self) -> Sample:
        return Sample.joined([part.fit for part in self.parts])

    def held_out(self, threshold: float) -> Count:
        return reduce(add, (part.held_out(threshold) for part in self.parts), Count(0, 0, 0))


@dataclass(frozen=True)
class Slice:
    """What was found for one slice.

    Args:
        name: A namespace, or :data:`POOLED`.
        budget: What was tested: with several slices, at the confidence that makes them hold together.
    """

    name: str | None
    choice: Choice
    budget: Budget

    @property
    def threshold(self) -> float | None:
        """``None``: no threshold passes, the semantic tier is off."""
        return None if self.choice.chosen is None else self.choice.chosen.threshold

    @property
    def count(self) -> Count:
        """On held-out data, at the threshold, or at the most promising one if none passes."""
        return self.choice.best.count

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        needed = self.budget.still_needed(self.count) if self.threshold is None else None
        return {
            "slice": self.name,
            "threshold": self.threshold,
            **self.count._asdict(),
            "rate": self.budget.observed(self.count),
            "upper_bound": self.budget.upper(self.count),
            "confidence": self.budget.confidence,
            "more_needed": None if needed is None else needed._asdict(),
            **self.choice.to_dict(),
        }


@dataclass(frozen=True)
class Tuning:
    """All slices together."""

    budget: Budget
    slices: tuple[Slice, ...]

    @property
    def served(self) -> Count:
        """On held-out data, over the slices that have a threshold."""
        return reduce(add, (one.count for one in self.slices if one.threshold is not None), Count(0, 0, 0))

    @property
    def semantic(self) -> bool:
        """Whether any slice has a threshold."""
        return any(one.threshold is not None for one in self.slices)

    def policy(self, base: Policy, *, fingerprint: str, data: Sequence[str], date: str) -> Policy:
        """``base`` with what was found in place of its thresholds.

        A namespace without a slice of its own goes by the pool. Without a pool nothing is known of it: off.
        """
        pool = next((one for one in self.slices if one.name is POOLED), None)
        threshold = None if pool is None else pool.threshold
        overrides = dict(at_threshold(base, base.threshold).namespaces)
        for one in self.slices:
            if one.name is not POOLED:
                old = overrides.get(one.name, Override())
                overrides[one.name] = replace(old, threshold=one.threshold, semantic=one.threshold is not None)
        return replace(
            base,
            threshold=base.threshold if threshold is None else threshold,
            semantic=threshold is not None,
            namespaces=overrides,
            evidence=self._evidence(fingerprint, data, date),
        )

    def _evidence(self, fingerprint: str, data: Sequence[str], date: str) -> Evidence:
        shown = self.budget.rate if self.semantic else None
        count = self.served if self.semantic else reduce(add, (one.count for one in self.slices))
        return Evidence(
            fingerprint=fingerprint,
            data=tuple(data),
            date=date,
            requests=count.requests,
            hits=count.hits,
            wrong_hits=count.wrong,
            max_false_hit_rate=shown if self.budget.per == "hits" else None,
            max_unsafe_rate=shown if self.budget.per == "requests" else None,
            confidence=self.budget.confidence,
            note=" ".join(describe(one) for one in self.slices),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "semantic": self.semantic,
            "budget": {"rate": self.budget.rate, "per": self.budget.per, "confidence": self.budget.confidence},
            **self.served._asdict(),
            "slices": [one.to_dict() for one in self.slices],
        }


def tune(parts: Mapping[str, Part], budget: Budget, *, sliced: bool, max_tests: int = len(GRID)) -> Tuning:
    """Choose thresholds.

    Which slices stand alone is decided by their earlier parts. With several slices each is tested at a higher
    confidence, so that all statements hold together at the budget's.

    Args:
        parts: The data of each slice.
        sliced: Give a slice with enough data a threshold of its own.
        max_tests: How many thresholds to test at most in each slice.
    """
    alone: dict[str | None, Part] = {
        name: part for name, part in parts.items() if sliced and _enough(part.fit, budget.shared(len(parts)))
    }
    rest = [part for name, part in parts.items() if name not in alone]
    tested = {**alone, POOLED: Pool(rest)} if rest else alone
    each = budget.shared(len(tested))
    return Tuning(
        budget,
        tuple(
            Slice(name, choose(part.fit, part.held_out, each, max_tests=max_tests), each)
            for name, part in tested.items()
        ),
    )


def _enough(fit: Sample, budget: Budget) -> bool:
    """Whether a part like this one could show the budget if all were right."""
    return budget.trials(fit.count(GRID[-1])) >= labels_needed(budget.rate, budget.confidence)


def describe(one: Slice) -> str:
    """One slice in a sentence or two."""
    count, budget = one.count, one.budget
    where = "" if one.name is POOLED else f"{one.name}: "
    observed = budget.observed(count)
    seen = (
        f"{count.wrong:,} of {count.hits:,} semantic hits wrong in {count.requests:,} held-out requests"
        f" ({'none' if observed is None else percent(observed)} of {budget.per},"
        f" exact upper bound {percent(budget.upper(count))})"
    )
    if one.threshold is not None:
        return f"{where}Threshold {one.threshold:g}: {seen}."
    promising = f"The most promising, {one.choice.best.threshold:g}: {seen}."
    return f"{where}No threshold passes: semantic tier off. {promising} {lacking(count, budget)}"


def lacking(count: Count, budget: Budget) -> str:
    """What a count lacks to show a budget, in a sentence."""
    needed = budget.still_needed(count)
    if needed.likely is None:
        return f"So many wrong ones are over the budget of {percent(budget.rate)}: more data alone will not help."
    clean = f"It takes {needed.at_least:,} more labelled {budget.per} to certify on, none of them wrong"
    return f"{clean}." if needed.likely == needed.at_least else f"{clean}, or about {needed.likely:,} as they come."
