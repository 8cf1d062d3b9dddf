"""Record and replay of Responses streams, judged by the SDK's own accumulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_streams import cut, responses_events, responses_final, responses_plain

from semcache.wire import _sse
from semcache.wire._json import dumps
from semcache.wire.openai_responses import OpenAIResponses

CODEC = OpenAIResponses()
Json = dict[str, Any]
USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 13,
}
HEAD = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1700000000,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "gpt-x",
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
}


def answer(*output: Json, **fields: Any) -> Json:
    return {**HEAD, "status": "completed", "output": list(output), "usage": USAGE, **fields}


def message(*parts: Json, number: int = 0) -> Json:
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": list(parts),
    }


def said(text: str, **fields: Any) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [], **fields}


def refused(text: str) -> Json:
    return {"type": "refusal", "refusal": text}


def call(number: int, arguments: str) -> Json:
    name = {"call_id": f"call_{number}", "name": "look", "arguments": arguments}
    return {"id": f"fc_{number}", "type": "function_call", "status": "completed", **name}


def stream_of(body: Json, size: int = 3, *, end: str = "response.completed") -> bytes:
    """A stream as OpenAI sends it, written from the API reference and not by the codec under test."""
    opening = {**body, "status": "in_progress", "output": [], "usage": None}
    events = [{"type": "response.created", "response": opening}, {"type": "response.in_progress", "response": opening}]
    for index, item in enumerate(body["output"]):
        at = {"item_id": item["id"], "output_index": index}
        bare = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
        added = {"output_index": index, "item": {**item, **bare, "status": "in_progress"}}
        events.append({"type": "response.output_item.added", **added})
        if item["type"] == "function_call":
            events += fragments("response.function_call_arguments", "arguments", item["arguments"], size, at)
        for number, part in enumerate(item.get("content") or ()):
            here = {**at, "content_index": number}
            field = "text" if part["type"] == "output_text" else "refusal"
            kind = "output_text" if field == "text" else "refusal"
            events.append({"type": "response.content_part.added", **here, "part": {**part, field: ""}})
            events += fragments(f"response.{kind}", field, part[field], size, here)
            events.append({"type": "response.content_part.done", **here, "part": part})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": end, "response": body})
    return b"".join(_sse.write({**event, "sequence_number": n}, event["type"]) for n, event in enumerate(events))


def fragments(name: str, field: str, text: str, size: int, at: Json) -> Iterator[Json]:
    extra: Json = {"logprobs": []} if name == "response.output_text" else {}
    for start in range(0, len(text), size):
        yield {"type": f"{name}.delta", **at, **extra, "delta": text[start : start + size], "obfuscation": "xx"}
    yield {"type": f"{name}.done", **at, **extra, field: text}


def record(chunks: list[bytes]) -> Any:
    """What the caller gets, and the recorded body."""
    recorder = CODEC.recorder({"stream": True})
    passed = [piece for chunk in chunks for piece in recorder.feed(chunk)]
    return b"".join([*passed, recorder.flush()]), recorder.finish()


def replay(body: Json) -> list[bytes]:
    return list(CODEC.replay(body, {"stream": True}))


def deltas(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type.endswith(".delta"))


texts = st.text(max_size=300)
parts = st.one_of(texts.map(said), texts.map(refused))
arguments = texts.map(lambda text: json.dumps({"city": text}, ensure_ascii=False))


@st.composite
def answers(draw: st.DrawFn) -> Json:
    output: list[Json] = []
    for number in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            output.append(message(*draw(st.lists(parts, max_size=3)), number=number))
        else:
            output.append(call(number, draw(arguments)))
    return answer(*output)


sizes = st.lists(st.integers(1, 900), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(answers(), st.integers(1, 40), sizes)
def test_the_sdk_cannot_tell_a_replay_from_the_stream(body: Json, size: int, sizes: list[int]) -> None:
    stream = stream_of(body, size)
    passed, recorded = record(cut(stream, sizes))
    assert passed == stream
    assert recorded == body
    live, replayed = responses_final([stream]), responses_final(replay(recorded))
    assert replayed == live == responses_plain(dumps(recorded))


@settings(max_examples=30, deadline=None)
@given(answers(), sizes)
def test_the_events_of_a_replay_add_up_to_its_answer(body: Json, sizes: list[int]) -> None:
    live, replayed = responses_events([stream_of(body)]), responses_events(cut(b"".join(replay(body)), sizes))
    assert [event.sequence_number for event in replayed] == list(range(len(replayed)))
    assert deltas(replayed) == deltas(live)

    def skeleton(events: list[Any]) -> list[Any]:
        kept = [event.model_dump(exclude={"sequence_number"}) for event in events if not event.type.endswith(".delta")]
        return [event for event in kept if event["type"] != "response.completed"]

    assert skeleton(replayed) == skeleton(live)
    assert record([b"".join(replay(body))])[1] == body


def test_ten_thousand_chunks() -> None:
    text = "".join(f"wörd{i:05d} " for i in range(10_000))
    stream = stream_of(answer(message(said(text))), size=10)
    assert stream.count(b"response.output_text.delta") == 2 * 10_000
    passed, body = record(cut(stream, [4096]))
    assert passed == stream
    assert responses_final(replay(body))["output"][0]["content"][0]["text"] == text


def test_reasoning_custom_tools_annotations_and_probabilities_are_replayed_whole() -> None:
    logprobs = [{"token": "see", "logprob": -0.1, "bytes": [1], "top_logprobs": []}]
    cited = [{"type": "url_citation", "start_index": 0, "end_index": 1, "title": "t", "url": "https://host/x"}]
    body = answer(
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "first " * 50}, {"type": "summary_text", "text": ""}],
            "content": [{"type": "reasoning_text", "text": "let me see"}],
            "encrypted_content": "gAAAA==",
        },
        message(said("see " * 100, logprobs=logprobs, annotations=cited), refused("no"), said("")),
        {"id": "ctc_1", "type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "select 1\n" * 40},
        moderation=None,
        completed_at=1700000001,
    )
    chunks = replay(body)
    assert responses_final(chunks) == responses_plain(dumps(body))
    kinds = [event.type.removeprefix("response.") for event in responses_events(chunks)]
    assert [kind for at, kind in enumerate(kinds) if kind != kinds[at - 1]] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "reasoning_summary_part.added",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "content_part.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]
    (opening, *_, closing) = responses_events(chunks)
    assert (opening.response.status, opening.response.output, opening.response.usage) == ("in_progress", [], None)
    assert closing.response.completed_at == 1700000001


def test_items_are_put_together_where_the_last_event_leaves_them_out() -> None:
    body = answer(message(said("one")), call(1, "{}"))
    stream = stream_of(body)
    last = stream.rindex(b"event: response.completed")
    without_output = _sse.write({"type": "response.completed", "response": {**body, "output": None}})
    stream = stream[:last] + without_output + b"data: [DONE]\n\n"
    assert record([stream]) == (stream, body)
    assert responses_final([stream]) == responses_final(replay(body))


def test_an_incomplete_answer_is_recorded_as_such() -> None:
    body = answer(message(said("one")), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    _, recorded = record([stream_of(body, end="response.incomplete")])
    assert CODEC.storable(recorded) == ("never", "status: incomplete")


HELLO = stream_of(answer(message(said("hello"))))


@pytest.mark.parametrize(
    "stream",
    [
        HELLO.replace(b"response.completed", b"response.failed"),
        HELLO.replace(b'"delta"', b'"delta', 1),
        HELLO.replace(b'"sequence_number":4', b'"error":{"message":"overloaded"}'),
        HELLO + b'event: error\ndata: {"type":"error","code":"server_error","message":"m"}\n\n',
        HELLO[: HELLO.rindex(b"event: ")],
        b"data: [DONE]\n\n",
        b"data: {}\n\n",
        b"",
        b"\xff\xfe: x\n\ndata: \xff\n\n",
    ],
    ids=["failed", "bad json", "error body", "error event", "no end", "nothing", "no type", "empty", "not utf-8"],
)
def test_a_stream_that_is_not_whole_or_not_understood_is_passed_on_and_not_recorded(stream: bytes) -> None:
    assert record(cut(stream, [7])) == (stream, None)


@given(st.integers(0, len(HELLO) - 1))
def test_a_stream_that_stops_anywhere_before_its_end_is_not_recorded(at: int) -> None:
    assert record([HELLO[:at]])[1] is None


def test_an_event_counts_only_when_it_has_been_handed_out() -> None:
    recorder = CODEC.recorder({"stream": True})
    pulled = recorder.feed(HELLO)
    while b"response.completed" not in (piece := next(pulled)):
        assert recorder.finish() is None, piece
    assert recorder.finish() is not None
