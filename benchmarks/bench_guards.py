"""What each guard costs in right hits and saves in wrong ones, and what the default policy does with and without them.

    python -m benchmarks.bench_guards --data DIR [--part 0|1] [--vectors DIR] [--thresholds]

``DIR`` holds the public sets that ``docs/answer-safety.md`` names. Every set is cut in two by group, so that what a
threshold was chosen on (part 0) and what is reported (part 1) share no question. Wrong hits are counted by the labels
as they are; where those are coarse or noisy, so is the count.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from semcache.embedders import OnnxEmbedder
from semcache.guards import GUARDS, fold, verdicts
from semcache.intervals import clopper_pearson
from semcache.policy import Policy

Vectors = npt.NDArray[np.float32]
Accept = Callable[[str, str], bool]

PAIRS = {"fow": "pairs/fow_pairs_dev", "mqp": "pairs/mqp_dev", "qqp": "pairs/qqp_dev"}
MORE_PAIRS = {"gptcache_mock": "pairs/gptcache_mock"}  # of rewordings only: to fit on, not to compare by
STREAMS = {  # file, field with the class of answer (none: no two questions have one answer)
    "banking77": ("intents/banking77", "cls"),
    "clinc150": ("intents/clinc150", "cls"),
    "covidq": ("faq/covidq", "cls"),
    "snips": ("intents/snips_slots", "key"),
    "nq_open": ("logs/nq_open_dev", ""),
}
MOST_PAIRS = 8000  # of each set, whole groups, by hash: the large ones take minutes to embed
MOST_REQUESTS = 6000
FLOOR = 0.72  # no policy here looks below
SWEEP = [round(0.74 + 0.005 * step, 3) for step in range(52)]


class Pair(NamedTuple):
    a: str
    b: str
    right: bool
    similarity: float


class Stream(NamedTuple):
    """Requests in a fixed random order; ``near`` are the earlier ones within reach of each, most similar first."""

    texts: list[str]
    classes: list[str]
    near: list[list[tuple[int, float]]]


class Replayed(NamedTuple):
    requests: int
    hits: int
    wrong: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", type=int, choices=(0, 1), default=1, help="0: chosen on, 1: reported (default)")
    parser.add_argument("--vectors", type=Path, help="keep embeddings here between runs")
    parser.add_argument("--thresholds", action="store_true", help="the table that the default was chosen by")
    arguments = parser.parse_args()
    source = Source(arguments.data, arguments.part, arguments.vectors)
    if arguments.thresholds:
        print_thresholds(source)
        return
    pairs = {name: source.pairs(name) for name in PAIRS}
    streams = {name: source.stream(name) for name in STREAMS}
    print_default(pairs, streams)
    print_guards(pairs, streams)


class Source:
    """The data, one part of it, with embeddings."""

    def __init__(self, data: Path, part: int, vectors: Path | None) -> None:
        self._data, self._part, self._vectors = data, part, vectors
        self._embedder = OnnxEmbedder()

    def pairs(self, name: str) -> list[Pair]:
        rows = [row for row in self._rows((PAIRS | MORE_PAIRS)[name]) if _half(_group(row)) == self._part]
        rows = sorted(rows, key=lambda row: _digest(_group(row)))[: MOST_PAIRS // 2]
        vectors = self._embed(name, [row[side] for row in rows for side in "ab"])
        cosines = np.einsum("ij,ij->i", vectors[0::2], vectors[1::2])
        return [
            Pair(row["a"], row["b"], row["label"] == 1, float(cosine))
            for row, cosine in zip(rows, cosines, strict=True)
        ]

    def stream(self, name: str) -> Stream:
        path, field = STREAMS[name]
        rows = [row for row in self._rows(path) if _half(row["id"]) == self._part]
        rows = sorted(rows, key=lambda row: _digest(row["id"]))[:MOST_REQUESTS]
        texts = [row["text"] for row in rows]
        # Out-of-scope questions share a label, but no answer.
        alone = [not field or row.get("cls") == "oos" for row in rows]
        classes = [f"alone-{n}" if alone[n] else row[field] for n, row in enumerate(rows)]
        return Stream(texts, classes, _near(self._embed(name, texts)))

    def _rows(self, path: str) -> list[dict[str, Any]]:
        with gzip.open(self._data / f"{path}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
            return [json.loads(line) for line in lines]

    def _embed(self, name: str, texts: list[str]) -> Vectors:
        kept = None if self._vectors is None else self._vectors / f"{name}-{self._part}.npy"
        if kept is not None and kept.exists():
            loaded: Vectors = np.load(kept)
            return loaded
        vectors = self._embedder.embed(texts)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, vectors)
        return vectors


def replay(stream: Stream, threshold: float, accept: Accept, *, k: int) -> Replayed:
    """A cache that starts empty and keeps every question that it could not answer."""
    kept: set[int] = set()
    hits = wrong = 0
    for request, near in enumerate(stream.near):
        candidates = [other for other, cosine in near if cosine >= threshold and other in kept][:k]
        served = next((other for other in candidates if accept(stream.texts[request], stream.texts[other])), None)
        if served is None:
            kept.add(request)
            continue
        hits += 1
        same = fold(stream.texts[request]) == fold(stream.texts[served])
        wrong += stream.classes[request] != stream.classes[served] and not same
    return Replayed(len(stream.texts), hits, wrong)


def print_default(pairs: dict[str, list[Pair]], streams: dict[str, Stream]) -> None:
    """The default policy, the same threshold without guards, and plain cosine at the hit rate of the default."""
    policy = Policy()
    judge = _accept(policy.guards)
    print(f"Default policy, threshold {policy.threshold}; wrong hits / hits (FH) with its exact 95 % interval.\n")
    print("| stream | requests | hits | FH | USR | threshold alone: hits | FH | cosine at equal hits | FH |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, stream in streams.items():
        ours = replay(stream, policy.threshold, judge, k=policy.k)
        bare = replay(stream, policy.threshold, _always, k=policy.k)
        equal, threshold = _equal_hits(stream, ours.hits)
        print(
            f"| {name} | {ours.requests} | {_share(ours.hits, ours.requests)} | {_interval(ours.wrong, ours.hits)} | "
            f"{_share(ours.wrong, ours.requests)} | {_share(bare.hits, bare.requests)} | "
            f"{_interval(bare.wrong, bare.hits)} | {threshold:g} | {_interval(equal.wrong, equal.hits)} |"
        )
    print("\n| pairs | same answer | accepted | other answer | accepted | threshold alone: same | other |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, rows in pairs.items():
        near = [pair for pair in rows if pair.similarity >= policy.threshold]
        passed = [pair for pair in near if judge(pair.a, pair.b)]
        right, other = sum(pair.right for pair in rows), sum(not pair.right for pair in rows)
        good, bad = _split(passed)
        bare_good, bare_bad = _split(near)
        print(
            f"| {name} | {right} | {_share(good, right)} | {other} | {_interval(bad, other)} | "
            f"{_share(bare_good, right)} | {_share(bare_bad, other)} |"
        )


def print_guards(pairs: dict[str, list[Pair]], streams: dict[str, Stream]) -> None:
    """Per guard, alone: right hits lost / wrong hits prevented, among pairs at or above the threshold."""
    threshold = Policy().threshold
    near = {name: [pair for pair in rows if pair.similarity >= threshold] for name, rows in pairs.items()}
    near |= {name: list(_nearest(stream, threshold)) for name, stream in streams.items()}
    print(f"\nEach guard alone, on pairs (of streams: nearest neighbours) at {threshold} and above:")
    print("right hits lost / wrong hits prevented.\n")
    print(f"| guard | {' | '.join(near)} |")
    print(f"| --- |{' ---: |' * len(near)}")
    totals = [_split(rows) for rows in near.values()]
    print(f"| (pairs) | {' | '.join(f'{good} / {bad}' for good, bad in totals)} |")
    for guard in GUARDS:
        accept = _accept((guard,))
        vetoed = [_split([pair for pair in rows if not accept(pair.a, pair.b)]) for rows in near.values()]
        print(f"| {guard} | {' | '.join(f'{good} / {bad}' for good, bad in vetoed)} |")


def print_thresholds(source: Source) -> None:
    """Hits and FH over thresholds: the streams by which the default was chosen, pooled, beside the traps."""
    policy = Policy()
    judge = _accept(policy.guards)
    streams = [source.stream(name) for name in ("banking77", "clinc150")]
    traps = source.pairs("fow")
    print("| threshold | hits | FH banking77 + clinc150 | paraphrases accepted (fow) | traps accepted (fow) |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for threshold in (0.78, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92):
        runs = [replay(stream, threshold, judge, k=policy.k) for stream in streams]
        requests, hits, wrong = (sum(column) for column in zip(*runs, strict=True))
        good, bad = _split([pair for pair in traps if pair.similarity >= threshold and judge(pair.a, pair.b)])
        right = sum(pair.right for pair in traps)
        print(
            f"| {threshold} | {_share(hits, requests)} | {_interval(wrong, hits)} | {_share(good, right)} | "
            f"{_share(bad, len(traps) - right)} |"
        )


def _near(vectors: Vectors) -> list[list[tuple[int, float]]]:
    near: list[list[tuple[int, float]]] = []
    for start in range(0, len(vectors), 512):
        cosines = vectors[start : start + 512] @ vectors[: start + 512].T
        for row in range(len(cosines)):
            earlier = cosines[row, : start + row]
            within = np.flatnonzero(earlier >= FLOOR)
            best = within[np.argsort(-earlier[within], kind="stable")][:100]
            near.append([(int(other), float(earlier[other])) for other in best])
    return near


def _nearest(stream: Stream, threshold: float) -> Iterator[Pair]:
    for request, near in enumerate(stream.near):
        if near and near[0][1] >= threshold:
            other, cosine = near[0]
            right = stream.classes[request] == stream.classes[other]
            yield Pair(stream.texts[request], stream.texts[other], right, cosine)


def _equal_hits(stream: Stream, hits: int) -> tuple[Replayed, float]:
    """Plain cosine at the threshold that comes nearest to a number of hits."""
    runs = [(replay(stream, threshold, _always, k=1), threshold) for threshold in SWEEP]
    return min(runs, key=lambda run: abs(run[0].hits - hits))


def _accept(guards: tuple[str, ...]) -> Accept:
    return lambda query, cached: all(verdict.ok for verdict in verdicts(guards, query, cached))


def _always(query: str, cached: str) -> bool:
    return True


def _split(pairs: list[Pair]) -> tuple[int, int]:
    right = sum(pair.right for pair in pairs)
    return right, len(pairs) - right


def _group(row: dict[str, Any]) -> str:
    """What must not be torn apart: the questions of one component, or the variants of one question."""
    return str(row.get("comp") or fold(row["a"]))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _half(key: str) -> int:
    return hashlib.md5(key.encode(), usedforsecurity=False).digest()[0] & 1


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _interval(part: int, whole: int) -> str:
    if not whole:
        return "–"
    low, high = clopper_pearson(part, whole)
    return f"{part}/{whole} = {100 * part / whole:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


if __name__ == "__main__":
    main()
