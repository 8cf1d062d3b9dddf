"""Record and replay of Bedrock's streams, judged by botocore's own parsers and by the Anthropic SDK."""

from __future__ import annotations

import base64
import functools
import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import anthropic
import httpx2
import pytest
from botocore.eventstream import EventStream, EventStreamBuffer
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import EventStreamJSONParser, create_parser
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_streams import Chunks, cut

from semcache.testing._upstream_bedrock import frame
from semcache.types import Usage
from semcache.wire import _eventstream
from semcache.wire._json import dumps
from semcache.wire.anthropic_hosted import AnthropicOnBedrock
from semcache.wire.bedrock import BedrockConverse

CODEC, INVOKE = BedrockConverse(), AnthropicOnBedrock()
USAGE = {"inputTokens": 20, "outputTokens": 4, "totalTokens": 24, "cacheReadInputTokens": 7}
METRICS = {"latencyMs": 311}

Events = list[tuple[str, dict[str, Any]]]


def event(name: str, data: dict[str, Any]) -> bytes:
    return frame({":message-type": "event", ":event-type": name}, {**data, "p": "abcdef"})


@functools.cache
def operation(name: str) -> OperationModel:
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2")).operation_model(name)


class Raw:
    """What botocore reads a stream from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks

    def stream(self) -> Iterable[bytes]:
        return self._chunks

    def close(self) -> None: ...


def events_of(chunks: Iterable[bytes]) -> list[dict[str, Any]]:
    """The events that botocore hands to whoever called ``converse_stream``."""
    shape = operation("ConverseStream").output_shape.members["stream"]
    return list(EventStream(Raw(chunks), shape, EventStreamJSONParser(), "ConverseStream"))


def folded(chunks: Iterable[bytes]) -> list[Any]:
    """botocore's events, with the deltas of one kind in a row as one."""
    found: list[Any] = []
    for name, data in (item for one in events_of(chunks) for item in one.items()):
        if name != "contentBlockDelta":
            found.append([name, data])
            continue
        ((kind, delta),) = data["delta"].items()
        delta = {"text": delta} if kind == "text" else delta
        ((field, value),) = delta.items()
        head = [name, data["contentBlockIndex"], kind, field]
        if found and found[-1][:4] == head:
            found[-1][4] += value
        elif value:
            found.append([*head, value])
    return found


def plain(body: dict[str, Any]) -> Any:
    """What botocore makes of a body for whoever called ``converse``."""
    parser = create_parser("rest-json")
    response = {"status_code": 200, "headers": {}, "body": dumps(body)}
    parsed = parser.parse(response, operation("Converse").output_shape)
    del parsed["ResponseMetadata"]
    return parsed


def message_of(chunks: Iterable[bytes]) -> Any:
    """The answer that a caller of ``converse_stream`` puts together."""
    blocks: dict[int, dict[str, Any]] = {}
    answer: dict[str, Any] = {}
    for name, *rest in folded(chunks):
        if name == "contentBlockStart":
            blocks[rest[0]["contentBlockIndex"]] = {"toolUse": {**rest[0]["start"]["toolUse"], "input": ""}}
        elif name == "contentBlockDelta":
            index, kind, field, value = rest
            if kind == "toolUse":
                blocks[index]["toolUse"]["input"] = value
            elif kind == "text":
                blocks[index] = {"text": value}
            elif field == "redactedContent":
                blocks[index] = {"reasoningContent": {field: value}}
            else:
                thought = blocks.setdefault(index, {"reasoningContent": {"reasoningText": {"text": ""}}})
                thought["reasoningContent"]["reasoningText"][field] = value
        elif name == "contentBlockStop":
            blocks.setdefault(rest[0]["contentBlockIndex"], {"text": ""})
        elif name == "messageStart":
            role = rest[0]["role"]
        else:
            answer.update(rest[0])
    content = [block for _, block in sorted(blocks.items())]
    for call in (block["toolUse"] for block in content if "toolUse" in block):
        call["input"] = json.loads(call["input"] or "{}")
    return {"output": {"message": {"role": role, "content": content}}, **answer}


def stream_of(blocks: Sequence[Events], stop: str = "end_turn", **metadata: Any) -> bytes:
    """A stream as Bedrock sends it, written from the service model and not by the codec under test."""
    parts = [event("messageStart", {"role": "assistant"})]
    for index, block in enumerate(blocks):
        parts += [event(name, {**data, "contentBlockIndex": index}) for name, data in block]
        parts.append(event("contentBlockStop", {"contentBlockIndex": index}))
    parts.append(event("messageStop", {"stopReason": stop}))
    return b"".join([*parts, event("metadata", {"usage": USAGE, "metrics": METRICS, **metadata})])


def record(codec: Any, chunks: Iterable[bytes]) -> tuple[bytes, Any]:
    recorder = codec.recorder({})
    passed = [piece for chunk in chunks for piece in recorder.feed(chunk)]
    return b"".join([*passed, recorder.flush()]), recorder.finish()


