"""Vectors for the tests of indexes, and a model of an index: any sequence of calls beside a dict and numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from semcache_indexes.protocol import VectorIndex, Vectors


def unit(vectors: npt.NDArray[Any]) -> Vectors:
    """Rows scaled to length 1, float32."""
    scaled: Vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def clustered(n: int, dim: int = 24, *, seed: int = 0, cluster: int = 20) -> Vectors:
    """Unit vectors [n, dim] in groups of about ``cluster`` whose members have cosines of about 0.8."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((max(1, n // cluster), dim))
    return unit(centers[random.integers(0, len(centers), n)] + 0.5 * random.standard_normal((n, dim)))


class Machine(RuleBasedStateMachine):
    """Any sequence of calls, beside a dict of id to (partition, vector)."""

    POOL = clustered(90, 12, cluster=9)

    def __init__(
        self,
        make: Callable[[int], VectorIndex],
        load: Callable[[Path], tuple[VectorIndex, dict[str, str]]],
        path: Path,
        error: float,
    ) -> None:
        super().__init__()
        self.index = make(12)
        self.load, self.path, self.error = load, path, error
        self.model: dict[int, tuple[int, int]] = {}

    ids = st.lists(st.integers(0, 120), min_size=1, max_size=70)

    @rule(ids=ids, partition=st.integers(0, 2), data=st.randoms(use_true_random=False))
    def add(self, ids: list[int], partition: int, data: Any) -> None:
        rows = [data.randrange(len(self.POOL)) for _ in ids]
        partitions = [partition if data.random() < 0.8 else 3 + id for id in ids]
        self.index.add(ids, self.POOL[rows], partitions)
        self.model.update(zip(ids, zip(partitions, rows, strict=True), strict=True))

    @rule(ids=ids)
    def remove(self, ids: list[int]) -> None:
        assert self.index.remove(ids) == len(self.model.keys() & set(ids))
        for id in ids:
            self.model.pop(id, None)

    @rule(
        row=st.integers(0, len(POOL) - 1),
        partition=st.integers(0, 5),
        k=st.integers(1, 40),
        least=st.sampled_from([-1.0, 0.0, 0.5, 0.9]),
    )
    def search(self, row: int, partition: int, k: int, least: float) -> None:
        query = self.POOL[row]
        found = self.index.search(query, partition=partition, k=k, min_similarity=least)
        true = {id: float(self.POOL[at] @ query) for id, (p, at) in self.model.items() if p == partition}
        got = {match.id: match.similarity for match in found}
        assert len(got) == len(found) <= k
        assert all(abs(true[id] - similarity) <= self.error for id, similarity in got.items())
        assert all(similarity >= least for similarity in got.values())
        missed = [cosine for id, cosine in true.items() if id not in got and cosine >= least + self.error]
        worst = min(got.values(), default=1.0)
        assert all(len(found) == k and cosine <= worst + 2 * self.error for cosine in missed)

    @rule()
    def save_and_load(self) -> None:
        self.index.save(self.path)
        self.index.close()
        self.index, _ = self.load(self.path)

    @precondition(lambda self: hasattr(self.index, "compact"))
    @rule()
    def compact(self) -> None:
        self.index.compact()  # type: ignore[attr-defined]

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert len(self.index) == len(self.model)
        assert self.index.stats().partitions == len({partition for partition, _ in self.model.values()})
        assert all((id in self.index) == (id in self.model) for id in range(0, 120, 7))

    def teardown(self) -> None:
        self.index.close()
