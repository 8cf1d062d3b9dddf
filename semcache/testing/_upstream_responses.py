"""OpenAI's wire format, from the provider's side: Responses.

Field names and stream order as in the API reference and the types of openai 3.54 (November 2026). Nothing is kept: a
request that continues from an earlier response is answered 400, as by a provider whose retention has run out.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator

from semcache.testing._upstream_model import Ask, Json, Turn, digest, input_tokens, pieces
from semcache.testing._upstream_model import content_text as text_of
from semcache.testing._upstream_openai import error as error
from semcache.testing._upstream_openai import headers as headers

RESPONSES_PATH = "/v1/responses"

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
# What a response repeats of its request, with the values of one that says nothing.
_ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def problem(body: Json) -> str | None:
    """Why the provider would answer 400, or ``None``."""
    for name in ("model", "input"):
        if not body.get(name):
            return f"Missing required parameter: '{name}'."
    if body.get("previous_response_id"):
        return f"Previous response with id '{body['previous_response_id']}' not found."
    return None


def read(body: Json) -> Ask:
    """The request, provider-neutral."""
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    users = [item for item in items if item.get("role") == "user"]
    tools = {tool["name"]: tool.get("parameters") or {} for tool in body.get("tools") or [] if "name" in tool}
    choice = body.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        choice = choice.get("name", "auto")
    if items[-1].get("type") == "function_call_output":
        choice = "none"
    wanted = (body.get("text") or {}).get("format") or {}
    read_text = "\n".join([body.get("instructions") or "", *(text_of(item.get("content")) for item in items)])
    return Ask(
        question=text_of(users[-1].get("content")) if users else "",
        identity=digest(RESPONSES_PATH, body),
        input_tokens=input_tokens(items, read_text, tools),
        tools=tools,
        tool_choice={"required": "any"}.get(choice, choice),
        parallel_tools=body.get("parallel_tool_calls", True),
        schema=wanted.get("schema") if wanted.get("type") == "json_schema" else None,
        limit=body.get("max_output_tokens"),
    )


def complete(turn: Turn, request: Json, *, finish: str | None = None) -> Json:
    """The whole answer as one JSON object; ``finish`` is the reason why it is incomplete."""
    return _closed(_head(request), _output(turn, request), turn, finish)


def events(turn: Turn, request: Json, *, finish: str | None = None) -> Iterator[tuple[bytes, int]]:
    """The same answer as SSE events, each with the number of output tokens it carries."""
    head, output = _head(request), _output(turn, request)
    opening = {**head, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    closing = _closed(head, output, turn, finish)
    steps = [({"type": f"response.{kind}", "response": opening}, 0) for kind in ("created", "in_progress")]
    for index, item in enumerate(output):
        steps += _item_steps(index, item)
    steps.append(({"type": f"response.{closing['status']}", "response": closing}, 0))
    for number, (event, tokens) in enumerate(steps):
        if "delta" in event:
            event["obfuscation"] = secrets.token_urlsafe(3 + secrets.randbelow(6))
        yield _sse({**event, "sequence_number": number}), tokens


def error_event(message: str) -> bytes:
    """An error in the middle of a stream."""
    return _sse({"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 99})


def _sse(data: Json) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def _head(request: Json) -> Json:
    echoed = {name: request.get(name, value) for name, value in _ECHOED.items()}
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "error": None,
        "model": request["model"],
        "reasoning": request.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": "default",
        **echoed,
    }


def _closed(head: Json, output: list[Json], turn: Turn, finish: str | None) -> Json:
    reason = _INCOMPLETE.get(finish or turn.finish)
    return {
        **head,
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": {
            "input_tokens": turn.input_tokens,
            "input_tokens_details": {"cached_tokens": turn.cached.read, "cache_write_tokens": turn.cached.write},
            "output_tokens": turn.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": turn.input_tokens + turn.output_tokens,
        },
    }


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(24)}"


def _output(turn: Turn, request: Json) -> list[Json]:
    output: list[Json] = []
    if request.get("reasoning"):
        thought: Json = {"id": _id("rs"), "type": "reasoning", "summary": []}
        if request["reasoning"].get("summary"):
            thought["summary"] = [{"type": "summary_text", "text": "The answer follows from the account."}]
        if "reasoning.encrypted_content" in (request.get("include") or []):
            thought["encrypted_content"] = secrets.token_urlsafe(48)
        output.append(thought)
    if turn.text or not turn.calls:
        part = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
        output.append(
            {"id": _id("msg"), "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        )
    for name, arguments in turn.calls:
        call = {"type": "function_call", "call_id": f"call_{secrets.token_hex(12)}", "name": name}
        output.append({"id": _id("fc"), **call, "arguments": arguments, "status": "completed"})
    return output


def _item_steps(index: int, item: Json) -> list[tuple[Json, int]]:
    at = {"item_id": item["id"], "output_index": index}
    kind = item["type"]
    if kind == "message":
        opened, steps = {**item, "status": "in_progress", "content": []}, _text_steps(item["content"][0], at)
    elif kind == "function_call":
        opened, steps = {**item, "status": "in_progress", "arguments": ""}, _call_steps(item["arguments"], at)
    else:
        opened, steps = {**item, "summary": []}, _summary_steps(item["summary"], at)
    added = {"type": "response.output_item.added", "output_index": index, "item": opened}
    return [(added, 0), *steps, ({"type": "response.output_item.done", "output_index": index, "item": item}, 0)]


def _text_steps(part: Json, at: Json) -> list[tuple[Json, int]]:
    here = {**at, "content_index": 0}
    text = {**here, "logprobs": []}
    return [
        ({"type": "response.content_part.added", **here, "part": {**part, "text": ""}}, 0),
        *(({"type": "response.output_text.delta", **text, "delta": piece}, 1) for piece in pieces(part["text"])),
        ({"type": "response.output_text.done", **text, "text": part["text"]}, 0),
        ({"type": "response.content_part.done", **here, "part": part}, 0),
    ]


def _call_steps(arguments: str, at: Json) -> list[tuple[Json, int]]:
    name = "response.function_call_arguments"
    deltas = [({"type": f"{name}.delta", **at, "delta": piece}, 1) for piece in pieces(arguments)]
    return [*deltas, ({"type": f"{name}.done", **at, "arguments": arguments}, 0)]


def _summary_steps(summary: list[Json], at: Json) -> list[tuple[Json, int]]:
    steps: list[tuple[Json, int]] = []
    for number, part in enumerate(summary):
        here = {**at, "summary_index": number}
        text = "response.reasoning_summary_text"
        steps += [
            ({"type": "response.reasoning_summary_part.added", **here, "part": {**part, "text": ""}}, 0),
            *(({"type": f"{text}.delta", **here, "delta": piece}, 1) for piece in pieces(part["text"])),
            ({"type": f"{text}.done", **here, "text": part["text"]}, 0),
            ({"type": "response.reasoning_summary_part.done", **here, "part": part}, 0),
        ]
    return steps
