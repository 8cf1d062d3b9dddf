"""The arguments and answers of LiteLLM's ``completion``: OpenAI's chat body with fields of LiteLLM's own.

Names: litellm 1.106.2 (``main.py``, ``types/utils.py``, ``litellm_core_utils/core_helpers.py``), read 2026-11-21. An
argument that is not named here is part of the scope.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from semcache.types import Request, Usage
from semcache.wire._common import Block, count, without
from semcache.wire.base import Storable
from semcache.wire.openai_chat import OpenAIChat

# How a call is made, logged, priced and limited, which says nothing of its answer. 2026-11-21.
_TRANSPORT_ONLY: Final = frozenset(
    {
        # connection and retries
        "client", "cooldown_time", "force_timeout", "keepalive_seconds", "max_retries", "num_retries",
        "request_timeout", "retry_policy", "retry_strategy", "shared_session", "ssl_verify", "stream_timeout",
        "timeout",
        # logging
        "id", "litellm_call_id", "litellm_disabled_callbacks", "litellm_logging_obj", "litellm_metadata",
        "litellm_request_debug", "litellm_session_id", "litellm_trace_id", "log_client_error_tracebacks", "logger_fn",
        "no-log", "proxy_server_request", "turn_off_message_logging", "verbose",
        # prices, budgets, limits, and the share of a Router's deployment
        "base_model", "budget_duration", "itpm", "max_budget", "max_parallel_requests", "model_info", "order", "otpm",
        "priority", "rpm", "tiered_pricing", "tpm", "weight",
        # LiteLLM's own cache, and the provider's prompt cache
        "cache", "cache_control_injection_points", "cache_key", "caching", "caching_groups", "enable_prompt_caching",
        "preset_cache_key",
        # who answers, which the edge names as the upstream; headers, of which it picks those that matter
        "api_base", "base_url", "extra_headers", "headers", "provider_specific_header",
    }
)  # fmt: skip
_COST: Final = re.compile(r"cost_per_|_token_cost")
# Arguments whose value is a credential, at any depth outside what the model reads. 2026-11-21.
_CREDENTIAL: Final = re.compile(
    r"(?:^|_)(?:api_key|access_key(?:_id)?|secret(?:_\w+)?|password|credentials?|public_key|ingestion_key)$"
    r"|(?:^|_)(?:session|ad|identity|access|auth|bearer|refresh|id|api|hf)_token(?:_file|_provider)?$|^token$"
)
# What the model reads: here a property called ``api_key`` is part of the question.
_READ_BY_MODEL: Final = frozenset(
    {"messages", "tools", "tool_choice", "functions", "function_call", "response_format", "prediction", "stop"}
)
# In a JSON schema, wherever it stands, the same holds of the names below these.
_NAMES_BELOW: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})
# The answer depends on what is kept elsewhere, or on what the provider looks up. 2026-11-21.
_STATE: Final = ("previous_response_id", "conversation", "prompt_id", "search_tool_name")
# LiteLLM says "stop" for ends that it does not know; what the provider said then stands beside it. 2026-11-21.
_NATIVE_ENDS: Final = frozenset(
    {"stop", "tool_calls", "end_turn", "stop_sequence", "tool_use", "STOP", "COMPLETE", "eos", "eos_token"}
)


class LiteLLMChat(OpenAIChat):
    """``litellm.completion``, ``acompletion`` and those of a ``Router``: arguments in, ``ModelResponse`` out."""

    name = "litellm"

    def matches(self, method: str, path: str) -> bool:
        return False

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        """As :meth:`Codec.parse`; ``body`` are the arguments that are not ``None``, JSON-like.

        Credentials are no part of the request, nor of its key.
        """
        request = super().parse(question(body), upstream=upstream, headers=headers)
        if beta := headers.get("anthropic-beta"):
            request = replace(request, scope={**request.scope, "anthropic-beta": sorted(beta.split(","))})
        bypass = request.bypass or _bypass(body)
        return request if bypass is None else replace(request, bypass=bypass)

    def storable(self, body: Mapping[str, Any]) -> Storable:
        if body.get("vertex_ai_grounding_metadata"):
            return Storable("never", "live web search")
        found = super().storable(body)
        if found.keep == "never":
            return found
        for choice in body["choices"]:
            held = _held_back(choice)
            if held is not None:
                return held if held.keep == "never" else Storable("exact", found.reason or held.reason)
        return found

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        usage, reported = super().usage(body), body.get("usage")
        if usage is None or not isinstance(reported, Mapping):
            return usage
        # Prompt tokens include reads and writes, but writes have a name of their own.
        written = count(reported, "cache_creation_input_tokens")
        return usage._replace(cache_write_tokens=usage.cache_write_tokens or written)

    def replay(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[bytes]:
        return super().replay({**answer, "choices": [_plain_choice(choice) for choice in answer["choices"]]}, body)


def question(arguments: Mapping[str, Any]) -> Block:
    """The arguments that have a say in the answer: no credential, nothing transport-only, not who answers."""
    asked = {
        name: value if name in _READ_BY_MODEL else _without_credentials(value)
        for name, value in arguments.items()
        if name not in _TRANSPORT_ONLY and not _COST.search(name) and not _CREDENTIAL.search(name)
    }
    metadata = arguments.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("tags"):
        asked.setdefault("tags", metadata["tags"])  # a Router may choose the deployment by them
    return asked


def _without_credentials(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: item if name in _NAMES_BELOW else _without_credentials(item)
            for name, item in value.items()
            if not _CREDENTIAL.search(str(name))
        }
    return [_without_credentials(item) for item in value] if isinstance(value, list) else value


def _bypass(arguments: Mapping[str, Any]) -> str | None:
    for name in _STATE:
        if arguments.get(name):
            return f"{name}: the answer depends on what is kept elsewhere"
    for tool in arguments.get("tools") or ():
        if "type" not in tool and "function" not in tool:
            return f"server tool: {next(iter(tool), '')}"  # as LiteLLM takes {"googleSearch": {}}
    own_cache = arguments.get("cache")
    if isinstance(own_cache, Mapping) and own_cache.get("no-store"):
        return "cache: no-store"
    return None


def _held_back(choice: Mapping[str, Any]) -> Storable | None:
    """What stands beside the fields of OpenAI's format and bars a choice from the semantic tier, or from both."""
    message = choice["message"]
    fields, ended = (_mapping(part.get("provider_specific_fields")) for part in (message, choice))
    native = ended.get("native_finish_reason")
    if native is not None and native not in _NATIVE_ENDS:
        return Storable("never", f"finish_reason: {native}")
    if fields.get("refusal"):
        return Storable("never", "refusal")
    if fields.get("citations"):
        return Storable("never", "live web search")
    if message.get("thinking_blocks") or any(fields.values()):
        return Storable("exact", "reasoning artefacts belong to one prompt")
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain_choice(choice: Block) -> Block:
    """A choice without the empty fields that LiteLLM gives every message: its stream builder trips over some."""
    message = {name: value for name, value in choice["message"].items() if value not in (None, {}, [])}
    return {**without(choice, frozenset({"provider_specific_fields"})), "message": message}
