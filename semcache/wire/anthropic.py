"""Anthropic Messages.

Fields and stream order: anthropic 2.12.0 (``types``, ``lib/streaming``), read 2026-11-21.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from semcache.types import Request, Usage
from semcache.wire import _sse
from semcache.wire._common import (
    AT_A_URL,
    Block,
    NotRecordable,
    Reading,
    StreamRecorder,
    Uncacheable,
    attached,
    blocks,
    conversation,
    count,
    expect,
    join,
    new_request,
    pieces,
    plain,
    without,
)
from semcache.wire._json import dumps, loads_object
from semcache.wire._sse import Event
from semcache.wire.base import Codec, Recorder, Storable

# Request fields that do not change the answer. Source: API reference and SDK types, 2026-11-21.
_TRANSPORT_ONLY: Final = frozenset({"cache_control", "diagnostics", "metadata", "service_tier", "speed", "stream"})
_MARKS: Final = frozenset({"cache_control"})
_HEADERS: Final = ("anthropic-beta", "anthropic-version")
# Body fields by which the server keeps state, or reaches out to live data. Source: SDK types, 2026-11-21.
_SERVER_SIDE: Final = ("container", "thread", "mcp_servers")
# Tools that run at the caller's; any other type than these and plain functions runs at Anthropic's. 2026-11-21.
_CLIENT_TOOLS: Final = ("bash_", "text_editor_", "computer_", "memory_", "browser_toolset_")

_FINAL_DELTA: Final = ("stop_reason", "stop_sequence", "stop_details", "container")
_FINAL_EVENT: Final = ("context_management", "input_transformations")
# Parts of the usage that arrive with the last event; the rest comes with the first.
_FINAL_USAGE: Final = frozenset({"output_tokens", "output_tokens_details", "server_tool_use", "iterations"})
# Totals that the last event repeats.
_REPEATED_USAGE: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class AnthropicMessages(Codec):
    """``POST …/v1/messages``."""

    name = "anthropic"
    stream_type = _sse.MEDIA_TYPE

    def matches(self, method: str, path: str) -> bool:
        return method == "POST" and path.endswith("/v1/messages")

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        # The body is of one format, whoever hosts the model.
        request = new_request(AnthropicMessages.name, body, upstream=upstream, headers=headers, in_scope=_HEADERS)
        return conversation(request, lambda: _read(body))

    def storable(self, body: Mapping[str, Any]) -> Storable:
        content, stop = body.get("content"), body.get("stop_reason")
        if body.get("type") != "message" or not isinstance(content, list):
            return Storable("never", "not a message")
        if stop not in ("end_turn", "stop_sequence", "tool_use"):
            return Storable("never", f"stop_reason: {stop}")
        if body.get("container") is not None:
            return Storable("never", "container")
        kinds = [block.get("type") if isinstance(block, Mapping) else None for block in content]
        for kind in kinds:
            if kind not in ("text", "thinking", "redacted_thinking", "tool_use"):
                return Storable("never", f"content of type {kind}")
        if "tool_use" in kinds or stop == "tool_use":
            return Storable("exact", "tool calls")
        if not any(block.get("text") for block in content):
            return Storable("never", "empty answer")
        if kinds != ["text"] * len(kinds):
            return Storable("exact", "reasoning artefacts belong to one prompt")
        return Storable("all")

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        usage = body.get("usage")
        if not isinstance(usage, Mapping):
            return None
        read, write = count(usage, "cache_read_input_tokens"), count(usage, "cache_creation_input_tokens")
        return Usage(
            # Anthropic counts the cached tokens beside the input, not in it.
            input_tokens=count(usage, "input_tokens") + read + write,
            output_tokens=count(usage, "output_tokens"),
            cache_read_tokens=read,
            cache_write_tokens=write,
            reasoning_tokens=count(usage, "output_tokens_details", "thinking_tokens"),
            cache_write_long_tokens=count(usage, "cache_creation", "ephemeral_1h_input_tokens"),
        )

    def recorder(self, body: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> Recorder:
        record = Record()
        return StreamRecorder(record.take, record.build)

    def replay(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[bytes]:
        for event in events(answer):
            yield _sse.write(event, event["type"])


def events(answer: Mapping[str, Any]) -> Iterator[Block]:
    """A message as the events of its stream."""
    yield {"type": "message_start", "message": _opening(answer)}
    for index, block in enumerate(answer["content"]):
        start, deltas = _block_deltas(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {name: answer[name] for name in _FINAL_DELTA if name in answer},
        "usage": _closing_usage(answer.get("usage") or {}),
        **{name: answer[name] for name in _FINAL_EVENT if answer.get(name) is not None},
    }
    yield {"type": "message_stop"}


def _read(body: Mapping[str, Any]) -> Reading:
    messages = [_normal_block(message) for message in blocks(body.get("messages"), "messages")]
    expect(bool(messages), "no messages")
    bypass = _bypass(body)
    seen = without(body, _TRANSPORT_ONLY)
    if isinstance(body.get("system"), list):
        seen["system"] = plain([_normal_block(block) for block in blocks(body["system"], "system")])
    if body.get("tools"):
        seen["tools"] = [without(tool, _MARKS) for tool in blocks(body["tools"], "tools")]
    return Reading(messages, seen, bypass)


def _normal_block(block: Block) -> Block:
    """A message or content block without cache marks, with digests for attachments, to any depth of content.

    A string of content is short for one block of text (API reference, 2026-11-21).
    """
    normal = without(block, _MARKS)
    content = normal.get("content")
    if "role" in block:
        expect(isinstance(content, (str, list)), "message content")
    if isinstance(content, list):
        normal["content"] = plain([_normal_block(part) for part in blocks(content, "content blocks")])
    source = normal.get("source")
    if isinstance(source, dict):
        normal["source"] = _normal_source(source)
    return normal


def _normal_source(source: Block) -> Block:
    if source.get("type") == "base64":
        return {**source, "data": attached(source.get("data"))}
    if source.get("type") == "url":
        raise Uncacheable(AT_A_URL)
    if isinstance(source.get("content"), list):
        return _normal_block(source)
    return source


def _bypass(body: Mapping[str, Any]) -> str:
    """Why this request must not be cached; empty if it may."""
    expect(isinstance(body.get("model"), str), "model")
    expect(body.get("stream") is None or isinstance(body["stream"], bool), "stream")
    return "prompt-cache warm-up" if body.get("max_tokens") == 0 else server_side(body)


def server_side(body: Mapping[str, Any]) -> str:
    """What in Anthropic's request fields reaches beyond the request; empty if nothing does."""
    for field in _SERVER_SIDE:
        if body.get(field):
            return f"server-side state: {field}"
    for tool in blocks(body.get("tools") or [], "tools"):
        kind = tool.get("type") or "custom"
        if kind != "custom" and not str(kind).startswith(_CLIENT_TOOLS):
            return f"server tool: {kind}"
    return ""


