"""Vector indexes: recall against the exact scan, time, memory.

``python -m benchmarks.bench_indexes`` writes a JSON row a line. The vectors are clusters of 50 around random centres,
which is kinder to clusters than text is; ``--texts FILE`` (lines of text, or of JSON with ``text``, ``a`` or ``b``,
perhaps gzipped) embeds real ones with the default embedder instead. Queries are stored vectors disturbed to a cosine of
about 0.93, or held-out texts. HNSW is measured up to 10,000 vectors unless ``--all`` is given, since its graph takes a
minute at 100,000.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import gzip
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from semcache_indexes import KINDS, FlatIndex, IvfIndex, Kind, LadderIndex, Match, VectorIndex, create
from semcache_indexes.protocol import Vectors
from semcache_indexes.testing import unit

from benchmarks.rows import emit, p50_us

DIM: Final = 384
QUERIES: Final = 500
NEAR: Final = 0.85
"""Cosine from which a row might be served."""
HNSW_LIMIT: Final = 10_000
TEXTS: Final = 30_000


def clusters(n: int) -> Vectors:
    """Unit vectors in clusters of 50, with cosines of about 0.6 inside a cluster, in random order."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((max(1, n // 50), DIM), dtype=np.float32)
    vectors = centers[random.integers(0, len(centers), n)]
    vectors += 0.8 * random.standard_normal((n, DIM), dtype=np.float32)
    return unit(vectors)


def disturbed(vectors: Vectors) -> Vectors:
    """The vectors with noise of 0.4 times their length: cosines of about 0.93 to the originals."""
    noise = np.random.default_rng(4).standard_normal(vectors.shape) * 0.4 / DIM**0.5
    return unit(vectors + noise)


def embedded(path: Path) -> Vectors:
    """Distinct texts of a file, embedded, in random order."""
    from semcache.embedders import OnnxEmbedder

    texts = np.random.default_rng(0).permutation(sorted(set(islice(read_texts(path), 4 * TEXTS))))[:TEXTS]
    return OnnxEmbedder().embed(texts.tolist())


