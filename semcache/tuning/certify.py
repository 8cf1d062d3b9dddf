"""Holds an old policy against new data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from semcache.tuning.bounds import Budget, Count, percent
from semcache.tuning.tune import lacking

if TYPE_CHECKING:
    from semcache.policy import Evidence


class Replayed(NamedTuple):
    """How a log was replayed.

    Args:
        filled: Requests that filled the cache before anything was counted.
        halves: What the policy did on the first half of the rest, and on the second.
    """

    filled: int
    halves: tuple[Count, Count]

    def __str__(self) -> str:
        first, second = (f"{half.wrong:,} of {half.hits:,}" for half in self.halves)
        start = (
            f"{self.filled:,} earlier requests had filled the cache"
            if self.filled
            else "The cache began empty, as after a first start; --after LOG fills it with earlier requests first"
        )
        return f"{start}. Wrong in the first half: {first}; in the second: {second}."


@dataclass(frozen=True)
class Certificate:
    """Whether new data show again what a policy promises.

    Args:
        budget: The promise.
        count: What the policy did on the new data.
        semantic: Whether the policy matches by meaning at all.
        replayed: How a log was replayed; ``None`` for pairs.
    """

    budget: Budget
    count: Count
    semantic: bool = True
    replayed: Replayed | None = None

    @property
    def verdict(self) -> Literal["holds", "broken", "not shown"]:
        """``holds``: the data show it, or nothing is served by meaning. ``broken``: they show the contrary.

        ``not shown``: they show neither, as too few hits do.
        """
        if not self.semantic or self.budget.shown(self.count):
            return "holds"
        return "broken" if self.budget.lower(self.count) > self.budget.rate else "not shown"

    def __str__(self) -> str:
        """The certificate in words."""
        if not self.semantic:
            return "Holds: the semantic tier of this policy is off."
        budget, count = self.budget, self.count
        claim = f"at most {percent(budget.rate)} of {budget.per} are wrong, at {percent(budget.confidence)} confidence"
        seen = (
            f"{count.wrong:,} of {count.hits:,} semantic hits wrong in {count.requests:,} requests; "
            f"between {percent(budget.lower(count))} and {percent(budget.upper(count))} of {budget.per}, "
            "each bound at that confidence."
        )
        advice = {"holds": "", "broken": "Tune again.", "not shown": lacking(count, budget)}[self.verdict]
        said = f"{self.verdict.capitalize()}: {claim}.\n{seen} {advice}".rstrip()
        return said if self.replayed is None else f"{said}\n{self.replayed}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. The keys are stable."""
        budget, count = self.budget, self.count
        shown = self.verdict == "holds"
        return {
            "verdict": self.verdict,
            "holds": shown,
            "semantic": self.semantic,
            "budget": {"rate": budget.rate, "per": budget.per, "confidence": budget.confidence},
            **count._asdict(),
            "rate": budget.observed(count),
            "lower_bound": budget.lower(count),
            "upper_bound": budget.upper(count),
            "more_needed": None if shown else budget.still_needed(count)._asdict(),
            "filled_by": None if self.replayed is None else self.replayed.filled,
            "halves": None if self.replayed is None else [half._asdict() for half in self.replayed.halves],
        }


def budget_of(evidence: Evidence | None) -> Budget | None:
    """The budget that a policy's evidence speaks of; ``None`` if it shows none."""
    if evidence is None or evidence.confidence is None:
        return None
    if evidence.max_false_hit_rate is not None:
        return Budget(evidence.max_false_hit_rate, "hits", evidence.confidence)
    if evidence.max_unsafe_rate is not None:
        return Budget(evidence.max_unsafe_rate, "requests", evidence.confidence)
    return None
