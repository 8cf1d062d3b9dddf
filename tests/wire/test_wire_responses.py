"""What of a Responses request becomes the scope, the fuzzy text, or a bypass; and which answers may be kept."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.context import loosen
from semcache.keys import canonical
from semcache.live.answers import answer_text
from semcache.types import Request, Usage
from semcache.wire import find
from semcache.wire._json import dumps
from semcache.wire.openai_responses import OpenAIResponses

CODEC = OpenAIResponses()
PNG = base64.b64encode(b"not really a picture").decode()


def parse(body: dict[str, Any], **headers: str) -> Request:
    return CODEC.parse(body, upstream="https://host/v1", headers={n.replace("_", "-"): v for n, v in headers.items()})


def ask(given: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "input": given, "store": False, **fields}


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def text(value: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "input_text", "text": value, **fields}


def identity(request: Request) -> tuple[bytes, str | None]:
    return canonical(request.scope), request.text


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/v1/responses", True),
        ("POST", "/openai/responses", True),
        ("GET", "/v1/responses", False),
        ("POST", "/v1/responses/resp_1/cancel", False),
        ("POST", "/v1/responses/compact", False),
        ("POST", "/v1/responses/input_tokens", False),
    ],
)
def test_find(method: str, path: str, found: bool) -> None:
    codec = find(method, path)
    assert (codec is not None and codec.name == "openai_responses") is found


def test_the_text_leaves_a_marker_behind() -> None:
    one, other = parse(ask("one")), parse(ask("other"))
    assert (one.text, other.text) == ("one", "other")
    assert one.scope == other.scope
    assert one.exact_only is one.bypass is None


@pytest.mark.parametrize(
    "spelling", [[user("hi")], [user("hi", type="message")], [user([text("hi")])], [user([text("hi")], type="message")]]
)
def test_one_text_is_one_request_however_it_is_spelt(spelling: list[Any]) -> None:
    assert identity(parse(ask(spelling))) == identity(parse(ask("hi")))


def test_the_last_text_part_is_fuzzy_and_everything_before_is_exact() -> None:
    def of(system: str, first: str, last: str) -> Request:
        return parse(ask([{"role": "developer", "content": system}, user([text(first), text(last)])]))

    assert of("s", "a", "b").text == "b"
    assert of("s", "a", "b").scope == of("s", "a", "c").scope
    assert of("s", "a", "b").scope != of("s", "x", "b").scope
    assert of("s", "a", "b").scope != of("x", "a", "b").scope


def test_an_earlier_answer_is_its_text_however_it_is_handed_back() -> None:
    part = {"type": "output_text", "text": "Which one?", "annotations": [], "logprobs": []}
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    short = {"role": "assistant", "content": [{"type": "output_text", "text": "Which one?"}]}
    requests = [parse(ask([user("Delete it."), turn, user("The first.")])) for turn in (whole, short)]
    assert identity(requests[0]) == identity(requests[1])
    cited = {**whole, "content": [{**part, "annotations": [{"type": "file_path", "file_id": "f", "index": 0}]}]}
    assert identity(parse(ask([user("Delete it."), cited, user("The first.")]))) != identity(requests[0])
    loose = loosen(requests[0], "window", 2)
    assert [turn["role"] for turn in loose.history] == ["user", "assistant"]
    assert loose.scope != requests[0].scope


def test_the_marker_cannot_be_forged() -> None:
    assert parse(ask([user({"$fuzzy": True})])).bypass
    forged = parse(ask([user([text({"$fuzzy": True})])]))
    assert forged.exact_only
    assert identity(forged) != identity(parse(ask("")))


TURNS = [user("weather?"), {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]


@pytest.mark.parametrize(
    "given",
    [
        "",
        [user([{"type": "input_image", "file_id": "f"}])],
        [user("hi"), {"role": "assistant", "content": "Sure,"}],
        [*TURNS, {"type": "function_call_output", "call_id": "c", "output": "sunny"}],
    ],
)
def test_without_a_last_text_of_the_user_only_the_exact_tier_is_left(given: Any) -> None:
    request = parse(ask(given))
    assert request.exact_only
    assert request.bypass is None


# State at the provider's -------------------------------------------------------------------------------------------


def test_what_may_be_continued_from_is_only_matched_exactly() -> None:
    left_out = parse({"model": "m", "input": "hi"})
    assert left_out.bypass is None
    assert (left_out.exact_only or "").startswith("store")
    assert identity(left_out) == identity(parse(ask(store=None)))
    # An answer that the provider did not keep must not reach somebody who will continue from it.
    assert identity(left_out) != identity(parse(ask()))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "server-side state: previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "server-side state: conversation"),
        ({"background": True}, "server-side state: background"),
        ({"prompt": {"id": "pmpt_1"}}, "server-side state: prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}, user("hi")]}, "server-side state: item_reference"),
        ({"input": [{"id": "msg_1"}, user("hi")]}, "server-side state: item_reference"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt-cache warm-up"),
        ({"model": "o4-mini-deep-research"}, "live web search"),
        ({"tools": [{"type": "web_search"}]}, "server tool: web_search"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "server tool: file_search"),
        ({"tools": [{"type": "code_interpreter", "container": {}}]}, "server tool: code_interpreter"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "server tool: mcp"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]}, "server tool: mcp"),
        ({"tools": [{"name": "f"}]}, "server tool"),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}, user("hi")]}, "server tool: mcp"),
        ({"input": None}, "unknown shape: input"),
        ({"input": []}, "unknown shape: no input"),
        ({"input": ["hi"]}, "unknown shape: input"),
        ({"input": [user(5)]}, "unknown shape: message content"),
        ({"input": [user(["hi"])]}, "unknown shape: content parts"),
        ({"stream": "yes"}, "unknown shape: stream"),
        ({"store": "no"}, "unknown shape: store"),
        ({"tools": "x"}, "unknown shape: tools"),
        ({"model": None}, "unknown shape: model"),
    ],
)
def test_bypass(fields: dict[str, Any], reason: str) -> None:
    assert (parse(ask(**fields)).bypass or "").startswith(reason)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "name": "f", "parameters": {}, "strict": True},
        {"type": "custom", "name": "f"},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
        {"type": "local_shell"},
    ],
)
def test_tools_that_run_at_the_callers_are_no_reason_to_bypass(tool: dict[str, Any]) -> None:
    assert parse(ask(tools=[tool])).bypass is None
    assert identity(parse(ask(tools=[tool]))) != identity(parse(ask()))


# The key ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True},
        {"stream": True, "stream_options": {"include_obfuscation": False}},
        {"background": False},
        {"previous_response_id": None},
        {"metadata": {"a": "b"}},
        {"user": "u"},
        {"safety_identifier": "s"},
        {"prompt_cache_key": "k"},
        {"prompt_cache_options": {"mode": "explicit"}},
        {"prompt_cache_retention": "24h"},
        {"service_tier": "flex"},
    ],
)
def test_transport_only_fields_are_no_part_of_the_key(fields: dict[str, Any]) -> None:
    request = parse(ask(**fields))
    assert identity(request) == identity(parse(ask()))
    assert request.bypass is None
    assert request.stream is fields.get("stream", False)


SCOPE = {
    "model": "other",
    "include": ["message.output_text.logprobs"],
    "instructions": "be brief",
    "max_output_tokens": 5,
    "max_tool_calls": 1,
    "moderation": {"model": "m"},
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low"},
    "temperature": 0.5,
    "text": {"format": {"type": "json_object"}},
    "tool_choice": "none",
    "top_logprobs": 2,
    "top_p": 0.5,
    "truncation": "auto",
    "a_field_of_next_year": 1,
}


@pytest.mark.parametrize(("field", "value"), SCOPE.items())
def test_every_other_field_is_part_of_the_scope(field: str, value: Any) -> None:
    request = parse(ask(**{field: value}))
    assert identity(request) != identity(parse(ask()))
    assert request.bypass is None


@pytest.mark.parametrize("header", ["openai_organization", "openai_project", "openai_beta"])
def test_headers_that_change_the_answer_are_part_of_the_scope(header: str) -> None:
    assert identity(parse(ask(), **{header: "a"})) != identity(parse(ask()))
    assert identity(parse(ask(), x_request_id="1", authorization="Bearer x")) == identity(parse(ask()))


def test_cache_marks_are_taken_out() -> None:
    point = {"prompt_cache_breakpoint": {"mode": "explicit"}}

    def of(**marks: Any) -> Request:
        result = {"type": "function_call_output", "call_id": "c", "output": [text("sunny", **marks)]}
        system = {"role": "developer", "content": [text("be brief", **marks)]}
        return parse(ask([system, *TURNS, result, user([text("hi", **marks)])]))

    assert identity(of(**point)) == identity(of())
    assert of().text == "hi"


@pytest.mark.parametrize(
    "attach",
    [
        lambda data: {"type": "input_image", "image_url": f"data:image/png;base64,{data}", "detail": "auto"},
        lambda data: {"type": "input_file", "file_data": f"data:application/pdf;base64,{data}"},
        lambda data: {"type": "input_file", "file_data": data},
    ],
)
def test_attachments_stand_as_digests_of_their_content(attach: Any) -> None:
    def of(data: str) -> Request:
        return parse(ask([user([attach(data), text("what is it?")])]))

    assert of(PNG).text == "what is it?"
    assert PNG.encode() not in canonical(of(PNG).scope)
    assert identity(of(PNG)) == identity(of(PNG[:8] + "\n" + PNG[8:])) != identity(of("b3RoZXI="))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("input_text"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
part = st.dictionaries(
    st.sampled_from(["type", "text", "image_url", "file_data", "prompt_cache_breakpoint"]), json_values
)
item = st.dictionaries(
    st.sampled_from(["type", "role", "content", "output", "tools", "id"]),
    json_values | st.lists(part) | st.just("user"),
)
fields = st.dictionaries(st.sampled_from([*SCOPE, "input", "tools", "stream", "store", "prompt"]), json_values)


@settings(max_examples=150, deadline=None)
@given(fields, st.lists(item, max_size=3) | json_values)
def test_any_body_is_parsed_or_bypassed_and_never_changed(body: dict[str, Any], given: Any) -> None:
    body = {"model": "m", **body, "input": given}
    before = copy.deepcopy(body)
    request = parse(body)
    assert repr(body) == repr(before)
    assert request.api == "openai_responses"
    if not isinstance(given, (str, list)):
        assert request.bypass


def test_the_callers_bytes_are_sent() -> None:
    assert CODEC.forward(ask(stream=True), ask_usage=True) is None


# Answers ----------------------------------------------------------------------------------------------------------


def answer(*output: Any, **fields: Any) -> dict[str, Any]:
    return {"object": "response", "status": "completed", "output": list(output), **fields}


def said(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts), "status": "completed", **fields}


TEXT = {"type": "output_text", "text": "hi", "annotations": []}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
THOUGHT = {"type": "reasoning", "id": "rs", "summary": []}


@pytest.mark.parametrize(
    ("body", "keep", "reason"),
    [
        (answer(said(TEXT)), "all", ""),
        (answer(THOUGHT, said(TEXT), error=None, previous_response_id=None, moderation=None), "all", ""),
        (answer(CALL), "exact", "tool calls"),
        (answer(said(TEXT), {"type": "custom_tool_call", "call_id": "c", "input": "x"}), "exact", "tool calls"),
        (answer({**THOUGHT, "encrypted_content": "x"}, said(TEXT)), "exact", "reasoning"),
        (answer({**THOUGHT, "summary": [{"text": "x"}]}, said(TEXT)), "exact", "reasoning"),
        (answer({**THOUGHT, "content": [{"text": "x"}]}, said(TEXT)), "exact", "reasoning"),
        (answer(said(TEXT), moderation={"input": {}}), "exact", "moderation"),
        *[
            (answer(said(TEXT), status=status), "never", f"status: {status}")
            for status in ("incomplete", "failed", "cancelled", "queued", "in_progress", "of next year", None)
        ],
        (answer(said(TEXT, status="incomplete")), "never", "output with status: incomplete"),
        (answer(said(TEXT), {**CALL, "status": "in_progress"}), "never", "output with status: in_progress"),
        (answer(said({"type": "refusal", "refusal": "no"})), "never", "refusal"),
        (answer(said(TEXT, {"type": "output_audio"})), "never", "content of type output_audio"),
        (answer(said({**TEXT, "annotations": [{"type": "url_citation"}]})), "never", "citations"),
        (answer({"type": "web_search_call"}, said(TEXT)), "never", "output of type web_search_call"),
        (answer({"type": "compaction"}, said(TEXT)), "never", "output of type compaction"),
        (answer("x"), "never", "output of type None"),
        (answer(said(content=None)), "never", "not a response"),
        (answer(said()), "never", "empty answer"),
        (answer(said({**TEXT, "text": ""})), "never", "empty answer"),
        (answer(THOUGHT), "never", "empty answer"),
        (answer(), "never", "empty answer"),
        (answer(said(TEXT), error={"code": "x"}), "never", "not a response"),
        (answer(said(TEXT), previous_response_id="r"), "never", "server-side state"),
        (answer(said(TEXT), conversation={"id": "c"}), "never", "server-side state"),
        ({"error": {"message": "x"}}, "never", "not a response"),
        ({}, "never", "not a response"),
    ],
)
def test_storable(body: dict[str, Any], keep: str, reason: str) -> None:
    found = CODEC.storable(body)
    assert found.keep == keep
    assert found.reason.startswith(reason)


def test_usage() -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 25},
    }
    assert CODEC.usage({"usage": usage}) == Usage(100, 40, 60, 30, 25)
    assert CODEC.usage({"usage": None}) is None


def test_others_do_not_learn_who_asked() -> None:
    echoed = {"metadata": {"name": "Ada"}, "user": "ada", "safety_identifier": "a1", "prompt_cache_key": "ada"}
    shared = CODEC.anonymous(answer(said(TEXT), **echoed))
    assert shared == answer(said(TEXT), metadata={}, user=None, safety_identifier=None, prompt_cache_key=None)
    assert CODEC.anonymous(answer(said(TEXT), metadata={}, user=None)) is None


def test_the_text_of_an_answer() -> None:
    assert answer_text(dumps(answer(THOUGHT, said(TEXT, TEXT), said(TEXT)))) == "hihihi"
    assert '"arguments"' in answer_text(dumps(answer(said(TEXT), CALL)))
