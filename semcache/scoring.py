"""The probability that the answer to one question serves another, from how near they are and how they are worded.

Cosine knows the topic and not the difference that matters; word lists know that difference and not the topic. A small
model weighs both: an ensemble of shallow trees, additive in the logit, monotone in every feature (Friedman 2001,
"Greedy function approximation: a gradient boosting machine"), so that no evidence for a pair ever lowers its
probability. It is a few kilobytes of JSON, and a comparison takes microseconds without numpy. How it was fitted:
``benchmarks/fit_scoring.py``; what it reaches: ``docs/answer-safety.md``.

It is fitted on pairs without a decisive objection, since that is a veto whatever the probability, and it holds for one
embedder: another one's cosines mean other things.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final, TypeAlias

from semcache.errors import ConfigurationError
from semcache.guards.alignment import align
from semcache.guards.lexicon import english
from semcache.guards.text import Text, Word, made_of, read

WEIGHED: Final = frozenset({"question", "wording"})
"""Guards that a second opinion may outweigh: the model, some objections of ``wording``; a verifier, all of both."""

_MOST_SHARED: Final = 5
_ONE_KIND: Final[Mapping[str, str]] = {"time": "when", "date": "when", "where to": "how to"}
_UNSAID: Final = frozenset({"how to", "may", "what", "how much"})
"""What a text asks for that is put as no question: "enable roaming", "price of gold"."""

Features = tuple[float, ...]
Tree: TypeAlias = "float | tuple[int, float, Tree, Tree]"
"""A leaf, or ``(feature, bar, below or at the bar, above it)``."""

DIRECTIONS: Final[Mapping[str, int]] = {
    "cosine": 1,
    "query_covered": 1,  # share of the content words of the query that have a counterpart
    "cached_covered": 1,
    "added": -1,  # ordinary words that one text has alone
    "added_weak": -1,  # and words that a fuller wording adds freely
    "shared_tokens": 1,  # Dice coefficients, function words included
    "shared_pairs": 1,
    "shared_letters": 1,
    "length": 1,  # tokens of the shorter text / of the longer
    "shared": 1,  # content words and quantities that both have, at most five
    "same_question": 1,  # whether they ask for the same kinds of things
}
"""The features in order, and whether more of one speaks for a pair (1) or against it (-1)."""


@dataclass(frozen=True)
class Scoring:
    """A fitted model.

    Args:
        fingerprint: The embedder whose cosines it was fitted on.
        bias: Logit before anything else.
        trees: Each adds the value of one of its leaves to the logit.
        weights: What a unit of each feature adds to the logit; empty for nothing.
    """

    fingerprint: str
    bias: float
    trees: tuple[Tree, ...]
    weights: tuple[float, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Scoring:
        """A model from its JSON, or from its table in a policy file.

        Raises:
            ConfigurationError: It is damaged, or was fitted on other features than these.
        """
        if document.get("features") != list(DIRECTIONS):
            raise ConfigurationError("this scoring model was fitted on other features: fit it again")
        try:
            weights = tuple(map(_finite, document.get("weights", ())))
            trees = tuple(_tree(tree) for tree in document["trees"])
            if len(weights) not in (0, len(DIRECTIONS)):
                raise ValueError(f"{len(weights)} weights for {len(DIRECTIONS)} features")
            return cls(str(document["fingerprint"]), _finite(document["bias"]), trees, weights)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"this scoring model is damaged: {error!r}") from error

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`of` reads."""
        return {
            "fingerprint": self.fingerprint,
            "features": list(DIRECTIONS),
            "bias": self.bias,
            "weights": list(self.weights),
            "trees": [_nested(tree) for tree in self.trees],
        }

    def probability(self, query: str, cached: str, cosine: float) -> float:
        """That the answer to ``cached`` serves ``query``, given that no veto stands against the pair."""
        return self.of_features(features(query, cached, cosine))

    def of_features(self, values: Features) -> float:
        """The same for features in hand."""
        return 1.0 / (1.0 + math.exp(-max(self.logit(values), -700.0)))

    def logit(self, values: Features) -> float:
        """``log(p / (1 - p))`` of that probability."""
        logit = self.bias
        for value, weight in zip(values, self.weights):  # noqa: B905  no weights are none
            logit += weight * value
        for tree in self.trees:
            node = tree
            while isinstance(node, tuple):
                node = node[2] if values[node[0]] <= node[1] else node[3]
            logit += node
        return logit


