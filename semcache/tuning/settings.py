"""What is tuned: the threshold, and the rules beside it that say who is asked besides the cosine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from semcache.guards import verdicts
from semcache.judging import judge
from semcache.policy import OVERRIDES, Evidence, Policy
from semcache.scoring import shipped
from semcache.tuning.scoring import everywhere, rules_for

if TYPE_CHECKING:
    from semcache.tuning.refit import Asked
    from semcache.types import Candidate, Decision, Judged

FLOOR: Final = 0.5
"""No threshold below this cosine is ever worth a try."""

NEVER: Final = float("-inf")
"""The level of a question that no threshold lets through."""

PROBABILITIES: Final = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.965, 0.97, 0.975, 0.98, 0.985, 0.99)
"""Values of ``min_probability`` that may be chosen. 0 asks for none: every objection is a veto."""

AGREEMENTS: Final = (0.7, 0.8, 0.9)
"""Values of ``min_agreement`` that may be chosen, where answers are compared."""

SOFT: Final = ("wording", "question", "surplus", "order")
"""Guards that hold two wordings of one question apart as readily as two questions; labels can tell which they do."""

_ANY: Final = 1e-9
"""A ``min_probability`` that asks the model, and takes whatever it says."""


class Rule(NamedTuple):
    """What a policy asks beside the cosine.

    Args:
        min_probability: See :class:`~semcache.policy.Policy`.
        min_agreement: The same, with ``answers="closed"``; ``None`` is ``answers="free"``.
        without: Guards that are switched off. What they object to is still evidence: the probability weighs it.
    """

    min_probability: float
    min_agreement: float | None = None
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, policy: Policy) -> Rule:
        """The rule of a policy, overrides apart."""
        return cls(policy.min_probability, policy.min_agreement if policy.answers == "closed" else None)

    def fields(self, base: Policy) -> dict[str, Any]:
        """As fields of a policy, or of an override, guards apart."""
        closed = self.min_agreement is not None
        return {
            "min_probability": self.min_probability,
            "answers": "closed" if closed else "free",
            "min_agreement": self.min_agreement if closed else base.min_agreement,
        }

    def guards(self, of: Sequence[str]) -> tuple[str, ...]:
        """Those of some guards that stay on."""
        return tuple(name for name in of if name not in self.without)


class Setting(NamedTuple):
    """One choice of all that is tuned."""

    threshold: float
    rule: Rule

    def fields(self, base: Policy) -> dict[str, Any]:
        """As fields of a policy, or of an override, guards apart."""
        return {"threshold": self.threshold, **self.rule.fields(base)}

    def everywhere(self, base: Policy) -> Policy:
        """The policy with this setting for all questions; what its tables say of guards keeps those that stay on."""
        tables: dict[str, Any] = {
            table: {
                name: one if one.guards is None else replace(one, guards=self.rule.guards(one.guards))
                for name, one in getattr(base, table).items()
            }
            for table in OVERRIDES
        }
        base = replace(base, guards=self.rule.guards(base.guards), **tables)
        return everywhere(base, **self.fields(base))

    def policy(self, base: Policy, fingerprint: str) -> Policy:
        """The same, made for an embedder: with evidence of it neighbours vouch under any, as under a tuned policy."""
        return replace(self.everywhere(base), evidence=Evidence(fingerprint))

    def __str__(self) -> str:
        parts = [f"threshold {self.threshold:g}"]
        if self.rule.min_probability:
            parts.append(f"probability {self.rule.min_probability:g}")
        if self.rule.min_agreement is not None:
            parts.append(f"agreement {self.rule.min_agreement:g}")
        if self.rule.without:
            parts.append(f"without {' and '.join(self.rule.without)}")
        return ", ".join(parts)


def rules(
    base: Policy, fingerprint: str, *, closed: bool = False, switched: Sequence[tuple[str, ...]] = ((),)
) -> tuple[Rule, ...]:
    """The rules that may be chosen, the policy's own first: probabilities where a model was fitted to the embedder.

    Args:
        closed: Also those that compare answers, with all guards.
        switched: Which guards to switch off, each set in turn. Where all are off only the cosine is asked: the model
            knows of no pair that no guard has looked at.
    """
    model = base.scoring or shipped()
    known = model.fingerprint == fingerprint
    own = base.min_probability if known else 0.0
    bars = (own, *PROBABILITIES) if known else (own,)
    free: list[Rule] = []
    for off in switched:
        cosine_alone = bool(off) and set(base.guards) <= set(off)
        free += [Rule(bar, None, off) for bar in ((0.0,) if cosine_alone else bars)]
    compared = [Rule(bar, share) for bar in (own, 0.0) for share in AGREEMENTS] if closed else []
    return tuple(dict.fromkeys([*free, *compared]))


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
        self._same = self._at(1.0, Rule(1.0))
        # Every probability in one look.
        self._weighing = {rule.without: self._at(FLOOR, rule._replace(min_probability=_ANY)) for rule in rules}
        closed = [rule for rule in rules if rule.min_agreement is not None]
        self._closed = {rule: (self._at(1.0, rule), self._at(FLOOR, rule)) for rule in closed}

    def of(
        self, text: str, candidates: Sequence[Candidate], namespace: str, category: str | None = None
    ) -> Iterator[tuple[Rule, float, Candidate | None]]:
        """For each rule the highest threshold at which something is served, and what; ``NEVER`` if nothing is.

        Args:
            candidates: Most similar first.
        """

        def judged(policy: Policy, seen: Sequence[Candidate], *, explain: bool = False) -> Decision:
            asked = rules_for(policy, text, namespace, category)
            return judge(policy, text, seen, rules=asked, explain=explain, embedder=self._fingerprint)

        near = [one for one in candidates if one.similarity >= FLOOR]
        if not near or not rules_for(self._same, text, namespace, category).semantic:
            yield from ((rule, NEVER, None) for rule in self._rules)
            return
        few = [one._replace(answer=None) for one in near[: self._base.k]]
        same = _served(judged(self._same, few))
        weighed: dict[tuple[str, ...], Decision] = {}
        for rule in self._rules:
            if rule.min_agreement is not None:
                strict, lax = self._closed[rule]
                sure = _served(judged(strict, near))  # its neighbours vouch for it
                chosen = sure or _served(judged(lax, near))
            else:
                if same is None and rule.without not in weighed:
                    weighed[rule.without] = judged(self._weighing[rule.without], few, explain=True)
                sure = same
                chosen = sure or _nearest(weighed[rule.without], rule.min_probability)
            level = 1.0 if sure else NEVER if chosen is None else chosen.similarity
            yield rule, level, chosen

    def _at(self, threshold: float, rule: Rule) -> Policy:
        return Setting(threshold, rule).policy(self._base, self._fingerprint)


def _served(decision: Decision) -> Candidate | None:
    return decision.chosen if decision.verdict == "serve" else None


def _nearest(decision: Decision, least: float) -> Candidate | None:
    """The nearest candidate that passes with this probability, where one was told; with 0, to which no one objects."""

    def passes(one: Judged) -> bool:
        if not least:
            return all(said.ok for said in one.verdicts)
        return one.probability is None or one.probability >= least

    return next((one.candidate for one in decision.judged if one.ok and passes(one)), None)


def switched_off(asked: Iterable[Asked], firm: Sequence[str], may: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Sets of guards to switch off, each with one guard more than the one before; the first is empty.

    The guard that is most often wrong goes first: by the share of right answers among those that it objects to. One
    that never objects stays on.

    Args:
        asked: Of each question the nearest answer that the firm guards let through counts.
        firm: Guards that stay on.
        may: Guards that may be switched off.
    """
    objected: dict[str, list[bool]] = {name: [] for name in may}
    for one in asked:
        admitted = (near for near in one.near if all(said.ok for said in verdicts(firm, one.text, near[0].text)))
        for candidate, right in islice(admitted, 1):
            for said in verdicts(may, one.text, candidate.text):
                if not said.ok:
                    objected[said.guard].append(right)
    order = sorted((name for name in may if objected[name]), key=lambda name: -fmean(objected[name]))
    return tuple(tuple(order[:count]) for count in range(len(order) + 1))
