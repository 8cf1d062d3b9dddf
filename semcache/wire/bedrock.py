"""Bedrock ``Converse`` and ``ConverseStream``.

Fields and stream order: the ``bedrock-runtime`` service model of botocore 1.44.5, read 2026-11-21. The path names the
model and says whether the answer streams; the edge hands it in, percent-decoded, as the header ``:path``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from semcache.types import Request, Usage
from semcache.wire import _eventstream
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
    field,
    join,
    new_request,
    pieces,
    routed,
    without,
)
from semcache.wire._json import dumps, loads_object
from semcache.wire._sse import Event
from semcache.wire.anthropic import server_side
from semcache.wire.base import Codec, Recorder, Storable

_PATH: Final = re.compile(r"/model/(?P<model>.+)/(?:converse|(?P<stream>converse-stream))$")
# Request fields that do not change the answer. Source: service model, 2026-11-21.
_TRANSPORT_ONLY: Final = frozenset({"performanceConfig", "requestMetadata", "serviceTier"})
_MEDIA: Final = ("image", "document", "video", "audio")
# A stream carries these in its last event but one, and all that is left in the last one.
_STOP: Final = ("stopReason", "additionalModelResponseFields")
_BEFORE_METADATA: Final = frozenset({"output", *_STOP})
_PADDING: Final = frozenset({"p"})
_SPOKEN: Final = frozenset({"reasoningText"})


class BedrockConverse(Codec):
    """``POST …/model/MODEL/converse`` and ``/converse-stream``."""

    name = "bedrock"
    stream_type = _eventstream.MEDIA_TYPE

    def matches(self, method: str, path: str) -> bool:
        return method == "POST" and _PATH.search(path) is not None

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        model, stream, upstream = routed(_PATH, headers.get(":path", ""), upstream)
        temperature = field(body.get("inferenceConfig"), "temperature")
        # Of an ARN the prices know the last part.
        named = {"model": model.rpartition("/")[2], "stream": stream, "temperature": temperature}
        request = new_request(self.name, body, upstream=upstream, headers=headers, named=named)
        return conversation(request, lambda: _read(body, model))

    def storable(self, body: Mapping[str, Any]) -> Storable:
        content, stop = field(field(body.get("output"), "message"), "content"), body.get("stopReason")
        if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content):
            return Storable("never", "not a message")
        if stop not in ("end_turn", "stop_sequence", "tool_use"):
            return Storable("never", f"stopReason: {stop}")
        kinds = {kind for block in content for kind in block}
        for kind in sorted(kinds - {"text", "toolUse", "reasoningContent"}):
            return Storable("never", f"content of type {kind}")
        if any(field(block.get("toolUse"), "type") is not None for block in content):
            return Storable("never", "server tool")
        if "toolUse" in kinds or stop == "tool_use":
            return Storable("exact", "tool calls")
        if not any(block.get("text") for block in content):
            return Storable("never", "empty answer")
        if "reasoningContent" in kinds:
            return Storable("exact", "reasoning artefacts belong to one prompt")
        if field(body.get("trace"), "guardrail") is not None:
            return Storable("exact", "a guardrail's trace belongs to one prompt")
        return Storable("all")

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        usage = body.get("usage")
        if not isinstance(usage, Mapping):
            return None
        details = usage.get("cacheDetails")
        details = details if isinstance(details, list) else []
        by_ttl = {str(field(detail, "ttl")): count(detail, "inputTokens") for detail in details}
        read = count(usage, "cacheReadInputTokens")
        write = count(usage, "cacheWriteInputTokens") or sum(by_ttl.values())
        return Usage(
            # Bedrock counts the cached tokens beside the input, not in it.
            input_tokens=count(usage, "inputTokens") + read + write,
            output_tokens=count(usage, "outputTokens"),
            cache_read_tokens=read,
            cache_write_tokens=write,
            cache_write_long_tokens=by_ttl.get("1h", 0),
        )

    def recorder(self, body: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> Recorder:
        record = _Record()
        return StreamRecorder(record.take, record.build, _eventstream.Splitter())

    def replay(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[bytes]:
        message = answer["output"]["message"]
        yield _eventstream.write("messageStart", {"role": message["role"]})
        for index, block in enumerate(message["content"]):
            at = {"contentBlockIndex": index}
            if "toolUse" in block:
                start = {"toolUse": without(block["toolUse"], frozenset({"input"}))}
                yield _eventstream.write("contentBlockStart", {"start": start, **at})
            for delta in _deltas(block):
                yield _eventstream.write("contentBlockDelta", {"delta": delta, **at})
            yield _eventstream.write("contentBlockStop", at)
        yield _eventstream.write("messageStop", {name: answer[name] for name in _STOP if name in answer})
        yield _eventstream.write("metadata", without(answer, _BEFORE_METADATA))


def _read(body: Mapping[str, Any], model: str) -> Reading:
    expect(bool(model), "path")
    messages = [_normal_message(message) for message in blocks(body.get("messages"), "messages")]
    expect(bool(messages), "no messages")
    seen = {**without(body, _TRANSPORT_ONLY.union(("messages",))), "model": model}
    if body.get("system"):
        seen["system"] = _unmarked(body["system"], "system")
    config = body.get("toolConfig") or {}
    expect(isinstance(config, Mapping), "toolConfig")
    if config.get("tools"):
        seen["toolConfig"] = {**config, "tools": _unmarked(config["tools"], "tools")}
    guardrail = body.get("guardrailConfig")
    exact_only = "the guardrail is to see the question itself" if guardrail else ""
    return Reading(messages, seen, _bypass(body, config.get("tools"), model), exact_only)


def _unmarked(given: object, what: str) -> list[Block]:
    """Blocks without those that are nothing but cache points."""
    return [block for block in blocks(given, what) if block.keys() != {"cachePoint"}]


def _normal_message(message: Block) -> Block:
    content = _unmarked(message.get("content"), "content blocks")
    return {**message, "content": [_normal_block(block) for block in content]}


def _normal_block(block: Block) -> Block:
    """A content block in the form that messages have in other formats, with digests for attachments."""
    if block.keys() == {"text"}:
        return {"type": "text", **block}
    normal = dict(block)
    for kind in _MEDIA:
        if isinstance(block.get(kind), dict):
            normal[kind] = _normal_media(block[kind])
    for kind, nested in (("toolResult", "content"), ("guardContent", "image")):
        inner = field(block.get(kind), nested)
        if isinstance(inner, list):
            normal[kind] = {**block[kind], nested: [_normal_block(part) for part in blocks(inner, kind)]}
        elif isinstance(inner, dict):
            normal[kind] = {**block[kind], nested: _normal_media(inner)}
    return normal


def _normal_media(media: Block) -> Block:
    source = media.get("source")
    if field(source, "s3Location") is not None:
        raise Uncacheable(AT_A_URL)
    if field(source, "bytes") is None:
        return media
    return {**media, "source": {**media["source"], "bytes": attached(media["source"]["bytes"])}}


def _bypass(body: Mapping[str, Any], tools: object, model: str) -> str:
    """Why this request must not be cached; empty if it may."""
    if ":prompt/" in model or body.get("promptVariables"):
        return "server-side state: prompt"
    for tool in _unmarked(tools or [], "tools"):
        if tool.keys() != {"toolSpec"}:
            return f"server tool: {field(tool.get('systemTool'), 'name') or ', '.join(sorted(tool))}"
    guardrail = body.get("guardrailConfig")
    if guardrail and not str(field(guardrail, "guardrailVersion")).isdecimal():
        return "a guardrail without a fixed version may change at any time"
    more = body.get("additionalModelRequestFields") or {}
    expect(isinstance(more, Mapping), "additionalModelRequestFields")
    return server_side(more)


class _Record:
    """The answer as its events come in: the last one has the usage."""

    def __init__(self) -> None:
        self._message: Block = {}
        self._blocks: dict[int, _OpenBlock] = {}
        self._stop: Block = {}
        self._metadata: Block | None = None

    def take(self, event: Event) -> bytes:
        data = loads_object(event.data)
        if data is None:
            raise NotRecordable
        if event.name == "messageStart":
            self._message = {"role": data["role"]}
        elif event.name in ("contentBlockStart", "contentBlockDelta", "contentBlockStop"):
            self._blocks.setdefault(data["contentBlockIndex"], _OpenBlock()).take(data)
        elif event.name == "messageStop":
            self._stop = without(data, _PADDING)
        elif event.name == "metadata":
            self._metadata = without(data, _PADDING)
        else:
            raise NotRecordable
        return event.raw

    def build(self) -> Block | None:
        opened = [block for _, block in sorted(self._blocks.items())]
        if not self._message or not self._stop or self._metadata is None or not all(block.closed for block in opened):
            return None
        message = {**self._message, "content": [block.build() for block in opened]}
        return {"output": {"message": message}, **self._stop, **self._metadata}


class _OpenBlock:
    """A content block that is being streamed."""

    def __init__(self) -> None:
        self._call: Block | None = None
        self._kinds: set[str] = set()
        self._texts: list[str] = []
        self._reasoning: Block = {}
        self.closed = False

    def take(self, data: Block) -> None:
        """``data`` of the block's start, a delta, or its end."""
        if "start" in data:
            (self._call,) = data["start"].values()
            self._kinds.update(data["start"])
        elif "delta" in data:
            ((kind, delta),) = data["delta"].items()
            self._kinds.add(kind)
            if kind == "text":
                self._texts.append(delta)
            elif kind == "toolUse":
                self._texts.append(delta["input"])
            elif kind == "reasoningContent":
                self._think(**delta)
            else:
                raise NotRecordable
        else:
            self.closed = True

    def _think(self, *, text: str | None = None, **final: str) -> None:
        if text is not None:
            self._texts.append(text)
        elif final.keys() & self._reasoning.keys():
            raise NotRecordable  # base64 in several pieces
        self._reasoning.update(final)

    def build(self) -> Block:
        text = join(self._texts)
        if self._kinds == {"toolUse"} and self._call is not None:
            return {"toolUse": {**self._call, "input": json.loads(text) if text else {}}}
        if self._kinds == {"reasoningContent"}:
            redacted = self._reasoning.get("redactedContent")
            known = self._reasoning.keys() <= ({"signature"} if redacted is None else {"redactedContent"})
            if not known or (redacted is not None and text):
                raise NotRecordable
            thought = {"reasoningText": {"text": text, **self._reasoning}}
            return {"reasoningContent": thought if redacted is None else self._reasoning}
        if self._kinds <= {"text"}:
            return {"text": text}
        raise NotRecordable


def _deltas(block: Block) -> Iterator[Block]:
    """The deltas that fill a block; a text has one even if it is empty, since it has no start."""
    if "toolUse" in block:
        for piece in pieces(dumps(block["toolUse"]["input"]).decode()):
            yield {"toolUse": {"input": piece}}
    elif "reasoningContent" in block:
        thought = block["reasoningContent"].get("reasoningText", {})
        for piece in pieces(thought.get("text", "")):
            yield {"reasoningContent": {"text": piece}}
        for final in ({"signature": thought.get("signature")}, without(block["reasoningContent"], _SPOKEN)):
            if any(final.values()):
                yield {"reasoningContent": final}
    else:
        for piece in pieces(block["text"]) if block["text"] else [""]:
            yield {"text": piece}
