"""Plain functions before the cache: what is one request, and what is an answer."""

import functools
import inspect

import pytest
from counting import Upstream

from semcache import ConfigurationError, SemanticCache, last_outcome


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
