"""Gemini requests, answers and streams, the last judged by the SDK's own reading of them."""

from __future__ import annotations

import base64
import copy
import ssl
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_streams import Chunks, cut

from semcache.context import loosen
from semcache.keys import canonical
from semcache.live.answers import answer_text
from semcache.types import Request, Usage
from semcache.wire import _sse, find
from semcache.wire._json import dumps
from semcache.wire.gemini import Gemini

CODEC = Gemini()
Json = dict[str, Any]
ROOT = "https://host"
PATH = "/v1beta/models/m:generateContent"
STREAM = "/v1beta/models/m:streamGenerateContent"
IMAGE = base64.b64encode(b"\xff\xfe\xfd not really a picture ??>>").decode()


def parse(body: Json, path: str = PATH, query: str = "") -> Request:
    return CODEC.parse(body, upstream=f"{ROOT}{path}{query}", headers={":path": path})


def ask(*parts: Any, **fields: Any) -> Json:
    return {"contents": [{"role": "user", "parts": list(parts) or [{"text": "hi"}]}], **fields}


def identity(request: Request) -> tuple[bytes, str | None]:
    return canonical(request.scope), request.text


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (PATH, True),
        (STREAM, True),
        ("/v1/models/m:generateContent", True),
        ("/v1beta1/projects/p/locations/l/publishers/google/models/m:streamGenerateContent", True),
        ("/v1beta/models/m:countTokens", False),
        ("/v1beta/models/m:embedContent", False),
        ("/v1beta/models/m", False),
    ],
)
def test_find(path: str, found: bool) -> None:
    codec = find("POST", path)
    assert (codec is not None and codec.name == "gemini") is found
    assert find("GET", path) is None


def test_a_stream_and_a_plain_call_are_one_request() -> None:
    one, other = parse(ask()), parse(ask(), STREAM, "&alt=sse")
    assert identity(one) == identity(other)
    assert (one.stream, other.stream) == (False, True)
    assert (one.text, one.model, one.bypass, one.exact_only) == ("hi", "m", None, None)
    assert (parse(ask(), STREAM).bypass or "").startswith("unknown shape")


def test_the_model_is_part_of_the_scope_under_any_label() -> None:
    found = []
    for model in ("m", "tunedModels/m", "n"):
        path = f"/v1beta/models/{model}:generateContent" if "/" not in model else f"/v1beta/{model}:generateContent"
        found.append(identity(CODEC.parse(ask(), upstream="label", headers={":path": path})))
    assert len(set(found)) == 3
    assert CODEC.parse(ask(), upstream="label", headers={}).bypass


def test_the_text_leaves_a_marker_behind_and_the_rest_is_exact() -> None:
    assert parse(ask({"text": "one"})).scope == parse(ask({"text": "other"})).scope
    with_more = [parse(ask({"text": first}, {"text": "last"})) for first in ("a", "b")]
    assert with_more[0].text == with_more[1].text == "last"
    assert with_more[0].scope != with_more[1].scope
    unsaid = {"contents": [{"parts": [{"text": "hi"}]}]}
    assert identity(parse(unsaid)) == identity(parse(ask()))


def test_a_conversation_can_be_loosened() -> None:
    turns = [{"role": "user", "parts": [{"text": "a"}]}, {"role": "model", "parts": [{"text": "b"}]}]
    request = parse({"contents": [*turns, *ask()["contents"]]})
    assert [turn["role"] for turn in loosen(request, "window", 2).history] == ["user", "assistant"]


@pytest.mark.parametrize(
    "parts",
    [
        [{"text": ""}],
        [{"functionResponse": {"name": "f", "response": {"a": 1}}}],
        [{"inlineData": {"mimeType": "image/png", "data": IMAGE}}],
        [{"text": "hi", "thoughtSignature": "x"}],
    ],
)
def test_without_a_plain_text_of_the_user_only_the_exact_tier_is_left(parts: list[Json]) -> None:
    request = parse(ask(*parts))
    assert request.exact_only
    assert request.bypass is None


def test_attachments_stand_as_digests_of_their_content() -> None:
    def of(data: str) -> Request:
        return parse(ask({"inlineData": {"mimeType": "image/png", "data": data}}, {"text": "what is it?"}))

    url_safe = IMAGE.replace("+", "-").replace("/", "_")
    assert url_safe != IMAGE
    assert identity(of(url_safe)) == identity(of(IMAGE))
    # A decoder that skips what it does not know would take these two for one.
    assert identity(of("AA-AAAAA")) != identity(of("AA_AAAAA"))
    assert IMAGE.encode() not in canonical(of(IMAGE).scope)


