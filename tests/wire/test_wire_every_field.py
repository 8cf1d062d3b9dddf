"""Rich requests and answers of every wire format, changed in one place at a time."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from semcache.context import loosen
from semcache.errors import CanonicalError
from semcache.keys import make_key
from semcache.prompt_cache import outline
from semcache.schemas import demanded
from semcache.types import Request
from semcache.wire import CODECS, find_by_answer
from semcache.wire.litellm_chat import LiteLLMChat

PICTURE, OTHER = (base64.b64encode(content).decode() for content in (b"a picture", b"another"))
URL = f"data:image/png;base64,{PICTURE}"
MARKED = {"type": "object", "properties": {"cache_control": {"type": "string"}}}

CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "name": "n", "content": [{"type": "text", "text": "s"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "q", "unknown": 1},
                {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
                {"type": "file", "file": {"file_id": "f", "filename": "n"}},
            ],
        },
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "r"},
        {"role": "user", "content": "last"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": MARKED}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "logit_bias": {"1": 2},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
}
RESPONSES = {
    "model": "m",
    "store": False,
    "instructions": "i",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "q"},
                {"type": "input_image", "image_url": URL, "detail": "low"},
                {"type": "input_file", "file_data": PICTURE, "filename": "n"},
            ],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "x"},
        {"type": "function_call_output", "call_id": "c", "output": "o"},
        {"role": "user", "content": "last"},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": MARKED}],
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "include": ["a"],
}
ANTHROPIC = {
    "model": "m",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "s"}, {"type": "text", "text": "t", "citations": {"enabled": True}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "title": "t",
                    "context": "c",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": PICTURE},
                },
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"cache_control": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "is_error": False,
                    "content": [{"type": "text", "text": "r"}],
                },
                {"type": "text", "text": "last"},
            ],
        },
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": MARKED}],
    "thinking": {"type": "enabled", "budget_tokens": 4},
    "stop_sequences": ["a"],
}
GEMINI = {
    "contents": [
        {"role": "user", "parts": [{"text": "q"}, {"inlineData": {"mimeType": "i", "data": PICTURE}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "s"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}, {"text": "last"}]},
    ],
    "systemInstruction": {"parts": [{"text": "s"}]},
    "generationConfig": {"temperature": 0.2, "thinkingConfig": {"thinkingBudget": 1}, "responseSchema": MARKED},
    "tools": [{"functionDeclarations": [{"name": "f", "parameters": MARKED}]}],
    "safetySettings": [{"category": "a", "threshold": "b"}],
}
BEDROCK = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"text": "q"},
                {"image": {"format": "png", "source": {"bytes": PICTURE}}},
                {"document": {"name": "n", "format": "pdf", "context": "c", "source": {"bytes": PICTURE}}},
                {"guardContent": {"text": {"text": "g", "qualifiers": ["a"]}}},
            ],
        },
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "1", "name": "f", "input": {"cachePoint": 1}}}]},
        {
            "role": "user",
            "content": [
                {
                    "toolResult": {
                        "toolUseId": "1",
                        "status": "success",
                        "content": [{"json": {"a": 1}}, {"image": {"format": "p", "source": {"bytes": PICTURE}}}],
                    }
                },
                {"text": "last"},
            ],
        },
    ],
    "system": [{"text": "s"}],
    "inferenceConfig": {"temperature": 0.1, "maxTokens": 5},
    "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": MARKED}}}], "toolChoice": {"any": {}}},
    "additionalModelRequestFields": {"top_k": 1},
}
INVOKE = {"anthropic_version": "v", "anthropic_beta": ["b"], "max_tokens": 5, "messages": ANTHROPIC["messages"]}
# A turn without a role is the user's.
REQUESTS: dict[str, tuple[dict[str, Any], str, set[tuple[Any, ...]]]] = {
    "openai_chat": (CHAT, "/v1/chat/completions", set()),
    "openai_responses": (RESPONSES, "/v1/responses", set()),
    "anthropic": (ANTHROPIC, "/v1/messages", set()),
    "gemini": (GEMINI, "/v1beta/models/m:generateContent", {("contents", 0, "role"), ("contents", 2, "role")}),
    "bedrock": (BEDROCK, "/model/m/converse", set()),
    "anthropic_bedrock": (INVOKE, "/model/m/invoke", set()),
}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ANSWERS: dict[str, dict[str, Any]] = {
    "openai_chat": {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": {"content": []},
                "message": {"role": "assistant", "content": "c", "refusal": None, "tool_calls": [CALL]},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
    },
    "openai_responses": {
        "object": "response",
        "status": "completed",
        "output": [
            {"type": "message", "content": [{"type": "output_text", "text": "t", "annotations": []}]},
            {"type": "function_call", "arguments": "{}", "name": "f", "call_id": "c"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
        ],
        "usage": {"input_tokens": 1, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 0}},
    },
    "anthropic": {
        "type": "message",
        "content": [{"type": "text", "text": "t"}, {"type": "tool_use", "id": "i", "name": "n", "input": {"a": 1}}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 2, "cache_creation": {"ephemeral_1h_input_tokens": 1}},
    },
    "gemini": {
        "candidates": [{"content": {"parts": [{"text": "t"}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 1},
    },
    "bedrock": {
        "output": {"message": {"role": "assistant", "content": [{"text": "t"}, {"toolUse": {"input": {}}}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "cacheDetails": [{"ttl": "1h", "inputTokens": 1}]},
    },
}
ANSWERS["litellm"] = ANSWERS["openai_chat"]
ODD: list[Any] = [None, 5, "x", [], {}, [5], [[]], [{}], {"a": 1}, True, float("inf"), "\ud800"]
BY_NAME = {codec.name: codec for codec in (*CODECS, LiteLLMChat())}
Path = tuple[Any, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of all that is in a JSON value."""
    if path:
        yield path
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, name))


