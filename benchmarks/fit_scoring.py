"""Fits the probability that a cached answer is right (``semcache/scoring.py``).

    python -m benchmarks.fit_scoring --data DIR [--vectors DIR] [--out FILE]

Needs scikit-learn, which the package does not. Only sets whose licence allows it are fitted on, and of these only
part 0 (see ``bench_guards``): bank and assistant intents, voice commands that differ in one value, traps written by a
language model, and rewordings. Each set has a weight of its own, so that no kind of data drowns another. Two more
models are fitted on one half of the classes each, and kept beside this file for ``bench_answer_safety``.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.bench_guards import Source, Stream
from semcache.embedders import OnnxEmbedder
from semcache.guards import GUARDS, fold, verdicts
from semcache.scoring import DIRECTIONS, Features, decisive, features

WEIGHTS: Final = {"banking77": 1.0, "clinc150": 1.0, "snips": 0.5, "fow": 1.0, "gptcache_mock": 0.5}
LICENCES: Final = {
    "banking77": "CC BY 4.0",
    "clinc150": "CC BY 3.0",
    "snips": "CC0 1.0",
    "fow": "CC BY 4.0",
    "gptcache_mock": "MIT",
}
DOUBT: Final = [list(DIRECTIONS).index("cosine"), 0.9, [list(DIRECTIONS).index("same_question"), 0.5, -5.0, 0.0], 0.0]
"""A tree that no data gave. Far from each other, texts that ask for different things are not one question: labels of
intents do not tell, since an intent holds both "is there a fee" and "what is the fee"."""
NEIGHBOURS: Final = 5  # of each request, so many earlier ones
HALVES: Final = Path(__file__).with_name("scoring_halves.json")
"""Two models, of which neither saw the classes of one half: with them bars are compared out of fold."""


class Row(NamedTuple):
    """A pair without a veto. ``fold`` is decided by what must not be torn apart."""

    values: Features
    right: bool
    weight: float
    fold: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, help="keep embeddings here between runs")
    parser.add_argument("--out", type=Path, default=Path("semcache/data/scoring/minilm.json"))
    arguments = parser.parse_args()
    source = Source(arguments.data, 0, arguments.vectors)
    rows = [row for name, weight in WEIGHTS.items() for row in examples(source, name, weight)]
    halves = [{"features": list(DIRECTIONS), **fit([row for row in rows if row.fold != held])} for held in (0, 1)]
    HALVES.write_text(json.dumps(halves, separators=(",", ":")) + "\n", encoding="utf-8")
    model = fit(rows)
    document = {
        "features": list(DIRECTIONS),
        "data": [f"{name} ({licence})" for name, licence in LICENCES.items()],
        "date": datetime.date.today().isoformat(),
        "pairs": len(rows),
        **model,
    }
    arguments.out.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"\n{len(rows)} pairs, {len(model['trees'])} trees, {arguments.out.stat().st_size} bytes: {arguments.out}")


def examples(source: Source, name: str, weight: float) -> Iterator[Row]:
    """The pairs of a set to which no veto applies; together they have its weight."""
    raw = list(of_stream(source.stream(name)) if name in ("banking77", "clinc150", "snips") else of_pairs(source, name))
    kept = [one for one in raw if fold(one[0]) != fold(one[1]) and unopposed(one[0], one[1])]
    for query, cached, cosine, right, group in kept:
        yield Row(features(query, cached, cosine), right, weight / len(kept), fold_of(group))


def unopposed(query: str, cached: str) -> bool:
    """Whether no objection to a pair is decisive."""
    return all(one.ok or not decisive(one.guard, query, cached) for one in verdicts(GUARDS, query, cached))


def fit(rows: list[Row]) -> dict[str, Any]:
    """Boosted trees of depth three, monotone in every feature."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.array([row.values for row in rows])
    y = np.array([row.right for row in rows])
    weights = np.array([row.weight for row in rows])
    booster = HistGradientBoostingClassifier(
        max_depth=3,
        max_iter=30,
        learning_rate=0.2,
        l2_regularization=5.0,
        min_samples_leaf=40,
        monotonic_cst=list(DIRECTIONS.values()),
        early_stopping=False,
    ).fit(x, y, sample_weight=weights * len(rows) / weights.sum())
    return {
        "fingerprint": OnnxEmbedder().fingerprint,
        "bias": float(booster._baseline_prediction.ravel()[0]),
        "trees": [*(_nested(step[0].nodes, 0) for step in booster._predictors), DOUBT],
    }


def of_pairs(source: Source, name: str) -> Iterator[tuple[str, str, float, bool, str]]:
    for pair in source.pairs(name):
        yield pair.a, pair.b, pair.similarity, pair.right, fold(pair.a)


def of_stream(stream: Stream) -> Iterator[tuple[str, str, float, bool, str]]:
    for request, near in enumerate(stream.near):
        for other, cosine in near[:NEIGHBOURS]:
            right = stream.classes[request] == stream.classes[other]
            yield stream.texts[request], stream.texts[other], cosine, right, stream.classes[request]


def fold_of(group: str) -> int:
    return hashlib.md5(group.encode(), usedforsecurity=False).digest()[1] & 1


def _nested(nodes: npt.NDArray[Any], at: int) -> Any:
    """A tree of scikit-learn as nested lists; bars and leaves to six digits."""
    node = nodes[at]
    if node["is_leaf"]:
        return round(float(node["value"]), 6)
    bar = round(float(node["num_threshold"]), 6)
    return [int(node["feature_idx"]), bar, _nested(nodes, int(node["left"])), _nested(nodes, int(node["right"]))]


if __name__ == "__main__":
    main()
