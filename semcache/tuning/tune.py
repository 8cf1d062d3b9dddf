"""From labelled data to a policy with evidence: one setting for each slice that has enough data, else pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Final, Protocol

from semcache.policy import Evidence, Override, Policy
from semcache.tuning.bounds import Budget, Count, labels_needed, percent
from semcache.tuning.choose import GRID, MOST_TESTS, Choice, Sample, Samples, choose
from semcache.tuning.scoring import everywhere
from semcache.tuning.settings import Rule, Setting

POOLED: Final = None
"""Name of the slice of all that have too little data of their own."""


class Part(Protocol):
    """The data of one slice, in two parts that share nothing."""

    @property
    def fit(self) -> Samples: ...

    def held_out(self, setting: Setting) -> Count: ...


@dataclass(frozen=True)
class Halves:
    """A part whose hits are known beforehand: pairs."""

    fit: Samples
    later: Samples

    def held_out(self, setting: Setting) -> Count:
        return self.later[setting.rule].count(setting.threshold)


@dataclass(frozen=True)
class Pool:
    """Several parts as one."""

    parts: Sequence[Part]

    @property
    def fit(self) -> Samples:
        fits = [part.fit for part in self.parts]
        return {rule: Sample.joined([fit[rule] for fit in fits]) for rule in fits[0]}

    def held_out(self, setting: Setting) -> Count:
        return reduce(add, (part.held_out(setting) for part in self.parts), Count(0, 0, 0))


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
    def setting(self) -> Setting | None:
        """``None``: no setting passes, the semantic tier is off."""
        return None if self.choice.chosen is None else self.choice.chosen.setting

    @property
    def count(self) -> Count:
        """On held-out data, at the setting, or at the most promising one if none passes."""
        return self.choice.best.count

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        setting = self.setting
        needed = self.budget.still_needed(self.count) if setting is None else None
        return {
            "slice": self.name,
            "threshold": None if setting is None else setting.threshold,
            "min_probability": None if setting is None else setting.rule.min_probability,
            "min_agreement": None if setting is None else setting.rule.min_agreement,
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
        """On held-out data, over the slices that have a setting."""
        return reduce(add, (one.count for one in self.slices if one.setting is not None), Count(0, 0, 0))

    @property
    def semantic(self) -> bool:
        """Whether any slice has a setting."""
        return any(one.setting is not None for one in self.slices)

    def policy(self, base: Policy, *, fingerprint: str, data: Sequence[str], date: str) -> Policy:
        """``base`` with what was found in place of its thresholds and all else that :class:`Setting` names.

        A namespace without a slice of its own goes by the pool. Without a pool nothing is known of it: off.
        """
        pool = next((one for one in self.slices if one.name is POOLED), None)
        setting = None if pool is None else pool.setting
        own = Setting(base.threshold, Rule.of(base))  # any: only its fields are unset
        overrides = dict(everywhere(base, **own.fields(base)).namespaces)
        for one in self.slices:
            if one.name is not POOLED:
                fields = {} if one.setting is None else one.setting.fields(base)
                old = overrides.get(one.name, Override())
                overrides[one.name] = replace(old, **fields, semantic=one.setting is not None)
        return replace(
            base,
            **({} if setting is None else setting.fields(base)),
            semantic=setting is not None,
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


def tune(parts: Mapping[str, Part], budget: Budget, *, sliced: bool, max_tests: int = MOST_TESTS) -> Tuning:
    """Choose settings.

    Which slices stand alone is decided by their earlier parts. With several slices each is tested at a higher
    confidence, so that all statements hold together at the budget's.

    Args:
        parts: The data of each slice.
        sliced: Give a slice with enough data a setting of its own.
        max_tests: How many settings to test at most in each slice.
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


def _enough(fit: Samples, budget: Budget) -> bool:
    """Whether a part like this one could show the budget if all were right."""
    return max(budget.trials(sample.count(GRID[-1])) for sample in fit.values()) >= labels_needed(
        budget.rate, budget.confidence
    )


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
    if one.setting is not None:
        return f"{where}{str(one.setting).capitalize()}: {seen}."
    promising = f"The most promising, {one.choice.best.setting}: {seen}."
    return f"{where}No threshold passes: semantic tier off. {promising} {lacking(count, budget)}"


def lacking(count: Count, budget: Budget) -> str:
    """What a count lacks to show a budget, in a sentence."""
    needed = budget.still_needed(count)
    if needed.likely is None:
        return f"So many wrong ones are over the budget of {percent(budget.rate)}: more data alone will not help."
    clean = f"It takes {needed.at_least:,} more labelled {budget.per} to certify on, none of them wrong"
    return f"{clean}." if needed.likely == needed.at_least else f"{clean}, or about {needed.likely:,} as they come."
