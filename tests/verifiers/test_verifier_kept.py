"""Confirmed pairs in the store: who serves them, for how long, and what else is never kept."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from semcache import AsyncSemanticCache, Policy, SemanticCache
from semcache.errors import StoreError
from semcache.stores import MemoryStore
from semcache.testing.servers import RedisServer
from semcache.verifiers import FunctionVerifier
from semcache.verifiers.base import fingerprint

STORED, ASKED, OTHER = "what is your name", "what are you called", "what is your game"
WAIT_S = 30.0


@pytest.fixture(scope="module")
def redis_server():
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cache.db'}?budget_s=5"
    return f"{request.getfixturevalue('redis_server').url}?budget_s=5&prefix={tmp_path.name}"


def embed(texts):
    return [[1.0, 0.1 * (len(text) % 7)] for text in texts]


class Counting:
    """A verifier that says one thing and counts its calls."""

    fingerprint = "the same in every process"

    def __init__(self, probability: float = 0.95) -> None:
        self.probability = probability
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs):
        self.asked += pairs
        return [self.probability] * len(pairs)


def open_(store, verifier, kind=SemanticCache, **more):
    policy = Policy(threshold=0.99999, guards=(), verifier=verifier, verify_from=0.3, verify_within_s=WAIT_S, **more)
    return kind(store=store, embedder=embed, policy=policy)


def test_what_one_process_has_confirmed_the_others_serve_at_once(url):
    first, second = Counting(), Counting()
    with open_(url, first) as one, open_(url, second) as two:
        one.store(STORED, "Ann")
        assert one.lookup(ASKED).response == "Ann"
        found = two.lookup(ASKED)
        assert (found.response, found.outcome.layer) == ("Ann", "semantic")
        assert found.outcome.decision.probability == 0.95
    assert (first.asked, second.asked) == ([(ASKED, STORED)], [])


async def test_on_an_event_loop_too(url):
    with open_(url, Counting()) as one:
        one.store(STORED, "Ann")
        assert one.lookup(ASKED).outcome.hit
    second = Counting()
    async with open_(url, second, AsyncSemanticCache) as two:
        assert (await two.lookup(ASKED)).response == "Ann"
    assert second.asked == []


def test_a_verdict_that_came_late_is_there_for_the_others(url):
    done = threading.Event()

    class Late(Counting):
        def score(self, pairs):
            assert done.wait(WAIT_S)
            return super().score(pairs)

    policy = Policy(threshold=0.99999, guards=(), verifier=Late(), verify_from=0.3, verify_within_s=0.0)
    with SemanticCache(store=url, embedder=embed, policy=policy) as one, open_(url, second := Counting()) as two:
        one.store(STORED, "Ann")
        assert not one.lookup(ASKED).outcome.hit
        done.set()
        while not one.lookup(ASKED).outcome.hit:
            pass
        assert two.lookup(ASKED).response == "Ann"
        assert second.asked == []


@pytest.mark.parametrize(("mine", "yours"), [(0.5, 0.95), (0.95, 0.95)], ids=["refuted", "of another verifier"])
def test_neither_refuted_pairs_nor_those_of_another_verifier_are_taken_over(url, mine, yours):
    first, second = Counting(mine), Counting(yours)
    if mine == yours:
        second.fingerprint = "another"
    with open_(url, first) as one, open_(url, second) as two:
        one.store(STORED, "Ann")
        assert one.lookup(ASKED).outcome.hit is (mine > 0.9)
        assert two.lookup(ASKED).outcome.hit
    assert second.asked == [(ASKED, STORED)]


def test_a_verdict_goes_with_its_answer(url):
    with open_(url, Counting()) as cache:
        with cache.options(ttl=1000.0, tags=("faq",), tenant="acme"):
            cache.store(STORED, "Ann")
        with cache.options(tags=("web",), tenant="acme"):
            answer = cache.lookup(ASKED).outcome
        store = cache.engine.store
        assert store.stats().entries == 2
        assert store.changes(None, fingerprint=cache.engine.semantic.queue.fingerprint).ids.tolist() == [
            answer.entry_id
        ], "a verdict is in no index"
        assert cache.invalidate(tag="web", tenant="acme") == 1  # of who asked
        assert cache.invalidate(tag="faq", tenant="acme") == 1  # of the answer


def test_a_verdict_expires_with_its_answer():
    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    clock = Clock()
    store = MemoryStore(clock=clock)
    policy = Policy(threshold=0.99999, guards=(), verifier=Counting(), verify_from=0.3, ttl=10.0)
    with SemanticCache(store=store, embedder=embed, policy=policy, clock=clock) as cache:
        cache.store(STORED, "Ann")
        clock.now += 5.0
        assert cache.lookup(ASKED).outcome.hit
        assert {entry.expires_at for entry in store._entries.values()} == {1010.0}


def test_a_store_that_fails_confirms_nothing_and_says_so():
    class Failing(MemoryStore):
        down = ""

        def get(self, key):
            if self.down == "get" and b'"verdict"' in key.canonical:
                raise StoreError("cannot read")
            return super().get(key)

        def put(self, entry):
            if self.down == "put" and entry.api == "verdict":
                raise StoreError("cannot write")
            super().put(entry)

    store, events = Failing(), []
    with open_(store, Counting()) as cache:
        cache.on_event(lambda event: events.append((event.kind, event.message)))
        cache.store(STORED, "Ann")
        store.down = "get"
        assert not cache.lookup(ASKED).outcome.hit
        store.down = "put"
        assert cache.lookup(ASKED).response == "Ann"
    assert events == [("store_error", "cannot read"), ("store_error", "a verdict was not kept: cannot write")]


def test_a_pair_reported_wrong_is_not_served_by_any(url):
    with open_(url, Counting()) as one, open_(url, Counting()) as two:
        one.store(STORED, "Ann")
        one.report_wrong(one.lookup(ASKED).outcome)
        one.store(STORED, "Ann")
        assert not one.lookup(ASKED).outcome.hit
        assert not two.lookup(ASKED).outcome.hit


def plain(query, cached):
    return 0.9


def test_a_function_is_known_by_its_name_and_code():
    assert fingerprint(FunctionVerifier(plain)) == fingerprint(FunctionVerifier(plain)) == fingerprint(plain)
    code = (
        "def plain(query, cached):\n    return {}\n"
        "from semcache.verifiers.base import fingerprint\nprint(fingerprint(plain))"
    )
    said = [
        subprocess.run([sys.executable, "-c", code.format(n)], capture_output=True, text=True, check=True).stdout
        for n in (0.9, 0.9, 0.8)
    ]
    assert said[0] == said[1] != said[2]


def test_what_closes_over_something_is_known_to_its_process_only():
    limit = 0.5
    one, two = FunctionVerifier(lambda query, cached: limit), FunctionVerifier(lambda query, cached: limit)
    assert one.fingerprint != two.fingerprint
    assert fingerprint(one) == one.fingerprint

    def named(query, cached):
        return limit

    named.fingerprint = "mine"
    assert fingerprint(FunctionVerifier(named)) == "mine"
