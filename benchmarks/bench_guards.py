"""What each guard costs in right hits, saves in wrong ones, and takes in time; and the data of all that is measured.

    python -m benchmarks.bench_guards --data DIR [--part 0|1] [--vectors DIR]

``DIR`` holds the public sets that ``docs/answer-safety.md`` names. Every set is cut in two by group, so that what a
threshold was chosen on (part 0) and what is reported (part 1) share no question. Wrong hits are counted by the labels
as they are; where those are coarse or noisy, so is the count.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from semcache.embedders import OnnxEmbedder
from semcache.guards import GUARDS, fold, verdicts
from semcache.guards.alignment import without_counterpart
from semcache.guards.text import read
from semcache.intervals import clopper_pearson
from semcache.policy import Policy
from semcache.scoring import shipped

Vectors = npt.NDArray[np.float32]
Score = Callable[[str, str, float], float]
"""``score(query, cached, cosine)``: the probability that the answer serves, 0 where something forbids it."""

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
MOST_TIMED = 1000
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
    arguments = parser.parse_args()
    source = Source(arguments.data, arguments.part, arguments.vectors)
    pairs = {name: source.pairs(name) for name in PAIRS}
    print(guards_table(pairs, {name: source.stream(name) for name in STREAMS}))
    print(f"\n{cost_table(pairs['qqp'])}")


class Source:
    """The data, one part of it, with embeddings."""

    def __init__(self, data: Path, part: int, vectors: Path | None) -> None:
        self._data, self._part, self._vectors = data, part, vectors
        self._embedder = OnnxEmbedder()

    def pairs(self, name: str) -> list[Pair]:
        rows = [row for row in self._rows((PAIRS | MORE_PAIRS)[name]) if _half(_group(row)) == self._part]
        rows = sorted(rows, key=lambda row: _digest(_group(row)))[: MOST_PAIRS // 2]
        vectors = self.vectors(name, [row[side] for row in rows for side in "ab"])
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
        return Stream(texts, classes, _near(self.vectors(name, texts)))

    def _rows(self, path: str) -> list[dict[str, Any]]:
        with gzip.open(self._data / f"{path}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as lines:
            return [json.loads(line) for line in lines]

    def vectors(self, name: str, texts: list[str]) -> Vectors:
        """float32 [n, d], normalised."""
        kept = None if self._vectors is None else self._vectors / f"{name}-{self._part}.npy"
        if kept is not None and kept.exists():
            loaded: Vectors = np.load(kept)
            return loaded
        vectors = self._embedder.embed(texts)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, vectors)
        return vectors


def replay(stream: Stream, threshold: float, bar: float, score: Score, *, k: int) -> Replayed:
    """A cache that starts empty, keeps every question that it could not answer, and serves what scores at a bar."""
    kept: set[int] = set()
    hits = wrong = 0
    for request, near in enumerate(stream.near):
        text = stream.texts[request]
        reached = [(other, cosine) for other, cosine in near if cosine >= threshold and other in kept][:k]
        served = next((o for o, cosine in reached if score(text, stream.texts[o], cosine) >= bar), None)
        if served is None:
            kept.add(request)
            continue
        hits += 1
        same = fold(text) == fold(stream.texts[served])
        wrong += stream.classes[request] != stream.classes[served] and not same
    return Replayed(len(stream.texts), hits, wrong)


def by_cosine(stream: Stream, threshold: float) -> Replayed:
    """Plain cosine: the nearest question serves."""
    return replay(stream, threshold, 0.0, lambda query, cached, cosine: 1.0, k=1)


def guards_table(pairs: dict[str, list[Pair]], streams: dict[str, Stream]) -> str:
    """Per guard, alone: right hits lost / wrong hits prevented, among pairs at or above the threshold."""
    threshold = Policy().threshold
    near = {name: [pair for pair in rows if pair.similarity >= threshold] for name, rows in pairs.items()}
    near |= {name: list(_nearest(stream, threshold)) for name, stream in streams.items()}
    lines = [f"| guard | {' | '.join(near)} |", f"| --- |{' ---: |' * len(near)}"]
    totals = [_split(rows) for rows in near.values()]
    lines.append(f"| (pairs) | {' | '.join(f'{good} / {bad}' for good, bad in totals)} |")
    for guard in GUARDS.values():
        vetoed = [_split([pair for pair in rows if guard(pair.a, pair.b)]) for rows in near.values()]
        lines.append(f"| {guard.name} | {' | '.join(f'{good} / {bad}' for good, bad in vetoed)} |")
    return "\n".join(lines)


def cost_table(pairs: list[Pair]) -> str:
    """Microseconds of CPU for a pair, best of five runs over pairs that are not the same text."""
    some = [(pair.a, pair.b) for pair in pairs if fold(pair.a) != fold(pair.b)][:MOST_TIMED]
    read.cache_clear()
    reading = _per_call_us(lambda a, b: read.__wrapped__(a), some)
    texts = [(read(a), read(b)) for a, b in some]
    rows = [(name, _per_call_us(_afresh(guard.judge), texts)) for name, guard in GUARDS.items()]
    rows.append(("all guards", _per_call_us(_afresh(lambda a, b: verdicts(GUARDS, a, b)), some)))
    rows.append(("probability", _per_call_us(_afresh(lambda a, b: shipped().probability(a, b, 0.92)), some)))
    rows.append(("reading a new text", reading))
    return "\n".join(["| | µs |", "| --- | ---: |", *(f"| {name} | {us:.1f} |" for name, us in rows)])


def _afresh(judge: Callable[[Any, Any], object]) -> Callable[[Any, Any], object]:
    """Nothing of a pair is remembered from the judge before."""

    def call(a: Any, b: Any) -> object:
        without_counterpart.cache_clear()
        return judge(a, b)

    return call


def _per_call_us(call: Callable[[Any, Any], object], pairs: Sequence[tuple[Any, Any]]) -> float:
    best = math.inf
    for _ in range(5):
        started = time.process_time()
        for a, b in pairs:
            call(a, b)
        best = min(best, time.process_time() - started)
    return 1e6 * best / len(pairs)


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


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def interval(part: int, whole: int) -> str:
    if not whole:
        return "–"
    low, high = clopper_pearson(part, whole)
    return f"{part}/{whole} = {100 * part / whole:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


if __name__ == "__main__":
    main()
