"""What the default policy does on labelled sets: every table of ``docs/answer-safety.md``.

    python -m benchmarks.bench_answer_safety --data DIR [--vectors DIR] [--write docs/answer-safety.md]

All but the tables of bars and thresholds is measured on part 1 of each set, of which nothing was fitted on (see
``bench_guards`` for the parts and ``fit_scoring`` for what was). Each candidate goes through ``semcache.policy.judge``.
Labels count as they are.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.bench_closed import CLOSED, by_bars
from benchmarks.bench_guards import (
    PAIRS,
    STREAMS,
    SWEEP,
    Pair,
    Replayed,
    Score,
    Source,
    Stream,
    by_cosine,
    cost_table,
    guards_table,
    interval,
    replay,
    share,
)
from benchmarks.fit_scoring import HALVES, fold_of, unopposed
from semcache import SemanticCache
from semcache.demo.questions import load_questions
from semcache.embedders import OnnxEmbedder
from semcache.guards import fold
from semcache.judging import judge
from semcache.policy import Policy
from semcache.scoring import Scoring
from semcache.types import Candidate

ALLOWED: Final = 0.02  # FH at which hit rates are compared
BARS: Final = (*(step / 100 for step in range(50, 96, 3)), 0.96, 0.97, 0.98, 0.985)
FLOORS: Final = (0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98)
INTENTS: Final = ("banking77", "clinc150", "covidq")
CHOSEN_ON: Final = ("banking77", "clinc150")
BINS: Final = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
SETTINGS: Final = (
    *((threshold, 0.85) for threshold in (0.8, 0.82, 0.84, 0.86, 0.88)),
    *((0.9, bar) for bar in (0.5, 0.8, 0.85, 0.88, 0.9, 0.92, 0.95)),
)
"""Thresholds and bars that the default was chosen from."""


_CLOSED_BARS: Final = (CLOSED.min_probability, CLOSED.min_agreement)


class Measured(NamedTuple):
    """Part 1 under the default policy."""

    streams: dict[str, Replayed]
    cosine: dict[str, tuple[Replayed, float]]  # at about as many hits
    best: dict[str, tuple[Replayed, Replayed]]  # most hits within the allowed FH: cosine, policy
    closed: dict[str, dict[tuple[float, float], Replayed]]  # by least probability and agreement
    accepted: dict[str, tuple[int, int, int, int]]  # right ones, all right ones, other ones, all others
    repeats: tuple[int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, help="keep embeddings here between runs")
    parser.add_argument("--write", type=Path, help="put the tables between their marks in this file")
    arguments = parser.parse_args()
    tables = dict(make_tables(arguments.data, arguments.vectors))
    for name, table in tables.items():
        print(f"{name}\n\n{table}\n")
    if arguments.write is not None:
        put_tables(arguments.write, tables)


def make_tables(data: Path, vectors: Path | None) -> Iterator[tuple[str, str]]:
    """Every table by name."""
    chosen, source = Source(data, 0, vectors), Source(data, 1, vectors)
    streams = {name: source.stream(name) for name in STREAMS}
    pairs = {name: source.pairs(name) for name in PAIRS}
    score = scorer(Policy())
    best = {name: (_most(_by_cosine(streams[name])), _most(_by_policy(streams[name], score))) for name in INTENTS}
    measured = Measured(
        streams={name: _default(stream, score) for name, stream in streams.items()},
        cosine={name: _at_equal_hits(stream, _default(stream, score).hits) for name, stream in streams.items()},
        best={name: (plain[0], ours[0]) for name, (plain, ours) in best.items()},
        closed={name: by_bars(stream, source.vectors(name, stream.texts)) for name, stream in streams.items()},
        accepted={name: _accepted(rows, score) for name, rows in pairs.items()},
        repeats=repeats(data),
    )
    yield "goals", goals_table(measured)
    yield "choice", choice_table(chosen)
    yield "streams", streams_table(measured)
    yield "pairs", pairs_table(measured, pairs)
    yield "best", best_table(best)
    yield "closed", closed_table(measured)
    yield "calibration", calibration_table(streams, score)
    yield "demo", demo_table()
    yield "guards", guards_table(pairs, streams)
    yield "cost", cost_table(pairs["qqp"])


def put_tables(page: Path, tables: dict[str, str]) -> None:
    """Put each table between ``<!-- table: name -->`` and ``<!-- /table -->``, in place of what is there.

    Raises:
        ValueError: The page has no such marks for one of them.
    """
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        before, begin, rest = text.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- /table -->")
        if not (begin and end):
            raise ValueError(f"{page} has no marks for the table {name}")
        text = f"{before}{begin}{table}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def scorer(policy: Policy) -> Score:
    """The probability of a pair under a policy, 0 where it would not be served at any."""
    lax = replace(policy, threshold=min(FLOORS), min_probability=1e-9)
    known: dict[tuple[str, str], float] = {}

    def score(query: str, cached: str, cosine: float) -> float:
        pair = query, cached
        if pair not in known:
            decision = judge(lax, query, [Candidate(0, cached, cosine)], rules=lax.rules("default"))
            same = fold(query) == fold(cached)
            probability = 1.0 if same or decision.probability is None else decision.probability
            known[pair] = probability if decision.verdict == "serve" else 0.0
        return known[pair]

    return score


def goals_table(measured: Measured) -> str:
    """Each goal beside what is reached."""
    good, right, bad, others = measured.accepted["fow"]
    snips, cosine = measured.streams["snips"], measured.cosine["snips"][0]
    per_1000 = 1000 * measured.streams["nq_open"].hits / measured.streams["nq_open"].requests
    ratios = {name: _ratio(ours, plain) for name, (plain, ours) in measured.best.items()}
    hit, repeated = measured.repeats
    closed = {name: runs[_CLOSED_BARS] for name, runs in measured.closed.items()}
    gained = [_ratio(_closed_best(measured, name)[0], plain) for name, (plain, _) in measured.best.items()]
    rows = [
        ("traps (`fow`): ≤ 3 % accepted", interval(bad, others), bad <= 0.03 * others),
        ("paraphrases (`fow`): ≥ 60 % accepted", interval(good, right), good >= 0.6 * right),
        (
            f"{', '.join(ratios)}: hit rate at FH ≤ 2 % at least 1.3 × that of the best cosine threshold",
            ", ".join(f"{ratio:.2f} ×" for ratio in ratios.values()),
            min(ratios.values()) >= 1.3,
        ),
        (
            'the same where answers are compared (`answers = "closed"`)',
            ", ".join(f"{ratio:.2f} ×" for ratio in gained),
            min(gained) >= 1.3,
        ),
        (
            "snips (`key`): FH ≤ 5 %",
            f"{share(snips.wrong, snips.hits)}; cosine at equal hits {share(cosine.wrong, cosine.hits)}",
            snips.wrong <= 0.05 * snips.hits,
        ),
        (
            "the same where answers are compared",
            interval(closed["snips"].wrong, closed["snips"].hits),
            closed["snips"].wrong <= 0.05 * closed["snips"].hits,
        ),
        ("nq_open: ≤ 5 semantic hits per 1,000", f"{per_1000:.1f}", per_1000 <= 5),
        (
            "the same where answers are compared",
            f"{1000 * closed['nq_open'].hits / closed['nq_open'].requests:.1f}",
            1000 * closed["nq_open"].hits <= 5 * closed["nq_open"].requests,
        ),
        ("sharegpt: exact repeats all hit", f"{hit} of {repeated}", hit == repeated),
    ]
    return _table(
        ("goal", "reached", ""), [(goal, found, "yes" if reached else "no") for goal, found, reached in rows], left=1
    )


def choice_table(source: Source) -> str:
    """Thresholds and bars on part 0, every pair scored by the model that saw none of its class."""
    models = [Scoring.of(document) for document in json.loads(HALVES.read_text(encoding="utf-8"))]
    streams = [source.stream(name) for name in CHOSEN_ON]
    scores = [_out_of_fold(models, dict(zip(stream.texts, stream.classes, strict=True))) for stream in streams]
    traps = source.pairs("fow")
    trap_score = _out_of_fold(models, {pair.a: fold(pair.a) for pair in traps})
    rows = []
    for threshold, bar in SETTINGS:
        runs = [
            replay(stream, threshold, bar, score, k=Policy().k) for stream, score in zip(streams, scores, strict=True)
        ]
        requests, hits, wrong = (sum(column) for column in zip(*runs, strict=True))
        near = [pair for pair in traps if pair.similarity >= threshold]
        accepted = [pair.right for pair in near if trap_score(pair.a, pair.b, pair.similarity) >= bar]
        right, good = sum(pair.right for pair in traps), sum(accepted)
        others = interval(len(accepted) - good, len(traps) - right)
        rows.append((threshold, bar, share(hits, requests), interval(wrong, hits), share(good, right), others))
    return _table(("threshold", "bar", "hits", "FH banking77 + clinc150", "paraphrases (fow)", "traps (fow)"), rows)


def _out_of_fold(models: list[Scoring], groups: dict[str, str]) -> Score:
    known: dict[tuple[str, str], float] = {}

    def score(query: str, cached: str, cosine: float) -> float:
        pair = query, cached
        if pair not in known:
            model = models[fold_of(groups[query])]
            same = fold(query) == fold(cached)
            known[pair] = float(same) or unopposed(*pair) * model.probability(query, cached, cosine)
        return known[pair]

    return score


def streams_table(measured: Measured) -> str:
    """The default policy, beside plain cosine at the same number of hits."""
    rows = []
    for name, (requests, hits, wrong) in measured.streams.items():
        equal, threshold = measured.cosine[name]
        rate, per_1000 = share(hits, requests), f"{1000 * hits / requests:.1f}"
        usr = share(wrong, requests)
        rows.append(
            (name, requests, rate, per_1000, interval(wrong, hits), usr, threshold, interval(equal.wrong, equal.hits))
        )
    return _table(("stream", "requests", "hits", "per 1,000", "FH", "USR", "cosine at equal hits", "FH"), rows, left=1)


def pairs_table(measured: Measured, pairs: dict[str, list[Pair]]) -> str:
    """Accepted pairs of either label."""
    rows = []
    for name, (good, right, bad, others) in measured.accepted.items():
        ranked = sorted((pair.similarity for pair in pairs[name] if pair.right), reverse=True)
        equal = sum(pair.similarity >= ranked[max(good, 1) - 1] for pair in pairs[name] if not pair.right)
        rows.append((name, right, interval(good, right), others, interval(bad, others), share(equal, others)))
    return _table(
        ("pairs", "same answer", "accepted", "other answer", "accepted", "cosine at equal recall: other"), rows, left=1
    )


def best_table(best: dict[str, tuple[tuple[Replayed, str], tuple[Replayed, str]]]) -> str:
    """The most hits at the allowed FH, both bars picked on the very stream that they are reported on."""
    rows = []
    for name, two in best.items():
        cells = [cell for run, at in two for cell in (at, share(run.hits, run.requests), interval(run.wrong, run.hits))]
        rows.append((name, *cells, f"{_ratio(two[1][0], two[0][0]):.2f}"))
    return _table(("stream", "cosine", "hits", "FH", "cosine + probability", "hits", "FH", "ratio"), rows, left=1)


def closed_table(measured: Measured) -> str:
    """Streams whose answers are compared, at the default agreement and at the one that hits most."""
    rows = []
    for name, runs in measured.closed.items():
        default, (best, bars) = runs[_CLOSED_BARS], _closed_best(measured, name)
        cells = [share(default.hits, default.requests), interval(default.wrong, default.hits)]
        cells += [share(default.wrong, default.requests), bars, share(best.hits, best.requests)]
        ratio = f"{_ratio(best, measured.best[name][0]):.2f}" if name in measured.best else "–"
        rows.append((name, *cells, interval(best.wrong, best.hits), ratio))
    head = ("stream", "hits", "FH", "USR", "most at FH ≤ 2 %: probability, agreement", "hits", "FH", "ratio to cosine")
    return _table(head, rows, left=1)


def _closed_best(measured: Measured, name: str) -> tuple[Replayed, str]:
    return _most([(run, ", ".join(f"{bar:g}" for bar in bars)) for bars, run in measured.closed[name].items()])


def _ratio(ours: Replayed, plain: Replayed) -> float:
    return ours.hits / plain.hits if plain.hits else 0.0


def calibration_table(streams: dict[str, Stream], score: Score) -> str:
    """What was said against what was so, for the nearest earlier question of each request."""
    found = {name: list(_nearest(stream, score)) for name, stream in streams.items()}
    rows = []
    for low, high in pairwise(BINS):
        cells = []
        for pairs in found.values():
            right = [so for said, so in pairs if low < said <= high]
            cells.append(f"{share(sum(right), len(right))} of {len(right)}")
        rows.append((f"{low:g}–{high:g}", *cells))
    return _table(("probability", *streams), rows, left=1)


def demo_table() -> str:
    """The demo's support log, each desk on its own: requests of which a nearer or equal text was stored."""
    questions = load_questions()
    vectors = OnnxEmbedder().embed([question.text for question in questions])
    policy = Policy()
    rows = []
    for label, guarded in ((f"cosine {policy.threshold} alone", False), ("default policy", True)):
        kept: list[int] = []
        hits = equal = wrong = 0
        for n, question in enumerate(questions):
            near = sorted(
                ((float(vectors[n] @ vectors[m]), m) for m in kept if questions[m].api == question.api), reverse=True
            )
            candidates = [Candidate(m, questions[m].text, cosine) for cosine, m in near[: policy.k]]
            if guarded:
                decision = judge(policy, question.text, candidates, rules=policy.rules("default"))
                served = decision.chosen if decision.verdict == "serve" else None
            else:
                served = next((one for one in candidates if one.similarity >= policy.threshold), None)
            if served is None:
                kept.append(n)
                continue
            hits += 1
            equal += fold(served.text) == fold(question.text)
            wrong += questions[served.entry_id].label != question.label
        rows.append((label, len(questions), hits, equal, hits - equal, wrong))
    return _table(("", "requests", "hits", "of the same text", "in other words", "wrong"), rows, left=1)


