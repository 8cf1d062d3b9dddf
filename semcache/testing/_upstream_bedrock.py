"""Bedrock's wire format, from the provider's side: Converse, ConverseStream, and the framing of AWS event streams.

Field names and stream order as in the ``bedrock-runtime`` service model of botocore 1.44.5 (November 2026).
"""

from __future__ import annotations

import json
import re
import secrets
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from semcache.testing._upstream_model import Ask, Json, Turn, content_text, digest, input_tokens, pieces

STREAM_TYPE = "application/vnd.amazon.eventstream"

_PATH = re.compile(r"/model/(?P<model>[^/]+)/(?P<method>converse|converse-stream)")
_FINISH = {"stop": "end_turn", "tools": "tool_use", "length": "max_tokens"}
_ERRORS = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
_PIECES_PER_EVENT = 4


def route(path: str) -> Json | None:
    """What the path says of the request: ``model`` and ``stream``; ``None`` if it is not of this API."""
    found = _PATH.fullmatch(path)
    return found and {"model": unquote(found["model"]), "stream": found["method"] == "converse-stream"}


def problem(body: Json) -> str | None:
    """Why the provider would answer 400, or ``None``."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "The value at messages is empty. Add values to messages, and then try again."
    if messages[0]["role"] != "user":
        return "A conversation must start with a user message."
    return None


def read(body: Json) -> Ask:
    """The request, provider-neutral."""
    messages = body["messages"]
    users = [message for message in messages if message["role"] == "user"]
    config = body.get("toolConfig") or {}
    specs = [tool["toolSpec"] for tool in config.get("tools") or [] if "toolSpec" in tool]
    tools = {spec["name"]: spec["inputSchema"]["json"] for spec in specs}
    ((kind, choice),) = (config.get("toolChoice") or {"auto": {}}).items()
    answers_tool = any("toolResult" in block for block in messages[-1]["content"])
    text_format = (body.get("outputConfig") or {}).get("textFormat") or {}
    schema = text_format.get("structure", {}).get("jsonSchema", {}).get("schema")
    read_text = "\n".join(content_text(message["content"]) for message in messages)
    read_text += content_text(body.get("system"))
    return Ask(
        question=content_text(users[-1]["content"]) if users else "",
        identity=digest("converse", body),
        input_tokens=input_tokens(messages, read_text, tools),
        tools=tools,
        tool_choice="none" if answers_tool else choice.get("name") or kind,
        schema=json.loads(schema) if schema else None,
        limit=(body.get("inferenceConfig") or {}).get("maxTokens"),
    )


def prompt(body: Json) -> Json:
    """The request as its prompt cache sees it: Anthropic's, in which a mark stands on the block that it ends."""
    turns = [{"role": message["role"], "content": _marked(message["content"])} for message in body["messages"]]
    tools = _marked((body.get("toolConfig") or {}).get("tools") or [])
    return {"model": body["model"], "tools": tools, "system": _marked(body.get("system") or []), "messages": turns}


def _marked(blocks: list[Json]) -> list[Json]:
    found: list[Json] = []
    for block in blocks:
        if "cachePoint" in block and found:
            found[-1]["cache_control"] = block["cachePoint"]
        elif "cachePoint" not in block:
            found.append(dict(block))
    return found


def complete(turn: Turn, request: Json, *, finish: str | None = None) -> Json:
    """The whole answer as one JSON object; ``finish`` replaces the stop reason."""
    return {
        "metrics": {"latencyMs": 7 * turn.output_tokens},
        "output": {"message": {"content": _blocks(turn, request), "role": "assistant"}},
        "stopReason": finish or _FINISH[turn.finish],
        "usage": _usage(turn),
    }


def events(turn: Turn, request: Json, *, finish: str | None = None) -> Iterator[tuple[bytes, int]]:
    """The same answer as messages of an event stream, each with the number of output tokens it carries."""
    yield _event("messageStart", {"role": "assistant"}), 0
    for index, block in enumerate(_blocks(turn, request)):
        at = {"contentBlockIndex": index}
        if "toolUse" in block:
            start = {name: value for name, value in block["toolUse"].items() if name != "input"}
            yield _event("contentBlockStart", {**at, "start": {"toolUse": start}}), 0
        for delta, tokens in _deltas(block):
            yield _event("contentBlockDelta", {**at, "delta": delta}), tokens
        yield _event("contentBlockStop", at), 0
    yield _event("messageStop", {"stopReason": finish or _FINISH[turn.finish]}), 0
    yield _event("metadata", {"metrics": {"latencyMs": 7 * turn.output_tokens}, "usage": _usage(turn)}), 0


