"""What the ladder does while it folds, and what its parts cost."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from semcache_indexes import FlatIndex, IvfIndex, LadderIndex, VectorIndex, _folding
from semcache_indexes.testing import clustered, unit

DIM = 24
N = 300


class HeldFold:
    """The real fold, stopped at its start until it is let go."""

    def __init__(self, merge: Callable[..., Any]) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.merge = merge

    def __call__(self, *args: Any) -> Any:
        self.begun.set()
        assert self.go.wait(30)
        return self.merge(*args)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldFold:
    fold = HeldFold(_folding.merge)
    monkeypatch.setattr(_folding, "merge", fold)
    return fold


@pytest.fixture
def ladder(held: HeldFold) -> Iterator[LadderIndex]:
    """A ladder with a fold of 300 rows held at its start."""
    ladder = LadderIndex(DIM, fold_from=200)
    ladder.add(np.arange(N), clustered(N), np.zeros(N, np.int64))
    assert held.begun.wait(30)
    yield ladder
    held.go.set()
    ladder.close()


def same_answers(ladder: VectorIndex, flat: VectorIndex, partitions: tuple[int, ...] = (0,)) -> None:
    assert len(ladder) == len(flat)
    for query in clustered(40, seed=5):
        for partition in partitions:
            found = {m.id: m.similarity for m in ladder.search(query, partition=partition, k=2 * N)}
            true = {m.id: m.similarity for m in flat.search(query, partition=partition, k=2 * N)}
            assert found == pytest.approx(true, abs=0.02)


def test_a_search_does_not_wait_for_a_fold(ladder: LadderIndex) -> None:
    vectors = clustered(N)
    assert ladder.search(vectors[7], partition=0, k=1)[0].id == 7


def test_changes_during_a_fold_are_carried_over(ladder: LadderIndex, held: HeldFold) -> None:
    flat = FlatIndex(DIM)
    flat.add(np.arange(N), clustered(N), np.zeros(N, np.int64))
    other = clustered(N, seed=9)
    for index in (ladder, flat):
        index.add(np.arange(N, N + 50), other[:50], np.zeros(50, np.int64))  # new
        index.remove(np.arange(0, 40))  # removed
        index.add(np.arange(40, 60), other[50:70], np.zeros(20, np.int64))  # replaced
        index.add(np.arange(60, 80), other[70:90], np.ones(20, np.int64))  # moved
        index.remove([50])  # replaced, then removed
        index.add([0], other[90:91], [0])  # removed, then back
    held.go.set()
    ladder.settle()
    same_answers(ladder, flat, (0, 1))
    ladder.compact()
    same_answers(ladder, flat, (0, 1))
    assert ladder.stats().bytes < flat.stats().bytes


def test_a_partition_emptied_during_its_fold_stays_empty(ladder: LadderIndex, held: HeldFold) -> None:
    assert ladder.remove(np.arange(N)) == N
    ladder.add([3], clustered(1, seed=4), [0])
    held.go.set()
    ladder.settle()
    assert [match.id for match in ladder.search(clustered(1, seed=4)[0], partition=0, k=N)] == [3]
    assert len(ladder) == 1


def test_closing_gives_the_fold_up(ladder: LadderIndex, held: HeldFold) -> None:
    closer = threading.Thread(target=ladder.close)
    closer.start()
    while not ladder._closed:
        time.sleep(0.001)
    held.go.set()
    closer.join(30)
    assert not closer.is_alive()
    assert not ladder._segmented
    assert ladder.search(clustered(N)[7], partition=0, k=1)[0].id == 7


def test_a_child_forked_during_a_fold_folds_by_itself(ladder: LadderIndex) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _folding.merge.go.set()  # type: ignore[attr-defined]
            ladder.add([N], clustered(1), [0])
            ladder.settle()
            status = 0 if ladder._segmented and len(ladder) == N + 1 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_failed_fold_is_logged_and_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted(*args: Any) -> Any:
        raise MemoryError("no memory")

    vectors = clustered(500)
    ladder = LadderIndex(DIM, fold_from=100)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, logger="semcache_indexes"):
        patch.setattr(_folding, "merge", exhausted)
        ladder.add(np.arange(100), vectors[:100], np.zeros(100, np.int64))
        ladder.settle()
        ladder.add(np.arange(100, 199), vectors[100:199], np.zeros(99, np.int64))
        ladder.settle()
    told = [record for record in caplog.records if record.name == "semcache_indexes"]
    assert len(told) == 1  # one more row must not mean one more try
    assert ladder.search(vectors[150], partition=0, k=1)[0].id == 150
    ladder.add([199], vectors[199:200], [0])
    ladder.settle()
    assert ladder._segmented
    assert ladder.search(vectors[150], partition=0, k=1)[0].id == 150


def test_a_grown_partition_is_clustered_and_a_shrunken_one_forgets() -> None:
    vectors = clustered(3000, 64)
    ladder = LadderIndex(64, fold_from=500)
    for start in range(0, 3000, 100):
        rows = np.arange(start, start + 100)
        ladder.add(rows, vectors[rows], np.zeros(100, np.int64))
        ladder.settle()
    part = ladder._large[0]
    assert part.segment is not None
    assert part.table.count < part.fold_at < 500
    before = ladder.stats().bytes
    ladder.remove(np.arange(0, 3000, 2))
    ladder.settle()
    assert len(ladder) == 1500
    assert len(part.segment.dead) < part.fold_at
    assert ladder.stats().bytes < 0.7 * before


def test_dead_rows_do_not_hide_live_ones() -> None:
    """The rows nearest to the query are removed: the next ones must come up, not an empty list."""
    vectors = clustered(1000, 32, cluster=100)
    ivf = IvfIndex(32, fold_from=500)
    ivf.add(np.arange(1000), vectors, np.zeros(1000, np.int64))
    ivf.compact()
    ivf._large[0].fold_at = 10_000  # keep the dead rows where they are
    nearest = [match.id for match in ivf.search(vectors[0], partition=0, k=60)]
    assert ivf.remove(nearest[:50]) == 50
    assert len(ivf._large[0].segment.dead) == 50  # type: ignore[union-attr]
    assert [match.id for match in ivf.search(vectors[0], partition=0, k=10)] == nearest[50:60]


# Scores -----------------------------------------------------------------------------------------------------------


def test_coded_cosines_are_as_near_as_documented() -> None:
    vectors = clustered(4000, 384)
    ivf = IvfIndex(384)
    ivf.add(np.arange(4000), vectors, np.zeros(4000, np.int64))
    ivf.compact()
    errors = [
        abs(match.similarity - float(vectors[match.id] @ query))
        for query in vectors[:100]
        for match in ivf.search(query, partition=0, k=50)
    ]
    assert 0 < max(errors) < 0.003


def test_vectors_beyond_the_coded_range_widen_it() -> None:
    random = np.random.default_rng(0)
    center = np.zeros(64)
    center[0] = 3.0
    narrow = unit(center + random.standard_normal((600, 64)) / 8)
    wide = unit(random.standard_normal((600, 64)))
    ivf = IvfIndex(64, fold_from=500)
    ivf.add(np.arange(600), narrow, np.zeros(600, np.int64))
    ivf.add(np.arange(600, 1200), wide, np.zeros(600, np.int64))
    ivf.compact()
    vectors = np.concatenate([narrow, wide])
    for query in vectors[::30]:
        for match in ivf.search(query, partition=0, k=20):
            assert match.similarity == pytest.approx(vectors[match.id] @ query, abs=0.015)


@pytest.mark.parametrize("make", [IvfIndex, LadderIndex])
def test_candidates_are_scored_again_with_exact_vectors(make: Callable[..., VectorIndex]) -> None:
    vectors = clustered(2000, 64)
    asked: list[int] = []

    def exact(ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        asked.append(len(ids))
        rows = vectors[ids].copy()
        rows[ids == 5] = np.nan  # as if the store had lost it
        return rows

    index = make(64, fold_from=500, exact=exact)
    assert index.search(vectors[0], partition=0) == []
    index.add(np.arange(2000), vectors, np.zeros(2000, np.int64))
    index.compact()  # type: ignore[attr-defined]
    for query in vectors[:30]:
        found = index.search(query, partition=0, k=4, min_similarity=0.3)
        cosines = vectors @ query
        cosines[5] = -1.0
        best = np.argsort(-cosines)[:4]
        assert [match.id for match in found] == [id for id in best.tolist() if cosines[id] >= 0.3]
        for match in found:
            assert match.similarity == pytest.approx(cosines[match.id], abs=1e-6)
    assert max(asked) == 16
    at_the_edge = float(vectors[0] @ vectors[int(np.argsort(-(vectors @ vectors[0]))[1])])
    assert len(index.search(vectors[0], partition=0, min_similarity=at_the_edge - 1e-6)) == 2
    index.close()


def test_the_minimum_itself_is_found() -> None:
    flat = FlatIndex(4)
    flat.add([1, 2], np.eye(4, dtype=np.float32)[:2], [0, 0])
    assert [match.id for match in flat.search(np.eye(4, dtype=np.float32)[0], partition=0, min_similarity=1.0)] == [1]


# Costs ------------------------------------------------------------------------------------------------------------


def traced(build: Callable[[], VectorIndex]) -> tuple[VectorIndex, int]:
    """An index, and the bytes that Python and numpy hold for it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        index = build()
        return index, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_a_small_partition_costs_less_than_a_kilobyte() -> None:
    partitions, dim = 10_000, 16
    vectors = clustered(2 * partitions, dim)
    keys = np.repeat(np.random.default_rng(0).integers(0, 2**62, partitions), 2)
    ids = np.random.default_rng(1).integers(0, 2**62, 2 * partitions)

    def build() -> VectorIndex:
        ladder = LadderIndex(dim)
        for start in range(0, len(ids), 7):
            part = slice(start, start + 7)
            ladder.add(ids[part], vectors[part], keys[part])
        return ladder

    ladder, size = traced(build)
    stats = ladder.stats()
    assert stats.partitions == partitions
    assert (size - 2 * dim * len(ids)) / partitions < 600
    assert stats.bytes == pytest.approx(size, rel=0.25)


