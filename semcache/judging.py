"""Which stored question may answer one that is asked: threshold, guards, probability, neighbours. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from semcache import agreement
from semcache.guards import covered, fold, verdicts
from semcache.scoring import WEIGHED, Scoring, decisive, shipped
from semcache.types import Candidate, Decision, GuardVerdict, Judged

if TYPE_CHECKING:
    from semcache.policy import Policy, Rules

_SAME_TEXT: Final = 1e-3
"""How far below 1 the cosine of a text with itself may come out (reduced precision of stored vectors)."""


def judge(
    policy: Policy,
    text: str,
    candidates: Sequence[Candidate],
    *,
    rules: Rules,
    min_similarity: float | None = None,
    explain: bool = False,
    embedder: str | None = None,
) -> Decision:
    """Choose the stored question whose answer may be served, if there is one.

    Args:
        text: The question asked.
        candidates: Stored questions, most similar first.
        rules: What holds for this question (:meth:`Policy.rules`).
        min_similarity: A caller's own bar. It raises the policy's, and never lowers it.
        explain: Judge every candidate by every rule, instead of stopping where the outcome is clear.
        embedder: Fingerprint of the embedder that the similarities come from; ``None`` means the default one.
    """
    floor = -1.0 if min_similarity is None else min_similarity
    shares = agreement.shares(candidates) if rules.closed else {}
    bars = _bars(policy, rules, floor)
    # Nothing is read of the text while no candidate is near enough for it to matter.
    least = min(bars.similarity, policy.search_from(rules))
    if candidates and (explain or any(one.similarity >= least - bars.slack * one.slack for one in candidates)):
        bars = bars.knowing(policy, rules, text, embedder)
    judged: list[Judged] = []
    for candidate in candidates:
        bar = max(floor, bars.similarity - bars.slack * candidate.slack)
        share = None if candidate.answer is None else shares.get(candidate.answer, 0.0)
        judged.append(_judge_one(candidate, text, bars._replace(similarity=bar), share, explain))
        if judged[-1].ok and not explain:
            break
    chosen = next((one for one in judged if one.ok), None)
    if chosen is None and bars.votes:
        chosen = _vouched(rules, text, [one for one in judged if one.candidate.similarity >= floor], shares)
        if chosen is not None:
            judged = [chosen if one.candidate is chosen.candidate else one for one in judged]
    if chosen is not None:
        return Decision("serve", bars.similarity, tuple(judged), chosen.candidate, chosen.probability, chosen.agreement)
    unsure = _worth_verifying(policy, text, candidates, bars, floor)
    return Decision("reject" if unsure is None else "verify", bars.similarity, tuple(judged), unsure)


def _vouched(rules: Rules, text: str, judged: Sequence[Judged], shares: Mapping[str, float]) -> Judged | None:
    """The candidate that its neighbours vouch for, cleared of what was held against it."""
    found = agreement.vouched(
        text,
        [one.candidate for one in judged],
        shares,
        at_least=rules.min_agreement,
        guards=rules.guards,
    )
    return next((one._replace(reasons=()) for one in judged if one.candidate is found), None)


def _bars(policy: Policy, rules: Rules, floor: float) -> _Bars:
    # A threshold that was measured is kept to: no feedback lowers it.
    slack = 0.0 if policy.evidence is not None else 1.0
    return _Bars(max(rules.threshold, floor), rules.guards, policy.scoring or shipped(), slack)


class _Bars(NamedTuple):
    """What a candidate has to pass.

    Args:
        probability: 0 asks for none.
        slack: How much of what feedback has earned a candidate counts, 0 to 1.
        votes: Whether its neighbours may vouch for it.
    """

    similarity: float
    guards: tuple[str, ...]
    model: Scoring
    slack: float
    probability: float = 0.0
    votes: bool = False

    def knowing(self, policy: Policy, rules: Rules, text: str, embedder: str | None) -> _Bars:
        """The bars for this text, by whether its language and the embedder are known."""
        if not covered(self.guards, text):
            return self._replace(similarity=max(self.similarity, policy.uncovered_threshold), slack=0.0)
        if embedder is None or embedder == self.model.fingerprint:
            return self._replace(probability=rules.min_probability, votes=rules.closed)
        tuned = policy.evidence is not None and policy.evidence.fingerprint == embedder
        return self._replace(votes=rules.closed and tuned)

    def vetoes(self, said: Sequence[GuardVerdict], query: str, cached: str) -> list[GuardVerdict]:
        """The objections that no probability outweighs."""
        return [
            verdict
            for verdict in said
            if not verdict.ok and not (self.probability and not decisive(verdict.guard, query, cached))
        ]


def _judge_one(candidate: Candidate, text: str, bars: _Bars, share: float | None, explain: bool) -> Judged:
    reasons: list[str] = []
    same = candidate.similarity >= 1.0 - _SAME_TEXT and fold(candidate.text) == fold(text)
    if candidate.similarity < bars.similarity and not same:
        reasons.append(f"similarity {candidate.similarity:.3f} below {bars.similarity:.3f}")
    if candidate.wrong_before:
        reasons.append("reported wrong before")
    if candidate.history:
        reasons.append(f"history: {candidate.history}")
    if candidate.barred:
        reasons.append("too many of its hits were wrong")
    if candidate.too_old:
        reasons.append("its answer is too old for a question about now")
    if share is not None and share < agreement.CONTESTED and not same:
        reasons.append(f"agreement {share:.3f} below {agreement.CONTESTED:.3f}: near questions have other answers")
    if reasons and not explain:
        return Judged(candidate, tuple(reasons), agreement=share)
    said = verdicts(bars.guards, text, candidate.text)
    vetoes = bars.vetoes(said, text, candidate.text)
    reasons += [f"{verdict.guard}: {verdict.reason}" for verdict in vetoes]
    if vetoes or not bars.probability:
        return Judged(candidate, tuple(reasons), said, agreement=share)  # of a pair with a veto the model knows nothing
    probability = bars.model.probability(text, candidate.text, candidate.similarity)
    if probability < bars.probability and not same:
        doubts = "".join(f"; {verdict.guard}: {verdict.reason}" for verdict in said if not verdict.ok)
        reasons.append(f"probability {probability:.3f} below {bars.probability:.3f}{doubts}")
    return Judged(candidate, tuple(reasons), said, probability, share)


def _worth_verifying(
    policy: Policy, text: str, candidates: Sequence[Candidate], bars: _Bars, floor: float
) -> Candidate | None:
    """The nearest candidate to which no guard objects that a verifier may not overrule."""
    if policy.verifier is None or policy.verify_from is None:
        return None
    least = max(policy.verify_from, floor)
    absolute = [name for name in bars.guards if name not in WEIGHED]
    return next(
        (
            candidate
            for candidate in candidates
            if least <= candidate.similarity
            and not candidate.wrong_before
            and not candidate.barred
            and not candidate.too_old
            and not candidate.history
            and all(verdict.ok for verdict in verdicts(absolute, text, candidate.text))
        ),
        None,
    )
