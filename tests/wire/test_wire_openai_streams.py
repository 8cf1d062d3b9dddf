"""Record and replay of Chat Completions streams, judged by the SDK's own accumulator."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_streams import cut, openai_final, openai_plain

from semcache.wire import _sse
from semcache.wire._json import dumps
from semcache.wire.openai_chat import OpenAIChat

CODEC = OpenAIChat()
ASKED = {"stream": True, "stream_options": {"include_usage": True}}
UNASKED = {"stream": True}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 3},
}


def stream_of(deltas: list[dict[str, Any]], finish: str | None = "stop", *, end: bytes = b"[DONE]") -> bytes:
    """A stream as OpenAI sends it, written from the API reference and not by the codec under test."""
    base = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-x",
        "service_tier": "default",
        "system_fingerprint": "fp",
    }
    chunks = [
        {**base, "choices": [{"index": 0, **choice, "finish_reason": None}], "usage": None, "obfuscation": "xx"}
        for choice in deltas
    ]
    chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": None})
    chunks.append({**base, "choices": [], "usage": USAGE})
    return b"".join(_sse.write(chunk) for chunk in chunks) + b"data: " + end + b"\n\n"


def record(chunks: list[bytes], body: dict[str, Any] = ASKED, sent: dict[str, Any] | None = None) -> Any:
    """What the caller gets, and the recorded body."""
    recorder = CODEC.recorder(body, sent)
    passed = [piece for chunk in chunks for piece in recorder.feed(chunk)]
    return b"".join([*passed, recorder.flush()]), recorder.finish()


def role(**fields: Any) -> dict[str, Any]:
    return {"delta": {"role": "assistant", **fields}}


texts = st.text(max_size=12)
text_deltas = st.lists(texts, max_size=6).map(
    lambda parts: [role(content="", refusal=None), *({"delta": {"content": part}} for part in parts)]
)
refusal_deltas = st.lists(texts, min_size=1, max_size=4).map(
    lambda parts: [role(content=None), *({"delta": {"refusal": part}} for part in parts)]
)


@st.composite
def tool_deltas(draw: st.DrawFn) -> list[dict[str, Any]]:
    deltas = [role(content=None)]
    for index in range(draw(st.integers(1, 3))):
        head = {"id": f"call_{index}", "type": "function", "function": {"name": "look", "arguments": ""}}
        deltas.append({"delta": {"tool_calls": [{"index": index, **head}]}})
        arguments = json.dumps({"city": draw(texts)}, ensure_ascii=False)
        size = draw(st.integers(1, 9))
        for start in range(0, len(arguments), size):
            fragment = {"index": index, "function": {"arguments": arguments[start : start + size]}}
            deltas.append({"delta": {"tool_calls": [fragment]}})
    return deltas


sizes = st.lists(st.integers(1, 400), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.one_of(text_deltas, refusal_deltas, tool_deltas()), sizes)
def test_the_sdk_cannot_tell_a_replay_from_the_stream(deltas: list[dict[str, Any]], sizes: list[int]) -> None:
    finish = "tool_calls" if "tool_calls" in deltas[-1]["delta"] else "stop"
    stream = stream_of(deltas, finish)
    passed, body = record(cut(stream, sizes))
    assert passed == stream
    live = openai_final([stream])
    assert openai_final(list(CODEC.replay(body, ASKED))) == live
    plain = openai_plain(dumps(body))
    assert plain["usage"] == live["usage"]
    for field in ("role", "content", "refusal"):
        assert plain["choices"][0]["message"][field] == live["choices"][0]["message"][field]


@settings(max_examples=30, deadline=None)
@given(st.one_of(text_deltas, tool_deltas()), sizes)
def test_a_replay_is_recorded_as_the_same_body(deltas: list[dict[str, Any]], sizes: list[int]) -> None:
    _, body = record([stream_of(deltas)])
    _, again = record(cut(b"".join(CODEC.replay(body, ASKED)), sizes))
    assert again == body


def call_delta(id: str | None, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **more}
    return {"delta": {"tool_calls": [{"index": 0, "id": id, "type": "function" if id else id, "function": function}]}}


@pytest.mark.parametrize("unsaid", ["", None])
def test_a_call_keeps_its_id_where_a_server_repeats_it_empty(unsaid: str | None) -> None:
    deltas = [role(content=None), call_delta("call_1", "{", name="look"), call_delta(unsaid, "}")]
    _, body = record([stream_of(deltas, "tool_calls")])
    (call,) = body["choices"][0]["message"]["tool_calls"]
    assert call == {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def test_two_calls_under_one_index_are_not_taken_for_one() -> None:
    """As servers send them that stream each call whole: one reader joins them, another does not."""
    deltas = [role(content=None), call_delta("call_1", "{}", name="look"), call_delta("call_2", "{}", name="look")]
    stream = stream_of(deltas, "tool_calls")
    assert record([stream]) == (stream, None)


def test_ten_thousand_chunks() -> None:
    words = [f"wörd{i} " for i in range(10_000)]
    stream = stream_of([role(content=""), *({"delta": {"content": word}} for word in words)])
    passed, body = record(cut(stream, [4096]))
    assert passed == stream
    assert body["choices"][0]["message"]["content"] == "".join(words)
    final = openai_final(list(CODEC.replay(body, UNASKED)))
    assert final["choices"][0]["message"]["content"] == "".join(words)


def test_a_plain_answer_replays_as_the_same_completion() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    message = {"role": "assistant", "content": "see " * 100, "refusal": None, "annotations": [], "tool_calls": calls}
    logprobs = {"content": [{"token": "see", "logprob": -0.1, "bytes": [1], "top_logprobs": []}], "refusal": None}
    body = {
        "id": "chatcmpl-2",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "tool_calls"}],
        "usage": USAGE,
        "system_fingerprint": "fp",
        "moderation": None,
    }
    final = openai_final(list(CODEC.replay(body, ASKED)))
    plain = openai_plain(dumps(body))
    for call in final["choices"][0]["message"]["tool_calls"]:
        assert call["function"].pop("parsed_arguments") is None
    assert final["choices"][0]["message"].pop("parsed") is None
    # The SDK leaves the position in the list on streamed tool calls.
    for index, call in enumerate(final["choices"][0]["message"]["tool_calls"]):
        assert call.pop("index") == index
    assert final == plain


def events(stream: bytes) -> list[Any]:
    return [event.data for event in _sse.Splitter().feed(stream)]


def test_a_replay_has_the_order_of_the_provider() -> None:
    _, body = record([stream_of([role(content=""), {"delta": {"content": "x" * 300}}])])
    *chunks, done = events(b"".join(CODEC.replay(body, ASKED)))
    assert done == b"[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["finish_reason"] for chunk in parsed[:-1]] == [None] * (len(parsed) - 2) + ["stop"]
    assert parsed[-2]["choices"][0]["delta"] == {}
    assert parsed[-1]["choices"] == []
    assert parsed[-1]["usage"] == USAGE
    assert {chunk["id"] for chunk in parsed} == {"chatcmpl-1"}
    assert all(chunk["usage"] is None for chunk in parsed[:-1])


def test_usage_is_replayed_only_if_it_was_asked_for() -> None:
    _, body = record([stream_of([role(content="hi")])])
    assert b"usage" not in b"".join(CODEC.replay(body, UNASKED))


def test_usage_that_only_the_recorder_asked_for_does_not_reach_the_caller() -> None:
    stream = stream_of([role(content="hi")])
    sent = CODEC.forward(UNASKED, ask_usage=True)
    passed, body = record([stream], UNASKED, sent)
    assert body["usage"] == USAGE
    *chunks, usage, done = events(stream)
    assert b"prompt_tokens" in usage
    without_usage = [{k: v for k, v in json.loads(chunk).items() if k != "usage"} for chunk in chunks]
    assert [json.loads(chunk) for chunk in events(passed)[:-1]] == without_usage
    assert events(passed)[-1] == done


def test_usage_that_the_server_volunteers_reaches_the_caller() -> None:
    stream = stream_of([role(content="hi")])
    assert record([stream], UNASKED)[0] == stream


@pytest.mark.parametrize(
    "stream",
    [
        stream_of([role(content="hi")], end=b"[DON"),
        stream_of([role(content="hi")], finish=None),
        stream_of([role(content="hi")]).replace(b'"content"', b'"content', 1),
        stream_of([role(content="hi")]).replace(b"data: [DONE]", b'data: {"error":{"message":"overloaded"}}'),
        stream_of([role(content="hi", audio={"id": "a"})]),
        stream_of([role(reasoning_details=[{"index": 0, "text": "t"}])]),
        b"data: [DONE]\n\n",
        b"",
        b"\xff\xfe: [DONE]\n\ndata: \xff\n\n",
    ],
    ids=["no end", "no finish", "bad json", "error event", "audio", "unknown list", "nothing", "empty", "not utf-8"],
)
def test_a_stream_that_is_not_whole_or_not_understood_is_passed_on_and_not_recorded(stream: bytes) -> None:
    assert record(cut(stream, [7])) == (stream, None)


@given(st.integers(0, 10_000))
def test_a_stream_that_stops_anywhere_before_its_end_is_not_recorded(at: int) -> None:
    stream = stream_of([role(content=""), {"delta": {"content": "hello"}}])
    end = stream.index(b"[DONE]\n\n") + len(b"[DONE]\n\n")
    assert record([stream[: at % end]])[1] is None


def test_an_event_counts_only_when_it_has_been_handed_out() -> None:
    recorder = CODEC.recorder(ASKED)
    pulled = recorder.feed(stream_of([role(content="hi")]))
    while b"[DONE]" not in (piece := next(pulled)):
        assert recorder.finish() is None, piece
    assert recorder.finish() is not None


def test_a_character_that_was_cut_in_two_is_whole_in_the_record() -> None:
    _, body = record(
        [stream_of([role(content=""), {"delta": {"content": "\ud83d"}}, {"delta": {"content": "\ude00"}}])]
    )
    assert body["choices"][0]["message"]["content"] == "😀"


def test_fields_of_compatible_servers_survive() -> None:
    deltas = [
        {"delta": {"role": "assistant", "content": None, "reasoning_content": "let "}},
        {"delta": {"reasoning_content": "me see"}, "stop_reason": None},
        {"delta": {"content": "42"}, "content_filter_results": {"hate": {"filtered": False}}},
    ]
    _, body = record([stream_of(deltas)])
    choice = body["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "42", "reasoning_content": "let me see"}
    assert choice["content_filter_results"] == {"hate": {"filtered": False}}
    _, again = record([b"".join(CODEC.replay(body, ASKED))])
    assert again == body
