"""What other caches would do on a log: one cosine for all, and a threshold for each entry as vCache learns it.

Baselines see what the cache sees: the same vectors, the same scopes, the same order. They have no guards and no expiry.
Only labelled requests with a text that the embedder takes whole are played, since a baseline that learns has to be
told what was right.

All pairs of one scope are compared, so the time grows with the square of its requests.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from semcache.keys import make_key
from semcache.report import Rate
from semcache.tuning.bounds import Count
from semcache.tuning.replay import TENANT, request_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from semcache.embedders import Embedder
    from semcache.tuning.logs import LogRecord

THRESHOLDS: Final = tuple(round(0.70 + 0.01 * step, 2) for step in range(30))
"""Of the static baselines, 0.70 to 0.99."""

ERROR_BOUNDS: Final = (0.01, 0.02, 0.05)
"""Of the vCache baselines."""

_BLOCK_CELLS: Final = 1 << 22


class Baseline(Protocol):
    """A cache that is told of the nearest of its entries only. Entries are known by their place in the log."""

    family: str
    parameter: float

    def serves(self, entry: int, similarity: float) -> bool:
        """Whether the answer of this entry is given to a request of this cosine."""

    def learn(self, entry: int, similarity: float, right: bool) -> bool:
        """The upstream was asked: whether the entry's answer would have been right. True stores the request."""


@dataclass
class StaticThreshold:
    """Serves the nearest entry from a fixed cosine on, and stores every miss."""

    parameter: float
    family: str = "static"

    def serves(self, entry: int, similarity: float) -> bool:
        return similarity >= self.parameter

    def learn(self, entry: int, similarity: float, right: bool) -> bool:
        return True


class VCache:
    """A threshold for each entry, learnt from what the upstream answered beside it.

    After Schroeder et al., "vCache: Verified Semantic Prompt Caching", arXiv:2502.03771. The chance that an entry is
    right at cosine ``s`` is modelled as ``L(s, t, g) = 1 / (1 + exp(-g (s - t)))``, fitted by maximum likelihood to
    the entry's observations. With ``t'(e)`` the upper ``1 - e`` confidence limit of ``t``, that chance is at least
    ``a(e) = (1 - e) L(s, t'(e), g)``, and asking the upstream with probability ``min over e of 1 - d / (1 - a(e))``
    keeps errors within ``d`` of all requests. An entry with fewer than six observations always asks.

    The likelihood has no maximum where right and wrong observations can be parted by a cosine, as with few they mostly
    can. Here a weak ridge on ``g`` makes one; the variance of ``t`` is that of its Laplace approximation.

    Args:
        error_bound: ``d``: greatest share of requests that may be answered wrongly.
        insert_always: Store every request that the upstream answered, not only those that the nearest entry would
            have answered wrongly.
    """

    def __init__(self, error_bound: float, *, insert_always: bool = False, seed: int = 0) -> None:
        self.parameter = error_bound
        self.family = "vcache, insert always" if insert_always else "vcache, insert when wrong"
        self._insert_always = insert_always
        self._random = random.Random(seed)
        self._entries: defaultdict[int, _Sigmoid] = defaultdict(_Sigmoid)

    def serves(self, entry: int, similarity: float) -> bool:
        known = self._entries.get(entry)
        if known is None or len(known) < 6:
            return False
        return self._random.random() > known.exploration(similarity, self.parameter)

    def learn(self, entry: int, similarity: float, right: bool) -> bool:
        self._entries[entry].observe(similarity, right)
        return self._insert_always or not right


class _Sigmoid:
    """The observations of one entry, and the curve through them."""

    def __init__(self) -> None:
        # What is known of any entry: nothing alike is wrong, the same is right.
        self._seen: list[tuple[float, bool]] = [(0.0, False), (1.0, True)]
        self._weights = np.zeros(2)
        self._fitted: tuple[float, npt.NDArray[np.float64]] | None = None

    def __len__(self) -> int:
        return len(self._seen)

    def observe(self, similarity: float, right: bool) -> None:
        self._seen.append((similarity, right))
        self._fitted = None

    def exploration(self, similarity: float, error_bound: float) -> float:
        """Least probability of asking the upstream that keeps the bound."""
        if self._fitted is None:
            self._fitted = self._fit()
        slope, limits = self._fitted
        sure = (1.0 - _EPSILONS) / (1.0 + np.exp(-np.clip(slope * (similarity - limits), -50.0, 50.0)))
        return float(np.min(1.0 - error_bound / (1.0 - sure)))

    def _fit(self) -> tuple[float, npt.NDArray[np.float64]]:
        """The slope, and the upper limit of the threshold for each of ``_EPSILONS``, by Newton's method."""
        x = np.array([(1.0, similarity) for similarity, _ in self._seen])
        y = np.array([right for _, right in self._seen], float)
        weights, information = self._weights, np.eye(2)
        for _ in range(50):
            p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -50.0, 50.0)))
            information = x.T @ ((p * (1.0 - p))[:, None] * x) + _RIDGE
            step = np.linalg.solve(information, x.T @ (y - p) - _RIDGE @ weights)
            weights = weights + np.clip(step, -10.0, 10.0)
            if np.abs(step).max() < 1e-6:
                break
        self._weights = weights
        slope = max(float(weights[1]), 1e-6)
        threshold = -float(weights[0]) / slope
        gradient = np.array([-1.0, -threshold]) / slope  # of the threshold, by both weights
        deviation = math.sqrt(max(0.0, float(gradient @ np.linalg.solve(information, gradient))))
        return slope, np.clip(threshold + deviation * _QUANTILES, 0.0, 1.0)


