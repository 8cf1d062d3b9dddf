"""What a verifier adds to the default policy on labelled pairs: a table of ``docs/answer-safety.md``.

    python -m benchmarks.bench_verifier --data DIR --model FOLDER [--label NAME] [--most N]

``FOLDER`` is what ``OnnxCrossEncoder`` takes. Part 1 of each set, see ``bench_guards``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench_guards import PAIRS, Pair, Source, interval
from semcache.errors import VerifierError
from semcache.judging import judge
from semcache.policy import Policy
from semcache.types import Candidate
from semcache.verifiers import OnnxCrossEncoder
from semcache.verifiers.base import resolve, score_one

BARS = (0.5, 0.9, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--label", help='the output that means "the same"')
    parser.add_argument("--verify-from", type=float, default=0.75)
    parser.add_argument("--most", type=int, default=1000, help="pairs of each set (default: 1000)")
    parser.add_argument("--vectors", type=Path, help="keep embeddings here between runs")
    arguments = parser.parse_args()
    verifier = OnnxCrossEncoder(arguments.model, label=arguments.label)
    policy = Policy(verifier=verifier, verify_from=arguments.verify_from)
    source = Source(arguments.data, 1, arguments.vectors)
    print("| pairs | verifier | asked | same answer: accepted | other answer: accepted |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name in PAIRS:
        for row in rows(policy, source.pairs(name)[: arguments.most]):
            print(f"| {name} | {' | '.join(row)} |", flush=True)


def rows(policy: Policy, pairs: Sequence[Pair]) -> list[tuple[str, str, str, str]]:
    """What is accepted of some pairs without the verifier, and with it at each bar."""
    scores = [said(policy, pair) for pair in pairs]
    totals = Counter(pair.right for pair in pairs)
    asked = sum(by_verifier for by_verifier, _ in scores)
    found = []
    for bar in (None, *BARS):
        accepted = Counter(
            pair.right
            for pair, (by_verifier, score) in zip(pairs, scores, strict=True)
            if (not by_verifier and score) or (by_verifier and bar is not None and score >= bar)
        )
        name, number = ("none", "–") if bar is None else (f"at least {bar:g}", f"{asked}")
        good, bad = (interval(accepted[right], totals[right]) for right in (True, False))
        found.append((name, number, good, bad))
    return found


def said(policy: Policy, pair: Pair) -> tuple[bool, float]:
    """Whether the verifier was asked of a pair, and what it said; else 1 or 0, for what the policy decided alone."""
    decision = judge(policy, pair.a, [Candidate(0, pair.b, pair.similarity)], rules=policy.rules("default"))
    if decision.verdict != "verify":
        return False, float(decision.verdict == "serve")
    assert policy.verifier is not None
    try:
        return True, score_one(resolve(policy.verifier), pair.a, pair.b)
    except VerifierError:  # too long for it: not confirmed
        return True, 0.0


if __name__ == "__main__":
    main()
