"""Whatever a part of the cache raises, and whatever a function returns, the caller gets the upstream's answer."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from semcache import AsyncSemanticCache, Budget, Policy, SemanticCache, judging, last_outcome
from semcache.stores import MemoryStore

EXACT_ONLY = Policy(semantic=False)
RESET = "How do I reset my password?"
RESET_AGAIN = "How can I reset my password?"


class Raising(MemoryStore):
    """A store with a bug: one of its methods raises what the contract does not allow."""

    def __init__(self, method):
        super().__init__()
        setattr(self, method, self._raise)

    def _raise(self, *args, **kwargs):
        raise ZeroDivisionError("a bug")


def never_started(thread):
    raise RuntimeError("can't start new thread")


def broken_verifier(query, cached):
    raise ZeroDivisionError("a bug")


PARTS = {
    "get": lambda: {"store": Raising("get")},
    "put": lambda: {"store": Raising("put")},
    "fetch": lambda: {"store": Raising("fetch")},
    "changes": lambda: {"store": Raising("changes")},
    "counters": lambda: {"store": Raising("counters"), "budgets": Budget(1), "policy": Policy(audit_rate=1.0)},
    "add_counters": lambda: {"store": Raising("add_counters"), "budgets": Budget(1), "policy": Policy(audit_rate=1.0)},
    "verifier": lambda: {
        "store": MemoryStore(),
        "policy": Policy(threshold=1.0, verifier=broken_verifier, verify_from=0.5),
    },
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_raises_makes_an_event(part):
    events = []
    with SemanticCache(**PARTS[part]()) as cache:
        cache.on_event(lambda event: events.append(event.error))
        ask = cache.wrap(lambda prompt: "Use the link.", name="ask")
        for question in (RESET, RESET_AGAIN):
            assert ask(question) == "Use the link."
    assert any("a bug" in str(error) for error in events)


@pytest.mark.parametrize("part", PARTS)
async def test_on_an_event_loop_too(part):
    async with AsyncSemanticCache(**PARTS[part]()) as cache:

        async def answer(prompt):
            await asyncio.sleep(0)
            return "Use the link."

        ask = cache.wrap(answer, name="ask")
        for question in (RESET, RESET_AGAIN):
            assert await ask(question) == "Use the link."


def raise_a_bug(*args):
    raise KeyError("a bug")


def test_a_rule_that_raises_is_a_miss_and_an_event(monkeypatch):
    monkeypatch.setattr(judging, "covered", raise_a_bug)
    events = []
    with SemanticCache(store=MemoryStore()) as cache:
        cache.on_event(events.append)
        ask = cache.wrap(lambda prompt: "Use the link.", name="ask")
        for question in (RESET, RESET_AGAIN):
            assert ask(question) == "Use the link."
        outcome = last_outcome()
        assert (outcome.status, outcome.reason, outcome.stored) == ("miss", "judging failed", True)
        assert cache.explain(ask.request("how can I reset the password")).reason == "judging failed"
    assert {event.kind for event in events} == {"judging_error"}
    assert isinstance(events[0].error, KeyError)


async def test_on_an_event_loop_a_rule_that_raises_is_a_miss_too(monkeypatch):
    monkeypatch.setattr(judging, "covered", raise_a_bug)

    async def answer(prompt):
        return "Use the link."

    async with AsyncSemanticCache(store=MemoryStore()) as cache:
        ask = cache.wrap(answer, name="ask")
        for question in (RESET, RESET_AGAIN):
            assert await ask(question) == "Use the link."
        assert last_outcome().reason == "judging failed"


@pytest.mark.parametrize(
    "value",
    [
        {"candidates": ["Bob"]},
        {"candidates": [{"content": 3}]},
        {"candidates": [{"content": {"parts": ["a"]}}]},
        {"candidates": [{"content": {"parts": 3}}]},
        {"choices": [1]},
        {"type": "message", "content": ["a"]},
        {"object": "response", "output": ["a"]},
        {"object": "response", "output": [{"type": "message", "content": ["a"]}]},
        {"output": {"message": {"content": ["x"]}}},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["live", "shadow"])
def test_a_functions_own_answer_may_have_the_field_names_of_a_providers(value, mode):
    with SemanticCache(store=MemoryStore(), policy=Policy(semantic=False, mode=mode)) as cache:
        ask = cache.wrap(lambda prompt, model: value, name="ask")
        for _ in range(2):
            assert ask("hi", model="gpt-5-mini") == value


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_arguments_without_end_and_deep_ones_go_upstream():
    endless = []
    endless.append(endless)
    with SemanticCache(store=MemoryStore(), policy=Policy(semantic=False, secrets="redact")) as cache:
        ask = cache.wrap(lambda prompt, model, extra: "answer", name="ask")
        for extra in (endless, nested(300), nested(450), nested(700), nested(5_000)):
            assert ask("my key is sk-abc0123456789abcdefghijkl", model="gpt-5-mini", extra=extra) == "answer"


def test_names_that_cannot_be_written_go_upstream_and_hold_up_no_count():
    with SemanticCache(store=MemoryStore(), policy=EXACT_ONLY, budgets=Budget(1)) as cache:
        ask = cache.wrap(lambda prompt, model: "answer", name="ask")
        for namespace, model in (("default", "gpt-5-mini\ud800"), ("n\ud800", "gpt-5-mini")):
            with cache.options(namespace=namespace):
                assert ask("hi", model=model) == "answer"
        cache.engine.budgets.flush()
        cache.engine.ledger.meter.flush()
        assert cache.stats().ledger.totals.requests == 2


def test_no_more_threads_are_no_callers_trouble(monkeypatch):
    policy = Policy(audit_rate=1.0, verifier=lambda query, cached: 1.0, verify_from=0.5)
    with SemanticCache(store=MemoryStore(), policy=policy, budgets=Budget(1)) as cache:
        ask = cache.wrap(lambda prompt, model: "answer", name="ask")
        monkeypatch.setattr(threading.Thread, "start", never_started)
        for question in (RESET, RESET_AGAIN, RESET):
            assert ask(question, model="gpt-5-mini") == "answer"
        assert last_outcome().layer == "exact"
        asked = 3
        monkeypatch.undo()
        give_up_at = time.monotonic() + 20
        while last_outcome().layer != "semantic":
            assert time.monotonic() < give_up_at
            assert ask(RESET + "!" * asked, model="gpt-5-mini") == "answer"
            asked += 1
            time.sleep(0.05)
    assert cache.engine.ledger.report().totals.requests == asked