@lru_cache(maxsize=1)
def shipped() -> Scoring:
    """The model of the default embedder."""
    import orjson

    return Scoring.of(orjson.loads(files("semcache").joinpath("data", "scoring", "minilm.json").read_bytes()))


def decisive(guard: str, query: str, cached: str) -> bool:
    """Whether a guard's objection to a pair is a veto, or evidence to be weighed.

    Ordinary words that one text adds to the other's are evidence. A word that is replaced by another, or one in no
    list that is added (a name, as a rule), is a veto, and so is whatever any other guard objects to.
    """
    if guard != "wording":
        return True
    a, b = read(query), read(cached)
    ours, theirs = align(a, b)
    if (ours and theirs) or not all(_ordinary(word) for word in ours + theirs):
        return True
    return any(_narrows(word, b) for word in ours) or any(_narrows(word, a) for word in theirs)


def _narrows(phrase: Word, other: Text) -> bool:
    """Whether a fixed phrase makes another thing of a word of the other text: a "checking account" of an "account"."""
    return " " in phrase.fold and any(word.fold in phrase.fold.split() for word in other.words)


def _ordinary(word: Word) -> bool:
    known = english().known
    return bool(word.concepts) or word.fold in known or word.stem in known


def features(query: str, cached: str, cosine: float) -> Features:
    """What the model knows of a pair, in the order of :data:`DIRECTIONS`."""
    a, b = read(query), read(cached)
    ours, theirs = align(a, b)
    weak = sum(word.stem in english().weak for word in ours + theirs)
    shorter, longer = sorted((len(a.folds), len(b.folds)))
    shared = min(len(a.words) - len(ours), len(b.words) - len(theirs)) + min(len(a.quantities), len(b.quantities))
    return (
        cosine,
        1.0 - len(ours) / len(a.words) if a.words else 1.0,
        1.0 - len(theirs) / len(b.words) if b.words else 1.0,
        float(len(ours) + len(theirs) - weak),
        float(weak),
        *(_dice(x, y) for x, y in zip(_pieces(a), _pieces(b), strict=True)),
        shorter / longer if longer else 1.0,
        float(min(shared, _MOST_SHARED)),
        float(_same_question(a, b)),
    )


def _same_question(a: Text, b: Text) -> bool:
    ours, theirs = ({_ONE_KIND.get(ask.kind, ask.kind) for ask in text.asks} for text in (a, b))
    return ours == theirs or (not (ours and theirs) and ours | theirs <= _UNSAID)


def _pieces(text: Text) -> tuple[Collection[object], ...]:
    """Tokens, neighbouring stems, and runs of three letters."""
    known: tuple[frozenset[object], ...] | None = made_of(text).get("pieces")
    if known is None:
        line = f" {' '.join(text.folds)} "
        made_of(text)["pieces"] = known = (
            frozenset(text.folds),
            frozenset(pairwise(("", *text.stems, ""))),
            frozenset(map("".join, zip(line, line[1:], line[2:], strict=False))),
        )
    return known


def _dice(a: Any, b: Any) -> float:
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0


def _tree(node: Any) -> Tree:
    if isinstance(node, list):
        feature, bar, below, above = node
        if feature not in range(len(DIRECTIONS)):
            raise ValueError(f"there is no feature {feature!r}")
        return (int(feature), _finite(bar), _tree(below), _tree(above))
    return _finite(node)


def _finite(value: Any) -> float:
    """A number that comparisons mean something of: a bar that is not met by ``nan`` is not kept by it either."""
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is no number to reckon with")
    return float(value)


def _nested(tree: Tree) -> Any:
    return [tree[0], tree[1], _nested(tree[2]), _nested(tree[3])] if isinstance(tree, tuple) else tree