def error(status: int, message: str) -> Json:
    """An error body."""
    return {"__type": _ERRORS.get(status, "InternalServerException"), "message": message}


def error_event(message: str) -> bytes:
    """An error in the middle of a stream."""
    return frame({":message-type": "exception", ":exception-type": "modelStreamErrorException"}, {"message": message})


def headers(elapsed_s: float) -> Mapping[str, str]:
    """What the provider adds to every answer."""
    return {"x-amzn-requestid": f"{secrets.token_hex(4)}-0000-4000-8000-{secrets.token_hex(6)}"}


def frame(described: Mapping[str, str], data: Json) -> bytes:
    """One message of an event stream with headers that are strings and a JSON payload.

    By the Amazon Event Stream specification of Smithy 2.0: a prelude with its own CRC-32, headers, payload, CRC-32.
    """
    payload = json.dumps(data).encode()
    fields = bytearray()
    for name, value in {**described, ":content-type": "application/json"}.items():
        fields += struct.pack("!B", len(name)) + name.encode() + b"\x07"
        fields += struct.pack("!H", len(value)) + value.encode()
    prelude = struct.pack("!II", 16 + len(fields) + len(payload), len(fields))
    head = prelude + struct.pack("!I", zlib.crc32(prelude)) + bytes(fields) + payload
    return head + struct.pack("!I", zlib.crc32(head))


def _event(name: str, data: Json) -> bytes:
    # The padding hides the length of a token from whoever listens to the encrypted stream.
    padded = {**data, "p": "abcdefghijklmnopqrstuvwxyz"[: 3 + secrets.randbelow(20)]}
    return frame({":message-type": "event", ":event-type": name}, padded)


def _usage(turn: Turn) -> Json:
    read, write = turn.cached.read, turn.cached.write
    usage = {
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": write,
        "inputTokens": max(0, turn.input_tokens - read - write),
        "outputTokens": turn.output_tokens,
        "totalTokens": turn.input_tokens + turn.output_tokens,
    }
    details = [{"ttl": ttl, "inputTokens": tokens} for ttl, tokens in turn.cached.written]
    return {**usage, "cacheDetails": details} if details else usage


def _blocks(turn: Turn, request: Json) -> list[Json]:
    blocks: list[Json] = []
    more = request.get("additionalModelRequestFields") or {}
    if (more.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        thought = {"text": "The question is plain.", "signature": secrets.token_urlsafe(48)}
        blocks.append({"reasoningContent": {"reasoningText": thought}})
    if turn.text or turn.calls:
        blocks.append({"text": turn.text or "I will look that up."})
    for name, arguments in turn.calls:
        call = {"toolUseId": f"tooluse_{secrets.token_urlsafe(16)}", "name": name, "input": json.loads(arguments)}
        blocks.append({"toolUse": call})
    return blocks


def _deltas(block: Json) -> list[tuple[Any, int]]:
    if "text" in block:
        return [({"text": text}, tokens) for text, tokens in _grouped(block["text"])]
    if "toolUse" in block:
        arguments = json.dumps(block["toolUse"]["input"])
        return [({"toolUse": {"input": text}}, tokens) for text, tokens in _grouped(arguments)]
    thought = block["reasoningContent"]["reasoningText"]
    filled = [({"reasoningContent": {"text": text}}, tokens) for text, tokens in _grouped(thought["text"])]
    return [*filled, ({"reasoningContent": {"signature": thought["signature"]}}, 0)]


def _grouped(text: str) -> list[tuple[str, int]]:
    tokens = pieces(text)
    groups = [tokens[i : i + _PIECES_PER_EVENT] for i in range(0, len(tokens), _PIECES_PER_EVENT)]
    return [("".join(group), len(group)) for group in groups]
