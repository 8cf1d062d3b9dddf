"""Whatever breaks in the cache's own parts, the call goes upstream, within the part's time budget."""

import threading
import time

import numpy as np
import pytest

from semcache import Policy, SemanticCache, last_outcome
from semcache.embedders import CallableEmbedder
from semcache.testing.servers import RedisServer

BUDGET_S = 1.0
SLACK = 5
"""Times the budget that a busy machine may take. That each of many calls pays the budget is told by far more."""


@pytest.fixture
def server():
    with RedisServer() as server:
        yield server


def cache_on(server, **more):
    return SemanticCache.open(f"{server.url}?budget_s={BUDGET_S}", policy=Policy(semantic=False), **more)


def timed(function, *arguments):
    started = time.perf_counter()
    return function(*arguments), time.perf_counter() - started


@pytest.mark.parametrize("trouble", ["pause", "kill"])
def test_a_dead_or_hung_redis_costs_its_budget_once_then_nothing(server, trouble):
    with cache_on(server) as cache:
        events = []
        cache.on_event(lambda event: events.append(event.kind))
        ask = cache.wrap(lambda prompt: f"fresh {prompt}")
        ask("hi")
        assert ask("hi") == "fresh hi"
        assert last_outcome().hit
        getattr(server, trouble)()
        try:
            answer, first = timed(ask, "hi")
            assert answer == "fresh hi"
            assert not last_outcome().hit
            assert first < BUDGET_S * SLACK
            _, hundred = timed(lambda: [ask(f"{i}") for i in range(100)])
            assert hundred < 100 * BUDGET_S / 5
            assert "store_open" in events
            assert events.count("store_error") < 5
        finally:
            if trouble == "pause":
                server.resume()


def test_redis_is_used_again_when_it_is_back(server):
    with cache_on(server) as cache:
        ask = cache.wrap(lambda prompt: f"fresh {prompt}")
        ask("hi")
        server.pause()
        ask("hi")
        assert not last_outcome().hit
        server.resume()
        deadline = time.monotonic() + 60
        while not last_outcome().hit and time.monotonic() < deadline:
            time.sleep(0.1)
            ask("hi")
        assert last_outcome().hit


def test_a_cache_opens_on_a_redis_that_is_not_there():
    with RedisServer() as server:
        url = server.url
    with SemanticCache.open(url, policy=Policy(semantic=False)) as cache:
        ask = cache.wrap(lambda prompt: f"fresh {prompt}")
        answer, took = timed(ask, "hi")
        assert answer == "fresh hi"
        assert took < 5


async def test_a_hung_redis_does_not_block_the_event_loop(server):
    import asyncio

    with cache_on(server) as cache:

        async def ask(prompt):
            return "fresh"

        wrapped = cache.wrap(ask)
        await wrapped("hi")
        server.pause()
        try:
            ticks, task = 0, asyncio.create_task(wrapped("ho"))
            while not task.done():
                await asyncio.sleep(0.002)
                ticks += 1
            assert await task == "fresh"
            assert ticks > 1
        finally:
            server.resume()


def test_a_stalled_embedder_costs_its_budget_once_then_nothing():
    budget, asked, go = 0.5, 20, threading.Event()
    go.set()

    def embed(texts):
        assert go.wait(60)
        return np.eye(1, 8, dtype=np.float32).repeat(len(texts), axis=0)

    policy = Policy(embed_budget_s=budget)
    with SemanticCache(store="memory://", policy=policy, embedder=CallableEmbedder(embed, fingerprint="test")) as cache:
        events = []
        cache.on_event(lambda event: events.append(event.kind))
        ask = cache.wrap(lambda prompt: f"fresh {prompt}")
        ask("warm")
        go.clear()
        _, first = timed(ask, "one")
        assert last_outcome().reason == "no embedding"
        assert last_outcome().stored
        assert first < budget * SLACK
        _, more = timed(lambda: [ask(f"more {i}") for i in range(asked)])
        go.set()
        assert more < asked * budget / 2
        # A second one where the worker began so late that the first caller took its embedder for busy.
        assert events in (["embedder_error"], ["embedder_error"] * 2)


def test_a_broken_embedder_is_a_miss_and_an_event():
    def embed(texts):
        raise RuntimeError("no model today")

    with SemanticCache(store="memory://", embedder=CallableEmbedder(embed, fingerprint="test")) as cache:
        events = []
        cache.on_event(lambda event: events.append(event.kind))
        ask = cache.wrap(lambda prompt: f"fresh {prompt}")
        assert ask("hi") == ask("hi") == "fresh hi"
        assert last_outcome().layer == "exact"
        assert "embedder_error" in events


def test_a_broken_index_is_a_miss_and_an_event():
    class Broken:
        def __init__(self, dim):
            self.dim = dim

        def __len__(self):
            return 0

        def __contains__(self, id):
            return False

        def add(self, *arguments):
            raise RuntimeError("add")

        def search(self, *arguments, **named):
            raise RuntimeError("search")

        def close(self):
            pass

    with SemanticCache(store="memory://", index=Broken) as cache:
        events = []
        cache.on_event(lambda event: events.append(event.kind))
        ask = cache.wrap(lambda prompt: f"fresh {prompt}")
        assert ask("hi") == "fresh hi"
        assert ask("hi") == "fresh hi"
        assert last_outcome().layer == "exact"
        assert set(events) == {"index_error"}


def test_an_index_that_cannot_be_built_costs_nothing_after_the_first_try():
    tries = []

    def make(dim):
        tries.append(dim)
        raise RuntimeError("no index today")

    with SemanticCache(store="memory://", index=make) as cache:
        events = []
        cache.on_event(lambda event: events.append(event.kind))
        ask = cache.wrap(lambda prompt: f"fresh {prompt}")
        assert ask("warm") == "fresh warm"
        tries.clear()
        for i in range(10):
            ask(f"question {i}")
        assert len(tries) <= 4  # after pauses of 1, 2, 4 s, however long the ten take
        assert set(events) == {"index_error"}
