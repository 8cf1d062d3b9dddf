"""Audits through the whole cache: behind the caller's back, and at every edge."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import numpy as np
import openai
import pytest
from audited import ALL, equal, settled
from bank import ANSWER, OTHER, RESET, RESET_AGAIN, Upstream
from click.testing import CliRunner

from semcache import AsyncSemanticCache, Policy, SemanticCache, last_outcome
from semcache.cli import main
from semcache.errors import StoreError
from semcache.live import audit as module
from semcache.live.record import Standing
from semcache.money.books import Line
from semcache.stores import MemoryStore
from semcache.testing.upstream import Upstream as Provider
from semcache.types import Reply, Request, Usage


def test_only_semantic_hits_are_audited_and_booked_on_their_own_line():
    usage = Usage(1000, 500)
    with SemanticCache(store="memory://", policy=ALL, judge=equal) as cache:

        def ask(text):
            request = Request("api", {}, text, model="gpt-5-mini")
            return cache.engine.run(request, lambda: Reply(None, b'"a"', usage)).outcome.layer

        assert [ask(text) for text in (RESET, RESET, RESET_AGAIN, OTHER)] == [None, "exact", "semantic", None]
        assert settled(cache) == Standing(audited=1)
        totals = cache.stats().ledger.totals
    assert totals.audit == Line(calls=1, tokens=1500, usd_micro=1250)
    assert (totals.requests, totals.saved.calls, totals.spent.calls) == (4, 2, 2)


def test_a_wrong_answer_is_seen_and_its_pair_never_matches_again(lasting_url):
    up = Upstream()
    with SemanticCache.open(lasting_url, policy=ALL, judge=equal) as cache:
        ask = cache.wrap(up.ask, name="ask")
        ask(RESET)
        up.answer = "That has changed."
        assert ask(RESET_AGAIN) == ANSWER
        assert settled(cache) == Standing(audited=1, wrong=1)
        assert ask(RESET_AGAIN) == "That has changed."
        assert ask(RESET) == ANSWER  # its own question it still answers
    with SemanticCache.open(lasting_url) as later:
        assert later.stats().live == {"default": Standing(audited=1, wrong=1)}
        assert "audited hits wrong" in CliRunner().invoke(main, ["stats", "--store", lasting_url]).stdout


def test_a_store_that_cannot_be_told_of_a_wrong_pair_keeps_it_out_of_no_rate():
    class Deaf(MemoryStore):
        def mark_wrong(self, a, b):
            raise StoreError("down")

    with SemanticCache(store=Deaf(), policy=ALL, judge=lambda *asked: False) as cache:
        ask = cache.wrap(Upstream().ask, name="ask")
        ask(RESET)
        ask(RESET_AGAIN)
        assert last_outcome().layer == "semantic"
        standing = settled(cache)
        assert (standing.audited, standing.wrong) == (1, 1)
        ask(RESET_AGAIN)
        assert last_outcome().status == "miss"


def test_the_judge_gets_texts():
    seen = []
    up = Upstream()
    with SemanticCache(store="memory://", policy=ALL, judge=lambda *texts: seen.append(texts)) as cache:
        ask = cache.wrap(up.ask)
        ask(RESET)
        up.answer = "Fresh."
        ask(RESET_AGAIN)
        assert settled(cache) == Standing(unknown=1)
    assert seen == [(RESET_AGAIN, RESET, ANSWER, "Fresh.")]


BAND = "When did {} disband?"


def asked_of_judge(messages, **policy):
    """What a judge is asked when each list of messages has been answered."""
    seen = []
    policy = Policy(audit_rate=1.0, **policy)
    with SemanticCache(store="memory://", policy=policy, judge=lambda *texts: seen.append(texts)) as cache:
        ask = cache.wrap(lambda messages: "In 1970.", name="ask")
        for one in messages:
            ask(one)
        assert last_outcome().layer == "semantic"
        assert cache.engine.auditor.wait(60)
    return seen[0][:2]


def talk(*texts):
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def test_the_judge_sees_a_rewritten_question_as_it_was_decided_upon():
    asked = asked_of_judge(
        [talk("Tell me about Queen.", "A band.", "When did they split?"), talk("And Queen?", "Too.", "Their end?")],
        context="rewrite",
        rewrite=lambda history, text: BAND.format("Queen") + "?" * ("end" in text),
    )
    assert asked == (BAND.format("Queen") + "?", BAND.format("Queen"))


def test_the_judge_sees_a_window_with_the_turns_that_were_compared():
    first, again = "Tell me about the band Queen.", "tell me about the band Queen"
    last, later = "When did they disband?", "when did they disband"
    asked = asked_of_judge([talk(first, "A band.", last), talk(again, "A band.", later)], context="window")
    assert asked == (f"{again}\n{later}", f"{first}\n{last}")


def test_without_a_judge_equal_answers_agree_and_of_others_nothing_is_known():
    up = Upstream()
    with SemanticCache(store="memory://", policy=ALL) as cache:
        ask = cache.wrap(up.ask)
        ask(RESET)
        ask(RESET_AGAIN)
        assert settled(cache) == Standing(agreed=1)
        up.answer = "Worded in another way."
        ask(RESET_AGAIN)
        assert settled(cache) == Standing(agreed=1, unknown=1)


def test_the_caller_never_waits_and_what_is_too_much_is_dropped(monkeypatch):
    monkeypatch.setattr(module, "QUEUE_LENGTH", 3)
    up, open_gate = Upstream(), threading.Event()

    def slow(prompt):
        if up.calls:
            open_gate.wait(30)
        return up.ask(prompt)

    with SemanticCache(store="memory://", policy=ALL, judge=equal) as cache:
        ask = cache.wrap(slow)
        ask(RESET)
        for _ in range(20):
            assert ask(RESET_AGAIN) == ANSWER
        assert up.calls == 1  # all served, none audited yet
        open_gate.set()
        standing = settled(cache)
        assert standing.audited + standing.dropped == 20
        assert 3 <= standing.audited <= 3 + module.WORKERS


def test_a_share_is_audited():
    up = Upstream()
    with SemanticCache(store="memory://", policy=Policy(audit_rate=0.3), judge=equal) as cache:
        ask = cache.wrap(up.ask)
        ask(RESET)
        for _ in range(200):
            ask(RESET_AGAIN)
        standing = settled(cache)
    assert 60 - 5 * 6.5 < standing.audited + standing.dropped < 60 + 5 * 6.5


@pytest.mark.parametrize("fails", ["upstream", "judge"])
def test_what_fails_in_an_audit_is_an_event(fails):
    up, events = Upstream(), []

    def upstream(prompt):
        if up.calls and fails == "upstream":
            raise ConnectionError("the provider is down")
        return up.ask(prompt)

    def judge(*texts):
        raise KeyError("mine")

    with SemanticCache(store="memory://", policy=ALL, judge=judge) as cache:
        cache.on_event(events.append)
        ask = cache.wrap(upstream)
        ask(RESET)
        assert ask(RESET_AGAIN) == ANSWER
        assert settled(cache) == Standing(failed=1)
    (event,) = events
    assert (event.kind, type(event.error)) == ("audit_error", ConnectionError if fails == "upstream" else KeyError)


@pytest.mark.parametrize("junk", ["no", 0.2, {}, "", 2])
def test_what_is_no_truth_value_is_no_verdict(junk):
    events = []
    with SemanticCache(store="memory://", policy=ALL, judge=lambda *texts: junk) as cache:
        cache.on_event(events.append)
        ask = cache.wrap(Upstream().ask)
        ask(RESET)
        ask(RESET_AGAIN)
        assert settled(cache) == Standing(failed=1)
        assert ask(RESET_AGAIN) == ANSWER
        assert last_outcome().hit  # the pair is not held to be wrong
    assert f"the judge said {junk!r}" in events[0].message


@pytest.mark.parametrize(("said", "wrong"), [(np.True_, 0), (np.False_, 1), (1, 0), (0, 1)])
def test_what_equals_a_truth_value_is_one(said, wrong):
    with SemanticCache(store="memory://", policy=ALL, judge=lambda *texts: said) as cache:
        ask = cache.wrap(Upstream().ask)
        ask(RESET)
        ask(RESET_AGAIN)
        assert settled(cache) == Standing(audited=1, wrong=wrong)


def test_a_judge_that_exits_fails_its_own_audits_only():
    exits = [True] * (module.WORKERS + 1)

    def judge(*texts):
        if exits:
            exits.pop()
            sys.exit(1)
        return True

    with SemanticCache(store="memory://", policy=ALL, judge=judge) as cache:
        events = []
        cache.on_event(events.append)
        ask = cache.wrap(Upstream().ask)
        ask(RESET)
        for n in range(module.WORKERS + 2):
            ask(RESET_AGAIN)
            assert settled(cache) == Standing(failed=min(n + 1, module.WORKERS + 1), audited=n // (module.WORKERS + 1))
    assert {event.kind for event in events} == {"audit_error"}


def test_an_audit_asks_what_was_asked_even_if_the_caller_goes_on_with_the_messages():
    asked, gate = [], threading.Event()

    def chat(messages):
        if asked:
            gate.wait(30)
        asked.append([message["content"] for message in messages])
        return ANSWER

    with SemanticCache(store="memory://", policy=ALL, judge=equal) as cache:
        ask = cache.wrap(chat)
        ask([{"role": "user", "content": RESET}])
        messages = [{"role": "user", "content": RESET_AGAIN}]
        messages.append({"role": "assistant", "content": ask(messages)})
        gate.set()
        assert settled(cache) == Standing(audited=1)
    assert asked == [[RESET], [RESET_AGAIN]]


def test_streams_are_read_to_their_end_in_the_background():
    up = Upstream()
    with SemanticCache(store="memory://", policy=ALL, judge=equal) as cache:
        stream = cache.wrap(up.stream)
        assert list(stream(RESET)) == list(stream(RESET_AGAIN)) == ANSWER.split()
        assert settled(cache) == Standing(audited=1)


@pytest.mark.parametrize("streams", [False, True])
async def test_on_an_event_loop(streams):
    up, seen = Upstream(), []

    def judge(*texts):
        seen.append(texts)
        return equal(*texts)

    async with AsyncSemanticCache(store="memory://", policy=ALL, judge=judge) as cache:
        stream, ask = cache.wrap(up.astream), cache.wrap(up.aask)

        async def answer(question):
            return " ".join([word async for word in stream(question)]) if streams else await ask(question)

        assert await answer(RESET) == await answer(RESET_AGAIN) == ANSWER
        assert last_outcome().layer == "semantic"
        assert await asyncio.to_thread(cache.engine.auditor.wait, 20)
        assert (await cache.stats()).live == {"default": Standing(audited=1)}
        up.answer = "It has changed."
        assert await answer(RESET_AGAIN) == ANSWER
        assert await asyncio.to_thread(cache.engine.auditor.wait, 20)
        assert (await cache.stats()).live["default"].wrong == 1
    assert len(seen) == 2


def test_audits_that_an_ending_loop_cancels_count_as_dropped():
    cache = SemanticCache(store="memory://", policy=ALL, judge=equal)
    up = Upstream()

    async def slow(prompt):
        if up.calls:
            await asyncio.sleep(60)
        return up.ask(prompt)

    async def main():
        ask = cache.wrap(slow)
        await ask(RESET)
        assert await ask(RESET_AGAIN) == ANSWER

    asyncio.run(main())
    assert settled(cache) == Standing(dropped=1)
    cache.close()


async def test_closing_on_the_loop_itself_does_not_wait_for_what_that_loop_has_to_do():
    up, started = Upstream(), asyncio.Event()

    async def endless(prompt):
        if up.calls:
            started.set()
            await asyncio.Event().wait()
        return up.ask(prompt)

    cache = SemanticCache(store="memory://", policy=ALL, judge=equal)
    ask = cache.wrap(endless)
    await ask(RESET)
    await ask(RESET_AGAIN)
    await started.wait()
    waits = []
    cache.engine.auditor.wait = waits.append
    cache.close()
    assert waits == []
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_audits_with_threads_of_its_own(tmp_path):
    url = f"sqlite:///{tmp_path / 'cache.sqlite'}?budget_s=20"
    code = f"""
