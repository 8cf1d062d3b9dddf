"""What near questions with one answer are worth: labelled streams under ``Policy(answers="closed")``.

    python -m benchmarks.bench_closed --data DIR [--part 0|1] [--vectors DIR]

The class of a question stands for its answer, as for a classifier, a router or canned replies: two questions of one
class get equal answers. Every look-up goes through ``semcache.judging.judge``, from an empty cache that keeps what it
could not answer. Part 0 is what the constants of ``semcache.agreement`` were chosen on, part 1 is reported.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.bench_guards import STREAMS, Replayed, Source, Stream, Vectors
from semcache.agreement import FROM, REACH
from semcache.guards import fold
from semcache.judging import judge
from semcache.policy import Policy
from semcache.types import Candidate

CLOSED: Final = Policy(answers="closed")
BARS: Final = tuple((probability, step / 100) for probability in (0.85, 0.9, 0.95) for step in range(50, 100, 5))
"""Least probabilities and agreements, between which ``semcache tune --answers closed`` chooses too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", type=int, choices=(0, 1), default=1, help="0: chosen on, 1: reported (default)")
    parser.add_argument("--vectors", type=Path, help="keep embeddings here between runs")
    arguments = parser.parse_args()
    source = Source(arguments.data, arguments.part, arguments.vectors)
    for name in STREAMS:
        stream = source.stream(name)
        for bars, (requests, hits, wrong) in by_bars(stream, source.vectors(name, stream.texts)).items():
            print(f"{name}: probability, agreement {bars}: {hits} hits of {requests}, {wrong} wrong", flush=True)


def by_bars(stream: Stream, vectors: Vectors) -> dict[tuple[float, float], Replayed]:
    """A replay for each least probability and agreement."""
    return {
        bars: replay_closed(stream, vectors, replace(CLOSED, min_probability=bars[0], min_agreement=bars[1]))
        for bars in BARS
    }


def replay_closed(stream: Stream, vectors: Vectors, policy: Policy) -> Replayed:
    """A cache that starts empty and keeps every question that it could not answer.

    Args:
        vectors: float32 [n, d], normalised, one for each text.
    """
    rules = policy.rules("default")
    kept: list[int] = []
    matrix = np.empty_like(vectors)
    hits = wrong = 0
    for request, text in enumerate(stream.texts):
        cosines = matrix[: len(kept)] @ vectors[request]
        nearest = np.argsort(-cosines)[:REACH] if len(kept) else []
        candidates = [
            Candidate(kept[at], stream.texts[kept[at]], float(cosines[at]), answer=stream.classes[kept[at]])
            for at in nearest
            if cosines[at] >= FROM
        ]
        decision = judge(policy, text, candidates, rules=rules)
        if decision.verdict != "serve" or decision.chosen is None:
            matrix[len(kept)] = vectors[request]
            kept.append(request)
            continue
        hits += 1
        served = decision.chosen
        wrong += served.answer != stream.classes[request] and fold(served.text) != fold(text)
    return Replayed(len(stream.texts), hits, wrong)


if __name__ == "__main__":
    main()