def text(*parts: str) -> Events:
    return [("contentBlockDelta", {"delta": {"text": part}}) for part in parts]


def tool(arguments: str, size: int = 3) -> Events:
    pieces = [arguments[i : i + size] for i in range(0, len(arguments), size)]
    start = ("contentBlockStart", {"start": {"toolUse": {"toolUseId": "tooluse_1", "name": "look"}}})
    return [start, *(("contentBlockDelta", {"delta": {"toolUse": {"input": piece}}}) for piece in pieces)]


def thought(*parts: str, signature: str | None = "c2ln") -> Events:
    deltas: list[Any] = [{"text": part} for part in parts]
    deltas += [] if signature is None else [{"signature": signature}]
    return [("contentBlockDelta", {"delta": {"reasoningContent": delta}}) for delta in deltas]


REDACTED: Events = [("contentBlockDelta", {"delta": {"reasoningContent": {"redactedContent": "b3BhcXVl"}}})]

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
a_block = st.one_of(
    st.lists(texts, max_size=5).map(lambda parts: text(*parts)),
    st.lists(texts, min_size=1, max_size=3).map(lambda parts: thought(*parts)),
    st.builds(
        lambda value, size: tool(json.dumps(value), size),
        st.dictionaries(texts, json_values, max_size=3),
        st.integers(1, 9),
    ),
    st.just(tool("")),
    st.just(REDACTED),
    st.just(thought("hm", signature=None)),
)
sizes = st.lists(st.integers(1, 400), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(a_block, max_size=4), sizes)
def test_botocore_cannot_tell_a_replay_from_the_stream(blocks: list[Events], sizes: list[int]) -> None:
    stream = stream_of(blocks)
    passed, body = record(CODEC, cut(stream, sizes))
    assert passed == stream
    replayed = list(CODEC.replay(body, {}))
    assert message_of(replayed) == message_of([stream]) == plain(body)
    assert _shapes(folded(replayed)) == _shapes(folded([stream]))
    assert record(CODEC, cut(b"".join(replayed), sizes))[1] == body


def _shapes(events: list[Any]) -> list[Any]:
    """Events without the JSON text of arguments, whose spacing is the model's."""
    return [one[:4] if one[2:4] == ["toolUse", "input"] else one for one in events if one[4:] != ["{}"]]


def test_ten_thousand_chunks() -> None:
    words = [f"wörd{i} 🎉 " for i in range(10_000)]
    stream = stream_of([text(*words)])
    passed, body = record(CODEC, cut(stream, [4096]))
    assert passed == stream
    assert message_of(CODEC.replay(body, {}))["output"]["message"]["content"] == [{"text": "".join(words)}]


def test_half_a_surrogate_pair_at_the_end_of_a_chunk() -> None:
    pair = "🎉".encode("utf-16-be", "surrogatepass")
    halves = [pair[i : i + 2].decode("utf-16-be", "surrogatepass") for i in (0, 2)]
    _, body = record(CODEC, [stream_of([text("so ", *halves)])])
    assert body["output"]["message"]["content"] == [{"text": "so 🎉"}]


def test_what_the_last_events_carry_survives() -> None:
    more = {"trace": {"promptRouter": {"invokedModelId": "m"}}, "serviceTier": {"type": "flex"}}
    stop = event("messageStop", {"stopReason": "end_turn"})
    fields = event("messageStop", {"stopReason": "end_turn", "additionalModelResponseFields": {"stop_sequence": "x"}})
    stream = stream_of([text("hi")], **more).replace(stop, fields)
    _, body = record(CODEC, [stream])
    assert {name: body[name] for name in more} == more
    assert body["additionalModelResponseFields"] == {"stop_sequence": "x"}
    assert events_of(CODEC.replay(body, {})) == events_of([stream])


WHOLE = stream_of([text("hi")])
FAILED = frame({":message-type": "exception", ":exception-type": "throttlingException"}, {"message": "busy"})


@pytest.mark.parametrize(
    "stream",
    [
        WHOLE[:-5],
        stream_of([text("hi")]).replace(event("messageStop", {"stopReason": "end_turn"}), b""),
        stream_of([text("hi")]).replace(event("messageStart", {"role": "assistant"}), b""),
        WHOLE.replace(event("contentBlockStop", {"contentBlockIndex": 0}), b""),
        WHOLE.replace(event("messageStop", {"stopReason": "end_turn"}), FAILED),
        WHOLE + event("something_new", {"a": 1}),
        stream_of([[("contentBlockDelta", {"delta": {"citation": {"title": "t"}}})]]),
        stream_of([[("contentBlockStart", {"start": {"image": {"format": "png"}}})]]),
        stream_of([[*text("a"), *tool("{}")]]),
        stream_of([tool('{"city": "Par')]),
        stream_of([[*REDACTED, *REDACTED]]),
        stream_of([[*REDACTED, *thought("a", signature=None)]]),
        WHOLE.replace(b'"hi"', b'"ha"'),
        b"\x00" * 64,
        b"not an event stream at all",
        b"",
    ],
    ids=[
        "cut",
        "no stop",
        "no start",
        "open block",
        "exception",
        "unknown event",
        "citation",
        "image",
        "mixed block",
        "torn tool input",
        "redacted in pieces",
        "redacted and text",
        "wrong checksum",
        "zeros",
        "text",
        "empty",
    ],
)
def test_a_stream_that_is_not_whole_or_not_understood_is_passed_on_and_not_recorded(stream: bytes) -> None:
    for size in (5, 7, 4096):
        assert record(CODEC, cut(stream, [size])) == (stream, None)


