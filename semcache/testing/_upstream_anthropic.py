"""Anthropic's wire format, from the provider's side: Messages.

Field names and stream order as in the API reference and the types of anthropic 2.12 (November 2026).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from semcache.testing._upstream_model import Ask, Json, Turn, content_text, digest, input_tokens, pieces

MESSAGES_PATH = "/v1/messages"

_FINISH = {"stop": "end_turn", "tools": "tool_use", "length": "max_tokens"}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_PIECES_PER_EVENT = 4


def problem(body: Json) -> str | None:
    """Why the provider would answer 400, or ``None``."""
    for name in ("model", "max_tokens", "messages"):
        if not body.get(name):
            return f"{name}: Field required"
    return None


def read(body: Json) -> Ask:
    """The request, provider-neutral."""
    messages = body["messages"]
    users = [message for message in messages if message["role"] == "user"]
    tools = {tool["name"]: tool["input_schema"] for tool in body.get("tools") or [] if "input_schema" in tool}
    choice = body.get("tool_choice") or {"type": "auto"}
    last = messages[-1]["content"]
    answers_tool = isinstance(last, list) and any(part.get("type") == "tool_result" for part in last)
    read_text = "\n".join(content_text(message["content"]) for message in messages)
    read_text += content_text(body.get("system"))
    return Ask(
        question=content_text(users[-1]["content"]) if users else "",
        identity=digest(MESSAGES_PATH, body),
        input_tokens=input_tokens(messages, read_text, tools),
        tools=tools,
        tool_choice="none" if answers_tool else choice.get("name") or choice["type"],
        parallel_tools=not choice.get("disable_parallel_tool_use", False),
        schema=((body.get("output_config") or {}).get("format") or {}).get("schema"),
        limit=body["max_tokens"],
    )


def complete(turn: Turn, request: Json, *, finish: str | None = None) -> Json:
    """The whole answer as one JSON object; ``finish`` replaces the stop reason."""
    return {
        **_head(request),
        "content": _blocks(turn, request),
        "stop_reason": finish or _FINISH[turn.finish],
        "usage": _usage(turn, turn.output_tokens),
    }


def events(turn: Turn, request: Json, *, finish: str | None = None) -> Iterator[tuple[bytes, int]]:
    """The same answer as SSE events, each with the number of output tokens it carries."""
    start = {**_head(request), "content": [], "stop_reason": None, "usage": _usage(turn, 1)}
    yield sse({"type": "message_start", "message": start}), 0
    for index, block in enumerate(_blocks(turn, request)):
        empty, deltas = _split(block)
        yield sse({"type": "content_block_start", "index": index, "content_block": empty}), 0
        if index == 0:
            yield sse({"type": "ping"}), 0
        for delta, tokens in deltas:
            yield sse({"type": "content_block_delta", "index": index, "delta": delta}), tokens
        yield sse({"type": "content_block_stop", "index": index}), 0
    stopped = {"stop_reason": finish or _FINISH[turn.finish], "stop_sequence": None, "stop_details": None}
    usage = _usage(turn, turn.output_tokens)
    del usage["cache_creation"], usage["service_tier"]
    yield sse({"type": "message_delta", "delta": stopped, "usage": usage}), 0
    yield sse({"type": "message_stop"}), 0


def error(status: int, message: str) -> Json:
    """An error body."""
    kind = _ERROR_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": _id("req")}


def error_event(message: str) -> bytes:
    """An error in the middle of a stream."""
    return sse(error(529, message))


def sse(data: Json) -> bytes:
    """One server-sent event, named by its type as the SDK demands."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def headers(elapsed_s: float) -> Mapping[str, str]:
    """What the provider adds to every answer."""
    return {"request-id": _id("req"), "anthropic-organization-id": "00000000-0000-4000-8000-000000000000"}


def _id(kind: str) -> str:
    return f"{kind}_01{secrets.token_hex(11)}"


def _head(request: Json) -> Json:
    return {
        "id": _id("msg"),
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "stop_sequence": None,
        "stop_details": None,
    }


def _usage(turn: Turn, output_tokens: int) -> Json:
    read, write = turn.cached.read, turn.cached.write
    written = {ttl: sum(tokens for one, tokens in turn.cached.written if one == ttl) for ttl in ("5m", "1h")}
    return {
        "input_tokens": max(0, turn.input_tokens - read - write),
        "cache_creation_input_tokens": write,
        "cache_read_input_tokens": read,
        "cache_creation": {f"ephemeral_{ttl}_input_tokens": tokens for ttl, tokens in written.items()},
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _blocks(turn: Turn, request: Json) -> list[Json]:
    thinks = (request.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    blocks: list[Json] = []
    if thinks:
        thought = "The question is plain; the answer follows from what is known of the account."
        blocks.append({"type": "thinking", "thinking": thought, "signature": secrets.token_urlsafe(48)})
    if turn.text or turn.calls:
        blocks.append({"type": "text", "text": turn.text or "I will look that up."})
    for name, arguments in turn.calls:
        blocks.append({"type": "tool_use", "id": _id("toolu"), "name": name, "input": json.loads(arguments)})
    return blocks


def _split(block: Json) -> tuple[Json, list[tuple[Json, int]]]:
    """A block as the empty one that opens it in a stream, and the deltas that fill it."""
    if block["type"] == "text":
        return {"type": "text", "text": ""}, _grouped("text_delta", "text", block["text"])
    if block["type"] == "thinking":
        signed: tuple[Json, int] = ({"type": "signature_delta", "signature": block["signature"]}, 0)
        filled = [*_grouped("thinking_delta", "thinking", block["thinking"]), signed]
        return {"type": "thinking", "thinking": "", "signature": ""}, filled
    opened: tuple[Json, int] = ({"type": "input_json_delta", "partial_json": ""}, 0)
    arguments = json.dumps(block["input"])
    return {**block, "input": {}}, [opened, *_grouped("input_json_delta", "partial_json", arguments)]


def _grouped(kind: str, field: str, text: str) -> list[tuple[Any, int]]:
    tokens = pieces(text)
    groups = [tokens[i : i + _PIECES_PER_EVENT] for i in range(0, len(tokens), _PIECES_PER_EVENT)]
    return [({"type": kind, field: "".join(group)}, len(group)) for group in groups]