class Record:
    """The message as its events come in: see :class:`~semcache.wire._common.StreamRecorder`."""

    def __init__(self) -> None:
        self._message: Block = {}
        self._blocks: list[_OpenBlock] = []
        self._done = False

    def take(self, event: Event) -> bytes:
        data = loads_object(event.data)
        if data is None:
            raise NotRecordable
        kind = data.get("type")
        if kind == "message_start":
            self._message = dict(data["message"])
        elif kind == "content_block_start":
            if data["index"] != len(self._blocks):
                raise NotRecordable
            self._blocks.append(_OpenBlock(data["content_block"]))
        elif kind == "content_block_delta":
            self._blocks[data["index"]].take(data["delta"])
        elif kind == "content_block_stop":
            self._blocks[data["index"]].closed = True
        elif kind == "message_delta":
            self._close(data)
        elif kind == "message_stop":
            self._done = True
        elif kind != "ping":
            raise NotRecordable
        return event.raw

    def _close(self, data: Block) -> None:
        delta = without(data["delta"], frozenset(_FINAL_DELTA[3:]))
        self._message.update(delta)
        if data["delta"].get("container") is not None:
            self._message["container"] = data["delta"]["container"]
        # Counts are totals; those that are left out keep the value of the first event.
        totals = {name: value for name, value in data["usage"].items() if value is not None}
        self._message["usage"] = {**(self._message.get("usage") or {}), **totals}
        self._message.update({name: data[name] for name in _FINAL_EVENT if data.get(name) is not None})

    def build(self) -> Block | None:
        whole = self._done and self._message.get("stop_reason") is not None
        if not whole or not all(block.closed for block in self._blocks):
            return None
        return {**self._message, "content": [block.build() for block in self._blocks]}


