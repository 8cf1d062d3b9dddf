"""What a vector index must do, as tests that an index's author inherits.

::

    class TestMyIndex(VectorIndexContract):
        make = staticmethod(MyIndex)

Needs pytest and hypothesis.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from semcache_indexes import FlatIndex, load
from semcache_indexes._model import Machine, clustered, unit
from semcache_indexes.protocol import IndexDamaged, Match, VectorIndex, Vectors

__all__ = ["DIM", "LARGEST_ID", "VectorIndexContract", "clustered", "unit", "vector_of"]

DIM = 24
LARGEST_ID = 2**63 - 1


def vector_of(id: int, dim: int = DIM) -> Vectors:
    """A unit vector [dim] that belongs to an id, so that a thread can tell a whole result from a torn one."""
    return unit(np.random.default_rng(id).standard_normal(dim))


class VectorIndexContract:
    """One test for each line of :class:`semcache_indexes.protocol.VectorIndex`, and a few for what follows from them.

    Set ``make``, and the rest where the index is approximate or is loaded in another way.
    """

    make: Callable[[int], VectorIndex]
    """An empty index of a dimension."""

    recall: float = 1.0
    """Share of searches that must find the truly nearest vector, at 5,000 vectors."""

    score_error: float = 1e-6
    """By how much a similarity may differ from the true cosine."""

    @staticmethod
    def load(path: Path) -> tuple[VectorIndex, dict[str, str]]:
        """Reads what ``save`` wrote: the index and the notes. Replaced for an index of another package."""
        return load(path)

    @pytest.fixture
    def index(self) -> Iterator[VectorIndex]:
        index = self.make(DIM)
        yield index
        index.close()

    def matches(self, found: list[Match], expected: list[tuple[int, float]]) -> bool:
        """Whether the ids are the expected ones, in order, with about these similarities."""
        return [match.id for match in found] == [id for id, _ in expected] and all(
            abs(match.similarity - cosine) <= self.score_error
            for match, (_, cosine) in zip(found, expected, strict=True)
        )

    # Ids --------------------------------------------------------------------------------------------------------

    def test_is_a_vector_index(self, index: VectorIndex) -> None:
        assert isinstance(index, VectorIndex)
        assert index.dim == DIM
        assert len(index) == 0

    def test_ids_are_the_callers(self, index: VectorIndex) -> None:
        ids = [0, 1, 2**40, LARGEST_ID]
        vectors = unit(np.eye(4, DIM))
        index.add(ids, vectors, [5, 5, 5, 5])
        for id, vector in zip(ids, vectors, strict=True):
            assert self.matches(index.search(vector, partition=5, k=1), [(id, 1.0)])
            assert id in index
        assert 3 not in index
        assert "1" not in index
        assert len(index) == 4

    def test_a_known_id_is_replaced(self, index: VectorIndex) -> None:
        old, new = unit(np.eye(2, DIM))
        index.add([7], old[None], [0])
        index.add([7], new[None], [0])
        assert len(index) == 1
        assert self.matches(index.search(new, partition=0), [(7, 1.0)])
        assert self.matches(index.search(old, partition=0), [(7, 0.0)])

    def test_a_replaced_id_leaves_its_partition(self, index: VectorIndex) -> None:
        vectors = clustered(200)
        ids = np.arange(200)
        index.add(ids, vectors, np.zeros(200, np.int64))
        index.add(ids[:100], vectors[:100], np.full(100, 1))
        assert len(index) == 200
        assert {match.id for match in index.search(vectors[0], partition=0, k=200)} == set(range(100, 200))
        assert {match.id for match in index.search(vectors[0], partition=1, k=200)} == set(range(100))

    def test_the_last_of_equal_ids_in_a_batch_counts(self, index: VectorIndex) -> None:
        vectors = unit(np.eye(3, DIM))
        index.add([4, 5, 4], vectors, [0, 0, 1])
        assert len(index) == 2
        assert self.matches(index.search(vectors[0], partition=0), [(5, 0.0)])
        assert self.matches(index.search(vectors[2], partition=1), [(4, 1.0)])

    def test_many_ids_at_once_or_one_by_one(self, index: VectorIndex) -> None:
        vectors = clustered(120)
        index.add(np.arange(60), vectors[:60], np.zeros(60, np.int64))
        for id in range(60, 120):
            index.add([id], vectors[id : id + 1], [0])
        for id in range(120):
            assert index.search(vectors[id], partition=0, k=1)[0].id == id

    # Search -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [1, 2, 40, 1500])
    def test_no_other_partition_is_seen(self, index: VectorIndex, size: int) -> None:
        vectors = clustered(size + 100)
        partitions = np.r_[np.full(size, 8), np.full(100, 9)]
        index.add(np.arange(size + 100), vectors, partitions)
        for query in vectors[size : size + 20]:
            found = index.search(query, partition=8, k=size + 100)
            assert 0 < len(found) <= size
            assert all(match.id < size for match in found)

    def test_an_unknown_partition_is_empty(self, index: VectorIndex) -> None:
        assert index.search(vector_of(1), partition=3) == []
        index.add([1], vector_of(1)[None], [2])
        assert index.search(vector_of(1), partition=3) == []
        index.remove([1])
        assert index.search(vector_of(1), partition=2) == []

    @pytest.mark.parametrize("size", [3, 30, 300])
    def test_at_most_k_and_best_first(self, index: VectorIndex, size: int) -> None:
        vectors = clustered(size)
        index.add(np.arange(size), vectors, np.zeros(size, np.int64))
        for k in (1, 2, 10, size, 10 * size):
            found = index.search(vectors[0], partition=0, k=k)
            assert len(found) == min(k, size)
            assert len({match.id for match in found}) == len(found)
            similarities = [match.similarity for match in found]
            assert similarities == sorted(similarities, reverse=True)
            assert all(-1.0 <= similarity <= 1.0 for similarity in similarities)

    def test_eight_are_found_unless_told(self, index: VectorIndex) -> None:
        index.add(np.arange(20), clustered(20), np.zeros(20, np.int64))
        assert len(index.search(vector_of(0), partition=0)) == 8

    @pytest.mark.parametrize("size", [20, 400])
    def test_none_is_below_the_minimum(self, index: VectorIndex, size: int) -> None:
        vectors = clustered(size)
        vectors[-1] = -vectors[0]
        index.add(np.arange(size), vectors, np.zeros(size, np.int64))
        cosines = vectors @ vectors[0]
        for least in (-0.2, 0.0, 0.5, 0.999):
            found = index.search(vectors[0], partition=0, k=size, min_similarity=least)
            assert all(match.similarity >= least for match in found)
            certain = set(np.flatnonzero(cosines >= least + self.score_error).tolist())
            assert certain <= {match.id for match in found}
            assert len(found) < size

    def test_the_query_decides(self, index: VectorIndex) -> None:
        near = unit(np.eye(3, DIM) + 0.1)
        index.add([1, 2, 3], near, [0, 0, 0])
        for id, query in zip([1, 2, 3], unit(np.eye(3, DIM)), strict=True):
            assert index.search(query, partition=0, k=1)[0].id == id

    @pytest.mark.parametrize(("size", "dim"), [(10, 384), (500, 64), (5000, 64)])
    def test_agrees_with_the_flat_index(self, size: int, dim: int) -> None:
        vectors, ids = clustered(size, dim), np.random.default_rng(1).permutation(size * 3)[:size]
        queries = unit(vectors[:60] + 0.3 * clustered(min(60, size), dim, seed=2))
        index, flat = self.make(dim), FlatIndex(dim)
        for each in (index, flat):
            each.add(ids, vectors, np.zeros(size, np.int64))
        place = {id: row for row, id in enumerate(ids.tolist())}
        nearest_found = 0
        for query in queries:
            found = index.search(query, partition=0, k=5)
            for match in found:
                assert match.similarity == pytest.approx(vectors[place[match.id]] @ query, abs=self.score_error)
            nearest_found += found[0].id == flat.search(query, partition=0, k=1)[0].id
        index.close()
        assert nearest_found >= self.recall * len(queries)

    # Remove -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [1, 5, 50, 1500])
    def test_a_removed_id_is_never_found(self, index: VectorIndex, size: int) -> None:
        vectors, ids = clustered(size), np.arange(size)
        index.add(ids, vectors, ids % 2)
        assert index.remove(ids[::3]) == len(ids[::3])
        left = set(ids.tolist()) - set(ids[::3].tolist())
        found = {m.id for p in (0, 1) for q in vectors[:50] for m in index.search(q, partition=p, k=size)}
        assert found == left
        assert len(index) == len(left)
        assert not any(id in index for id in ids[::3].tolist())

    def test_removing_what_is_not_there(self, index: VectorIndex) -> None:
        index.add([1, 2, 3], clustered(3), [0, 0, 1])
        assert index.remove([9, 2, 2, 10]) == 1
        assert index.remove([2]) == 0
        assert index.remove([]) == 0
        assert len(index) == 2

    def test_a_removed_id_can_come_back(self, index: VectorIndex) -> None:
        vectors = clustered(60)
        index.add(np.arange(60), vectors, np.zeros(60, np.int64))
        index.remove([3])
        index.add([3], vectors[4:5], [0])
        found = index.search(vectors[4], partition=0, k=2)
        assert {match.id for match in found} == {3, 4}
        assert index.remove(np.arange(60)) == 60
        assert len(index) == 0
        assert index.stats().vectors == 0
        index.add([3], vectors[4:5], [0])
        assert self.matches(index.search(vectors[4], partition=0), [(3, 1.0)])

    # Wrong arguments --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("ids", "vectors", "partitions"),
        [
            ([1, 2], np.ones((2, DIM + 1)), [0, 0]),
            ([1, 2], unit(np.ones((3, DIM))), [0, 0]),
            ([1], unit(np.ones(DIM)), [0]),
            ([1, 2], unit(np.ones((2, DIM))), [0]),
            ([1, 2], np.full((2, DIM), np.nan), [0, 0]),
            ([1, 2], np.r_[unit(np.ones((1, DIM))), np.full((1, DIM), np.inf)], [0, 0]),
            ([1, 2], np.ones((2, DIM)), [0, 0]),
            ([1, 2], np.zeros((2, DIM)), [0, 0]),
            ([1, -2], unit(np.ones((2, DIM))), [0, 0]),
            ([1.5, 2.5], unit(np.ones((2, DIM))), [0, 0]),
        ],
    )
    def test_a_wrong_batch_changes_nothing(self, index: VectorIndex, ids: Any, vectors: Any, partitions: Any) -> None:
        index.add([1], vector_of(1)[None], [7])
        with pytest.raises(ValueError, match=r"."):
            index.add(ids, vectors, partitions)
        assert len(index) == 1
        assert self.matches(index.search(vector_of(1), partition=7), [(1, 1.0)])
        assert index.search(unit(np.ones(DIM)), partition=0) == []

    @pytest.mark.parametrize(
        "query", [np.ones(DIM), np.zeros(DIM), np.full(DIM, np.nan), unit(np.ones(DIM - 1)), unit(np.ones((1, DIM)))]
    )
    def test_a_wrong_query(self, index: VectorIndex, query: Any) -> None:
        with pytest.raises(ValueError, match=r"."):
            index.search(query, partition=0)

    def test_a_k_below_one(self, index: VectorIndex) -> None:
        with pytest.raises(ValueError, match="k must be"):
            index.search(vector_of(1), partition=0, k=0)

    def test_the_callers_arrays_are_not_kept(self, index: VectorIndex) -> None:
        vectors = clustered(50)
        kept = vectors.copy()
        index.add(np.arange(50), vectors, np.zeros(50, np.int64))
        vectors[:] = vectors[::-1].copy()
        assert all(index.search(kept[id], partition=0, k=1)[0].id == id for id in range(50))

    # Threads and processes --------------------------------------------------------------------------------------

    def test_threads_see_an_id_wholly_or_not_at_all(self, index: VectorIndex) -> None:
        """Ids come, go and move between partitions; each has one vector for ever, and some never change."""
        fixed = range(1000, 1040)
        index.add(list(fixed), np.stack([vector_of(id) for id in fixed]), [id % 2 for id in fixed])
        stop = threading.Event()

        def change(seed: int) -> None:
            random = np.random.default_rng(seed)
            while not stop.is_set():
                ids = seed * 200 + random.permutation(200)[:20]
                index.add(ids, np.stack([vector_of(int(id)) for id in ids]), random.integers(0, 2, 20))
                index.remove(ids[:8])

        def search(seed: int) -> int:
            random = np.random.default_rng(seed)
            for round in range(150):
                id = int(random.integers(0, 400))
                query = vector_of(id)
                found = index.search(query, partition=round % 2, k=5)
                for match in found:
                    assert match.similarity == pytest.approx(vector_of(match.id) @ query, abs=self.score_error)
                    assert match.id not in fixed or match.id % 2 == round % 2
                sure = fixed[round % 40]
                best = index.search(vector_of(sure), partition=sure % 2, k=1)[0]
                assert best.id == sure
            return 1

        with ThreadPoolExecutor(5) as pool:
            changers = [pool.submit(change, seed) for seed in (0, 1)]
            searchers = [pool.submit(search, seed) for seed in (2, 3, 4)]
            try:
                assert sum(searcher.result(timeout=60) for searcher in searchers) == 3
            finally:
                stop.set()
            for changer in changers:
                changer.result(timeout=60)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_is_usable_in_a_forked_child(self, index: VectorIndex) -> None:
        vectors = clustered(300)
        index.add(np.arange(200), vectors[:200], np.zeros(200, np.int64))
        stop = threading.Event()

        def change() -> None:
            while not stop.is_set():
                index.add([500], vectors[299:300], [1])

        changer = threading.Thread(target=change)
        changer.start()
        try:
            for _ in range(5):
                assert _in_child(lambda: _add_and_find(index, vectors)) == 0
        finally:
            stop.set()
            changer.join()
        assert 250 not in index

    # Files ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 700])
    def test_a_saved_index_is_the_same(self, index: VectorIndex, tmp_path: Path, size: int) -> None:
        vectors, ids = clustered(size + 1)[:size], np.arange(size) * 10**15
        partitions = np.where(np.arange(size) % 50 == 0, np.arange(size), 2**62)
        index.add(ids, vectors, partitions)
        index.remove(ids[5:9])
        if hasattr(index, "compact"):
            index.compact()  # or a fold in the background may change what an approximate search finds
        index.save(tmp_path / "index", {"cursor": "12", "made by": "tést"})
        loaded, meta = self.load(tmp_path / "index")
        assert meta == {"cursor": "12", "made by": "tést"}
        assert len(loaded) == len(index)
        assert loaded.stats()[:3] == index.stats()[:3]
        for query, partition in zip(vectors[:80], partitions[:80].tolist(), strict=True):
            for where in (partition, 2**62):
                expected = index.search(query, partition=where, k=20)
                assert loaded.search(query, partition=where, k=20) == expected
        loaded.add([3], vector_of(3)[None], [4])
        assert loaded.remove(ids.tolist()) == len(index)
        assert self.matches(loaded.search(vector_of(3), partition=4), [(3, 1.0)])
        loaded.close()

    def test_a_damaged_file_is_not_loaded(self, index: VectorIndex, tmp_path: Path) -> None:
        index.add(np.arange(60), clustered(60), np.zeros(60, np.int64))
        path = tmp_path / "index"
        index.save(path)
        sound = path.read_bytes()
        places = np.unique(np.r_[np.arange(0, 64), np.linspace(64, len(sound) - 1, 100, dtype=int)])
        damaged = [sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :] for at in places.tolist()]
        damaged += [sound[:length] for length in (0, 3, 11, 50, len(sound) // 2, len(sound) - 1)]
        damaged += [sound + b"\0", b"another format altogether"]
        for content in damaged:
            path.write_bytes(content)
            with pytest.raises(IndexDamaged):
                self.load(path)
        path.write_bytes(sound)
        assert len(self.load(path)[0]) == 60

    def test_saving_again_replaces_the_file(self, index: VectorIndex, tmp_path: Path) -> None:
        for n in (30, 10):
            index.remove(np.arange(30))
            index.add(np.arange(n), clustered(n), np.zeros(n, np.int64))
            index.save(tmp_path / "index")
            assert len(self.load(tmp_path / "index")[0]) == n
        assert [path.name for path in tmp_path.iterdir()] == ["index"]

    def test_a_failed_save_leaves_the_old_file(
        self, index: VectorIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index.add([1], vector_of(1)[None], [0])
        index.save(tmp_path / "index")
        index.add([2], vector_of(2)[None], [0])

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                index.save(tmp_path / "index")
        assert [path.name for path in tmp_path.iterdir()] == ["index"]
        assert len(self.load(tmp_path / "index")[0]) == 1

    # Everything together ----------------------------------------------------------------------------------------

    def test_stats(self, index: VectorIndex) -> None:
        index.add(np.arange(100), clustered(100), np.arange(100) % 3)
        stats = index.stats()
        assert (stats.vectors, stats.partitions) == (100, 3)
        assert stats.bytes > 100 * DIM
        index.add(np.arange(100, 1000), clustered(900), np.zeros(900, np.int64))
        assert index.stats().bytes > stats.bytes + 900 * DIM

    def test_closing_twice(self, index: VectorIndex) -> None:
        index.close()
        index.close()

    def test_any_sequence_of_calls(self, tmp_path: Path) -> None:
        """Against a dict and numpy."""
        machine: Any = partial(Machine, self.make, self.load, tmp_path / "index", self.score_error)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


def _in_child(work: Callable[[], None]) -> int:
    """Run in a forked child; its exit status, 0 if ``work`` raised nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads in the parent
        child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _add_and_find(index: VectorIndex, vectors: Vectors) -> None:
    index.add(np.arange(200, 299), vectors[200:299], np.zeros(99, np.int64))
    assert index.search(vectors[250], partition=0, k=1)[0].id == 250
    assert index.remove([250]) == 1
    index.close()
