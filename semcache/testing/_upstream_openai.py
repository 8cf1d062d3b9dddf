"""OpenAI's wire format, from the provider's side: Chat Completions, Embeddings, Models.

Field names and stream order as in the API reference and the types of openai 3.54 (November 2026).
"""

from __future__ import annotations

import base64
import json
import secrets
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from semcache.testing._upstream_model import (
    Ask,
    Json,
    Turn,
    content_text,
    digest,
    embedding,
    input_tokens,
    pieces,
)

CHAT_PATH = "/v1/chat/completions"
EMBEDDINGS_PATH = "/v1/embeddings"
MODELS_PATH = "/v1/models"
MODELS = ("gpt-6-luna", "gpt-5-mini", "gpt-4o-mini", "text-embedding-3-small", "text-embedding-3-large")

_FINISH = {"stop": "stop", "tools": "tool_calls", "length": "length"}
_ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "invalid_request_error"}
_ERROR_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


def problem(body: Json) -> str | None:
    """Why the provider would answer 400, or ``None``."""
    if not body.get("model"):
        return "you must provide a model parameter"
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        return "Missing required parameter: 'messages'."
    return None


def read(body: Json) -> Ask:
    """The chat request, provider-neutral."""
    messages = body["messages"]
    users = [message for message in messages if message.get("role") == "user"]
    tools = {
        tool["function"]["name"]: tool["function"].get("parameters") or {"type": "object"}
        for tool in body.get("tools") or []
        if tool.get("type") == "function"
    }
    choice = body.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        choice = choice.get("function", {}).get("name", "auto")
    if messages[-1].get("role") == "tool":
        choice = "none"
    response_format = body.get("response_format") or {}
    schema = {"json_schema": response_format.get("json_schema", {}).get("schema"), "json_object": _ANY_OBJECT}
    read_text = "\n".join(content_text(message.get("content")) for message in messages)
    return Ask(
        question=content_text(users[-1].get("content")) if users else "",
        identity=digest(CHAT_PATH, body),
        input_tokens=input_tokens(messages, read_text, tools),
        tools=tools,
        tool_choice={"required": "any"}.get(choice, choice),
        parallel_tools=body.get("parallel_tool_calls", True),
        schema=schema.get(response_format.get("type", "")),
        limit=body.get("max_completion_tokens") or body.get("max_tokens"),
    )


_ANY_OBJECT: Json = {"type": "object", "properties": {"answer": {"type": "string"}}}


def complete(turn: Turn, request: Json, *, finish: str | None = None) -> Json:
    """The whole answer as one JSON object; ``finish`` replaces the finish reason."""
    message: Json = {"role": "assistant", "content": turn.text or None, "refusal": None, "annotations": []}
    if turn.calls:
        message["tool_calls"] = [_call(name, arguments) for name, arguments in turn.calls]
    reason = finish or _FINISH[turn.finish]
    return {
        **_head(request, "chat.completion"),
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
            for index in range(request.get("n") or 1)
        ],
        "usage": _usage(turn, request),
    }


def events(turn: Turn, request: Json, *, finish: str | None = None) -> Iterator[tuple[bytes, int]]:
    """The same answer as SSE events, each with the number of output tokens it carries."""
    options = request.get("stream_options") or {}
    head = _head(request, "chat.completion.chunk")
    padding = options.get("include_obfuscation", True)

    def event(choices: list[Json], usage: Json | None = None) -> bytes:
        chunk = {**head, "choices": choices}
        if options.get("include_usage"):
            chunk["usage"] = usage
        if padding and choices:
            chunk["obfuscation"] = secrets.token_urlsafe(3 + secrets.randbelow(6))
        return sse(json.dumps(chunk))

    reason = finish or _FINISH[turn.finish]
    for index in range(request.get("n") or 1):
        for delta, tokens in _deltas(turn):
            yield event([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]), tokens
        yield event([{"index": index, "delta": {}, "logprobs": None, "finish_reason": reason}]), 0
    if options.get("include_usage"):
        yield event([], _usage(turn, request)), 0
    yield sse("[DONE]"), 0


def error(status: int, message: str) -> Json:
    """An error body."""
    kind = _ERROR_TYPES.get(status, "requests" if status == 429 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": _ERROR_CODES.get(status)}}


def error_event(message: str) -> bytes:
    """An error in the middle of a stream."""
    return sse(json.dumps(error(500, message)))


def sse(data: str) -> bytes:
    """One server-sent event without a name."""
    return b"data: " + data.encode() + b"\n\n"


def embeddings(body: Json) -> Json:
    """The answer to an embeddings request, with deterministic vectors."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    dimensions = body.get("dimensions") or (3072 if "large" in body["model"] else 1536)
    tokens = sum(len(pieces(text)) for text in texts)
    data = []
    for index, text in enumerate(texts):
        vector: Any = embedding(text, dimensions)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def models() -> Json:
    """The answer of the models endpoint."""
    data = [{"id": name, "object": "model", "created": 1764000000, "owned_by": "system"} for name in MODELS]
    return {"object": "list", "data": data}


def headers(elapsed_s: float) -> Mapping[str, str]:
    """What the provider adds to every answer."""
    return {
        "x-request-id": f"req_{secrets.token_hex(16)}",
        "openai-version": "2020-10-01",
        "openai-processing-ms": str(int(elapsed_s * 1000)),
    }


def _head(request: Json, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{secrets.token_hex(14)}",
        "object": kind,
        "created": int(time.time()),
        "model": request["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_local00001",
    }


def _usage(turn: Turn, request: Json) -> Json:
    output = turn.output_tokens * (request.get("n") or 1)
    return {
        "prompt_tokens": turn.input_tokens,
        "completion_tokens": output,
        "total_tokens": turn.input_tokens + output,
        "prompt_tokens_details": {
            "cached_tokens": turn.cached.read,
            "cache_write_tokens": turn.cached.write,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _call(name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _deltas(turn: Turn) -> Iterator[tuple[Json, int]]:
    if not turn.calls:
        yield {"role": "assistant", "content": "", "refusal": None}, 0
        for piece in pieces(turn.text):
            yield {"content": piece}, 1
        return
    yield {"role": "assistant", "content": None, "refusal": None}, 0
    for index, (name, arguments) in enumerate(turn.calls):
        yield {"tool_calls": [{"index": index, **_call(name, "")}]}, 1
        for piece in pieces(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, 1
