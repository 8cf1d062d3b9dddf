"""Judges pairs of texts as the semantic tier would: the first is asked, the answer to the second is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from semcache.guards import language
from semcache.judging import judge
from semcache.policy import OVERRIDES, Policy, Rules
from semcache.report import Rate
from semcache.tuning.bounds import Count
from semcache.types import Candidate

if TYPE_CHECKING:
    from semcache.tuning.pairs import Pair
    from semcache.tuning.remembered import Remembered

UNREADABLE: Final = "the embedder cannot read one of the texts in full"

Progress = Callable[[int], object]
"""Told how many more pairs, or records, are done."""

_STRETCH: Final = 1024


class Scored(NamedTuple):
    """A pair and what the semantic tier makes of it.

    Args:
        similarity: Cosine; ``None`` where the embedder does not take one of the texts whole.
        reasons: Everything held against it; empty if it is accepted.
        probability: That the stored answer is right, where a model says so.
    """

    pair: Pair
    accepted: bool
    similarity: float | None
    reasons: tuple[str, ...]
    probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "line": self.pair.line,
            "a": self.pair.a,
            "b": self.pair.b,
            "label": None if self.pair.right is None else int(self.pair.right),
            "decision": "serve" if self.accepted else "reject",
            "similarity": self.similarity,
            "probability": self.probability,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class Totals:
    """What a policy came to on pairs. Rates are over labelled pairs only.

    Args:
        pairs: All of them.
        accepted_unlabelled: Accepted pairs of which nobody has said whether they are right.
        positives: Pairs that one answer serves.
        negatives: Pairs that it does not.
        right: Accepted pairs of the first kind.
        wrong: Accepted pairs of the second.
    """

    pairs: int
    accepted_unlabelled: int
    positives: int
    negatives: int
    right: int
    wrong: int

    @classmethod
    def of(cls, scored: Sequence[Scored]) -> Totals:
        accepted = [one.pair.right for one in scored if one.accepted]
        labels = [one.pair.right for one in scored]
        return cls(
            pairs=len(scored),
            accepted_unlabelled=accepted.count(None),
            positives=labels.count(True),
            negatives=labels.count(False),
            right=accepted.count(True),
            wrong=accepted.count(False),
        )

    @property
    def accepted(self) -> int:
        return self.right + self.wrong + self.accepted_unlabelled

    @property
    def recall(self) -> Rate:
        """Accepted of the pairs that one answer serves."""
        return Rate.of(self.right, self.positives)

    @property
    def false_accept_rate(self) -> Rate:
        """Accepted of the pairs that it does not."""
        return Rate.of(self.wrong, self.negatives)

    @property
    def false_hit_rate(self) -> Rate:
        """Wrong of the accepted. It depends on how many of the pairs are right, as that of a cache does on traffic."""
        return Rate.of(self.wrong, self.right + self.wrong)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. The keys are stable; what is not known is ``None``."""
        rates = {name: getattr(self, name) for name in ("recall", "false_accept_rate", "false_hit_rate")}
        known = {name: rate for name, rate in rates.items() if rate.value is not None}
        return {
            "total": self.pairs,
            "accepted": self.accepted,
            "accepted_unlabelled": self.accepted_unlabelled,
            "positives": self.positives,
            "negatives": self.negatives,
            "right": self.right,
            "wrong": self.wrong,
            **{name: rate.value for name, rate in rates.items()},
            **{f"{name}_ci95": [known[name].low, known[name].high] if name in known else None for name in rates},
        }


def score(
    pairs: Sequence[Pair], policy: Policy, embedder: Remembered, progress: Progress = lambda done: None
) -> Iterator[Scored]:
    """Each pair with the decision and every reason against it."""
    for pair, similarity in zip(pairs, similarities(pairs, embedder, progress), strict=True):
        rules = rules_for(policy, pair.a, pair.namespace, pair.category)
        if not rules.semantic:
            yield Scored(pair, False, similarity, ("exact tier only",))
        elif similarity is None:
            yield Scored(pair, False, None, (UNREADABLE,))
        else:
            near = [Candidate(0, pair.b, similarity)]
            decision = judge(policy, pair.a, near, rules=rules, explain=True, embedder=embedder.fingerprint)
            accepted = decision.verdict == "serve"
            yield Scored(pair, accepted, similarity, decision.judged[0].reasons, decision.probability)


def similarities(
    pairs: Sequence[Pair], embedder: Remembered, progress: Progress = lambda done: None
) -> Iterator[float | None]:
    """Cosine of each pair; ``None`` where one of its texts does not fit the embedder."""
    for start in range(0, len(pairs), _STRETCH):
        stretch = pairs[start : start + _STRETCH]
        found: list[float | None] = [None] * len(stretch)
        fitting = [place for place, pair in enumerate(stretch) if embedder.fits(pair.a) and embedder.fits(pair.b)]
        embedder.remember(text for place in fitting for text in (stretch[place].a, stretch[place].b))
        a = embedder.embed([stretch[place].a for place in fitting])
        b = embedder.embed([stretch[place].b for place in fitting])
        for place, cosine in zip(fitting, np.einsum("ij,ij->i", a, b).tolist(), strict=True):
            found[place] = min(cosine, 1.0)
        yield from found
        progress(len(stretch))


def everywhere(policy: Policy, **rules: Any) -> Policy:
    """The policy with these rules for all questions, and meaning matched wherever it is not switched off by name."""
    unset: dict[str, Any] = dict.fromkeys(rules)
    tables: dict[str, Any] = {
        table: {
            name: replace(override, **unset, semantic=None if override.semantic else override.semantic)
            for name, override in getattr(policy, table).items()
        }
        for table in OVERRIDES
    }
    return replace(policy, **rules, semantic=True, evidence=None, **tables)


def rules_for(policy: Policy, text: str, namespace: str, category: str | None = None) -> Rules:
    """What holds for a question, its language as the guards see it, as for a live call."""
    return policy.rules(namespace, category, language(text) if policy.languages else None)


def count(scored: Sequence[Scored]) -> Count:
    """The labelled pairs as requests, the accepted ones as hits."""
    totals = Totals.of(scored)
    return Count(totals.positives + totals.negatives, totals.right + totals.wrong, totals.wrong)
