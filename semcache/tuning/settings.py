"""What is tuned: the threshold, and the rules beside it that say who is asked besides the cosine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from semcache.judging import judge
from semcache.policy import Evidence, Policy
from semcache.scoring import shipped
from semcache.tuning.scoring import everywhere

if TYPE_CHECKING:
    from semcache.types import Candidate, Decision

FLOOR: Final = 0.5
"""No threshold below this cosine is ever worth a try."""

NEVER: Final = float("-inf")
"""The level of a question that no threshold lets through."""

PROBABILITIES: Final = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95)
"""Values of ``min_probability`` that may be chosen. 0 asks for none: every objection is a veto."""

AGREEMENTS: Final = (0.7, 0.8, 0.9)
"""Values of ``min_agreement`` that may be chosen, where answers are compared."""

_ANY: Final = 1e-9
"""A ``min_probability`` that asks the model, and takes whatever it says."""


class Rule(NamedTuple):
    """What a policy asks beside the cosine.

    Args:
        min_probability: See :class:`~semcache.policy.Policy`.
        min_agreement: The same, with ``answers="closed"``; ``None`` is ``answers="free"``.
    """

    min_probability: float
    min_agreement: float | None = None

    @classmethod
    def of(cls, policy: Policy) -> Rule:
        """The rule of a policy, overrides apart."""
        return cls(policy.min_probability, policy.min_agreement if policy.answers == "closed" else None)

    def fields(self, base: Policy) -> dict[str, Any]:
        """As fields of a policy, or of an override."""
        closed = self.min_agreement is not None
        return {
            "min_probability": self.min_probability,
            "answers": "closed" if closed else "free",
            "min_agreement": self.min_agreement if closed else base.min_agreement,
        }


class Setting(NamedTuple):
    """One choice of all that is tuned."""

    threshold: float
    rule: Rule

    def fields(self, base: Policy) -> dict[str, Any]:
        """As fields of a policy, or of an override."""
        return {"threshold": self.threshold, **self.rule.fields(base)}

    def policy(self, base: Policy, fingerprint: str) -> Policy:
        """A policy with this setting in all namespaces, made for an embedder."""
        return _made_for(fingerprint, everywhere(base, **self.fields(base)))

    def __str__(self) -> str:
        parts = [f"threshold {self.threshold:g}"]
        if self.rule.min_probability:
            parts.append(f"probability {self.rule.min_probability:g}")
        if self.rule.min_agreement is not None:
            parts.append(f"agreement {self.rule.min_agreement:g}")
        return ", ".join(parts)


def rules(base: Policy, fingerprint: str, *, closed: bool = False) -> tuple[Rule, ...]:
    """The rules that may be chosen, the policy's own first: probabilities where a model was fitted to the embedder.

    Args:
        closed: Also those that compare answers.
    """
    model = base.scoring or shipped()
    own = base.min_probability if model.fingerprint == fingerprint else 0.0
    bars = (own, *PROBABILITIES) if model.fingerprint == fingerprint else (own,)
    compared = [Rule(bar, share) for bar in (own, 0.0) for share in AGREEMENTS if closed]
    return tuple(dict.fromkeys([*map(Rule, bars), *compared]))


class Levels:
    """Judges one question at every threshold, under each of some rules.

    Args:
        base: Everything but what the rules say.
        fingerprint: Of the embedder that the similarities come from.
    """

    def __init__(self, base: Policy, fingerprint: str, rules: Sequence[Rule]) -> None:
        self._fingerprint = fingerprint
        self._base = base
        self._rules = rules
        self._policies = {rule: (self._at(1.0, rule), self._at(FLOOR, rule)) for rule in rules}

    def of(
        self, text: str, candidates: Sequence[Candidate], namespace: str
    ) -> Iterator[tuple[Rule, float, Candidate | None]]:
        """For each rule the highest threshold at which something is served, and what; ``NEVER`` if nothing is.

        Args:
            candidates: Most similar first.
        """
        candidates = [one for one in candidates if one.similarity >= FLOOR]
        few = [one._replace(answer=None) for one in candidates[: self._base.k]]
        weighed: Decision | None = None
        for rule in self._rules:
            strict, lax = self._policies[rule]
            seen = few if rule.min_agreement is None else candidates
            if not lax.rules(namespace).semantic or not seen:
                yield rule, NEVER, None
                continue
            chosen = _served(self._judge(strict, text, seen, namespace))
            if chosen is not None:  # by its neighbours, or it is the same text: no threshold parts that
                yield rule, 1.0, chosen
            elif rule.min_agreement is None and rule.min_probability:
                weighed = weighed or self._judge(self._lenient, text, seen, namespace, explain=True)
                yield rule, *_nearest(weighed, rule.min_probability)
            else:
                chosen = _served(self._judge(lax, text, seen, namespace))
                yield rule, NEVER if chosen is None else chosen.similarity, chosen

    def _judge(
        self, policy: Policy, text: str, candidates: Sequence[Candidate], namespace: str, *, explain: bool = False
    ) -> Decision:
        return judge(
            policy, text, candidates, rules=policy.rules(namespace), explain=explain, embedder=self._fingerprint
        )

    @cached_property
    def _lenient(self) -> Policy:
        """Every probability in one look."""
        return self._at(FLOOR, Rule(_ANY))

    def _at(self, threshold: float, rule: Rule) -> Policy:
        return Setting(threshold, rule).policy(self._base, self._fingerprint)


def _served(decision: Decision) -> Candidate | None:
    return decision.chosen if decision.verdict == "serve" else None


def _nearest(decision: Decision, least: float) -> tuple[float, Candidate | None]:
    """The nearest candidate that passes with this probability, where one was told."""
    for one in decision.judged:
        if one.ok and (one.probability is None or one.probability >= least):
            return one.candidate.similarity, one.candidate
    return NEVER, None


def _made_for(fingerprint: str, policy: Policy) -> Policy:
    """With evidence of this embedder, as a tuned policy has: neighbours then vouch under any embedder."""
    return replace(policy, evidence=Evidence(fingerprint))
