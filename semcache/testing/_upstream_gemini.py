"""Gemini's wire format, from the provider's side: generateContent and streamGenerateContent.

Field names and stream order as in the types of google-genai 3.4 (November 2026).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping

from semcache.testing._upstream_model import Ask, Json, Turn, digest, input_tokens, pieces

_PATH = re.compile(
    r"/v1(?:beta1?)?/(?:(?:projects/[^/]+/locations/[^/]+/)?publishers/google/)?models/(?P<model>[^/:]+)"
    r":(?P<method>generateContent|streamGenerateContent)"
)
_FINISH = {"stop": "STOP", "tools": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
_PIECES_PER_EVENT = 6


def route(path: str) -> Json | None:
    """What the path says of the request: ``model`` and ``stream``; ``None`` if it is not of this API."""
    found = _PATH.fullmatch(path)
    return found and {"model": found["model"], "stream": found["method"] == "streamGenerateContent"}


def problem(body: Json) -> str | None:
    """Why the provider would answer 400, or ``None``."""
    return None if body.get("contents") else "* GenerateContentRequest.contents: contents is not specified"


def read(body: Json) -> Ask:
    """The request, provider-neutral."""
    contents = body["contents"]
    users = [content for content in contents if content.get("role", "user") == "user"]
    declared = [one for tool in body.get("tools") or [] for one in tool.get("functionDeclarations") or []]
    tools = {one["name"]: _parameters(one) for one in declared}
    config = body.get("generationConfig") or {}
    mode = ((body.get("toolConfig") or {}).get("functionCallingConfig") or {}).get("mode", "AUTO").lower()
    answers_tool = any("functionResponse" in part for part in contents[-1]["parts"])
    schema = config.get("responseJsonSchema") or _lowered(config.get("responseSchema") or {})
    told = [body["systemInstruction"]] if body.get("systemInstruction") else []
    return Ask(
        question=_text(users[-1]) if users else "",
        identity=digest("gemini", body),
        input_tokens=input_tokens(contents, "\n".join(_text(content) for content in (*told, *contents)), tools),
        tools=tools,
        tool_choice="none" if answers_tool else mode,
        schema=schema or None,
        limit=config.get("maxOutputTokens"),
    )


def complete(turn: Turn, request: Json, *, finish: str | None = None) -> Json:
    """The whole answer as one JSON object; ``finish`` replaces the finish reason."""
    reason = _FINISH[finish or turn.finish]
    candidate = {"content": {"parts": _parts(turn), "role": "model"}, "finishReason": reason, "index": 0}
    return {**_head(request), "candidates": [candidate], "usageMetadata": _usage(turn)}


def events(turn: Turn, request: Json, *, finish: str | None = None) -> Iterator[tuple[bytes, int]]:
    """The same answer as SSE events, each with the number of output tokens it carries."""
    head, reason = _head(request), _FINISH[finish or turn.finish]
    usage: Json = {"promptTokenCount": turn.input_tokens, "totalTokenCount": turn.input_tokens}
    tokens = pieces(turn.text)
    groups = [tokens[start : start + _PIECES_PER_EVENT] for start in range(0, len(tokens), _PIECES_PER_EVENT)]
    texts: list[tuple[Json, int]] = [({"text": "".join(group)}, len(group)) for group in groups]
    steps = [(part, 8) for part in _parts(turn)] if turn.calls else texts
    for part, spent in steps:
        candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
        yield _sse({**head, "candidates": [candidate], "usageMetadata": usage}), spent
    last = {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": reason, "index": 0}
    yield _sse({**head, "candidates": [last], "usageMetadata": _usage(turn)}), 0


def error(status: int, message: str) -> Json:
    """An error body."""
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "INTERNAL")}}


def error_event(message: str) -> bytes:
    """An error in the middle of a stream."""
    return _sse(error(500, message))


def headers(elapsed_s: float) -> Mapping[str, str]:
    """What the provider adds to every answer."""
    return {"server-timing": f"gfet4t7; dur={int(elapsed_s * 1000)}"}


def _sse(data: Json) -> bytes:
    return f"data: {json.dumps(data)}\r\n\r\n".encode()


def _head(request: Json) -> Json:
    return {"modelVersion": request["model"], "responseId": secrets.token_urlsafe(16)}


def _usage(turn: Turn) -> Json:
    total = turn.input_tokens + turn.output_tokens
    return {
        "promptTokenCount": turn.input_tokens,
        "candidatesTokenCount": turn.output_tokens,
        "totalTokenCount": total,
    }


def _parts(turn: Turn) -> list[Json]:
    calls: list[Json] = [
        {"functionCall": {"name": name, "args": json.loads(arguments)}} for name, arguments in turn.calls
    ]
    return calls or [{"text": turn.text}]


def _parameters(declared: Json) -> Json:
    # The SDK spells this field, unlike its neighbours, as Python does.
    schema: Json | None = declared.get("parameters_json_schema") or declared.get("parametersJsonSchema")
    return schema or _lowered(declared.get("parameters") or {})


def _text(content: Json) -> str:
    return "\n".join(part["text"] for part in content["parts"] if part.get("text"))


def _lowered(schema: Json) -> Json:
    """A schema in the provider's own dialect, whose types are in capitals, as JSON Schema."""
    lowered: Json = {}
    for name, value in schema.items():
        if name == "type":
            lowered[name] = value.lower()
        elif name == "properties":
            lowered[name] = {field: _lowered(part) for field, part in value.items()}
        else:
            lowered[name] = _lowered(value) if isinstance(value, dict) else value
    return lowered
