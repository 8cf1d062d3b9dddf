"""Fits the scoring to labelled data, so that a probability means there what it says.

A logistic regression on the shipped model's own logit and on the features, with all weights held to the direction in
which a feature may speak, so that no evidence for a pair ever lowers its probability. A ridge keeps it near the shipped
model, so that few data move it little. For an embedder without a shipped model it is made of the features alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from semcache.guards import covered, fold, verdicts
from semcache.scoring import DIRECTIONS, Features, Scoring, Tree, decisive, features, shipped

if TYPE_CHECKING:
    import numpy.typing as npt

    from semcache.types import Candidate

    Array = npt.NDArray[np.float64]

LEAST: Final = 500
"""Labelled pairs without a veto that a fit needs,"""

LEAST_OF_EACH: Final = 50
"""and so many that share an answer, and that do not."""

NEIGHBOURS: Final = 3
"""Stored questions of each that was asked that are fitted to: nearly all hits are among them."""

_RIDGE: Final = 0.01
_SURE: Final = 1.645
"""Standard errors by which a fit must be better on data that it has not seen."""


class Asked(NamedTuple):
    """A labelled question.

    Args:
        near: Stored questions, most similar first, and whether the answer to each is right.
        group: Questions of one group are never parted between a fit and its check.
    """

    text: str
    near: Sequence[tuple[Candidate, bool]]
    group: str


class Row(NamedTuple):
    """One pair of texts without a veto, and the group of its question."""

    values: Features
    right: bool
    group: str


def rows(asked: Iterable[Asked], guards: Sequence[str]) -> Iterator[Row]:
    """The pairs that the model is asked about.

    Args:
        guards: Those whose objections are vetoes, if they are decisive.
    """
    for one in asked:
        if covered(guards, one.text):
            for candidate, right in one.near[:NEIGHBOURS]:
                if not _same_or_vetoed(one.text, candidate.text, guards):
                    yield Row(features(one.text, candidate.text, candidate.similarity), right, one.group)


def _same_or_vetoed(query: str, stored: str, guards: Sequence[str]) -> bool:
    return fold(query) == fold(stored) or any(
        not said.ok and decisive(said.guard, query, stored) for said in verdicts(guards, query, stored)
    )


def refit(rows: Sequence[Row], fingerprint: str) -> Scoring | None:
    """A model of these rows; ``None`` if they are too few, or the shipped model does as well on rows not fitted to.

    Args:
        fingerprint: Of the embedder that their cosines come from.
    """
    right = sum(one.right for one in rows)
    if len(rows) < LEAST or min(right, len(rows) - right) < LEAST_OF_EACH:
        return None
    base = shipped() if shipped().fingerprint == fingerprint else Scoring(fingerprint, 0.0, ())
    x = np.array([one.values for one in rows])
    y = np.array([one.right for one in rows], float)
    logits = np.array([base.logit(one.values) for one in rows])
    fold_of = np.array([zlib.crc32(one.group.encode()) & 1 for one in rows])
    if base.trees and not _better(x, y, logits, fold_of):
        return None
    return _scoring(base, _fit(x, y, logits))


def _better(x: Array, y: Array, logits: Array, fold_of: npt.NDArray[np.int64]) -> bool:
    """Whether fits to one half beat the shipped model on the other, in the mean log loss."""
    gains = []
    for half in (0, 1):
        fitted, other = fold_of == half, fold_of != half
        if len(np.unique(y[fitted])) < 2 or not other.any():
            return False
        made = _fit(x[fitted], y[fitted], logits[fitted]).logits(x[other], logits[other])
        gains.append(_loss(logits[other], y[other]) - _loss(made, y[other]))
    gain = np.concatenate(gains)
    return bool(gain.mean() > _SURE * gain.std() / len(gain) ** 0.5)


class _Line(NamedTuple):
    """``bias + scale * logit + weights @ values``."""

    bias: float
    scale: float
    weights: Array

    def logits(self, x: Array, logits: Array) -> Array:
        return self.bias + self.scale * logits + x @ self.weights


def _fit(x: Array, y: Array, logits: Array) -> _Line:
    """The penalised maximum of the likelihood, by Newton's method one coordinate at a time, weights held above 0."""
    directions = np.array(list(DIRECTIONS.values()), float)
    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    columns = np.column_stack([np.ones(len(y)), logits, directions * (x - mean) / spread])
    start = np.zeros(columns.shape[1])
    start[1] = 1.0
    penalty = np.full(columns.shape[1], _RIDGE)
    penalty[0] = 0.0
    weights, z = start.copy(), columns @ start
    for _ in range(200):
        before = weights.copy()
        for at in range(columns.shape[1]):
            p = 1.0 / (1.0 + np.exp(-np.clip(z, -50.0, 50.0)))
            slope = ((p - y) * columns[:, at]).mean() + penalty[at] * (weights[at] - start[at])
            curve = (p * (1.0 - p) * columns[:, at] ** 2).mean() + penalty[at] + 1e-6
            moved = weights[at] + np.clip(-slope / curve, -1.0, 1.0)
            moved = moved if at == 0 else max(0.0, moved)
            z += (moved - weights[at]) * columns[:, at]
            weights[at] = moved
        if np.abs(weights - before).max() < 1e-5:
            break
    slopes = directions * weights[2:] / spread
    return _Line(float(weights[0] - slopes @ mean), float(weights[1]), slopes)


def _scoring(base: Scoring, line: _Line) -> Scoring:
    """One model of both, so that a later release's shipped model changes nothing in it."""
    return Scoring(
        base.fingerprint,
        round(line.bias + line.scale * base.bias, 6),
        tuple(_scaled(tree, line.scale) for tree in base.trees),
        tuple(round(float(weight), 6) for weight in line.weights),
    )


def _scaled(tree: Tree, scale: float) -> Tree:
    """A tree with all its leaves multiplied."""
    if isinstance(tree, tuple):
        return (tree[0], tree[1], _scaled(tree[2], scale), _scaled(tree[3], scale))
    return round(scale * tree, 6)


def _loss(logits: Array, y: Array) -> Array:
    """Log loss of each row."""
    return np.logaddexp(0.0, np.where(y > 0, -logits, logits))