_EPSILONS: Final = np.linspace(1e-6, 1.0 - 1e-6, 50)
_QUANTILES: Final = np.array([NormalDist().inv_cdf(1.0 - epsilon) for epsilon in _EPSILONS])
_RIDGE: Final = np.diag([1e-6, 1e-3])


@dataclass(frozen=True, slots=True)
class BaselineCount:
    """What one baseline came to. ``parameter`` is its threshold, or its bound on errors."""

    family: str
    parameter: float
    count: Count

    @property
    def false_hit_rate(self) -> Rate:
        return Rate.of(self.count.wrong, self.count.hits)

    @property
    def unsafe_served_rate(self) -> Rate:
        return Rate.of(self.count.wrong, self.count.requests)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. Rates of nothing are ``None``."""
        requests, hits, wrong = self.count
        false, unsafe = self.false_hit_rate, self.unsafe_served_rate
        return {
            "family": self.family,
            "parameter": self.parameter,
            "requests": requests,
            "hits": hits,
            "wrong_hits": wrong,
            "hit_rate": hits / requests if requests else None,
            "false_hit_rate": false.value,
            "false_hit_rate_ci95": [false.low, false.high] if hits else None,
            "unsafe_served_rate": unsafe.value,
            "unsafe_served_rate_ci95": [unsafe.low, unsafe.high] if requests else None,
        }


@dataclass(frozen=True)
class BaselineRun:
    """What baselines came to, and each request's nearest earlier one, whatever was stored of it.

    Args:
        counts: One a baseline.
        nearest: float32 [n], cosines of the labelled requests that have an earlier one in their scope.
        right: bool [n], whether the nearest has the same answer class.
    """

    counts: tuple[BaselineCount, ...]
    nearest: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]


def usual_baselines() -> list[Baseline]:
    """Static thresholds from 0.70 to 0.99, and vCache in both forms at errors of 1, 2 and 5 %."""
    learners = [VCache(bound, insert_always=always) for always in (False, True) for bound in ERROR_BOUNDS]
    return [*(StaticThreshold(threshold) for threshold in THRESHOLDS), *learners]


def play_baselines(
    records: Sequence[LogRecord],
    embedder: Embedder,
    baselines: Sequence[Baseline],
    progress: Callable[[int], object] = lambda done: None,
) -> BaselineRun:
    """Play the labelled records of a log, in order, under every baseline at once.

    Args:
        embedder: Should remember vectors: it is asked scope by scope.
        progress: Told how many more of ``records`` are done.
    """
    caches = [_Cache(baseline, len(records)) for baseline in baselines]
    nearest: list[float] = []
    right: list[bool] = []
    for places, texts in _scopes(records, embedder):
        labels = [records[place].label for place in places]
        for at, row in _similarities(embedder, texts):
            progress(1)
            if at:
                best = int(row.argmax())
                nearest.append(float(row[best]))
                right.append(labels[best] == labels[at])
            for cache in caches:
                cache.play(at, row, places, labels)
    counts = tuple(BaselineCount(one.baseline.family, one.baseline.parameter, one.count) for one in caches)
    return BaselineRun(counts, np.array(nearest, np.float32), np.array(right, bool))


class _Cache:
    def __init__(self, baseline: Baseline, places: int) -> None:
        self.baseline = baseline
        self.count = Count(0, 0, 0)
        self._stored = np.zeros(places, bool)  # by place in the scope

    def play(self, at: int, row: npt.NDArray[np.float32], places: Sequence[int], labels: Sequence[str | None]) -> None:
        """Play the request at a place of its scope; ``row`` holds its cosines to all before it."""
        baseline = self.baseline
        hit = wrong = False
        if at == 0:
            self._stored[:] = False  # another scope begins
            store = True
        else:
            # The first of a scope is always stored, so there is a nearest entry.
            entry = int(np.where(self._stored[:at], row, -2.0).argmax())
            similarity, right = float(row[entry]), labels[entry] == labels[at]
            hit = baseline.serves(places[entry], similarity)
            wrong = hit and not right
            store = not hit and baseline.learn(places[entry], similarity, right)
        self._stored[at] = store
        self.count += Count(1, int(hit), int(wrong))


def _scopes(records: Sequence[LogRecord], embedder: Embedder) -> Iterator[tuple[list[int], list[str]]]:
    """For each scope the places of its labelled records, and their texts."""
    places: defaultdict[bytes, list[int]] = defaultdict(list)
    texts: defaultdict[bytes, list[str]] = defaultdict(list)
    for place, record in enumerate(records):
        request = request_of(record)
        if record.label is None or request.text is None or request.bypass or request.exact_only:
            continue
        if embedder.fits(request.text):
            scope = make_key(request, record.namespace or "default", TENANT).scope
            places[scope].append(place)
            texts[scope].append(request.text)
    for scope, found in places.items():
        yield found, texts[scope]


def _similarities(embedder: Embedder, texts: Sequence[str]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Each text's place and its cosines to all before it."""
    vectors = embedder.embed(texts)
    rows = max(1, _BLOCK_CELLS // len(texts))
    for start in range(0, len(texts), rows):
        block = vectors[start : start + rows]
        cosines = block @ vectors[: start + len(block)].T
        for offset in range(len(block)):
            yield start + offset, cosines[offset, : start + offset]


def best_within(counts: Iterable[BaselineCount], false_hit_rate: float) -> BaselineCount | None:
    """The baseline with most hits among those whose observed false-hit rate is at most so much."""
    kept = [one for one in counts if one.count.hits and one.count.wrong <= false_hit_rate * one.count.hits]
    return max(kept, key=lambda one: one.count.hits, default=None)
