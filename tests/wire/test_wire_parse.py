"""What becomes the scope, the fuzzy text, or a bypass."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.keys import canonical
from semcache.types import Request
from semcache.wire import CODECS, Codec, find
from semcache.wire.anthropic import AnthropicMessages
from semcache.wire.openai_chat import OpenAIChat

OPENAI, ANTHROPIC = OpenAIChat(), AnthropicMessages()
BOTH = pytest.mark.parametrize("codec", [OPENAI, ANTHROPIC], ids=lambda codec: codec.name)

PNG = base64.b64encode(b"not really a picture").decode()


def parse(codec: Codec, body: dict[str, Any], **headers: str) -> Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return codec.parse(body, upstream="https://host/v1", headers=names)


def ask(text: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}], **fields}


def identity(request: Request) -> tuple[bytes, str | None]:
    return canonical(request.scope), request.text


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/v1/chat/completions", "openai_chat"),
        ("POST", "/openai/deployments/gpt/chat/completions", "openai_chat"),
        ("POST", "/v1/messages", "anthropic"),
        ("POST", "/anthropic/v1/messages", "anthropic"),
        ("GET", "/v1/chat/completions", None),
        ("POST", "/v1/chat/completions/id", None),
        ("POST", "/v1/messages/count_tokens", None),
        ("POST", "/v1/messages/batches", None),
        ("POST", "/v1/embeddings", "openai_embeddings"),
        ("POST", "/v1/moderations", None),
    ],
)
def test_find(method: str, path: str, name: str | None) -> None:
    codec = find(method, path)
    assert (codec.name if codec else None) == name


def test_names_are_unique() -> None:
    assert len({codec.name for codec in CODECS}) == len(CODECS)


# The fuzzy text ---------------------------------------------------------------------------------------------------


@BOTH
def test_the_text_leaves_a_marker_behind(codec: Codec) -> None:
    one, other = parse(codec, ask("one")), parse(codec, ask("other"))
    assert (one.text, other.text) == ("one", "other")
    assert one.scope == other.scope
    assert b"one" not in canonical(one.scope)["scope" in one.scope :]


@BOTH
def test_one_plain_text_part_is_the_same_request_as_a_string(codec: Codec) -> None:
    assert identity(parse(codec, ask("hi"))) == identity(parse(codec, ask([{"type": "text", "text": "hi"}])))


@BOTH
def test_a_lone_text_block_and_its_string_are_one_request_anywhere(codec: Codec) -> None:
    def of(wrapped: bool) -> Request:
        def content(text: str) -> Any:
            return [{"type": "text", "text": text}] if wrapped else text

        turns = [("system", content("be brief")), ("assistant", content("yes?"))]
        if codec is ANTHROPIC:
            result = {"type": "tool_result", "tool_use_id": "t", "content": content("sunny")}
            turns = [("assistant", content("yes?")), ("user", [result])]
        messages = [{"role": role, "content": said} for role, said in [*turns, ("user", "hi")]]
        return parse(codec, ask(messages=messages, **({"system": content("be kind")} if codec is ANTHROPIC else {})))

    assert identity(of(True)) == identity(of(False))
    two = {"type": "text", "text": "be brief"}, {"type": "text", "text": ""}
    cited = {"type": "text", "text": "be brief", "citations": []}
    for other in (list(two), [cited]):
        said = [{"role": "assistant", "content": c} for c in ("be brief", other)]
        one, another = (parse(codec, ask(messages=[turn, {"role": "user", "content": "hi"}])) for turn in said)
        assert identity(one) != identity(another)


@BOTH
def test_the_last_text_part_is_fuzzy_and_the_others_are_exact(codec: Codec) -> None:
    def of(first: str, last: str) -> Request:
        return parse(codec, ask([{"type": "text", "text": first}, {"type": "text", "text": last}]))

    assert of("a", "b").text == "b"
    assert of("a", "b").scope == of("a", "c").scope
    assert of("a", "b").scope != of("x", "b").scope
    assert of("a", "b").scope != parse(codec, ask("b")).scope


@BOTH
def test_earlier_turns_are_exact(codec: Codec) -> None:
    def of(history: str) -> Request:
        turns = [{"role": "user", "content": history}, {"role": "assistant", "content": "ok"}]
        return parse(codec, {**ask(), "messages": [*turns, {"role": "user", "content": "yes, do it"}]})

    assert of("delete it?").text == of("keep it?").text == "yes, do it"
    assert of("delete it?").scope != of("keep it?").scope


@BOTH
@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Sure,"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": " \n"}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}],
    ],
)
def test_without_a_text_of_the_user_only_the_exact_tier_is_left(codec: Codec, messages: list[Any]) -> None:
    request = parse(codec, {**ask(), "messages": messages})
    assert request.exact_only
    assert request.bypass is None


def test_the_marker_cannot_be_forged() -> None:
    forged = parse(OPENAI, ask({"$fuzzy": True}))
    assert forged.bypass


# Transport-only fields --------------------------------------------------------------------------------------------

OPENAI_TRANSPORT = [
    {"stream": True},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"user": "u"},
    {"safety_identifier": "s"},
    {"metadata": {"a": "b"}},
    {"prompt_cache_key": "k"},
    {"prompt_cache_options": {"mode": "explicit"}},
    {"prompt_cache_retention": "24h"},
    {"service_tier": "flex"},
    {"store": False},
    {"store": None},
    {"cache_salt": "tenant"},
]
ANTHROPIC_TRANSPORT = [
    {"stream": True},
    {"metadata": {"user_id": "u"}},
    {"cache_control": {"type": "ephemeral"}},
    {"service_tier": "auto"},
    {"speed": "fast"},
    {"diagnostics": {"previous_message_id": "m"}},
]


@pytest.mark.parametrize(
    ("codec", "fields"),
    [(OPENAI, fields) for fields in OPENAI_TRANSPORT] + [(ANTHROPIC, fields) for fields in ANTHROPIC_TRANSPORT],
)
def test_transport_only_fields_are_no_part_of_the_key(codec: Codec, fields: dict[str, Any]) -> None:
    request = parse(codec, ask(**fields))
    assert identity(request) == identity(parse(codec, ask()))
    assert request.bypass is None
    assert request.stream is fields.get("stream", False)


MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
POINT = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def openai_tools(**marks: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"cache_control": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}, **marks}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "be brief", **marks}]},
        {"role": "user", "content": [{"type": "text", "text": "hi", **marks}]},
    ]
    return ask(tools=[tool], messages=messages)


def anthropic_tools(**marks: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"cache_control": {"type": "string"}}}
    result = [{"type": "text", "text": "sunny", **marks}]
    document = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "d", **marks}]}}
    messages = [
        {"role": "user", "content": [document, {"type": "text", "text": "weather?", **marks}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}, **marks}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": result, **marks}]},
        {"role": "user", "content": [{"type": "text", "text": "hi", **marks}]},
    ]
    system = [{"type": "text", "text": "be brief", **marks}]
    return ask(tools=[{"name": "f", "input_schema": schema, **marks}], system=system, messages=messages)


@pytest.mark.parametrize(
    ("codec", "build", "mark"),
    [(OPENAI, openai_tools, MARK), (OPENAI, openai_tools, POINT), (ANTHROPIC, anthropic_tools, MARK)],
)
def test_cache_marks_are_taken_out_at_any_depth(codec: Codec, build: Any, mark: dict[str, Any]) -> None:
    assert identity(parse(codec, build(**mark))) == identity(parse(codec, build()))
    assert parse(codec, build()).text == "hi"


def test_a_tool_parameter_called_like_a_cache_mark_stays() -> None:
    for codec, build in ((OPENAI, openai_tools), (ANTHROPIC, anthropic_tools)):
        assert b'"cache_control":{"type":"string"}' in canonical(parse(codec, build()).scope)
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"cache_control": "public"}}
    with_input = ask(messages=[{"role": "assistant", "content": [call]}, {"role": "user", "content": "go"}])
    assert b'"cache_control":"public"' in canonical(parse(ANTHROPIC, with_input).scope)


# Everything else --------------------------------------------------------------------------------------------------

OPENAI_SCOPE = {
    "model": "other",
    "frequency_penalty": 0.5,
    "logit_bias": {"1": 2},
    "logprobs": True,
    "max_completion_tokens": 5,
    "max_tokens": 10,
    "n": 1,
    "parallel_tool_calls": False,
    "presence_penalty": 0.5,
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "seed": 1,
    "stop": ["x"],
    "temperature": 0.5,
    "tool_choice": "auto",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "top_logprobs": 2,
    "top_p": 0.5,
    "verbosity": "low",
    "a_field_of_next_year": 1,
}
ANTHROPIC_SCOPE = {
    "model": "other",
    "inference_geo": "eu",
    "max_tokens": 10,
    "output_config": {"format": {"type": "json_schema"}},
    "stop_sequences": ["x"],
    "system": "be brief",
    "temperature": 0.5,
    "thinking": {"type": "adaptive"},
    "tool_choice": {"type": "any"},
    "tools": [{"name": "f", "input_schema": {}}],
    "top_k": 1,
    "top_p": 0.5,
    "a_field_of_next_year": 1,
}


@pytest.mark.parametrize(
    ("codec", "field", "value"),
    [(OPENAI, *item) for item in OPENAI_SCOPE.items()] + [(ANTHROPIC, *item) for item in ANTHROPIC_SCOPE.items()],
)
def test_every_other_field_is_part_of_the_scope(codec: Codec, field: str, value: Any) -> None:
    request = parse(codec, ask(**{field: value}))
    assert identity(request) != identity(parse(codec, ask()))
    assert request.bypass is None


@pytest.mark.parametrize(
    ("codec", "header"),
    [
        (OPENAI, "openai_organization"),
        (OPENAI, "openai_project"),
        (ANTHROPIC, "anthropic_version"),
        (ANTHROPIC, "anthropic_beta"),
    ],
)
def test_headers_that_change_the_answer_are_part_of_the_scope(codec: Codec, header: str) -> None:
    plain = parse(codec, ask())
    assert identity(parse(codec, ask(), **{header: "a"})) != identity(plain)
    assert identity(parse(codec, ask(), **{header: "a, b"})) == identity(parse(codec, ask(), **{header: "b,a"}))
    assert identity(parse(codec, ask(), x_request_id="1", authorization="Bearer x")) == identity(plain)


@BOTH
def test_upstream_is_part_of_the_scope(codec: Codec) -> None:
    other = codec.parse(ask(), upstream="https://other/v1", headers={})
    assert identity(other) != identity(parse(codec, ask()))


@BOTH
def test_temperature_and_model_are_handed_on(codec: Codec) -> None:
    request = parse(codec, ask(temperature=1))
    assert (request.temperature, request.model) == (1, "m")
    assert parse(codec, ask()).temperature is None


# Attachments ------------------------------------------------------------------------------------------------------


def picture(codec: Codec, data: str) -> dict[str, Any]:
    text = {"type": "text", "text": "what is it?"}
    if codec is OPENAI:
        return ask([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}, text])
    return ask([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}, text])


@BOTH
def test_attachments_stand_as_digests_of_their_content(codec: Codec) -> None:
    request = parse(codec, picture(codec, PNG))
    assert request.text == "what is it?"
    assert PNG.encode() not in canonical(request.scope)
    same = parse(codec, picture(codec, PNG[:8] + "\n" + PNG[8:]))
    other = parse(codec, picture(codec, base64.b64encode(b"another picture").decode()))
    assert identity(same) == identity(request) != identity(other)


@BOTH
def test_nothing_of_an_attachment_is_passed_over(codec: Codec) -> None:
    # A lax decoder stops at the padding, and leaves out what is of another alphabet.
    seen = {identity(parse(codec, picture(codec, data))) for data in ("QUI=", "QUI=AAAA", "QUI=BBBB", "QU*I=", "QU-I")}
    assert len(seen) == 5


def test_files_too() -> None:
    def of(data: str) -> Request:
        return parse(OPENAI, ask([{"type": "file", "file": {"file_data": data}}, {"type": "text", "text": "sum up"}]))

    assert PNG.encode() not in canonical(of(PNG).scope)
    assert PNG.encode() not in canonical(of(f"data:application/pdf;base64,{PNG}").scope)
    assert identity(of(PNG)) != identity(of("b3RoZXI="))
    assert identity(of("not base64")) != identity(of("not base64 either"))


# Bypass -----------------------------------------------------------------------------------------------------------

SEARCH = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize(
    ("codec", "body", "reason"),
    [
        (OPENAI, ask(n=2), "n>1"),
        (OPENAI, ask(modalities=["text", "audio"]), "the answer is not only text"),
        (OPENAI, ask(audio={"voice": "v", "format": "wav"}), "the answer is not only text"),
        (OPENAI, ask(messages=[{"role": "assistant", "audio": {"id": "a"}}]), "server-side state: audio"),
        (OPENAI, ask(store=True), "store"),
        (OPENAI, ask(web_search_options={}), "live web search"),
        (OPENAI, ask(model="gpt-4o-search-preview"), "live web search"),
        (OPENAI, ask(model="sonar-pro"), "live web search"),
        (OPENAI, ask(model="groq/compound"), "live web search"),
        (OPENAI, ask(model="openai/gpt-4o:online"), "live web search"),
        (OPENAI, ask(data_sources=[{"type": "azure_search"}]), "live web search"),
        (OPENAI, ask(search_parameters={"mode": "auto"}), "live web search"),
        (OPENAI, ask(plugins=[{"id": "web"}]), "live web search"),
        (OPENAI, ask(enable_search=True), "live web search"),
        (OPENAI, ask(model="sonarium", enable_search=False, plugins=[]), ""),
        (OPENAI, ask(tools=[{"type": "web_search"}]), "server tool"),
        (ANTHROPIC, ask(tools=[SEARCH]), "server tool"),
        (ANTHROPIC, ask(tools=[{"type": "code_execution_20260521", "name": "c"}]), "server tool"),
        (ANTHROPIC, ask(tools=[{"type": "mcp_toolset", "mcp_server_name": "c"}]), "server tool"),
        (ANTHROPIC, ask(container="c"), "server-side state: container"),
        (ANTHROPIC, ask(thread={"type": "create"}), "server-side state: thread"),
        (ANTHROPIC, ask(mcp_servers=[{"url": "x"}]), "server-side state: mcp_servers"),
        (ANTHROPIC, ask(max_tokens=0), "prompt-cache warm-up"),
        (OPENAI, {"model": "m"}, "unknown shape: messages"),
        (OPENAI, ask(5), "unknown shape: message content"),
        (OPENAI, ask(["hi"]), "unknown shape: content parts"),
        (OPENAI, ask(messages=[]), "unknown shape: no messages"),
        (OPENAI, ask(stream="yes"), "unknown shape: stream"),
        (ANTHROPIC, ask(None), "unknown shape: message content"),
        (ANTHROPIC, ask(system=["x"]), "unknown shape: system"),
        (ANTHROPIC, ask(tools="x"), "unknown shape: tools"),
    ],
)
def test_bypass(codec: Codec, body: dict[str, Any], reason: str) -> None:
    assert (parse(codec, body).bypass or "").startswith(reason)


@pytest.mark.parametrize(
    ("codec", "tool"),
    [
        (OPENAI, {"type": "function", "function": {"name": "f"}}),
        (OPENAI, {"type": "custom", "custom": {"name": "f"}}),
        (ANTHROPIC, {"name": "f", "input_schema": {}}),
        (ANTHROPIC, {"type": "custom", "name": "f", "input_schema": {}}),
        (ANTHROPIC, {"type": "bash_20250124", "name": "bash"}),
        (ANTHROPIC, {"type": "computer_toolset_20260801"}),
    ],
)
def test_tools_that_run_at_the_callers_are_no_reason_to_bypass(codec: Codec, tool: dict[str, Any]) -> None:
    assert parse(codec, ask(tools=[tool])).bypass is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("text"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({*OPENAI_SCOPE, *ANTHROPIC_SCOPE, "messages", "stream", "stream_options", "audio", "modalities"})
part = st.dictionaries(
    st.sampled_from(["type", "text", "image_url", "file", "source", "content", "cache_control"]), json_values
)
message = st.fixed_dictionaries({"role": json_values | st.just("user"), "content": json_values | st.lists(part)})
bodies = st.dictionaries(st.sampled_from(FIELDS), json_values).flatmap(
    lambda body: st.one_of(st.just(body), st.lists(message, max_size=3).map(lambda m: {**body, "messages": m}))
)


@BOTH
@settings(max_examples=150, deadline=None)
@given(bodies)
def test_any_body_is_parsed_or_bypassed_and_never_changed(codec: Codec, body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    request = parse(codec, body)
    assert repr(body) == repr(before)
    assert request.api == codec.name
    if not isinstance(body.get("messages"), list):
        assert request.bypass


@BOTH
def test_what_is_sent_is_the_callers_unless_usage_must_be_asked_for(codec: Codec) -> None:
    assert codec.forward(ask(), ask_usage=True) is None
    assert codec.forward(ask(stream=True), ask_usage=False) is None
    sent = codec.forward(ask(stream=True, stream_options={"include_obfuscation": False}), ask_usage=True)
    if codec is ANTHROPIC:
        assert sent is None
    else:
        options = {"include_obfuscation": False, "include_usage": True}
        assert sent == ask(stream=True, stream_options=options)
    asked = ask(stream=True, stream_options={"include_usage": True})
    assert codec.forward(asked, ask_usage=True) is None
