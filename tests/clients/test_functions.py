"""Plain functions before the cache: sync, async, generators of both kinds."""

import asyncio
import functools
import inspect
import threading
import time

import pytest

import semcache
from semcache import ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.stores import MemoryStore


@pytest.fixture
def cache():
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        yield cache


class Upstream:
    """A function that counts its calls and answers each with a new number."""

    def __init__(self):
        self.calls = 0

    def ask(self, prompt, **params):
        self.calls += 1
        return f"answer {self.calls} to {prompt}"


def test_a_repeat_is_answered_from_the_cache(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    assert ask("hi") == ask("hi") == "answer 1 to hi"
    assert ask("ho") == "answer 2 to ho"
    assert ask("hi") == "answer 1 to hi"
    assert last_outcome().layer == "exact"
    assert up.calls == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"model": "a"}, {"model": "b"}),
        ({"temperature": 0}, {"temperature": 0.5}),
        ({}, {"system": "be brief"}),
        ({"tools": [{"name": "a"}]}, {"tools": [{"name": "b"}]}),
    ],
)
def test_every_other_argument_is_part_of_the_key(cache, first, second):
    up = Upstream()
    ask = cache.wrap(up.ask)
    assert ask("hi", **first) != ask("hi", **second)
    assert up.calls == 2


def test_order_and_form_of_arguments_do_not_matter(cache):
    calls = []

    def ask(prompt, model="m", *, top_p=1.0, **more):
        calls.append(1)
        return "x"

    wrapped = cache.wrap(ask, name="ask")
    wrapped("hi", "m", top_p=1, a=1, b=2)
    wrapped(prompt="hi", b=2, a=1)
    wrapped("hi", model="m", top_p=1.0, b=2, a=1)
    assert len(calls) == 1


def test_signature_and_name_survive(cache):
    def ask(prompt: str, *, model: str = "m") -> str:
        """Ask."""
        return prompt

    wrapped = cache.wrap(ask)
    assert inspect.signature(wrapped) == inspect.signature(ask)
    assert (wrapped.__name__, wrapped.__doc__) == ("ask", "Ask.")