def repeats(data: Path) -> tuple[int, int]:
    """Prompts sent before, through the exact tier of a whole cache: hits, and how many."""
    with gzip.open(data / "logs/sharegpt_prompts_dev.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
        prompts = [json.loads(line)["text"] for line in lines]
    seen: set[str] = set()
    hits = repeated = 0
    with SemanticCache(store="memory://", embedder=None, policy=Policy(secrets="allow", semantic=False)) as cache:
        for prompt in prompts:
            hit = cache.lookup(prompt).outcome.hit
            if prompt in seen:
                repeated += 1
                hits += hit
            if not hit:
                cache.store(prompt, {"answer": fold(prompt)[:40]})
            seen.add(prompt)
    return hits, repeated


def _default(stream: Stream, score: Score) -> Replayed:
    policy = Policy()
    return replay(stream, policy.threshold, policy.min_probability, score, k=policy.k)


def _at_equal_hits(stream: Stream, hits: int) -> tuple[Replayed, float]:
    runs = [(by_cosine(stream, threshold), threshold) for threshold in SWEEP]
    return min(runs, key=lambda run: abs(run[0].hits - hits))


def _accepted(pairs: list[Pair], score: Score) -> tuple[int, int, int, int]:
    policy = Policy()
    accepted = [
        pair.right
        for pair in pairs
        if pair.similarity >= policy.threshold and score(pair.a, pair.b, pair.similarity) >= policy.min_probability
    ]
    right = sum(pair.right for pair in pairs)
    return accepted.count(True), right, accepted.count(False), len(pairs) - right


def _by_cosine(stream: Stream) -> list[tuple[Replayed, str]]:
    return [(by_cosine(stream, threshold), f"{threshold:g}") for threshold in SWEEP]


def _by_policy(stream: Stream, score: Score) -> list[tuple[Replayed, str]]:
    return [
        (replay(stream, floor, bar, score, k=Policy().k), f"{floor:g}, {bar:g}") for floor in FLOORS for bar in BARS
    ]


def _most(runs: list[tuple[Replayed, str]]) -> tuple[Replayed, str]:
    """The run with the most hits among those within the allowed FH."""
    within = [run for run in runs if run[0].wrong <= ALLOWED * run[0].hits]
    return max(within, key=lambda run: run[0].hits, default=(Replayed(runs[0][0].requests, 0, 0), "none"))


def _nearest(stream: Stream, score: Score) -> Iterator[tuple[float, bool]]:
    for request, near in enumerate(stream.near):
        if near and near[0][1] >= min(FLOORS):
            other, cosine = near[0]
            text, cached = stream.texts[request], stream.texts[other]
            said = score(text, cached, cosine)
            if said and fold(text) != fold(cached):
                yield said, stream.classes[request] == stream.classes[other]


def _table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]], *, left: int = 0) -> str:
    """A table in Markdown; all columns but the first ``left`` are numbers."""
    rule = ["---" if n < left else "---:" for n in range(len(head))]
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in (head, rule, *rows))


if __name__ == "__main__":
    main()