@given(st.integers(0, 10_000))
def test_a_stream_that_stops_anywhere_before_its_end_is_not_recorded(at: int) -> None:
    assert record(CODEC, [WHOLE[: at % len(WHOLE)]])[1] is None


# Framing ----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=20).filter(lambda name: len(name.encode("utf-8", "replace")) < 255), json_values)
def test_botocore_reads_what_is_written(name: str, value: Any) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(_eventstream.write(name, value))
    (message,) = buffer
    expected = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    assert message.headers == expected
    assert message.payload == dumps(value)


@given(st.lists(st.tuples(st.sampled_from(["a", "bc", "d" * 100]), json_values), max_size=6), sizes)
def test_a_splitter_finds_every_message_in_any_split(messages: list[tuple[str, Any]], sizes: list[int]) -> None:
    stream = b"".join(_eventstream.write(*message) for message in messages)
    splitter = _eventstream.Splitter()
    found = [one for chunk in cut(stream, sizes) for one in splitter.feed(chunk)]
    assert [(one.name, one.data) for one in found] == [(name, dumps(value)) for name, value in messages]
    assert b"".join(one.raw for one in found) + splitter.rest() == stream


def test_headers_of_every_type_are_stepped_over() -> None:
    """By the table of header types of the event-stream specification."""
    values = [b"\x00", b"\x01", b"\x02\x01", b"\x03\x01\x02", b"\x04" + b"1" * 4, b"\x05" + b"1" * 8]
    values += [b"\x06\x00\x02ab", b"\x08" + b"1" * 8, b"\x09" + b"1" * 16]
    odd = b"".join(b"\x02h%d" % number + value for number, value in enumerate(values))
    plain = _eventstream.write("a", {})
    message = _rebuilt(plain, odd)
    buffer = EventStreamBuffer()
    buffer.add_data(message)
    (read,) = buffer
    assert len(read.headers) == 3 + len(values)
    (found,) = _eventstream.Splitter().feed(message)
    assert (found.name, found.data, found.raw) == ("a", b"{}", message)


def _rebuilt(message: bytes, more_headers: bytes) -> bytes:
    """A message with further headers before its own."""
    total, headers, _ = struct.unpack(">III", message[:12])
    prelude = struct.pack(">II", total + len(more_headers), headers + len(more_headers))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + more_headers + message[12:-4]
    return body + struct.pack(">I", zlib.crc32(body))


# Anthropic's events in AWS's frames -------------------------------------------------------------------------------


def invoked(chunks: Iterable[bytes]) -> dict[str, Any]:
    """The final message that ``AnthropicBedrock.messages.stream`` makes of a stream."""

    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": _eventstream.MEDIA_TYPE}, stream=Chunks(list(chunks)))

    http_client = httpx2.Client(transport=httpx2.MockTransport(handle))
    client = anthropic.AnthropicBedrock(api_key="k", aws_region="us-east-1", http_client=http_client)
    with client.messages.stream(model="m", messages=[{"role": "user", "content": "hi"}], max_tokens=9) as stream:
        return stream.get_final_message().model_dump()


def chunk(data: dict[str, Any]) -> bytes:
    return event("chunk", {"bytes": base64.b64encode(json.dumps(data).encode()).decode()})


def invocation(*parts: str, stop: str = "end_turn") -> bytes:
    head = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "stop_reason": None}
    usage = {"input_tokens": 3, "output_tokens": 1}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**head, "stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}} for p in parts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 9}},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 3, "outputTokenCount": 9}},
    ]
    return b"".join(chunk(one) for one in events)


@settings(max_examples=30, deadline=None)
@given(st.lists(texts, max_size=5), sizes)
def test_the_sdk_cannot_tell_a_replayed_invocation_from_the_stream(parts: list[str], sizes: list[int]) -> None:
    stream = invocation(*parts)
    passed, body = record(INVOKE, cut(stream, sizes))
    assert passed == stream
    assert invoked(INVOKE.replay(body, {})) == invoked([stream])
    assert INVOKE.usage(body) == Usage(3, 9)


@pytest.mark.parametrize(
    "stream",
    [
        invocation("hi")[:-9],
        FAILED,
        invocation("hi") + event("chunk", {"bytes": "!"}),
        invocation("hi") + event("other", {"bytes": ""}),
    ],
    ids=["cut", "exception", "not base64", "unknown event"],
)
def test_an_invocation_that_is_not_whole_is_not_recorded(stream: bytes) -> None:
    assert record(INVOKE, cut(stream, [100])) == (stream, None)
