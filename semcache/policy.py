"""PROVISIONAL so that the engine runs while the real policy is being written: its owner replaces this file whole.

The engine relies on exactly these names: Policy(threshold, semantic, verifier, verify_from, verify_at_least, k,
collapse_wait_s, embed_budget_s, max_temperature, ttl), Policy.load(path), .threshold_for(ns), .semantic_for(ns),
.any_semantic; functions admit(policy, request), judge(policy, text, candidates, *, namespace, min_similarity,
explain), ttl_for(policy, request, namespace). tests/flow/test_order.py drives them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from semcache.types import Candidate, Decision, Judged, Request


@dataclass(frozen=True)
class Policy:
    threshold: float = 0.95
    semantic: bool = True
    verifier: Callable[[str, str], float] | None = None
    verify_from: float | None = None
    verify_at_least: float = 0.9
    k: int = 5
    collapse_wait_s: float = 30.0
    embed_budget_s: float = 1.0
    max_temperature: float = 1.0
    ttl: float | None = None

    @classmethod
    def load(cls, path: Any) -> Policy:
        raise NotImplementedError

    def threshold_for(self, namespace: str) -> float:
        return self.threshold

    def semantic_for(self, namespace: str) -> bool:
        return self.semantic

    @property
    def any_semantic(self) -> bool:
        return self.semantic


def admit(policy: Policy, request: Request) -> str:
    if request.bypass:
        return request.bypass
    if request.temperature is not None and request.temperature > policy.max_temperature:
        return f"temperature {request.temperature} above {policy.max_temperature}"
    return ""


def ttl_for(policy: Policy, request: Request, namespace: str) -> float | None:
    return policy.ttl


def judge(
    policy: Policy,
    text: str,
    candidates: Sequence[Candidate],
    *,
    namespace: str,
    min_similarity: float | None = None,
    explain: bool = False,
) -> Decision:
    bar = max(policy.threshold, min_similarity if min_similarity is not None else -1.0)
    judged = []
    for c in candidates:
        reasons = []
        if c.similarity < bar:
            reasons.append(f"similarity {c.similarity:.3f} below {bar}")
        if c.wrong_before:
            reasons.append("reported wrong before")
        judged.append(Judged(c, tuple(reasons)))
    chosen = next((j.candidate for j in judged if j.ok), None)
    if chosen is not None:
        return Decision("serve", bar, tuple(judged), chosen)
    if policy.verifier is not None and policy.verify_from is not None:
        for c in candidates:
            if c.similarity >= policy.verify_from and not c.wrong_before:
                return Decision("verify", bar, tuple(judged), c)
    return Decision("reject", bar, tuple(judged))
