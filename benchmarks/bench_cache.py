"""Whole calls through ``cache.wrap(function)``: exact hits on each store, semantic hits, stores, threads, overhead.

Every figure that stands against another is measured in the same run, in turns, since machines are noisy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
import redis

from benchmarks.rows import emit, p50_us
from semcache import Policy, SemanticCache, Usage
from semcache.embedders import CallableEmbedder
from semcache.testing.servers import RedisServer

ANSWER = "You can reset it in the app under Profile, Security, Reset password. " * 20
QUESTION = "How do I reset my password?"
EXACT = Policy(semantic=False)
DIM = 384


def wrapped(cache):
    return cache.wrap(lambda prompt: ANSWER, name="answer")


def exact_hits(folder: Path) -> None:
    with RedisServer() as server:
        for kind, url, goal in (
            ("memory", "memory://", 30),
            ("sqlite", f"sqlite:///{folder / 'exact.sqlite'}", 60),
            ("redis", server.url, None),
        ):
            with SemanticCache.open(url, policy=EXACT) as cache:
                ask = wrapped(cache)
                ask(QUESTION)
                emit(f"exact_hit.{kind}", p50_us(lambda: ask(QUESTION)), "us", goal=goal)  # noqa: B023
        client = redis.Redis.from_url(server.url)
        with SemanticCache.open(server.url, policy=EXACT) as cache:
            ask = wrapped(cache)
            ask(QUESTION)
            client.set("raw", ANSWER + "x" * 400)  # about as long as the stored entry
            pairs = [(p50_us(lambda: ask(QUESTION), n=500), p50_us(lambda: client.get("raw"), n=500)) for _ in range(9)]
            emit("exact_hit.redis_over_raw_get", median(a / b for a, b in pairs), "ratio", goal=1.5)


def semantic_hits(entries: int) -> None:
    """Everything but the embedding, which the queue remembers, with entries that a stub embedder puts at random.

    What is asked is always new to the guards; so are the stored questions on the first hit of each, and on the later
    ones they are not.
    """
    rng = np.random.default_rng(0)
    known: dict[str, np.ndarray] = {}
    asked, reworded = "How do I reset the password of my account {}?", "How can I reset the password for my account {}?"
    wordings = {"first": reworded, "later": f"Please, {reworded}"}

    def embed(texts):
        numbers = [text.rpartition(" ")[2] for text in texts]
        for number in numbers:
            if number not in known:
                vector = rng.standard_normal(DIM).astype(np.float32)
                known[number] = vector / np.linalg.norm(vector)
        return np.array([known[number] for number in numbers])

    for name, policy, goal in (("no_guards", Policy(guards=()), None), ("guards", Policy(), 0.5)):
        embedder = CallableEmbedder(embed, fingerprint="stub")
        with SemanticCache(store="memory://", embedder=embedder, policy=policy) as cache:
            ask = wrapped(cache)
            for i in range(entries):
                ask(asked.format(i))
            numbers = rng.permutation(entries)[:600]
            for when, wording in wordings.items():
                texts = [wording.format(i) for i in numbers]
                cache.engine.semantic.queue.embed_many(texts)
                fresh = iter(texts)

                def hit():
                    found = cache.lookup(ask.request(next(fresh)))  # noqa: B023
                    assert found.outcome.layer == "semantic", found.outcome

                emit(f"semantic_hit.{name}.{when}", p50_us(hit, n=500) / 1000, "ms", entries=entries, goal=goal)


def stores(folder: Path) -> None:
    with SemanticCache.open(f"sqlite:///{folder / 'store.sqlite'}") as cache:
        cache.store("warm", ANSWER)
        texts = [f"How do I reset password number {i}?" for i in range(400)]
        cache.engine.semantic.queue.embed_many(texts)
        remembered = iter(texts)
        emit("store", p50_us(lambda: cache.store(next(remembered), ANSWER), n=300, warm=50) / 1000, "ms", goal=1)


def threads(folder: Path) -> None:
    for kind, url in (("memory", "memory://"), ("sqlite", f"sqlite:///{folder / 'threads.sqlite'}")):
        with SemanticCache.open(url, policy=EXACT) as cache:
            ask = wrapped(cache)
            ask(QUESTION)

            def work(ask=ask):
                for _ in range(4000):
                    ask(QUESTION)

            workers = [threading.Thread(target=work) for _ in range(8)]
            started = time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            rate = 8 * 4000 / (time.perf_counter() - started)
            emit(f"exact_hits_per_second.8_threads.{kind}", rate, "1/s", goal=10_000)


def overhead(folder: Path, entries: int) -> None:
    """Bytes on disk per entry beside the response."""
    path = folder / "overhead.sqlite"
    rng = np.random.default_rng(0)

    def embed(texts):
        vectors = rng.standard_normal((len(texts), DIM)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    with SemanticCache.open(f"sqlite:///{path}", embedder=CallableEmbedder(embed, fingerprint="stub")) as cache:
        for i in range(entries):
            cache.store(f"How do I reset the password of my account number {i}?", ANSWER, Usage(20, 200))
    size = path.stat().st_size / entries - len(ANSWER)
    emit("overhead_per_entry.sqlite", size, "B", entries=entries, goal=1024)


def start_up() -> None:
    """Medians of fresh processes, interpreter start included."""
    for name, command, goal in (
        ("python", ["-c", "pass"], None),
        ("import_semcache", ["-c", "import semcache"], 150),
        ("import_semantic_cache", ["-c", "from semcache import SemanticCache"], None),
        ("help", ["-m", "semcache", "--help"], 400),
    ):
        times = []
        for _ in range(15):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - started)
        emit(f"start_up.{name}", median(times) * 1000, "ms", goal=goal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start_up()
        exact_hits(folder)
        threads(folder)
        stores(folder)
        semantic_hits(options.entries)
        overhead(folder, options.entries)


if __name__ == "__main__":
    main()