class _OpenBlock:
    """A content block that is being streamed; texts are lists of their fragments."""

    _TEXTS: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}

    def __init__(self, start: Block) -> None:
        self._block = dict(start)
        self._texts: dict[str, list[str]] = {}
        self.closed = False

    def take(self, delta: Block) -> None:
        kind = delta["type"]
        if kind in self._TEXTS:
            field = self._TEXTS[kind]
            self._texts.setdefault(field, []).append(delta[field])
        elif kind == "signature_delta":
            self._block["signature"] = delta["signature"]
        elif kind == "citations_delta":
            self._block["citations"] = [*(self._block.get("citations") or []), delta["citation"]]
        else:
            raise NotRecordable

    def build(self) -> Block:
        block = dict(self._block)
        for field, fragments in self._texts.items():
            text = join(fragments)
            if field != "partial_json":
                block[field] = block.get(field, "") + text
            elif text:
                block["input"] = json.loads(text)
        return block


def _opening(answer: Mapping[str, Any]) -> Block:
    """The message of ``message_start``: no content yet, nothing of how it ends."""
    usage = answer.get("usage") or {}
    message = {**without(answer, frozenset(_FINAL_DELTA + _FINAL_EVENT)), "content": []}
    message.update(dict.fromkeys(name for name in _FINAL_DELTA[:3] if name in answer))
    if usage:
        message["usage"] = {**without(usage, _FINAL_USAGE), "output_tokens": min(1, count(usage, "output_tokens"))}
    return message


def _closing_usage(usage: Mapping[str, Any]) -> Block:
    repeated = {name: usage[name] for name in _REPEATED_USAGE if usage.get(name) is not None}
    final = {name: value for name, value in usage.items() if name in _FINAL_USAGE and value is not None}
    return {"output_tokens": 0, **repeated, **final}


def _block_deltas(block: Block) -> tuple[Block, Iterator[Block]]:
    """How a finished content block starts, and its deltas. A block of a kind without deltas starts whole."""
    kind = block.get("type")
    if kind == "text":
        return _text_deltas(block)
    if kind == "thinking":
        return {**block, "thinking": "", "signature": ""}, _thinking_deltas(block)
    if kind == "tool_use":
        return {**block, "input": {}}, _input_deltas(block)
    return block, iter(())


def _text_deltas(block: Block) -> tuple[Block, Iterator[Block]]:
    citations = block.get("citations") or []
    start = {**block, "text": ""}
    if citations:
        start["citations"] = []

    def deltas() -> Iterator[Block]:
        for piece in pieces(block["text"]):
            yield {"type": "text_delta", "text": piece}
        for citation in citations:
            yield {"type": "citations_delta", "citation": citation}

    return start, deltas()


def _thinking_deltas(block: Block) -> Iterator[Block]:
    for piece in pieces(block["thinking"]):
        yield {"type": "thinking_delta", "thinking": piece}
    yield {"type": "signature_delta", "signature": block.get("signature", "")}


def _input_deltas(block: Block) -> Iterator[Block]:
    yield {"type": "input_json_delta", "partial_json": ""}
    if block.get("input"):
        for piece in pieces(dumps(block["input"]).decode()):
            yield {"type": "input_json_delta", "partial_json": piece}
