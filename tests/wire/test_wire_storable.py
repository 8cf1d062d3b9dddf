"""Which answers may be kept, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest

from semcache.types import Usage
from semcache.wire.anthropic import AnthropicMessages
from semcache.wire.openai_chat import OpenAIChat

OPENAI, ANTHROPIC = OpenAIChat(), AnthropicMessages()
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL_USE = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
TEXT = {"type": "text", "text": "hi"}


def completion(finish: str | None, **message: Any) -> dict[str, Any]:
    whole = {"role": "assistant", "content": "hi", **message}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": whole, "finish_reason": finish}]}


def message(stop: str | None, *content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "content": list(content), "stop_reason": stop, **fields}


@pytest.mark.parametrize(
    ("body", "keep", "reason"),
    [
        (completion("stop"), "all", ""),
        (completion("stop", refusal=None, annotations=[], tool_calls=None), "all", ""),
        (completion("tool_calls", content=None, tool_calls=[CALL]), "exact", "tool calls"),
        # Some servers finish a tool call with "stop".
        (completion("stop", tool_calls=[CALL]), "exact", "tool calls"),
        (completion("stop", reasoning_details=[{"data": "x"}]), "exact", "reasoning"),
        (completion("stop", reasoning_content="It asks for …"), "exact", "reasoning"),  # DeepSeek
        (completion("stop", reasoning="It asks for …"), "exact", "reasoning"),  # OpenRouter, vLLM
        (completion("stop", reasoning_content=None, reasoning=""), "all", ""),
        ({**completion("stop"), "moderation": {"input": {}}}, "exact", "moderation"),
        (completion("length"), "never", "finish_reason: length"),
        (completion("content_filter"), "never", "finish_reason: content_filter"),
        (completion("function_call"), "never", "finish_reason: function_call"),
        (completion("something_new"), "never", "finish_reason: something_new"),
        (completion(None), "never", "finish_reason: None"),
        (completion("stop", refusal="no"), "never", "refusal"),
        (completion("stop", audio={"id": "a"}), "never", "audio"),
        (completion("stop", annotations=[{"type": "url_citation"}]), "never", "live web search"),
        (completion("stop", content=""), "never", "empty answer"),
        (completion("stop", content=[{"type": "thinking"}, {"type": "text"}]), "exact", "content of several parts"),
        ({**completion("stop"), "citations": ["https://example.org"]}, "never", "live web search"),
        ({**completion("stop"), "search_results": [], "citations": None}, "all", ""),
        ({"choices": completion("stop")["choices"] + completion("length")["choices"]}, "never", "finish_reason"),
        ({"error": {"message": "x"}}, "never", "not a chat completion"),
        ({"choices": ["x"]}, "never", "not a chat completion"),
        ({}, "never", "not a chat completion"),
    ],
)
def test_openai(body: dict[str, Any], keep: str, reason: str) -> None:
    found = OPENAI.storable(body)
    assert found.keep == keep
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("body", "keep", "reason"),
    [
        (message("end_turn", TEXT), "all", ""),
        (message("stop_sequence", TEXT, TEXT, container=None), "all", ""),
        (message("tool_use", TEXT, TOOL_USE), "exact", "tool calls"),
        (message("end_turn", {"type": "thinking", "thinking": "t", "signature": "s"}, TEXT), "exact", "reasoning"),
        (message("end_turn", {"type": "redacted_thinking", "data": "d"}, TEXT), "exact", "reasoning"),
        (message("max_tokens", TEXT), "never", "stop_reason: max_tokens"),
        (message("pause_turn", TEXT), "never", "stop_reason: pause_turn"),
        (message("refusal", TEXT), "never", "stop_reason: refusal"),
        (message("model_context_window_exceeded", TEXT), "never", "stop_reason: model"),
        (message("compaction", TEXT), "never", "stop_reason: compaction"),
        (message(None, TEXT), "never", "stop_reason: None"),
        (message("end_turn", TEXT, container={"id": "c"}), "never", "container"),
        (message("end_turn", {"type": "web_search_tool_result"}, TEXT), "never", "content of type web_search"),
        (message("end_turn"), "never", "empty answer"),
        (message("end_turn", {"type": "text", "text": ""}), "never", "empty answer"),
        (message("end_turn", "x"), "never", "content of type None"),
        ({"type": "error", "error": {}}, "never", "not a message"),
    ],
)
def test_anthropic(body: dict[str, Any], keep: str, reason: str) -> None:
    found = ANTHROPIC.storable(body)
    assert found.keep == keep
    assert found.reason.startswith(reason)


def test_openai_usage() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 40,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30, "audio_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": 25},
    }
    assert OPENAI.usage({"usage": usage}) == Usage(100, 40, 60, 30, 25)
    assert OPENAI.usage({"usage": {"prompt_tokens": 5, "completion_tokens": 1}}) == Usage(5, 1)
    deepseek = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}
    assert OPENAI.usage({"usage": deepseek}) == Usage(9, 1, 4)
    assert OPENAI.usage({"usage": None}) is None


def test_anthropic_input_includes_what_the_cache_read_and_wrote() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 30,
        "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 25},
    }
    assert ANTHROPIC.usage({"usage": usage}) == Usage(100, 40, 60, 30, 25)
    assert ANTHROPIC.usage({"usage": {"input_tokens": 3, "output_tokens": 2}}) == Usage(3, 2)
    assert ANTHROPIC.usage({}) is None
