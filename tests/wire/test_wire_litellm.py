"""What of LiteLLM's arguments is asked, and which of its answers are whole. LiteLLM itself: ``tests/clients``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from semcache.types import Usage
from semcache.wire import CODECS
from semcache.wire.litellm_chat import LiteLLMChat, question

CODEC = LiteLLMChat()
ASKED = {"model": "openai/gpt-5-mini", "messages": [{"role": "user", "content": "Is it up?"}]}


def parse(**arguments: Any) -> Any:
    return CODEC.parse({**ASKED, **arguments}, upstream="litellm openai", headers={})


def answer(
    message: dict[str, Any] | None = None, choice: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    said = {"role": "assistant", "content": "Yes.", "tool_calls": None, "annotations": [], **(message or {})}
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": said, **(choice or {})}], **fields}


def test_it_answers_no_http_request() -> None:
    assert not CODEC.matches("POST", "/v1/chat/completions")
    assert CODEC.name not in [codec.name for codec in CODECS]


@pytest.mark.parametrize(
    "name",
    ["api_key", "aws_secret_access_key", "aws_access_key_id", "aws_session_token", "azure_ad_token", "azure_password",
     "azure_ad_token_provider", "client_secret", "vertex_credentials", "langfuse_secret_key", "hf_token", "token",
     "litellm_session_id", "num_retries", "timeout", "input_cost_per_token", "cache_read_input_token_cost", "api_base"],
)  # fmt: skip
def test_credentials_and_transport_are_not_asked(name: str) -> None:
    assert "s3cret" not in json.dumps(question({**ASKED, name: "s3cret"}))
    nested = question({**ASKED, "fallbacks": [{"model": "other", "api_key": "s3cret"}]})
    assert nested["fallbacks"] == [{"model": "other"}]


@pytest.mark.parametrize(
    "name", ["max_tokens", "bos_token", "stop_token", "pad_token", "region_name", "organization", "reasoning_effort"]
)
def test_what_is_not_known_to_be_harmless_is_asked(name: str) -> None:
    assert question({**ASKED, name: "x"})[name] == "x"


def test_what_the_model_reads_is_asked_whole() -> None:
    tools = [{"type": "function", "function": {"name": "login", "parameters": {"properties": {"password": {}}}}}]
    assert question({**ASKED, "tools": tools})["tools"] == tools
    schema = {"type": "object", "properties": {"password": {"type": "string"}}, "$defs": {"api_key": {}}}
    asked = question({**ASKED, "guided_json": schema, "extra_body": {"guided_json": schema, "api_key": "s3cret"}})
    assert (asked["guided_json"], asked["extra_body"]) == (schema, {"guided_json": schema})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"prompt_id": "welcome"}, "prompt_id"),
        ({"tools": [{"googleSearch": {}}]}, "server tool: googleSearch"),
        ({"cache": {"no-store": True}}, "cache: no-store"),
        ({"n": 2}, "n>1"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_bypassed(arguments: dict[str, Any], reason: str) -> None:
    assert (parse(**arguments).bypass or "").startswith(reason)
    assert parse().bypass is None


@pytest.mark.parametrize(
    ("body", "keep"),
    [
        (answer(), "all"),
        (answer(choice={"provider_specific_fields": {"native_finish_reason": "end_turn"}}), "all"),
        (answer({"provider_specific_fields": {"refusal": None, "citations": None}}), "all"),
        (answer(choice={"provider_specific_fields": {"native_finish_reason": "MALFORMED_FUNCTION_CALL"}}), "never"),
        (answer(choice={"provider_specific_fields": {"native_finish_reason": "network_error"}}), "never"),
        (answer({"provider_specific_fields": {"refusal": "No."}}), "never"),
        (answer({"provider_specific_fields": {"citations": [{"url": "u"}]}}), "never"),
        (answer(citations=["https://a.example"]), "never"),
        (answer(vertex_ai_grounding_metadata=[{"webSearchQueries": ["q"]}]), "never"),
        (answer({"thinking_blocks": [{"signature": "s"}]}), "exact"),
        (answer({"provider_specific_fields": {"thought_signatures": ["s"]}}), "exact"),
        (answer({"tool_calls": [{"id": "1"}]}, {"finish_reason": "tool_calls"}), "exact"),
        (answer(choice={"finish_reason": "length"}), "never"),
        ({"choices": []}, "never"),
    ],
)
def test_which_answers_are_kept(body: dict[str, Any], keep: str) -> None:
    assert CODEC.storable(body).keep == keep


def test_prompt_tokens_include_what_was_read_and_written() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 60},
        "cache_creation_input_tokens": 30,
    }
    assert CODEC.usage({"usage": usage}) == Usage(100, 7, cache_read_tokens=60, cache_write_tokens=30)
    assert CODEC.usage({}) is None
