"""Record and replay of Messages streams, judged by the SDK's own accumulator."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_streams import anthropic_final, anthropic_plain, cut

from semcache.wire import _sse
from semcache.wire._json import dumps
from semcache.wire.anthropic import AnthropicMessages

CODEC = AnthropicMessages()
ASKED = {"stream": True}
START_USAGE = {
    "input_tokens": 20,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 7,
    "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 1,
    "service_tier": "standard",
}
END_USAGE = {"output_tokens": 44, "output_tokens_details": {"thinking_tokens": 3}}
CITATION = {
    "type": "char_location",
    "cited_text": "x",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 1,
    "file_id": None,
}

Block = tuple[dict[str, Any], list[dict[str, Any]]]


def event(kind: str, **fields: Any) -> bytes:
    return _sse.write({"type": kind, **fields}, kind)


def stream_of(blocks: list[Block], stop: str | None = "end_turn") -> bytes:
    """A stream as Anthropic sends it, written from the API reference and not by the codec under test."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": START_USAGE,
    }
    parts = [event("message_start", message=message), event("ping")]
    for index, (start, deltas) in enumerate(blocks):
        parts.append(event("content_block_start", index=index, content_block=start))
        parts += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        parts.append(event("content_block_stop", index=index))
    parts.append(event("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage=END_USAGE))
    return b"".join([*parts, event("message_stop")])


def record(chunks: list[bytes]) -> Any:
    recorder = CODEC.recorder(ASKED)
    passed = [piece for chunk in chunks for piece in recorder.feed(chunk)]
    return b"".join([*passed, recorder.flush()]), recorder.finish()


def text(*parts: str) -> Block:
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": part} for part in parts]


def tool(arguments: str, size: int = 3, index: int = 0) -> Block:
    pieces = [arguments[i : i + size] for i in range(0, len(arguments), size)]
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces]]
    return {"type": "tool_use", "id": f"toolu_{index}", "name": "look", "input": {}}, deltas


def thinking(*parts: str) -> Block:
    deltas = [{"type": "thinking_delta", "thinking": part} for part in parts]
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return start, [*deltas, {"type": "signature_delta", "signature": "c2ln"}]


texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
a_block = st.one_of(
    st.lists(texts, max_size=5).map(lambda parts: text(*parts)),
    st.lists(texts, max_size=3).map(lambda parts: thinking(*parts)),
    st.builds(
        lambda value, size: tool(json.dumps(value), size),
        st.dictionaries(texts, json_values, max_size=3),
        st.integers(1, 9),
    ),
    st.just(({"type": "redacted_thinking", "data": "b3BhcXVl"}, [])),
)
sizes = st.lists(st.integers(1, 400), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.lists(a_block, max_size=4), sizes)
def test_the_sdk_cannot_tell_a_replay_from_the_stream(blocks: list[Block], sizes: list[int]) -> None:
    stream = stream_of(blocks)
    passed, body = record(cut(stream, sizes))
    assert passed == stream
    live = anthropic_final([stream])
    assert anthropic_final(list(CODEC.replay(body, ASKED))) == live
    plain = anthropic_plain(dumps(body))
    for block in live["content"]:
        block.pop("parsed_output", None)
    assert plain == live
    _, again = record(cut(b"".join(CODEC.replay(body, ASKED)), sizes))
    assert again == body


def test_ten_thousand_chunks() -> None:
    words = [f"wörd{i} " for i in range(10_000)]
    stream = stream_of([text(*words)])
    passed, body = record(cut(stream, [4096]))
    assert passed == stream
    assert anthropic_final(list(CODEC.replay(body, ASKED)))["content"][0]["text"] == "".join(words)


def test_citations_and_blocks_without_deltas_survive() -> None:
    cited = text("so ", "it is")
    cited = ({**cited[0], "citations": []}, [*cited[1], {"type": "citations_delta", "citation": CITATION}])
    found = {"type": "tool_search_tool_search_result", "tool_references": []}
    whole: Block = ({"type": "tool_search_tool_result", "tool_use_id": "s", "content": found}, [])
    stream = stream_of([cited, whole])
    _, body = record([stream])
    assert body["content"][0]["citations"] == [CITATION]
    assert body["content"][1] == whole[0]
    assert anthropic_final(list(CODEC.replay(body, ASKED))) == anthropic_final([stream])


def test_usage_is_split_as_the_provider_splits_it() -> None:
    _, body = record([stream_of([text("hi")])])
    assert body["usage"] == {**START_USAGE, **END_USAGE}
    events = [json.loads(e.data) for e in _sse.Splitter().feed(b"".join(CODEC.replay(body, ASKED)))]
    kinds = [e["type"] for e in events]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["usage"] == START_USAGE
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["stop_reason"] is None
    assert events[-2]["delta"]["stop_reason"] == "end_turn"
    assert events[-2]["usage"] == {
        "output_tokens": 44,
        "output_tokens_details": {"thinking_tokens": 3},
        "input_tokens": 20,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 7,
    }


def test_every_replayed_event_is_named_since_the_sdk_drops_the_others() -> None:
    _, body = record([stream_of([text("hi")])])
    for e in _sse.Splitter().feed(b"".join(CODEC.replay(body, ASKED))):
        assert e.name == json.loads(e.data)["type"]


WHOLE = stream_of([text("hi")])


@pytest.mark.parametrize(
    "stream",
    [
        stream_of([text("hi")], stop=None),
        WHOLE.replace(b'"text_delta"', b'"text_delta', 1),
        WHOLE.replace(event("message_stop"), event("error", error={"type": "overloaded_error", "message": "busy"})),
        WHOLE.replace(b"text_delta", b"hologram_delta"),
        WHOLE.replace(event("ping"), event("something_new")),
        WHOLE.replace(event("content_block_stop", index=0), b""),
        WHOLE.replace(b'"index":0', b'"index":1'),
        stream_of([tool('{"city": "Par')]),
        event("message_stop"),
        b"",
    ],
    ids=[
        "no stop reason",
        "bad json",
        "error event",
        "unknown delta",
        "unknown event",
        "open block",
        "wrong index",
        "torn tool input",
        "no message",
        "empty",
    ],
)
def test_a_stream_that_is_not_whole_or_not_understood_is_passed_on_and_not_recorded(stream: bytes) -> None:
    assert record(cut(stream, [7])) == (stream, None)


@given(st.integers(0, 10_000))
def test_a_stream_that_stops_anywhere_before_its_end_is_not_recorded(at: int) -> None:
    assert record([WHOLE[: at % len(WHOLE)]])[1] is None