def read_texts(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as lines:
        for line in lines:
            if line.startswith("{"):
                record = json.loads(line)
                yield from (record[field] for field in ("text", "a", "b") if isinstance(record.get(field), str))
            elif line.strip():
                yield line.strip()


def resident() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or memory that is free would count
    return int(psutil.Process().memory_info().rss)


def one_partition(kind: Kind, vectors: Vectors, queries: Vectors, truth: list[list[Match]], **about: Any) -> None:
    """All vectors in one partition."""
    about |= {"kind": kind, "n": len(vectors)}
    index = create(kind, DIM)
    time_one_partition(index, vectors, queries, truth, about)
    own, held, count = index.stats().bytes, resident(), len(index)
    index.close()
    del index
    emit_memory("index.bytes_a_vector", own, held, 0, count, about)


def time_one_partition(
    index: VectorIndex, vectors: Vectors, queries: Vectors, truth: list[list[Match]], about: dict[str, Any]
) -> None:
    n = len(vectors)
    ids = np.random.default_rng(1).integers(0, 2**62, n)
    started = time.perf_counter()
    for at in range(0, n, 1000):
        part = slice(at, at + 1000)
        index.add(ids[part], vectors[part], np.zeros(len(ids[part]), np.int64))
    emit("index.add_in_thousands", (time.perf_counter() - started) / n * 1e6, "us/vector", **about)
    compact(index)
    emit("index.ready", time.perf_counter() - started, "s", **about)
    recall(index, ids, queries, truth, about)
    turn = iter(np.resize(np.arange(len(queries)), 10_000))
    p50 = p50_us(lambda: index.search(queries[next(turn)], partition=0), n=QUERIES)
    emit("index.search", p50, "us", **about)
    fresh = iter(range(2**62, 2**63 - 1))
    emit("index.add_one", p50_us(lambda: index.add([next(fresh)], queries[:1], [0]), n=100), "us", **about)
    gone = iter(ids)
    emit("index.remove_one", p50_us(lambda: index.remove([next(gone)]), n=100), "us", **about)
    compact(index)


def compact(index: VectorIndex) -> None:
    """As folded as it gets, where the index folds at all."""
    if isinstance(index, IvfIndex | LadderIndex):
        index.compact()


def recall(index: VectorIndex, ids: Any, queries: Vectors, truth: list[list[Match]], about: dict[str, Any]) -> None:
    """Against the exact scan: the nearest one, the nearest ten, and the nearest one if it is near enough to serve."""
    found = [[match.id for match in index.search(query, partition=0, k=10)] for query in queries]
    true = [ids[[match.id for match in matches]].tolist() for matches in truth]
    emit("index.recall@1", np.mean([f[0] == t[0] for f, t in zip(found, true, strict=True)]), "share", **about)
    shared = [len(set(f) & set(t)) / len(t) for f, t in zip(found, true, strict=True)]
    emit("index.recall@10", float(np.mean(shared)), "share", **about)
    near = [t[0] in f[:8] for f, t, m in zip(found, true, truth, strict=True) if m[0].similarity >= NEAR]
    emit(
        "index.recall_of_near_in_8",
        float(np.mean(near)) if near else None,
        "share",
        queries=len(near),
        near=NEAR,
        **about,
    )


def emit_memory(name: str, own: int, held: int, vectors: int, count: int, about: dict[str, Any]) -> None:
    """Memory by the index's own count, and what the process gave back when the index went.

    ``vectors`` bytes, those of the vectors themselves, are taken off.
    """
    unit = f"bytes/{name.rpartition('_')[2]}"
    emit(name, (own - vectors) / count, unit, by="own count", **about)
    emit(name, (held - resident() - vectors) / count, unit, by="process", **about)


def many_partitions(kind: Kind, partitions: int) -> None:
    """Partitions of one to three vectors, filled one vector at a time."""
    random = np.random.default_rng(2)
    keys = np.repeat(random.integers(0, 2**62, partitions), random.integers(1, 4, partitions))
    vectors = clusters(len(keys))
    about = {"kind": kind, "partitions": partitions, "n": len(keys), "data": "clusters"}
    index = create(kind, DIM)
    time_many_partitions(index, vectors, keys, about)
    own, held = index.stats().bytes, resident()
    index.close()
    del index
    float16 = 2 * DIM * len(keys)
    emit_memory("partitions.overhead_of_a_partition", own, held, float16, partitions, about)


def time_many_partitions(index: VectorIndex, vectors: Vectors, keys: Any, about: dict[str, Any]) -> None:
    random = np.random.default_rng(3)
    ids = random.integers(0, 2**62, len(keys))
    started = time.perf_counter()
    for at in range(len(keys)):
        index.add(ids[at : at + 1], vectors[at : at + 1], keys[at : at + 1])
    emit("partitions.add_one", (time.perf_counter() - started) / len(keys) * 1e6, "us", **about)
    turn = iter(random.permutation(len(keys)))

    def search() -> None:
        at = next(turn)
        assert index.search(vectors[at], partition=int(keys[at]), k=1)[0].id == ids[at]

    emit("partitions.search", p50_us(search, n=QUERIES), "us", **about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000", help="vectors in one partition")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--texts", type=Path, help="embed these instead of making vectors up")
    parser.add_argument("--million", action="store_true", help="add the size 1,000,000 (10 GB, several minutes)")
    parser.add_argument("--all", action="store_true", help="measure HNSW at every size")
    parser.add_argument("--partitions", type=int, default=100_000, help="0 leaves that part out")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")] + [1_000_000] * arguments.million
    source = "clusters" if arguments.texts is None else arguments.texts.name
    made = clusters(max(sizes) + QUERIES) if arguments.texts is None else embedded(arguments.texts)
    queries, vectors = made[:QUERIES], made[QUERIES:]
    warm_up()
    for size in dict.fromkeys(min(size, len(vectors)) for size in sizes):
        chosen = vectors[:size]
        if arguments.texts is None:
            queries = disturbed(chosen[:QUERIES])
        truth = exact_neighbours(chosen, queries)
        for kind in arguments.kinds.split(","):
            if kind != "hnsw" or size <= HNSW_LIMIT or arguments.all:
                one_partition(kind, chosen, queries, truth, data=source)
    if arguments.partitions:
        many_partitions("ladder", arguments.partitions)


def exact_neighbours(vectors: Vectors, queries: Vectors) -> list[list[Match]]:
    flat = FlatIndex(DIM)
    flat.add(np.arange(len(vectors)), vectors, np.zeros(len(vectors), np.int64))
    return [flat.search(query, partition=0, k=10) for query in queries]


def warm_up() -> None:
    """What FAISS takes once, whatever the size, is no part of an index's memory."""
    index = create("ivf", DIM)
    index.add(np.arange(3000), clusters(3000), np.zeros(3000, np.int64))
    index.close()


if __name__ == "__main__":
    main()
