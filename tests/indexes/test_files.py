"""Snapshots: what is in them, and what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from semcache_indexes import (
    KINDS,
    IndexDamaged,
    IvfIndex,
    LadderIndex,
    VectorIndex,
    _snapshot,
    create,
    load,
)
from semcache_indexes.testing import clustered

DIM = 24


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_made_saved_and_loaded_by_name(kind: str, tmp_path: Path) -> None:
    index = create(kind, DIM)  # type: ignore[arg-type]
    assert isinstance(index, VectorIndex)
    assert (index.stats().kind, index.dim) == (kind, DIM)
    index.save(tmp_path / "index")
    loaded, meta = load(tmp_path / "index", kind=kind, dim=DIM)  # type: ignore[arg-type]
    assert (type(loaded), meta) == (type(index), {})


def test_an_unknown_kind_or_dimension() -> None:
    with pytest.raises(ValueError, match="no index of kind 'tree'; there are flat, ivf, hnsw, ladder"):
        create("tree", DIM)  # type: ignore[arg-type]
    for kind in KINDS:
        with pytest.raises(ValueError, match="dim must be"):
            create(kind, 0)
    with pytest.raises(ValueError, match="fold_from must be"):
        LadderIndex(DIM, fold_from=1)


def test_another_kind_or_dimension_than_expected_is_refused(tmp_path: Path) -> None:
    create("flat", DIM).save(tmp_path / "index")
    with pytest.raises(IndexDamaged, match="flat index of dimension 24, expected ladder"):
        load(tmp_path / "index", kind="ladder")
    with pytest.raises(IndexDamaged, match="expected flat of dimension 25"):
        load(tmp_path / "index", dim=25)


def test_a_missing_file_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "index")


def test_a_ladder_is_saved_with_all_its_rungs(tmp_path: Path) -> None:
    vectors = clustered(1000)
    partitions = np.r_[np.zeros(600, np.int64), np.ones(100, np.int64), np.arange(2, 302)]
    ladder = LadderIndex(DIM, fold_from=400)
    ladder.add(np.arange(1000), vectors, partitions)
    ladder.settle()
    part = ladder._large[0]
    assert part.segment is not None
    part.fold_at = 10_000
    ladder.remove(np.arange(0, 600, 9))
    ladder.add(np.arange(1000, 1030), clustered(30, seed=3), np.zeros(30, np.int64))
    assert part.segment.dead
    assert part.table.count
    ladder.save(tmp_path / "index")
    loaded, _ = load(tmp_path / "index")
    assert loaded.stats()[:3] == ladder.stats()[:3]
    assert loaded.stats().bytes <= ladder.stats().bytes
    for query in vectors[::20]:
        for partition in (0, 1, 17):
            expected = ladder.search(query, partition=partition, k=2000)
            assert loaded.search(query, partition=partition, k=2000) == expected
    assert 1029 in loaded
    assert 9 not in loaded


def test_an_exact_source_is_given_when_loading(tmp_path: Path) -> None:
    vectors = clustered(50)
    ladder = LadderIndex(DIM)
    ladder.add(np.arange(50), vectors, np.zeros(50, np.int64))
    ladder.save(tmp_path / "index")
    loaded, _ = load(tmp_path / "index", exact=lambda ids: -vectors[ids])
    assert loaded.search(vectors[0], partition=0, min_similarity=-1.0)[0].similarity < 0.5


def test_a_sound_file_of_wrong_arrays_is_refused(tmp_path: Path) -> None:
    """The checksum is right, but a search of these would read foreign memory."""
    ivf = IvfIndex(DIM, fold_from=100)
    ivf.add(np.arange(200), clustered(200), np.zeros(200, np.int64))
    ivf.compact()
    ivf.save(tmp_path / "index")
    sound = _snapshot.read(tmp_path / "index")
    wrong = {
        "0/bounds": sound.arrays["0/bounds"] + 1,
        "0/codes": sound.arrays["0/codes"][:-1],
        "0/centroids": sound.arrays["0/centroids"][:-1],
        "0/ranges": sound.arrays["0/ranges"][:, :-1],
        "ids": np.arange(3),
        "counts": sound.arrays["counts"] + 1,
        "keys": np.array([0, 1]),
    }
    for name, array in wrong.items():
        _snapshot.write(tmp_path / "wrong", sound._replace(arrays={**sound.arrays, name: array}))
        with pytest.raises(IndexDamaged):
            load(tmp_path / "wrong")
    for name in sound.arrays:
        left = {other: array for other, array in sound.arrays.items() if other != name}
        _snapshot.write(tmp_path / "wrong", sound._replace(arrays=left))
        with pytest.raises(IndexDamaged):
            load(tmp_path / "wrong")
    _snapshot.write(tmp_path / "wrong", sound._replace(kind="tree"))
    with pytest.raises(IndexDamaged, match="no index of kind 'tree'"):
        load(tmp_path / "wrong")


def test_another_format_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_snapshot, "VERSION", 2)
        create("flat", DIM).save(tmp_path / "index")
    with pytest.raises(IndexDamaged, match="version 1"):
        load(tmp_path / "index")


WRITER = """
import sys
import numpy as np
from semcache_indexes import LadderIndex
from semcache_indexes.testing import clustered
ladder = LadderIndex(24)
n = 0
while True:
    n += 2000
    ladder.add(np.arange(n - 2000, n), clustered(2000, seed=n), np.zeros(2000, np.int64))
    ladder.save(sys.argv[1], {"vectors": str(n)})
    print(n, flush=True)
"""


def test_a_killed_writer_leaves_a_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "index"
    random = np.random.default_rng(0)
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        saved = [int(writer.stdout.readline()) for _ in range(int(random.integers(1, 4)))]
        try:
            writer.wait(float(random.uniform(0, 0.05)))
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        saved += map(int, rest.split())
        index, meta = load(path)
        assert len(index) == int(meta["vectors"]) >= saved[-1]
