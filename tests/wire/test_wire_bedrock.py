"""Bedrock's Converse, and the Anthropic body on Bedrock and Vertex: what is read, kept and counted."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.keys import canonical
from semcache.live.answers import answer_text
from semcache.types import Request, Usage
from semcache.wire import find
from semcache.wire._json import dumps
from semcache.wire.anthropic_hosted import AnthropicOnBedrock, AnthropicOnVertex
from semcache.wire.bedrock import BedrockConverse

CODEC = BedrockConverse()
MODEL = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"
PNG = base64.b64encode(b"not really a picture").decode()
POINT = {"cachePoint": {"type": "default", "ttl": "1h"}}


def parse(body: dict[str, Any], *, model: str = MODEL, method: str = "converse", host: str = HOST) -> Request:
    path = f"/model/{model}/{method}"
    return CODEC.parse(body, upstream=f"{host}{path}&region=us-east-1", headers={":path": path})


def ask(*content: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content) or [{"text": "hi"}]}], **fields}


def identity(request: Request) -> tuple[bytes, str | None]:
    return canonical(request.scope), request.text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/model/{MODEL}/converse", "bedrock"),
        (f"/model/{MODEL}/converse-stream", "bedrock"),
        ("/model/arn:aws:bedrock:eu-west-1:123:inference-profile/eu.anthropic.claude/converse", "bedrock"),
        (f"/model/{MODEL}/invoke", "anthropic_bedrock"),
        (f"/model/{MODEL}/invoke-with-response-stream", "anthropic_bedrock"),
        (f"/model/{MODEL}/count-tokens", None),
        (f"/model/{MODEL}/invoke-with-bidirectional-stream", None),
        ("/guardrail/g/version/1/apply", None),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/claude-haiku-4-5@1:rawPredict", "anthropic_vertex"),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/claude:streamRawPredict", "anthropic_vertex"),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict", None),
        ("/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict", None),
    ],
)
def test_find(path: str, name: str | None) -> None:
    codec = find("POST", path)
    assert (codec.name if codec else None) == name
    assert find("GET", path) is None


# Scope and fuzzy text ---------------------------------------------------------------------------------------------


def test_the_last_text_is_fuzzy_and_what_stands_before_it_is_exact() -> None:
    one, other = parse(ask({"text": "a"}, {"text": "b"})), parse(ask({"text": "a"}, {"text": "c"}))
    assert (one.text, other.text) == ("b", "c")
    assert one.scope == other.scope != parse(ask({"text": "x"}, {"text": "b"})).scope
    assert (one.bypass, one.exact_only) == (None, None)


def test_a_stream_and_a_plain_call_are_one_request() -> None:
    plain, stream = parse(ask()), parse(ask(), method="converse-stream")
    assert identity(plain) == identity(stream)
    assert (plain.stream, stream.stream) == (False, True)


def test_model_host_and_region_are_part_of_the_scope_with_and_without_a_label() -> None:
    path = f"/model/{MODEL}/converse"
    other = "/model/amazon.nova-lite-v1:0/converse"
    labelled = [CODEC.parse(ask(), upstream="label", headers={":path": p}) for p in (path, other)]
    elsewhere = CODEC.parse(ask(), upstream=f"{HOST}{path}&region=eu-west-1", headers={":path": path})
    requests = [parse(ask()), parse(ask(), model="m"), parse(ask(), host="https://proxy"), elsewhere, *labelled]
    assert len({identity(request) for request in requests}) == len(requests)


def test_the_price_list_gets_the_last_part_of_an_arn() -> None:
    assert parse(ask(), model=f"arn:aws:bedrock:us-east-1:123:inference-profile/{MODEL}").model == MODEL


def test_temperature_is_handed_on() -> None:
    assert parse(ask(inferenceConfig={"temperature": 0.7})).temperature == 0.7
    assert parse(ask(inferenceConfig="hot")).temperature is None


def marked(*point: Any) -> dict[str, Any]:
    schema = {"json": {"type": "object", "properties": {"cachePoint": {"type": "string"}}}}
    turns = [
        {"role": "user", "content": [{"text": "weather?"}, *point]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "f", "input": {"cachePoint": 1}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"json": {"a": 1}}]}}, *point]},
        {"role": "user", "content": [{"text": "hi"}, *point]},
    ]
    return {
        "system": [{"text": "be brief"}, *point],
        "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": schema}}, *point]},
        "messages": turns,
    }


def test_cache_points_are_no_part_of_the_key() -> None:
    assert identity(parse(marked(POINT))) == identity(parse(marked()))
    assert parse(marked(POINT)).text == "hi"
    assert canonical(parse(marked(POINT)).scope).count(b"cachePoint") == 2, "a parameter and an argument of that name"


def test_a_block_that_is_more_than_a_cache_point_stays() -> None:
    one, other = (parse(ask({"text": text, **POINT}, {"text": "hi"})) for text in ("a", "b"))
    assert identity(one) != identity(other)


@pytest.mark.parametrize(
    "fields",
    [
        {"requestMetadata": {"team": "a"}},
        {"serviceTier": {"type": "flex"}},
        {"performanceConfig": {"latency": "optimized"}},
    ],
)
def test_transport_only_fields(fields: dict[str, Any]) -> None:
    assert identity(parse(ask(**fields))) == identity(parse(ask()))


@pytest.mark.parametrize(
    "fields",
    [
        {"system": [{"text": "be brief"}]},
        {"inferenceConfig": {"maxTokens": 5}},
        {"toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}]}},
        {"outputConfig": {"effort": "low"}},
        {"additionalModelRequestFields": {"top_k": 5}},
        {"additionalModelResponseFieldPaths": ["/stop_sequence"]},
        {"aFieldOfNextYear": 1},
    ],
)
def test_every_other_field_is_part_of_the_scope(fields: dict[str, Any]) -> None:
    request = parse(ask(**fields))
    assert identity(request) != identity(parse(ask()))
    assert request.bypass is None


def media(kind: str, data: str) -> dict[str, Any]:
    return {kind: {"format": "png", "source": {"bytes": data}}}


@pytest.mark.parametrize(
    "build",
    [
        lambda data: media("image", data),
        lambda data: media("document", data),
        lambda data: media("video", data),
        lambda data: {"toolResult": {"toolUseId": "t", "content": [media("image", data)]}},
        lambda data: {"guardContent": media("image", data)},
    ],
    ids=["image", "document", "video", "tool result", "guarded"],
)
def test_attachments_stand_as_digests_of_their_content(build: Any) -> None:
    request = parse(ask(build(PNG), {"text": "what is it?"}))
    assert request.text == "what is it?"
    assert PNG.encode() not in canonical(request.scope)
    other = parse(ask(build(base64.b64encode(b"another").decode()), {"text": "what is it?"}))
    assert identity(other) != identity(request)


def test_bytes_in_the_arguments_of_a_tool_are_left_alone() -> None:
    call = {"toolUse": {"toolUseId": "t", "name": "f", "input": {"source": {"bytes": PNG}}}}
    messages = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [{"text": "go"}]}]
    assert PNG.encode() in canonical(parse({"messages": messages}).scope)


GUARD = {"guardrailIdentifier": "g", "guardrailVersion": "1"}


@pytest.mark.parametrize(
    ("body", "model", "reason"),
    [
        (ask(toolConfig={"tools": [{"systemTool": {"name": "nova_grounding"}}]}), MODEL, "server tool: nova_grounding"),
        (ask(toolConfig={"tools": [{"mcp": {}}]}), MODEL, "server tool: mcp"),
        (ask(promptVariables={"a": {"text": "b"}}), MODEL, "server-side state: prompt"),
        (ask(), "arn:aws:bedrock:us-east-1:123:prompt/P:1", "server-side state: prompt"),
        (ask(guardrailConfig={**GUARD, "guardrailVersion": "DRAFT"}), MODEL, "a guardrail without a fixed version"),
        (ask(guardrailConfig={"guardrailIdentifier": "g"}), MODEL, "a guardrail without a fixed version"),
        (ask(additionalModelRequestFields={"container": "c"}), MODEL, "server-side state: container"),
        (
            ask(additionalModelRequestFields={"tools": [{"type": "web_search_20250305"}]}),
            MODEL,
            "server tool: web_search",
        ),
        ({}, MODEL, "unknown shape: messages"),
        ({"messages": []}, MODEL, "unknown shape: no messages"),
        ({"messages": [{"role": "user", "content": "hi"}]}, MODEL, "unknown shape: content blocks"),
        (ask(system="be brief"), MODEL, "unknown shape: system"),
        (ask(toolConfig=[]), MODEL, ""),
        (ask(toolConfig=["x"]), MODEL, "unknown shape: toolConfig"),
    ],
)
def test_bypass(body: dict[str, Any], model: str, reason: str) -> None:
    assert (parse(body, model=model).bypass or "").startswith(reason)
    assert bool(reason) == bool(parse(body, model=model).bypass)


def test_a_guardrail_with_a_version_sees_every_question_that_is_worded_differently() -> None:
    guarded = parse(ask(guardrailConfig=GUARD))
    assert guarded.bypass is None
    assert guarded.exact_only
    assert identity(guarded) != identity(parse(ask(guardrailConfig={**GUARD, "guardrailVersion": "2"})))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KINDS = ["text", "image", "toolResult", "guardContent", "cachePoint", "toolUse", "audio", "source", "bytes"]
block = st.dictionaries(
    st.sampled_from(KINDS), json_values | st.fixed_dictionaries({"source": json_values}), max_size=2
)
FIELDS = ["system", "toolConfig", "guardrailConfig", "additionalModelRequestFields", "inferenceConfig", "messages"]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values), st.lists(block, max_size=3))
def test_any_body_is_parsed_or_bypassed_and_never_changed(fields: dict[str, Any], content: list[Any]) -> None:
    for body in (fields, {**fields, "messages": [{"role": "user", "content": content}]}):
        before = copy.deepcopy(body)
        request = parse(body)
        assert body == before
        assert request.bypass or request.exact_only or request.text


# Answers ----------------------------------------------------------------------------------------------------------

TEXT = {"text": "hello"}
CALL = {"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}
THOUGHT = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}}


def answer(stop: Any, *content: Any, **fields: Any) -> dict[str, Any]:
    return {"output": {"message": {"role": "assistant", "content": list(content)}}, "stopReason": stop, **fields}


@pytest.mark.parametrize(
    ("body", "keep", "reason"),
    [
        (answer("end_turn", TEXT), "all", ""),
        (answer("stop_sequence", TEXT), "all", ""),
        (answer("tool_use", TEXT, CALL), "exact", "tool calls"),
        (answer("end_turn", THOUGHT, TEXT), "exact", "reasoning"),
        (answer("end_turn", TEXT, trace={"guardrail": {}}), "exact", "a guardrail's trace"),
        (answer("end_turn", TEXT, trace={"promptRouter": {"invokedModelId": "m"}}), "all", ""),
        (answer("end_turn", {"toolUse": {**CALL["toolUse"], "type": "server_tool_use"}}, TEXT), "never", "server tool"),
        (answer("end_turn", {"citationsContent": {}}), "never", "content of type citationsContent"),
        (answer("end_turn", {"image": {}}, TEXT), "never", "content of type image"),
        (answer("end_turn"), "never", "empty answer"),
        (answer("end_turn", {"text": ""}), "never", "empty answer"),
        (answer("end_turn", "x"), "never", "not a message"),
        ({"message": "Too many requests"}, "never", "not a message"),
        *(
            (answer(stop, TEXT), "never", f"stopReason: {stop}")
            for stop in (
                "max_tokens",
                "guardrail_intervened",
                "content_filtered",
                "malformed_model_output",
                "malformed_tool_use",
                "model_context_window_exceeded",
                "of_next_year",
                None,
            )
        ),
    ],
)
def test_storable(body: dict[str, Any], keep: str, reason: str) -> None:
    found = CODEC.storable(body)
    assert found.keep == keep
    assert found.reason.startswith(reason)


def test_the_text_of_an_answer_is_what_its_reader_reads() -> None:
    assert answer_text(dumps(answer("end_turn", THOUGHT, TEXT, TEXT))) == "hellohello"
    assert '"toolUse"' in answer_text(dumps(answer("tool_use", TEXT, CALL)))


def test_input_includes_what_the_cache_read_and_wrote() -> None:
    usage = {"inputTokens": 10, "outputTokens": 40, "cacheReadInputTokens": 60, "cacheWriteInputTokens": 30}
    assert CODEC.usage({"usage": usage}) == Usage(100, 40, 60, 30)
    by_ttl = [{"ttl": "1h", "inputTokens": 20}, {"ttl": "5m", "inputTokens": 10}]
    assert CODEC.usage({"usage": {**usage, "cacheDetails": by_ttl}}) == Usage(
        100, 40, 60, 30, cache_write_long_tokens=20
    )
    del usage["cacheWriteInputTokens"]
    assert CODEC.usage({"usage": {**usage, "cacheDetails": by_ttl}}) == Usage(
        100, 40, 60, 30, cache_write_long_tokens=20
    )
    assert CODEC.usage({"usage": {"inputTokens": 3, "outputTokens": 2}}) == Usage(3, 2)
    assert CODEC.usage({}) is None


# Anthropic's body -------------------------------------------------------------------------------------------------

INVOKE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
VERTEX_PATH = "/v1/projects/p/locations/l/publishers/anthropic/models/claude-haiku-4-5@1"
HOSTED = pytest.mark.parametrize(
    ("codec", "plain", "stream"),
    [
        (AnthropicOnBedrock(), f"/model/{MODEL}/invoke", f"/model/{MODEL}/invoke-with-response-stream"),
        (AnthropicOnVertex(), f"{VERTEX_PATH}:rawPredict", f"{VERTEX_PATH}:streamRawPredict"),
    ],
    ids=["bedrock", "vertex"],
)


def hosted(codec: Any, path: str, body: dict[str, Any] | None = None, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request: Request = codec.parse(body or INVOKE, upstream=f"https://host{path}", headers={":path": path, **named})
    return request


@HOSTED
def test_the_path_names_the_model_and_says_whether_the_answer_streams(codec: Any, plain: str, stream: str) -> None:
    one, other = hosted(codec, plain), hosted(codec, stream)
    assert identity(one) == identity(other)
    assert (one.stream, other.stream) == (False, True)
    assert one.text == "hi"
    assert one.api == "anthropic"
    assert one.model in (MODEL, "claude-haiku-4-5@1")
    another = plain.replace("haiku", "opus")
    assert identity(hosted(codec, another)) != identity(one)


@HOSTED
def test_bodies_of_other_vendors_are_bypassed(codec: Any, plain: str, stream: str) -> None:
    nova = {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "schemaVersion": "messages-v1"}
    for body in ({"inputText": "hi"}, {"prompt": "hi"}, nova, {"messages": INVOKE["messages"], "model": "gpt-oss"}):
        assert hosted(codec, plain, body).bypass == "unknown shape: anthropic_version"
    assert hosted(codec, plain, {**INVOKE, "mcp_servers": [{}]}).bypass == "server-side state: mcp_servers"


def test_what_bedrock_is_told_in_headers() -> None:
    codec, path = AnthropicOnBedrock(), f"/model/{MODEL}/invoke"
    transport = {"x_amzn_bedrock_service_tier": "flex", "x_amzn_bedrock_request_metadata": "{}"}
    assert identity(hosted(codec, path, **transport)) == identity(hosted(codec, path))
    assert hosted(codec, path, **transport).bypass is None
    for option in ("guardrailidentifier", "trace", "of_next_year"):
        headers = {f"x_amzn_bedrock_{option}": "x"}
        assert (hosted(codec, path, **headers).bypass or "").startswith("header x-amzn-bedrock-")
