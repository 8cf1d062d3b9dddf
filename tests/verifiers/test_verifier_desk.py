from __future__ import annotations

import asyncio
import os
import threading

import pytest

from semcache import AsyncSemanticCache, SemanticCache
from semcache.errors import ConfigurationError, VerifierError
from semcache.policy import Policy
from semcache.steps import Verify
from semcache.testing.store_contract import make_entry
from semcache.verifiers import FunctionVerifier, VerifierDesk, resolve

WAIT_S = 30.0


def pair(query: str, cached: str) -> Verify:
    return Verify(query, make_entry(cached))


class Gate:
    """A verifier that answers when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked: list[tuple[str, str]] = []

    def __call__(self, query: str, cached: str) -> float:
        self.asked.append((query, cached))
        assert self.open.wait(WAIT_S)
        return 0.95


def test_a_verdict_is_reached_once_and_remembered():
    calls: list[str] = []

    def verify(query: str, cached: str) -> float:
        calls.append(query)
        return 0.5

    desk = VerifierDesk(FunctionVerifier(verify))
    assert [desk.ask(pair("a", "b")).result(WAIT_S) for _ in range(3)] == [0.5] * 3
    assert calls == ["a"]
    assert desk.ask(pair("b", "a")).result(WAIT_S) == 0.5
    assert calls == ["a", "b"]


def test_those_who_ask_at_a_time_share_one_call():
    gate = Gate()
    desk = VerifierDesk(FunctionVerifier(gate))
    futures = {id(desk.ask(pair("a", "b"))) for _ in range(5)}
    gate.open.set()
    assert desk.ask(pair("a", "b")).result(WAIT_S) == 0.95
    assert (len(futures), gate.asked) == (1, [("a", "b")])


def test_trouble_is_not_remembered():
    answers = iter([RuntimeError("down"), 0.9])

    def verify(query: str, cached: str) -> float:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    desk = VerifierDesk(FunctionVerifier(verify))
    with pytest.raises(RuntimeError, match="down"):
        desk.ask(pair("a", "b")).result(WAIT_S)
    assert desk.ask(pair("a", "b")).result(WAIT_S) == 0.9


@pytest.mark.parametrize("score", [1.5, -0.2, float("nan"), float("inf")])
def test_what_is_no_probability_is_trouble(score):
    desk = VerifierDesk(FunctionVerifier(lambda query, cached: score))
    with pytest.raises(VerifierError, match="one number between 0 and 1"):
        desk.ask(pair("a", "b")).result(WAIT_S)


def test_more_pairs_than_may_wait_are_refused_and_the_oldest_verdicts_go():
    gate = Gate()
    desk = VerifierDesk(FunctionVerifier(gate), threads=1, waiting=2, remembered=2)
    futures = [desk.ask(pair("a", "0")), desk.ask(pair("a", "1"))]
    while not gate.asked:  # until the thread has taken the first, and one place is free again
        threading.Event().wait(0.001)
    futures.append(desk.ask(pair("a", "2")))
    with pytest.raises(VerifierError, match="2 pairs wait"):
        desk.ask(pair("a", "3"))
    gate.open.set()
    assert [future.result(WAIT_S) for future in futures] == [0.95] * 3
    assert desk.ask(pair("a", "2")) is futures[2]
    assert desk.ask(pair("a", "0")) is not futures[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own_and_keeps_the_verdicts():
    desk = VerifierDesk(FunctionVerifier(lambda query, cached: 0.5 if query == "a" else 0.25))
    assert desk.ask(pair("a", "b")).result(WAIT_S) == 0.5
    child = os.fork()
    if child == 0:
        right = desk.ask(pair("a", "b")).done() and desk.ask(pair("c", "d")).result(WAIT_S) == 0.25
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_no_verifier_is_refused_when_the_cache_is_built():
    with pytest.raises(ConfigurationError, match="is neither"):
        resolve(3)
    with pytest.raises(ConfigurationError, match="is neither"):
        SemanticCache(store="memory://", policy=Policy(verifier=3, verify_from=0.5))  # type: ignore[arg-type]


class Awaiting:
    async def score(self, pairs):
        return [1.0] * len(pairs)

    async def __call__(self, query, cached):
        return 1.0


@pytest.mark.parametrize("verifier", [Awaiting(), Awaiting().score, asyncio.sleep])
def test_a_verifier_that_must_be_awaited_is_refused(verifier):
    with pytest.raises(ConfigurationError, match="a plain function, not a coroutine function"):
        made(SemanticCache, verifier)


def embed(texts):
    return [[1.0, 0.1 * (len(text) % 7)] for text in texts]


def policy(verifier, **more) -> Policy:
    return Policy(threshold=0.99999, guards=(), verifier=verifier, verify_from=0.3, **more)


def made(kind, verifier, **more):
    return kind(store="memory://", embedder=embed, policy=policy(verifier, **more))


STORED, ASKED = "what is your name", "what are you called"


def test_a_late_verdict_is_a_miss_and_an_event_and_counts_the_next_time():
    gate = Gate()
    with made(SemanticCache, gate, verify_within_s=0.05) as cache:
        events: list[str] = []
        cache.on_event(lambda event: events.append(event.kind))
        cache.store(STORED, {"answer": 1})
        assert not cache.lookup(ASKED).outcome.hit
        assert events == ["verifier_error"]
        gate.open.set()
        cache.engine.performer.desk.ask(pair(ASKED, STORED)).result(WAIT_S)
        found = cache.lookup(ASKED)
        assert (found.outcome.hit, found.outcome.decision.probability) == (True, 0.95)


def test_with_no_time_to_wait_the_first_call_misses_and_the_confirmed_pair_serves_the_next():
    gate = Gate()
    gate.open.set()
    with made(SemanticCache, gate, verify_within_s=0.0) as cache:
        events: list[str] = []
        cache.on_event(lambda event: events.append(event.kind))
        cache.store(STORED, {"answer": 1})
        cache.lookup(ASKED)
        cache.engine.performer.desk.ask(pair(ASKED, STORED)).result(WAIT_S)
        assert cache.lookup(ASKED).outcome.hit
        assert (events, gate.asked) == ([], [(ASKED, STORED)])


async def test_an_event_loop_waits_without_holding_others_up():
    gate = Gate()
    async with made(AsyncSemanticCache, gate, verify_within_s=0.05) as cache:
        await cache.store(STORED, {"answer": 1})
        assert not (await cache.lookup(ASKED)).outcome.hit
        gate.open.set()
        cache.engine.performer.desk.ask(pair(ASKED, STORED)).result(WAIT_S)
        assert (await cache.lookup(ASKED)).outcome.hit


async def test_on_an_event_loop_a_verdict_in_time_serves():
    async with made(AsyncSemanticCache, lambda query, cached: 1.0, verify_within_s=WAIT_S) as cache:
        await cache.store(STORED, {"answer": 1})
        assert (await cache.lookup(ASKED)).outcome.hit