def test_a_large_partition_costs_400_bytes_a_vector() -> None:
    n = 50_000
    vectors = clustered(n, 384, cluster=50)
    ids = np.random.default_rng(1).integers(0, 2**62, n)

    def build() -> VectorIndex:
        ladder = LadderIndex(384)
        ladder.add(ids, vectors, np.zeros(n, np.int64))
        ladder.compact()
        return ladder

    ladder, size = traced(build)
    assert ladder.stats().bytes / n <= 400
    assert size / n <= 410


# Processes and threads ----------------------------------------------------------------------------------------------


def run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=120, check=False)


def test_a_process_that_ends_during_a_fold_ends_cleanly() -> None:
    code = """
import numpy as np
from semcache_indexes import LadderIndex
from semcache_indexes.testing import clustered
ladder = LadderIndex(64, fold_from=2000)
ladder.add(np.arange(20_000), clustered(20_000, 64), np.zeros(20_000, np.int64))
assert ladder._worker is not None
"""
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_loads_neither_faiss_nor_the_cache() -> None:
    code = "import sys, semcache_indexes; print([m for m in ('faiss', 'semcache', 'hypothesis') if m in sys.modules])"
    assert run_python(code).stdout == "[]\n"


def test_faiss_runs_on_one_thread_in_every_thread() -> None:
    code = """
import threading, numpy as np, faiss
from semcache_indexes import LadderIndex
ladder = LadderIndex(8)
seen = []
def search():
    faiss.omp_set_num_threads(2)
    ladder.search(np.eye(8)[0], partition=0)
    ladder.add([1], np.eye(8)[:1], [0])
    ladder.search(np.eye(8)[0], partition=0)
    seen.append(faiss.omp_get_max_threads())
for _ in range(2):
    thread = threading.Thread(target=search); thread.start(); thread.join()
print(seen)
"""
    assert run_python(code).stdout == "[1, 1]\n"
