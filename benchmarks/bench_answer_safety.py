"""What the default policy does on labelled sets: the tables of ``docs/answer-safety.md``.

    python -m benchmarks.bench_answer_safety --data DIR [--vectors DIR]

Everything is measured on part 1 of each set, of which nothing was fitted on (see ``bench_guards`` for the parts and
``fit_scoring`` for what was). Each candidate goes through ``semcache.policy.judge``. Labels count as they are.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.bench_guards import PAIRS, STREAMS, SWEEP, Replayed, Source, Stream, _always, _interval, _share
from benchmarks.bench_guards import replay as replay_cosine
from semcache import SemanticCache
from semcache.guards import fold
from semcache.policy import Policy, judge
from semcache.types import Candidate

ALLOWED: Final = 0.02  # FH at which hit rates are compared
BARS: Final = (*(step / 100 for step in range(50, 96, 3)), 0.96, 0.97, 0.98, 0.985)
FLOORS: Final = (0.75, 0.8, 0.85, 0.9)
INTENTS: Final = ("banking77", "clinc150", "covidq")
BINS: Final = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)

Score = Callable[[str, str, float], float]


class Setting(NamedTuple):
    """What a request has to pass: a cosine and a probability."""

    threshold: float
    bar: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, help="keep embeddings here between runs")
    arguments = parser.parse_args()
    source = Source(arguments.data, 1, arguments.vectors)
    streams = {name: source.stream(name) for name in STREAMS}
    score = scorer(Policy())
    print_streams(streams, score)
    print_pairs(source, score)
    print_at_equal_rate({name: streams[name] for name in INTENTS}, score)
    print_calibration(streams, score)
    print_repeats(arguments.data)


def scorer(policy: Policy) -> Score:
    """The probability of a pair under a policy, 0 where it would not be served at any."""
    lax = replace(policy, threshold=min(FLOORS), min_probability=1e-9)
    known: dict[tuple[str, str], float] = {}

    def score(query: str, cached: str, cosine: float) -> float:
        pair = query, cached
        if pair not in known:
            decision = judge(lax, query, [Candidate(0, cached, cosine)], namespace="default")
            same = fold(query) == fold(cached)
            probability = 1.0 if same or decision.probability is None else decision.probability
            known[pair] = probability if decision.verdict == "serve" else 0.0
        return known[pair]

    return score


def replay(stream: Stream, setting: Setting, score: Score, *, k: int) -> Replayed:
    """A cache that starts empty and keeps every question that it could not answer."""
    kept: set[int] = set()
    hits = wrong = 0
    for request, near in enumerate(stream.near):
        text = stream.texts[request]
        reached = [(other, cosine) for other, cosine in near if cosine >= setting.threshold and other in kept][:k]
        served = next((o for o, cosine in reached if score(text, stream.texts[o], cosine) >= setting.bar), None)
        if served is None:
            kept.add(request)
            continue
        hits += 1
        same = fold(text) == fold(stream.texts[served])
        wrong += stream.classes[request] != stream.classes[served] and not same
    return Replayed(len(stream.texts), hits, wrong)


def print_streams(streams: dict[str, Stream], score: Score) -> None:
    """The default policy, beside plain cosine at the same number of hits."""
    policy = Policy()
    default = Setting(policy.threshold, policy.min_probability)
    print(f"Default policy: cosine {default.threshold}, probability {default.bar}.\n")
    print("| stream | requests | hits | per 1,000 | FH | USR | cosine at equal hits | FH |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, stream in streams.items():
        ours = replay(stream, default, score, k=policy.k)
        plain = [(replay_cosine(stream, threshold, _always, k=1), threshold) for threshold in SWEEP]
        equal, threshold = min(plain, key=lambda run: abs(run[0].hits - ours.hits))
        print(
            f"| {name} | {ours.requests} | {_share(ours.hits, ours.requests)} | "
            f"{1000 * ours.hits / ours.requests:.1f} | {_interval(ours.wrong, ours.hits)} | "
            f"{_share(ours.wrong, ours.requests)} | {threshold:g} | {_interval(equal.wrong, equal.hits)} |"
        )


def print_pairs(source: Source, score: Score) -> None:
    """Accepted pairs of either label."""
    policy = Policy()
    print("\n| pairs | same answer | accepted | other answer | accepted | cosine at equal recall: other |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in PAIRS:
        pairs = source.pairs(name)
        accepted = [
            pair.right
            for pair in pairs
            if pair.similarity >= policy.threshold and score(pair.a, pair.b, pair.similarity) >= policy.min_probability
        ]
        right, other = sum(pair.right for pair in pairs), sum(not pair.right for pair in pairs)
        good, bad = accepted.count(True), accepted.count(False)
        ranked = sorted((pair.similarity for pair in pairs if pair.right), reverse=True)
        equal = sum(pair.similarity >= ranked[max(good, 1) - 1] for pair in pairs if not pair.right)
        print(
            f"| {name} | {right} | {_interval(good, right)} | {other} | {_interval(bad, other)} | "
            f"{_share(equal, other)} |"
        )


def print_at_equal_rate(streams: dict[str, Stream], score: Score) -> None:
    """The most hits at the allowed FH: the best single cosine threshold, and the best pair of bars.

    Both are picked on the very stream that they are reported on, which flatters both.
    """
    policy = Policy()
    print(f"\nMost hits at FH ≤ {ALLOWED:.0%}:\n")
    print("| stream | cosine | hits | FH | cosine + probability | hits | FH | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, stream in streams.items():
        plain = [(replay_cosine(stream, t, _always, k=1), f"{t:g}") for t in SWEEP]
        settings = [Setting(floor, bar) for floor in FLOORS for bar in BARS]
        ours = [(replay(stream, one, score, k=policy.k), f"{one.threshold:g}, {one.bar:g}") for one in settings]
        a, b = _most(plain), _most(ours)
        cells = [
            cell for run, at in (a, b) for cell in (at, _share(run.hits, run.requests), _interval(run.wrong, run.hits))
        ]
        print(f"| {name} | {' | '.join(cells)} | {b[0].hits / a[0].hits if a[0].hits else float('inf'):.2f} |")


def print_calibration(streams: dict[str, Stream], score: Score) -> None:
    """What was said against what was so, for the nearest earlier question of each request."""
    print("\nProbability said, and share of right answers, for nearest neighbours without a veto (cosine ≥ 0.75):\n")
    print(f"| probability | {' | '.join(streams)} |\n| --- |{' ---: |' * len(streams)}")
    found = {name: list(_nearest(stream, score)) for name, stream in streams.items()}
    for low, high in pairwise(BINS):
        cells = []
        for pairs in found.values():
            right = [so for said, so in pairs if low < said <= high]
            cells.append(f"{_share(sum(right), len(right))} of {len(right)}")
        print(f"| {low:g}–{high:g} | {' | '.join(cells)} |")


def print_repeats(data: Path) -> None:
    """Prompts that were sent before, but for case, spaces and marks at the ends, through a whole cache."""
    with gzip.open(data / "logs/sharegpt_prompts_dev.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
        prompts = [json.loads(line)["text"] for line in lines]
    times: dict[str, int] = {}
    for prompt in prompts:
        times[fold(prompt)] = times.get(fold(prompt), 0) + 1
    seen: dict[str, set[str]] = {}
    verbatim = [0, 0]
    reworded = [0, 0]
    with SemanticCache(store="memory://", policy=Policy(secrets="allow")) as cache:
        for prompt in (prompt for prompt in prompts if times[fold(prompt)] > 1):
            earlier = seen.setdefault(fold(prompt), set())
            hit = cache.lookup(prompt).outcome.hit
            if earlier:
                kind = verbatim if prompt in earlier else reworded
                kind[0] += hit
                kind[1] += 1
            if not hit:
                cache.store(prompt, {"answer": fold(prompt)[:40]})
            earlier.add(prompt)
    print(
        f"\nsharegpt: {verbatim[0]} of {verbatim[1]} verbatim repeats hit, {reworded[0]} of {reworded[1]} "
        "that differ in case, spaces or marks at the ends."
    )


def _nearest(stream: Stream, score: Score) -> Iterator[tuple[float, bool]]:
    for request, near in enumerate(stream.near):
        if near and near[0][1] >= min(FLOORS):
            other, cosine = near[0]
            text, cached = stream.texts[request], stream.texts[other]
            said = score(text, cached, cosine)
            if said and fold(text) != fold(cached):
                yield said, stream.classes[request] == stream.classes[other]


def _most(runs: list[tuple[Replayed, str]]) -> tuple[Replayed, str]:
    """The run with the most hits among those within the allowed FH."""
    within = [run for run in runs if run[0].wrong <= ALLOWED * run[0].hits]
    return max(within, key=lambda run: run[0].hits, default=(Replayed(runs[0][0].requests, 0, 0), "none"))


if __name__ == "__main__":
    main()