def test_messages_share_by_last_text_inside_equal_turns(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    turns = [{"role": "user", "content": "Delete it?"}, {"role": "assistant", "content": "Sure?"}]
    other = [{"role": "user", "content": "Keep it?"}, {"role": "assistant", "content": "Sure?"}]
    yes = {"role": "user", "content": "yes, do it"}
    assert ask([*turns, yes]) != ask([*other, yes])
    assert ask([*turns, yes]) == ask([*turns, {"content": "yes, do it", "role": "user"}])
    assert up.calls == 2
    request = ask.request([*turns, yes])
    assert request.text == "yes, do it"
    assert request.scope["messages"][:2] == turns


def test_a_dict_answer_is_a_fresh_one_each_time(cache):
    ask = cache.wrap(lambda prompt: {"choices": [{"text": prompt}]})
    first = ask("hi")
    first["choices"].clear()
    second = ask("hi")
    assert second == {"choices": [{"text": "hi"}]}
    second["choices"].clear()
    assert ask("hi") == {"choices": [{"text": "hi"}]}


@pytest.mark.parametrize("value", [("a", "b"), {1: "a"}, float("nan"), {1, 2}, b"bytes", object(), 2**70])
def test_what_json_would_change_is_passed_through_and_not_kept(cache, value):
    ask = cache.wrap(lambda prompt: value)
    assert ask("hi") is value
    assert ask("hi") is value
    assert last_outcome().status == "miss"
    assert "JSON" in last_outcome().reason


@pytest.mark.parametrize("value", [None, "", [], {}, 0, False, 1.5, "ünï"])
def test_falsy_answers_are_answers(cache, value):
    ask = cache.wrap(lambda prompt: value)
    ask("hi")
    assert ask("hi") == value
    assert type(ask("hi")) is type(value)
    assert last_outcome().hit


def test_an_argument_without_canonical_form_bypasses_with_an_event(cache):
    events = []
    cache.on_event(events.append)
    up = Upstream()
    ask = cache.wrap(up.ask)
    ask("hi", callback=print)
    ask("hi", callback=print)
    assert up.calls == 2
    assert last_outcome().status == "bypass"
    assert {e.kind for e in events} == {"uncanonical"}


def test_an_exception_reaches_the_caller_as_the_same_object_and_is_not_kept(cache):
    error = TimeoutError("upstream")
    calls = []

    def ask(prompt):
        calls.append(1)
        if len(calls) == 1:
            raise error
        return "fine"

    wrapped = cache.wrap(ask)
    with pytest.raises(TimeoutError) as raised:
        wrapped("hi")
    assert raised.value is error
    assert wrapped("hi") == "fine"
    assert wrapped("hi") == "fine"
    assert len(calls) == 2


def test_even_a_stop_iteration_reaches_the_caller(cache):
    empty = cache.wrap(lambda prompt: next(iter(())))
    with pytest.raises(StopIteration):
        empty("hi")
    assert len(cache.engine.performer.flights) == 0


@pytest.mark.parametrize("bad", [42, "text", None, SemanticCache, lambda: 1, lambda *, prompt: 1])
def test_what_cannot_be_wrapped_is_refused(cache, bad):
    with pytest.raises(ConfigurationError):
        cache.wrap(bad)


# Identity -------------------------------------------------------------------------------------------------------------


def closure(model):
    def ask(prompt):
        return f"{model}: {prompt}"

    return ask


def closure_over_object(model):
    holder = Upstream()
    holder.model = model

    def ask(prompt):
        return f"{holder.model}: {prompt}"

    return ask


def with_arguments(prompt, model):
    return f"{model}: {prompt}"


def bare(prompt):
    return prompt


def decorated(model):
    @functools.wraps(bare)
    def ask(prompt):
        return with_arguments(bare(prompt), model)

    return ask


@pytest.mark.parametrize(
    "make", [closure, closure_over_object, decorated, lambda m: functools.partial(with_arguments, model=m)]
)
def test_functions_with_one_name_do_not_share(cache, make):
    assert cache.wrap(make("a"))("hi") == "a: hi"
    assert cache.wrap(make("b"))("hi") == "b: hi"


def test_two_lambdas_do_not_share(cache):
    assert cache.wrap(lambda p: "one " + p)("hi") == "one hi"
    assert cache.wrap(lambda p: "two " + p)("hi") == "two hi"


def test_objects_do_not_share(cache):
    class Client:
        def __init__(self, model):
            self.model = model

        def ask(self, prompt):
            return f"{self.model}: {prompt}"

    assert cache.wrap(Client("a").ask)("hi") == "a: hi"
    assert cache.wrap(Client("b").ask)("hi") == "b: hi"


def test_one_function_wrapped_twice_shares_and_a_name_overrides(cache):
    calls = []

    def ask(prompt):
        calls.append(1)
        return "x"

    cache.wrap(closure("a"))("hi")
    cache.wrap(closure("a"))("hi")
    assert last_outcome().hit
    cache.wrap(ask, name="mine")("hi")
    cache.wrap(Upstream().ask, name="mine")("hi")
    assert last_outcome().hit


# Options --------------------------------------------------------------------------------------------------------------


def test_tenants_and_namespaces_never_meet(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    answers = {ask("hi")}
    for options in ({"tenant": "a"}, {"tenant": "b"}, {"namespace": "n"}, {"namespace": "n", "tenant": "a"}):
        with cache.options(**options):
            answers.add(ask("hi"))
            assert ask("hi") in answers
            assert last_outcome().hit
    assert up.calls == len(answers) == 5


def test_bypass_and_refresh(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    ask("hi")
    with cache.options(bypass=True):
        assert ask("hi") == "answer 2 to hi"
    assert ask("hi") == "answer 1 to hi"
    with cache.options(refresh=True):
        assert ask("hi") == "answer 3 to hi"
    assert ask("hi") == "answer 3 to hi"


def test_ttl_ends_an_answer():
    up, now = Upstream(), [1_800_000_000.0]

    def clock():
        return now[0]

    with SemanticCache(store=MemoryStore(clock=clock), policy=Policy(semantic=False), clock=clock) as cache:
        ask = cache.wrap(up.ask)
        with cache.options(ttl=60.0):
            ask("hi")
        now[0] += 59.0
        assert ask("hi") == "answer 1 to hi"
        now[0] += 2.0
        assert ask("hi") == "answer 2 to hi"


def test_invalidate_by_tag_id_namespace_scope(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    with cache.options(tags=["pricing"]):
        ask("a")
    ask("b")
    assert cache.invalidate(tag="pricing") == 1
    assert not cache.lookup(ask.request("a")).outcome.hit
    found = cache.lookup(ask.request("b"))
    assert found.response == "answer 2 to b"
    assert cache.invalidate(id=found.outcome.entry_id) == 1
    ask("c")
    assert cache.invalidate(scope=cache.key(ask.request("c")).scope_id) == 1
    ask("d")
    assert cache.invalidate(namespace="other") == 0
    assert cache.invalidate(namespace="default") == 1
    with pytest.raises(ConfigurationError):
        cache.invalidate()


def test_a_hot_request_bypasses(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    assert ask("hi", temperature=1.2) != ask("hi", temperature=1.2)
    assert last_outcome().status == "bypass"
    assert ask("hi", temperature=1.0) == ask("hi", temperature=1.0)


# Manual look-up -------------------------------------------------------------------------------------------------------


def test_lookup_and_store_by_hand(cache):
    assert cache.lookup("hi").response is None
    assert cache.store("hi", {"text": "ho"}, semcache.Usage(3, 4)).stored
    found = cache.lookup("hi")
    assert found.response == {"text": "ho"}
    assert found.outcome.usage == semcache.Usage(3, 4)
    assert cache.lookup([{"role": "user", "content": "hi"}]).response is None


def test_diff_names_the_fields(cache):
    ask = cache.wrap(Upstream().ask)
    a, b = ask.request("hi", model="a", seed=1), ask.request("hi", model="b", seed=1)
    assert [(d.path, d.a, d.b) for d in cache.diff(a, b)] == [("request.arguments.model", "a", "b")]
    assert cache.diff(a, a) == []


def test_explain_and_stats(cache):
    ask = cache.wrap(Upstream().ask)
    assert cache.explain(ask.request("hi")).status == "miss"
    ask("hi")
    explained = cache.explain(last_outcome())
    assert (explained.status, explained.exact) == ("hit", True)
    ask("hi")
    totals = cache.stats().ledger.totals
    assert (totals.requests, totals.exact_hits, totals.misses) == (2, 1, 1)


def test_hooks_get_every_outcome_and_cannot_hurt(cache):
    seen = []

    def bad(outcome):
        raise RuntimeError("hook")

    cache.on_outcome(bad)
    cache.on_outcome(lambda outcome: seen.append(outcome.status))
    ask = cache.wrap(Upstream().ask)
    assert ask("hi") == ask("hi") == "answer 1 to hi"
    assert seen == ["miss", "hit"]


def test_report_wrong_evicts(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    ask("hi")
    ask("hi")
    cache.report_wrong(last_outcome())
    assert ask("hi") == "answer 2 to hi"
    with pytest.raises(ConfigurationError):
        cache.report_wrong(last_outcome())


# Collapse -------------------------------------------------------------------------------------------------------------


def test_fifty_threads_on_a_new_key_make_one_call(cache):
    calls, gate, answers = [], threading.Barrier(50), []

    def ask(prompt):
        calls.append(1)
        time.sleep(0.2)
        return "x"

    wrapped = cache.wrap(ask)

    def one():
        gate.wait()
        answers.append(wrapped("hi"))

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert answers == ["x"] * 50
    totals = cache.stats().ledger.totals
    assert totals.collapsed.calls + totals.hits == 49
    assert totals.collapsed.calls > 0
    assert totals.misses == 1


async def test_fifty_tasks_on_a_new_key_make_one_call(cache):
    calls = []

    async def ask(prompt):
        calls.append(1)
        await asyncio.sleep(0.1)
        return "x"

    wrapped = cache.wrap(ask)
    assert await asyncio.gather(*(wrapped("hi") for _ in range(50))) == ["x"] * 50
    assert len(calls) == 1
    assert cache.stats().ledger.totals.collapsed.calls == 49


async def test_a_cancelled_leader_does_not_cancel_its_followers(cache):
    calls, asked, never = [], asyncio.Event(), asyncio.Event()

    async def ask(prompt):
        calls.append(1)
        asked.set()
        if len(calls) == 1:
            await never.wait()
        return len(calls)

    wrapped = cache.wrap(ask)
    leader = asyncio.create_task(wrapped("hi"))
    await asked.wait()
    followers = [asyncio.create_task(wrapped("hi")) for _ in range(10)]
    await asyncio.sleep(0.02)
    leader.cancel()
    assert await asyncio.gather(*followers) == [2] * 10
    assert leader.cancelled()
    assert len(calls) == 2


async def test_a_failing_upstream_is_asked_by_everyone_in_the_end(cache):
    calls = []

    async def ask(prompt):
        calls.append(1)
        await asyncio.sleep(0.01)
        raise KeyError(len(calls))

    wrapped = cache.wrap(ask)
    results = await asyncio.gather(*(wrapped("hi") for _ in range(10)), return_exceptions=True)
    assert all(isinstance(r, KeyError) for r in results)
    assert len(calls) == 10
    assert len({id(r) for r in results}) == 10


# Streams --------------------------------------------------------------------------------------------------------------


def test_a_generator_is_recorded_and_replayed(cache):
    calls = []

    def stream(prompt):
        calls.append(1)
        yield from ["a", {"b": 1}, None]

    wrapped = cache.wrap(stream)
    assert inspect.isgeneratorfunction(wrapped)
    assert list(wrapped("hi")) == list(wrapped("hi")) == ["a", {"b": 1}, None]
    assert len(calls) == 1
    assert last_outcome().hit


@pytest.mark.parametrize("end", ["close", "raise"])
def test_a_stream_that_is_not_read_to_its_end_is_not_kept(cache, end):
    closed = []

    def stream(prompt):
        try:
            yield 1
            if end == "raise" and not closed:
                raise KeyError("cut")
            yield 2
        finally:
            closed.append(1)

    wrapped = cache.wrap(stream)
    if end == "close":
        chunks = wrapped("hi")
        assert next(chunks) == 1
        chunks.close()
    else:
        with pytest.raises(KeyError, match="cut"):
            list(wrapped("hi"))
    assert closed == [1]
    assert list(wrapped("hi")) == [1, 2]
    assert not last_outcome().hit
    assert len(cache.engine.performer.flights) == 0


def test_what_the_caller_does_to_a_chunk_is_not_recorded(cache):
    def stream(prompt):
        yield {"delta": ["a"]}
        yield {"delta": ["b"]}

    wrapped = cache.wrap(stream)
    for chunk in wrapped("hi"):
        chunk["delta"].clear()
    assert list(wrapped("hi")) == [{"delta": ["a"]}, {"delta": ["b"]}]


async def test_an_async_generator_is_recorded_and_replayed(cache):
    calls = []

    async def stream(prompt):
        calls.append(1)
        for i in range(3):
            yield i

    wrapped = cache.wrap(stream)
    assert [c async for c in wrapped("hi")] == [0, 1, 2]
    assert [c async for c in wrapped("hi")] == [0, 1, 2]
    assert len(calls) == 1
    assert inspect.isasyncgenfunction(wrapped)


async def test_a_cancelled_async_stream_is_not_kept(cache):
    async def stream(prompt):
        yield 1
        await asyncio.sleep(10)
        yield 2

    wrapped = cache.wrap(stream)

    async def read():
        async for _ in wrapped("hi"):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(cache.engine.performer.flights) == 0
    assert not cache.lookup(wrapped.request("hi")).outcome.hit


def test_asking_the_same_inside_a_stream_does_not_hang(cache):
    def stream(prompt):
        yield 1
        yield 2

    wrapped = cache.wrap(stream)
    assert [list(wrapped("hi")) for _ in wrapped("hi")] == [[1, 2], [1, 2]]


# A fork ---------------------------------------------------------------------------------------------------------------


def test_usable_in_a_forked_child(cache):
    import os

    ask = cache.wrap(Upstream().ask)
    ask("hi")
    pid = os.fork()
    if pid == 0:
        ok = False
        try:
            ok = ask("hi") == "answer 1 to hi" and ask("child") == "answer 2 to child"
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_keyword_named_as_a_positional_argument_is_another_argument(cache):
    calls = []

    @cache.wrap
    def ask(prompt, system="", /, **params):
        calls.append((prompt, system, params))
        return f"answer {len(calls)}"

    asked = [("hi", "a", {"prompt": "p"}), ("ho", "a", {"prompt": "p"}), ("hi", "b", {"prompt": "p", "system": "a"})]
    for prompt, system, params in asked + asked:
        ask(prompt, system, **params)
    assert calls == asked


def test_a_function_that_calls_itself_can_be_wrapped(cache):
    @cache.wrap
    def countdown(prompt):
        return prompt if prompt == "0" else f"{prompt} {countdown(str(int(prompt) - 1))}"

    assert countdown("2") == countdown("2") == "2 1 0"
    assert last_outcome().hit


def module(template):
    """A program that has a function and its template."""
    names = {"__name__": "program"}
    exec(f"TEMPLATE = {template!r}\ndef ask(prompt): return (lambda: TEMPLATE + prompt)()", names)
    return names["ask"]


def test_an_edited_template_is_another_function(cache):
    assert cache.wrap(module("In French: "))("hi") == "In French: hi"
    assert cache.wrap(module("In French: "))("hi") == "In French: hi"
    assert last_outcome().hit
    assert cache.wrap(module("In Greek: "))("hi") == "In Greek: hi"


CUT = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "The lift is"}}
WHOLE = {**CUT, "finish_reason": "stop"}
USED = {"prompt_tokens": 3, "completion_tokens": 4}
ASKED_BACK = {"toolUse": {"toolUseId": "t", "name": "look", "input": {}}}


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        ({"object": "chat.completion", "choices": [CUT]}, False),
        (
            {"object": "chat.completion", "choices": [WHOLE], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
            True,
        ),
        ({"object": "response", "status": "incomplete", "output": []}, False),
        ({"type": "message", "content": [{"type": "text", "text": "The"}], "stop_reason": "max_tokens"}, False),
        ({"output": {"message": {"content": [{"text": "The"}]}}, "stopReason": "guardrail_intervened"}, False),
        ({"output": {"message": {"content": [ASKED_BACK]}}, "stopReason": "tool_use"}, True),
        ({"type": "message", "text": "an answer of the program's own"}, True),
    ],
)
def test_of_a_providers_answer_the_codec_says_whether_it_is_whole(cache, answer, stored):
    ask = cache.wrap(lambda prompt: answer)
    assert ask("hi") == answer
    assert last_outcome().stored is stored
    if "usage" in answer:
        assert last_outcome().usage.total == 7


def test_what_json_cannot_hold_is_handed_on(cache):
    deep = knot = []
    for _ in range(250):
        deep = [deep]
    knot.append(knot)
    answers = {"deep": deep, "knot": knot, "half": ["\ud800"], "half a text": "\ud800"}
    ask = cache.wrap(lambda prompt: answers[prompt], name="ask")
    for prompt, answer in answers.items():
        assert ask(prompt) is answer
        assert not last_outcome().stored
    for answer in answers.values():  # which the function closes over
        assert cache.wrap(lambda prompt: answer)("hi") is answer  # noqa: B023