import os
from semcache import Policy, SemanticCache
cache = SemanticCache.open({url!r}, policy=Policy(audit_rate=1.0), judge=lambda *texts: True)
ask = cache.wrap(lambda prompt: "answer", name="ask")
ask({RESET!r})
ask({RESET_AGAIN!r})
assert cache.engine.auditor.wait(60)
child = os.fork()
ask({RESET_AGAIN!r})
assert cache.engine.auditor.wait(60)
cache.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, check=True, timeout=300)
    with SemanticCache.open(url) as cache:
        assert cache.stats().live == {"default": Standing(audited=3)}


@pytest.mark.parametrize("streams", [False, True])
def test_through_an_sdk_client(streams):
    with Provider(answers={RESET: ANSWER, RESET_AGAIN: ANSWER}) as up:
        client = openai.OpenAI(base_url=up.openai_url, api_key="k", max_retries=0)
        with client, SemanticCache(store="memory://", policy=ALL, judge=equal) as cache:
            wrapped = cache.wrap(client)

            def ask(text):
                messages = [{"role": "user", "content": text}]
                answer = wrapped.chat.completions.create(model="gpt-5-mini", messages=messages, stream=streams)
                if not streams:
                    return answer.choices[0].message.content
                return "".join(c.choices[0].delta.content or "" for c in answer if c.choices)

            assert ask(RESET) == ask(RESET_AGAIN) == ANSWER
            assert settled(cache) == Standing(audited=1)
            audit = cache.stats().ledger.totals.audit
    assert (audit.calls, audit.unpriced) == (1, 0)


def test_shadow_mode_audits_with_the_answers_that_it_has():
    up = Upstream()
    with SemanticCache(store="memory://", policy=Policy(mode="shadow", audit_rate=1.0), judge=equal) as cache:
        ask, stream = cache.wrap(up.ask), cache.wrap(up.stream)
        for question in (RESET, RESET_AGAIN):
            ask(question)
            list(stream(question))
        assert settled(cache) == Standing(audited=2)
        up.answer = "It has changed."
        ask(RESET_AGAIN)
        outcome = last_outcome()
        assert settled(cache) == Standing(audited=3, wrong=1)
        assert outcome.would_serve.agrees is False
        assert cache.stats().ledger.totals.audit == Line()