@pytest.mark.parametrize(
    "fields",
    [
        {"systemInstruction": {"parts": [{"text": "be brief"}]}},
        {"generationConfig": {"temperature": 0.5}},
        {"generationConfig": {"candidateCount": 1}},
        {"safetySettings": [{"category": "c", "threshold": "t"}]},
        {"tools": [{"functionDeclarations": [{"name": "f"}]}]},
        {"aFieldOfNextYear": 1},
    ],
)
def test_every_other_field_is_part_of_the_scope(fields: Json) -> None:
    request = parse(ask(**fields))
    assert identity(request) != identity(parse(ask()))
    assert request.bypass is None
    assert request.temperature == (fields.get("generationConfig") or {}).get("temperature")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (ask(cachedContent="cachedContents/1"), "server-side state"),
        (ask(generationConfig={"candidateCount": 2}), "n>1"),
        (ask(generationConfig={"responseModalities": ["AUDIO"]}), "the answer is not only text"),
        (ask(tools=[{"googleSearch": {}}]), "server tool: googleSearch"),
        (ask(tools=[{"functionDeclarations": [], "codeExecution": {}}]), "server tool: codeExecution"),
        (ask(cached_content="c"), "unknown shape: names in snake_case"),
        (ask(generationConfig={"candidate_count": 2}), "unknown shape: names in snake_case"),
        (ask(generationConfig=5), "unknown shape: generationConfig"),
        ({"contents": "hi"}, "unknown shape: contents"),
        ({"contents": []}, "unknown shape: no contents"),
        ({"contents": [{"role": "user"}]}, "unknown shape: parts"),
        ({}, "unknown shape: contents"),
    ],
)
def test_bypass(body: Json, reason: str) -> None:
    assert (parse(body).bypass or "").startswith(reason)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
part = st.dictionaries(st.sampled_from(["text", "inlineData", "functionCall"]), json_values)
content = st.fixed_dictionaries({"role": json_values | st.just("user"), "parts": json_values | st.lists(part)})
names = st.sampled_from(["generationConfig", "tools", "safetySettings", "cachedContent"])


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(names, json_values), st.lists(content, max_size=3) | json_values)
def test_any_body_is_parsed_or_bypassed_and_never_changed(fields: Json, contents: Any) -> None:
    body = {**fields, "contents": contents}
    before = copy.deepcopy(body)
    request = parse(body)
    assert repr(body) == repr(before)
    assert request.api == "gemini"
    if not isinstance(contents, list):
        assert request.bypass


# Answers ----------------------------------------------------------------------------------------------------------


def answer(*parts: Any, finish: str | None = "STOP", **fields: Any) -> Json:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "finishReason": finish, "index": 0, **fields}
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}


CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}


@pytest.mark.parametrize(
    ("body", "keep", "reason"),
    [
        (answer({"text": "hi"}), "all", ""),
        (answer(CALL), "exact", "tool calls"),
        (answer({"text": "hi", "thoughtSignature": "x"}), "exact", "reasoning"),
        (answer({"text": "hm", "thought": True}, {"text": "hi"}), "exact", "reasoning"),
        (answer({"text": "hm", "thought": True}), "never", "empty answer"),
        (answer({"text": ""}), "never", "empty answer"),
        (answer(), "never", "empty answer"),
        (answer({"text": "hi"}, finish="MAX_TOKENS"), "never", "finishReason: MAX_TOKENS"),
        (answer({"text": "hi"}, finish="SAFETY"), "never", "finishReason: SAFETY"),
        (answer({"text": "hi"}, finish="OF_NEXT_YEAR"), "never", "finishReason: OF_NEXT_YEAR"),
        (answer({"text": "hi"}, finish=None), "never", "finishReason: None"),
        (answer({"text": "hi"}, groundingMetadata={"a": 1}), "never", "citations"),
        (answer({"text": "hi"}, citationMetadata={"a": 1}), "never", "citations"),
        (answer({"executableCode": {}}, {"text": "hi"}), "never", "content of type executableCode"),
        (answer({"inlineData": {}}), "never", "content of type inlineData"),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "never", "refusal"),
        ({"candidates": answer({"text": "a"})["candidates"] * 2}, "never", "not one candidate"),
        ({"candidates": ["x"]}, "never", "not one candidate"),
        ({"error": {"message": "m"}}, "never", "not one candidate"),
    ],
)
def test_storable(body: Json, keep: str, reason: str) -> None:
    found = CODEC.storable(body)
    assert found.keep == keep
    assert found.reason.startswith(reason)


def test_thoughts_are_output_and_cached_tokens_are_input() -> None:
    usage = {
        "promptTokenCount": 90,
        "toolUsePromptTokenCount": 10,
        "cachedContentTokenCount": 60,
        "candidatesTokenCount": 15,
        "thoughtsTokenCount": 25,
    }
    assert CODEC.usage({"usageMetadata": usage}) == Usage(100, 40, 60, 0, 25)
    assert CODEC.usage({}) is None


