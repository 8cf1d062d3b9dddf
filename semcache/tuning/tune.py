"""From labelled data to a policy with evidence: one setting for each slice that has enough data, else pooled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Final, Literal, Protocol

from semcache.errors import ConfigurationError
from semcache.policy import Evidence, Override, Policy
from semcache.tuning.bounds import Budget, Count, Trial, fixed_sequence, labels_needed, percent
from semcache.tuning.choose import GRID, MOST_TESTS, Choice, Sample, Samples, candidates, choose, doubt
from semcache.tuning.settings import Rule, Setting

Table = Literal["namespaces", "categories", "languages"]
"""The overrides of a policy that slices are written to."""

POOLED: Final = None
"""Name of the slice of all that have too little data of their own."""


class Part(Protocol):
    """The data of one slice, in two parts that share nothing."""

    @property
    def fit(self) -> Samples: ...

    def held_out(self, setting: Setting) -> Count: ...


class Shared(Protocol):
    """The data of slices that share what is stored, so that what one hits depends on the settings of all."""

    @property
    def fits(self) -> Mapping[str | None, Samples]:
        """By slice; ``None`` are questions in none."""

    def held_out(self, policy: Policy, alone: Collection[str | None]) -> Mapping[str | None, Count]:
        """What a policy does: by slice that stands alone, and of the rest (``None``)."""


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
        name: An entry of the policy's table, or :data:`POOLED`.
        budget: What was tested: at the confidence that makes all slices hold together.
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
            "without": None if setting is None else setting.rule.without,
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
    table: Table = "namespaces"

    @property
    def served(self) -> Count:
        """On held-out data, over the slices that have a setting."""
        return reduce(add, (one.count for one in self.slices if one.setting is not None), Count(0, 0, 0))

    @property
    def semantic(self) -> bool:
        """Whether any slice has a setting."""
        return any(one.setting is not None for one in self.slices)

    @property
    def rest_off(self) -> bool:
        """Whether the semantic tier is off for all that has no slice of its own."""
        return all(one.name is not POOLED or one.setting is None for one in self.slices)

    def policy(self, base: Policy, *, fingerprint: str, data: Sequence[str], date: str, note: str = "") -> Policy:
        """``base`` with what was found in place of its thresholds and all else that :class:`Setting` names.

        Args:
            fingerprint: Of the embedder.
            data: Names of the data.
            date: ISO 8601.
            note: What a reader of the evidence should know besides.
        """
        made = applied(base, self.table, {one.name: one.setting for one in self.slices})
        return replace(made, evidence=self._evidence(fingerprint, data, date, note))

    def _evidence(self, fingerprint: str, data: Sequence[str], date: str, note: str) -> Evidence:
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
            note=" ".join(filter(None, (*map(describe, self.slices), note))),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "semantic": self.semantic,
            "table": self.table,
            "rest_off": self.rest_off,
            "budget": {"rate": self.budget.rate, "per": self.budget.per, "confidence": self.budget.confidence},
            **self.served._asdict(),
            "slices": [one.to_dict() for one in self.slices],
        }


def applied(base: Policy, table: Table, settings: Mapping[str | None, Setting | None]) -> Policy:
    """``base`` with the settings of some slices, ``None`` where the semantic tier is off.

    What has no slice of its own goes by the pool. Without a pool nothing is known of it: off.

    Raises:
        ConfigurationError: A category or language would switch on again what ``base`` switches off by namespace.
    """
    pool = settings.get(POOLED)
    made = (pool or Setting(base.threshold, Rule.of(base))).everywhere(base)
    shared = table != "namespaces"
    off = any(one.semantic is False for one in base.namespaces.values())
    if shared and off and pool is None and any(settings.values()):
        raise ConfigurationError(f"the policy switches namespaces off, over which {table} go: tune without slices")
    overrides = dict(getattr(made, table))
    for name, setting in settings.items():
        if name is POOLED:
            continue
        old = overrides.get(name, Override())
        fields: dict[str, Any] = {"semantic": False}
        if setting is not None:
            own = getattr(base, table).get(name, old).guards
            guards = setting.rule.guards(base.guards if own is None else own)
            inherited = made.guards if old.guards is None else old.guards
            on = None if shared and pool is not None else True
            fields = setting.fields(base) | {"guards": old.guards if guards == inherited else guards, "semantic": on}
        overrides[name] = replace(old, **fields)
    tables: dict[str, Any] = {table: overrides}
    return replace(made, semantic=pool is not None, **tables)


def tune(
    parts: Mapping[str, Part],
    budget: Budget,
    *,
    sliced: bool,
    max_tests: int = MOST_TESTS,
    table: Table = "namespaces",
) -> Tuning:
    """Choose settings for slices of which none changes what another hits: namespaces, or pairs.

    Which slices stand alone is decided by their earlier parts. With several slices each is tested at a higher
    confidence, so that all statements hold together at the budget's.

    Args:
        parts: The data of each slice.
        sliced: Give a slice with enough data a setting of its own.
        max_tests: How many settings to test at most in each slice.
    """
    alone: dict[str | None, Part] = {
        name: part for name, part in parts.items() if sliced and name and _enough(part.fit, budget.shared(len(parts)))
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
        table,
    )


def tune_together(shared: Shared, base: Policy, table: Table, budget: Budget, *, max_tests: int = MOST_TESTS) -> Tuning:
    """Choose settings for slices that share what is stored: one for each as a whole set, since a set is what is tested.

    The sets go from the surest setting of every slice to the one of most hits. A set passes if each of its slices shows
    the budget by itself. That needs no higher confidence: a set in which any slice is over the budget passes only if
    that slice does (an intersection-union test, Berger 1982, "Multiparameter hypothesis testing and acceptance
    sampling").

    A slice stands alone if its earlier part speaks for it. The rest is one more slice, or is off if nothing does.
    """
    fits = shared.fits
    alone: dict[str | None, Samples] = {
        name: fit for name, fit in fits.items() if name is not POOLED and _promising(fit, budget)
    }
    rest = [fit for name, fit in fits.items() if name not in alone]
    if rest:
        pooled = {rule: Sample.joined([fit[rule] for fit in rest]) for rule in rest[0]}
        if not alone or _promising(pooled, budget):
            alone[POOLED] = pooled
    fronts = {name: candidates(fit, budget, max_tests) for name, fit in alone.items()}
    steps = max(map(len, fronts.values()))
    path: list[dict[str | None, Setting]] = [
        {name: front[round(step * (len(front) - 1) / max(1, steps - 1))] for name, front in fronts.items()}
        for step in range(steps)
    ]
    counted: list[Mapping[str | None, Count]] = []

    def least_shown(settings: Mapping[str | None, Setting]) -> Count:
        counted.append(shared.held_out(applied(base, table, settings), alone))
        return max((counted[-1][name] for name in alone), key=budget.p_value)

    tested = list(zip(fixed_sequence(path, least_shown, budget), counted, strict=True))
    return Tuning(
        budget,
        tuple(
            Slice(
                name,
                Choice(tuple(Trial(trial.setting[name], count[name], trial.passed) for trial, count in tested)),
                budget,
            )
            for name in alone
        ),
        table,
    )


def _promising(fit: Samples, budget: Budget) -> bool:
    """Whether its surest setting would pass on this part, had it been a little less lucky."""
    best = candidates(fit, budget, 1)[0]
    return doubt(fit[best.rule].count(best.threshold), budget) <= 1.0 - budget.confidence


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
    short = "Others fell short." if budget.shown(count) else lacking(count, budget)
    return f"{where}No threshold passes: semantic tier off. {promising} {short}"


def lacking(count: Count, budget: Budget) -> str:
    """What a count lacks to show a budget, in a sentence."""
    needed = budget.still_needed(count)
    if needed.likely is None:
        return f"So many wrong ones are over the budget of {percent(budget.rate)}: more data alone will not help."
    clean = f"It takes {needed.at_least:,} more labelled {budget.per} to certify on, none of them wrong"
    return f"{clean}." if needed.likely == needed.at_least else f"{clean}, or about {needed.likely:,} as they come."
