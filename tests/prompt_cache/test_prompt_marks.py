"""Marks in real bodies: nothing else changes, the key stays, and the SDKs' own types know the fields."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.keys import make_key
from semcache.prompt_cache import Plan, Point, annotate, outline
from semcache.wire.anthropic import AnthropicMessages
from semcache.wire.openai_chat import OpenAIChat

TEXT = st.text(max_size=12)
WORDS = st.text(min_size=1, max_size=12)
STYLES = {
    "anthropic": "cache_control",
    "openai_chat": "breakpoints",
    "openai_responses": "breakpoints",
    "bedrock": "cache_point",
}
TTLS = {"cache_control": ["5m", "1h"], "cache_point": ["5m", "1h"], "breakpoints": ["30m", "12h"]}


def message(block: st.SearchStrategy[dict[str, Any]], roles: list[str], strings: bool = True) -> st.SearchStrategy[Any]:
    content: st.SearchStrategy[Any] = st.lists(block, min_size=1, max_size=3)
    return st.fixed_dictionaries({"role": st.sampled_from(roles), "content": content | WORDS if strings else content})


def typed(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), "text": TEXT})


def bodies(api: str, strings: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    schema = {"type": "object", "properties": {"cache_control": {"type": "string"}}}
    if api == "anthropic":
        thinking = st.just({"type": "thinking", "thinking": "hm", "signature": "s"})
        tool = st.fixed_dictionaries({"name": WORDS, "input_schema": st.just(schema)})
        system = st.lists(typed("text"), max_size=2)
        return st.fixed_dictionaries(
            {
                "model": st.just("m"),
                "tools": st.lists(tool, max_size=2),
                "system": system | WORDS if strings else system,
                "messages": st.lists(
                    message(typed("text") | thinking, ["user", "assistant"], strings), min_size=1, max_size=4
                ),
            }
        )
    if api == "bedrock":
        block = st.fixed_dictionaries({"text": WORDS})
        return st.fixed_dictionaries(
            {
                "modelId": st.just("m"),
                "system": st.lists(block, max_size=2),
                "messages": st.lists(message(block, ["user", "assistant"], False), min_size=1, max_size=4),
                "toolConfig": st.just({"tools": [{"toolSpec": {"name": "t", "inputSchema": {"json": schema}}}]}),
            }
        )
    kind, field = ("text", "messages") if api == "openai_chat" else ("input_text", "input")
    turn = message(typed(kind), ["system", "developer", "user", "assistant"], strings)
    return st.fixed_dictionaries({"model": st.just("m"), field: st.lists(turn, min_size=1, max_size=5)})


def any_plan(api: str, body: dict[str, Any], data: st.DataObject) -> Plan:
    sketch = outline(api, body)
    assert sketch is not None
    assert not sketch.marked
    style = STYLES[api]
    places = list(sketch.boundaries)
    chosen = data.draw(st.lists(st.sampled_from(places), max_size=4, unique=True)) if places else []
    chosen.sort(key=places.index)
    return Plan(style, tuple(Point(b, data.draw(st.sampled_from(TTLS[style]))) for b in chosen), "sc-1")


def stripped(value: Any) -> Any:
    """Without marks, and a string as the block that it stands for."""
    if isinstance(value, list):
        return [stripped(item) for item in value if not (isinstance(item, dict) and "cachePoint" in item)]
    if isinstance(value, dict):
        return {name: stripped(item) for name, item in value.items() if name != "prompt_cache_breakpoint"}
    return value


def plain(api: str, body: dict[str, Any]) -> dict[str, Any]:
    body = stripped(body)
    body = {k: v for k, v in body.items() if k not in ("prompt_cache_options", "prompt_cache_key")}
    field = "input" if api == "openai_responses" else "messages"
    wrap = "input_text" if api == "openai_responses" else "text"
    for holder, name in [(body, "system"), *((item, "content") for item in body[field])]:
        if isinstance(holder.get(name), str):
            holder[name] = [{"type": wrap, "text": holder[name]}]
        if isinstance(holder.get(name), list):
            holder[name] = [{k: v for k, v in block.items() if k != "cache_control"} for block in holder[name]]
    if api == "anthropic":
        body["tools"] = [{k: v for k, v in tool.items() if k != "cache_control"} for tool in body["tools"]]
    return body


def fields(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [name for k, v in value.items() for name in (k, *fields(v))]
    return [name for item in value for name in fields(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("api", STYLES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_only_marks_change(api: str, data: st.DataObject) -> None:
    body = data.draw(bodies(api))
    decided, before = any_plan(api, body, data), copy.deepcopy(body)
    sent = annotate(body, decided)
    assert body == before
    assert plain(api, sent) == plain(api, copy.deepcopy(body))
    assert list(sent)[: len(body)] == list(body)
    assert fields(plain(api, sent)) == fields(plain(api, copy.deepcopy(body)))
    marks = str(sent).count("'ephemeral'") + str(sent).count("'cachePoint'") + str(sent).count("_breakpoint'")
    assert marks == len(decided.points)


@pytest.mark.parametrize("api", STYLES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_an_annotated_body_is_taken_for_the_callers_own(api: str, data: st.DataObject) -> None:
    body = data.draw(bodies(api))
    decided = any_plan(api, body, data)
    sent = annotate(body, decided)
    again = outline(api, sent)
    assert again is not None
    assert annotate(sent, decided) == sent
    assert again.marked is (bool(decided.points) or decided.style == "breakpoints")


@pytest.mark.parametrize("codec", [AnthropicMessages(), OpenAIChat()], ids=lambda codec: str(codec.name))
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_cache_key_does_not_see_marks(codec: AnthropicMessages | OpenAIChat, data: st.DataObject) -> None:
    body = data.draw(bodies(codec.name, strings=False))
    sent = annotate(body, any_plan(codec.name, body, data))
    a, b = (codec.parse(each, upstream="u", headers={}) for each in (body, sent))
    assert make_key(a, "n", None) == make_key(b, "n", None)


def test_fields_set_by_the_caller_stay() -> None:
    body = {"model": "m", "prompt_cache_key": "mine", "messages": [{"role": "user", "content": "?"}]}
    sent = annotate(body, Plan("breakpoints", key="ours"))
    assert sent == {**body, "prompt_cache_options": {"mode": "explicit"}}
    assert annotate(body, Plan("")) == body
    assert annotate(body, Plan("key", key="ours")) == body
    assert annotate(body, Plan("salt", salt="s")) == {**body, "cache_salt": "s"}


def test_a_prefix_is_the_same_as_string_and_as_block() -> None:
    for api, wrap, field in (("openai_chat", "text", "messages"), ("openai_responses", "input_text", "input")):
        turns = [
            [{"role": "user", "content": c}, {"role": "user", "content": "?"}]
            for c in ("x", [{"type": wrap, "text": "x"}])
        ]
        one, other = (outline(api, {field: each}) for each in turns)
        assert one is not None
        assert other is not None
        assert one.boundaries[0].prefix == other.boundaries[0].prefix


def test_anthropic_types_know_every_mark() -> None:
    types = pytest.importorskip("anthropic.types")
    from pydantic import TypeAdapter

    body = {
        "model": "m",
        "max_tokens": 5,
        "tools": [{"name": "t", "input_schema": {"type": "object"}}],
        "system": "be brief",
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
    }
    sketch = outline("anthropic", body)
    assert sketch is not None
    assert len(sketch.boundaries) == 4
    ttls = ["1h", "1h", "5m", "5m"]
    sent = annotate(body, Plan("cache_control", tuple(map(Point, sketch.boundaries, ttls))))
    blocks = [(types.ToolParam, sent["tools"][0]), (types.TextBlockParam, sent["system"][0])]
    blocks += [(types.TextBlockParam, turn["content"][0]) for turn in sent["messages"][:2]]
    for kind, block in blocks:
        TypeAdapter(kind).validate_python(block)
        TypeAdapter(types.CacheControlEphemeralParam).validate_python(block["cache_control"])
        assert block.keys() <= kind.__annotations__.keys()
    assert sent["messages"][2] == body["messages"][2]


def test_openai_types_know_every_mark() -> None:
    pytest.importorskip("openai")
    from openai.types.chat import ChatCompletionContentPartTextParam, completion_create_params
    from openai.types.responses import ResponseInputTextParam, response_create_params
    from pydantic import TypeAdapter

    cases = (
        ("openai_chat", "messages", ChatCompletionContentPartTextParam, completion_create_params, "30m"),
        ("openai_responses", "input", ResponseInputTextParam, response_create_params, "12h"),
    )
    for api, field, part, params, ttl in cases:
        body = {field: [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "?"}]}
        sketch = outline(api, body)
        assert sketch is not None
        sent = annotate(body, Plan("breakpoints", (Point(sketch.boundaries[0], ttl),), "k"))
        marked = sent[field][0]["content"][0]
        TypeAdapter(part).validate_python(marked)
        assert marked.keys() <= part.__annotations__.keys()
        TypeAdapter(params.PromptCacheOptions).validate_python(sent["prompt_cache_options"])
        assert sent["prompt_cache_options"].keys() <= params.PromptCacheOptions.__annotations__.keys()


def test_bedrock_points_stand_behind_their_block() -> None:
    body = {
        "modelId": "m",
        "toolConfig": {"tools": [{"toolSpec": {"name": "t"}}]},
        "system": [{"text": "a"}, {"text": "b"}],
        "messages": [{"role": "user", "content": [{"text": "a"}]}, {"role": "user", "content": [{"text": "b"}]}],
    }
    sketch = outline("bedrock", body)
    assert sketch is not None
    ttls = ["1h", "1h", "5m", "5m"]
    sent = annotate(body, Plan("cache_point", tuple(map(Point, sketch.boundaries, ttls))))
    hour, five = {"cachePoint": {"type": "default", "ttl": "1h"}}, {"cachePoint": {"type": "default"}}
    assert sent["toolConfig"]["tools"] == [{"toolSpec": {"name": "t"}}, hour]
    assert sent["system"] == [{"text": "a"}, hour, {"text": "b"}, five]
    assert sent["messages"][0]["content"] == [{"text": "a"}, five]
    assert sent["messages"][1] == body["messages"][1]


def test_litellm_takes_the_mark_of_a_tools_answer_on_the_whole_message() -> None:
    tool = {"type": "function", "function": {"name": "t"}}
    answer = {"role": "tool", "tool_call_id": "1", "content": "fine"}
    body = {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, answer, {"role": "user", "content": "?"}],
        "tools": [tool],
    }
    sketch = outline("litellm", body)
    assert sketch is not None
    mark = {"cache_control": {"type": "ephemeral"}}
    sent = annotate(body, Plan("cache_control", tuple(Point(b, "5m") for b in sketch.boundaries)))
    assert sent["tools"] == [{**tool, **mark}]
    assert sent["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": "s", **mark}]},
        {**answer, **mark},
        {"role": "user", "content": "?"},
    ]
    for other in ({"type": "mcp"}, {"type": "function", "defer_loading": True}):
        deferred = outline("litellm", {**body, "tools": [tool, other]})
        assert deferred is not None
        assert [boundary.path[0] for boundary in deferred.boundaries] == ["messages", "messages"]