def test_the_text_of_an_answer() -> None:
    assert answer_text(dumps(answer({"text": "hm", "thought": True}, {"text": "hi"}, {"text": "!"}))) == "hi!"
    assert '"functionCall"' in answer_text(dumps(answer({"text": "hi"}, CALL)))


# Streams ----------------------------------------------------------------------------------------------------------


# The SDK would build its own for every client, in more time than all the rest of an example.
_UNUSED = httpx2.AsyncClient(verify=ssl.create_default_context())


def read(chunks: Sequence[bytes]) -> tuple[list[Any], Any]:
    """What the SDK makes of a stream: all parts, plain texts in a row joined, and its last chunk without content."""
    handler = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Chunks(chunks))
    )
    with httpx2.Client(transport=handler) as http:
        options = types.HttpOptions(httpx_client=http, httpx_async_client=_UNUSED)
        client = genai.Client(api_key="k", http_options=options)
        events = list(client.models.generate_content_stream(model="m", contents="hi"))
    parts: list[Any] = []
    for event in events:
        for one in event.candidates[0].content.parts or ():
            dumped = one.model_dump(exclude_none=True)
            joins = parts and dumped.keys() <= {"text", "thought"} and dumped.keys() == parts[-1].keys()
            if joins:
                parts[-1]["text"] += dumped["text"]
            else:
                parts.append(dumped)
    last = events[-1]
    return parts, (last.candidates[0].finish_reason, last.usage_metadata, last.model_version, last.response_id)


def stream_of(parts: list[Json], finish: str | None = "STOP") -> bytes:
    """A stream as Gemini sends it, written from the API reference and not by the codec under test."""
    whole = answer(finish=finish)
    (candidate,) = whole["candidates"]
    chunks = []
    for one in parts:
        begun = {"content": {"parts": [one], "role": "model"}, "index": 0}
        chunks.append({**whole, "candidates": [begun], "usageMetadata": {"promptTokenCount": 9}})
    chunks.append({**whole, "candidates": [{**candidate, "content": {"parts": [{"text": ""}], "role": "model"}}]})
    return b"".join(b"data: " + dumps(chunk) + b"\r\n\r\n" for chunk in chunks)


def record(chunks: list[bytes]) -> Any:
    recorder = CODEC.recorder({})
    passed = [piece for chunk in chunks for piece in recorder.feed(chunk)]
    return b"".join([*passed, recorder.flush()]), recorder.finish()


texts = st.text(max_size=200)
parts = st.lists(
    st.one_of(
        texts.map(lambda text: {"text": text}),
        texts.map(lambda text: {"text": text, "thought": True}),
        texts.map(lambda text: {"functionCall": {"name": "f", "args": {"city": text}}}),
        texts.map(lambda text: {"text": text, "thoughtSignature": "c2ln"}),
    ),
    max_size=6,
)
sizes = st.lists(st.integers(1, 400), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(parts, sizes)
def test_the_sdk_cannot_tell_a_replay_from_the_stream(parts: list[Json], sizes: list[int]) -> None:
    stream = stream_of(parts)
    passed, body = record(cut(stream, sizes))
    assert passed == stream
    replay = list(CODEC.replay(body, {}))
    assert read(replay) == read([stream])
    assert record(cut(b"".join(replay), sizes))[1] == body


def test_ten_thousand_chunks() -> None:
    words = [f"wörd{i} " for i in range(10_000)]
    _, body = record(cut(stream_of([{"text": word} for word in words]), [4096]))
    assert body["candidates"][0]["content"]["parts"] == [{"text": "".join(words)}]
    assert read(list(CODEC.replay(body, {})))[0] == [{"text": "".join(words)}]


HELLO = stream_of([{"text": "hello"}])


@pytest.mark.parametrize(
    "stream",
    [
        stream_of([{"text": "hi"}], finish=None),
        HELLO.replace(b'"text"', b'"text', 1),
        HELLO.replace(b'"modelVersion"', b'"error":{"code":500},"modelVersion"', 1),
        HELLO.replace(b'"index":0', b'"index":1', 1),
        stream_of([{"functionCall": {"name": "f", "willContinue": True}}]),
        HELLO[:-20],
        b"",
        b"data: \xff\n\n",
    ],
    ids=["no finish", "bad json", "error", "two candidates", "partial call", "cut", "empty", "not utf-8"],
)
def test_a_stream_that_is_not_whole_or_not_understood_is_passed_on_and_not_recorded(stream: bytes) -> None:
    assert record(cut(stream, [7])) == (stream, None)


def test_events_are_read_as_they_are_written() -> None:
    body = answer({"text": "x" * 300})
    assert record([b"".join(CODEC.replay(body, {}))])[1] == body
    assert record([_sse.write(body)])[1] == body