def at(value: Any, path: Path) -> Any:
    for name in path:
        value = value[name]
    return value


def changed(value: Any, path: Path, new: Any) -> Any:
    copied = copy.deepcopy(value)
    at(copied, path[:-1])[path[-1]] = new
    return copied


def another(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value.replace(PICTURE, OTHER) if PICTURE in value else value + "x"
    return value + 1


def parse(name: str, body: dict[str, Any]) -> Request:
    path = REQUESTS[name][1]
    return BY_NAME[name].parse(body, upstream=f"https://host{path}", headers={":path": path})


def identity(name: str, body: dict[str, Any]) -> bytes:
    """The key, or why there is none."""
    request = parse(name, body)
    return (request.bypass or "").encode() or make_key(request, "default", None).canonical


@pytest.mark.parametrize("name", REQUESTS)
def test_no_two_of_them_have_one_key(name: str) -> None:
    body, _, optional = REQUESTS[name]
    assert parse(name, body).bypass is None
    whole = identity(name, body)
    for path in places(body):
        value, parent = at(body, path), at(body, path[:-1])
        if not isinstance(value, (dict, list)):
            assert identity(name, changed(body, path, another(value))) != whole, path
        if isinstance(parent, dict) and path not in optional:
            less = copy.deepcopy(body)
            del at(less, path[:-1])[path[-1]]
            assert identity(name, less) != whole, path


@pytest.mark.parametrize("name", REQUESTS)
def test_no_odd_request_raises_into_a_call(name: str) -> None:
    body = REQUESTS[name][0]
    for path in places(body):
        for odd in ODD:
            request = parse(name, given := changed(body, path, odd))
            BY_NAME[name].forward(given, ask_usage=True)
            demanded(request)
            outline(request.api, given)
            for mode in ("exact", "rewrite", "window"):
                with suppress(CanonicalError):  # which is how a request without a key says so
                    make_key(loosen(request, mode, 2), "default", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ANSWERS)
def test_no_odd_answer_raises_into_a_call(name: str) -> None:
    codec, body = BY_NAME[name], ANSWERS[name]
    assert codec.storable(body).keep != "never"
    for path in places(body):
        for odd in ODD:
            given = changed(body, path, odd)
            codec.storable(given)
            codec.usage(given)
            codec.anonymous(given)
            find_by_answer(given)


def test_an_answer_is_known_without_its_request() -> None:
    for name in ("openai_chat", "openai_responses", "anthropic", "bedrock"):
        found = find_by_answer(json.loads(json.dumps(ANSWERS[name])))
        assert found is not None
        assert found.name == name
    assert find_by_answer({"answer": 42}) is None
