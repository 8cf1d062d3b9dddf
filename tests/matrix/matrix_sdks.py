"""The SDKs that fit into one environment."""

from __future__ import annotations

import json
import ssl
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar

import anthropic
import boto3
import httpx2
import openai
from botocore.config import Config
from google import genai
from matrix_cells import Content
from matrix_face import LIFT_SCHEMA, PARAMETERS, Driver, Lift, final, settled

# Each HTTP client would build its own, in more time than all the rest of a test.
_TLS = ssl.create_default_context()


class _HttpDriver(Driver):
    """A client of an SDK that is made of a sync and an async class over one HTTP library."""

    module: ClassVar[Any]
    name: ClassVar[str]

    def client(self) -> Any:
        http = (httpx2.AsyncClient if self.is_async else httpx2.Client)(verify=_TLS)
        kind = getattr(self.module, f"{'Async' * self.is_async}{self.name}")
        return self.closing(kind(http_client=http, max_retries=0, **self.settings()))

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError


class Chat(_HttpDriver):
    module, name, model = openai, "OpenAI", "gpt-6-luna"
    wanted: ClassVar = {
        "text": {},
        "tools": {
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}],
            "tool_choice": "required",
        },
        "structured": {"response_format": Lift},
    }

    def settings(self) -> dict[str, Any]:
        return {"base_url": self.up.openai_url, "api_key": "key"}

    async def ask(self, client: Any, text: str, content: Content, stream: bool) -> Any:
        endpoint = client.chat.completions
        asked = {"model": self.model, "messages": [{"role": "user", "content": text}], **self.wanted[content]}
        if stream:
            return await final(endpoint.stream(**asked), "get_final_completion")
        return await settled((endpoint.parse if content == "structured" else endpoint.create)(**asked))


class AzureChat(Chat):
    name, model = "AzureOpenAI", "my-deployment"

    def settings(self) -> dict[str, Any]:
        return {"azure_endpoint": self.up.url, "api_version": "2026-10-01", "api_key": "key"}


class Responses(Chat):
    wanted: ClassVar = {
        "text": {},
        "tools": {
            "tools": [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": None}],
            "tool_choice": "required",
        },
        "structured": {"text_format": Lift},
    }
    more: ClassVar[dict[str, Any]] = {}

    async def ask(self, client: Any, text: str, content: Content, stream: bool) -> Any:
        endpoint = client.responses
        asked = {"model": self.model, "input": text, **self.wanted[content], **self.more}
        if stream:
            return await final(endpoint.stream(**asked), "get_final_response")
        return await settled((endpoint.parse if content == "structured" else endpoint.create)(**asked))


class UnkeptResponses(Responses):
    more: ClassVar = {"store": False}


class Messages(_HttpDriver):
    module, name, model = anthropic, "Anthropic", "claude-haiku-4-5"
    wanted: ClassVar = {
        "text": {},
        "tools": {"tools": [{"name": "weather", "input_schema": PARAMETERS}], "tool_choice": {"type": "any"}},
        "structured": {"output_format": Lift},
    }

    def settings(self) -> dict[str, Any]:
        return {"base_url": self.up.anthropic_url, "api_key": "key"}

    async def ask(self, client: Any, text: str, content: Content, stream: bool) -> Any:
        asked = [{"role": "user", "content": text}]
        given = {"model": self.model, "max_tokens": 500, "messages": asked, **self.wanted[content]}
        if stream:
            return await final(client.messages.stream(**given), "get_final_message")
        return await settled((client.messages.parse if content == "structured" else client.messages.create)(**given))


class BedrockMessages(Messages):
    name, model = "AnthropicBedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0"

    def settings(self) -> dict[str, Any]:
        keys = {"aws_access_key": "AKIDEXAMPLE", "aws_secret_key": "not-a-secret"}
        return {"base_url": self.up.bedrock_url, "aws_region": "us-east-1", **keys}


class VertexMessages(Messages):
    name, model = "AnthropicVertex", "claude-haiku-4-5@20251001"

    def settings(self) -> dict[str, Any]:
        return {"base_url": self.up.vertex_url, "region": "europe-west1", "project_id": "p", "access_token": "token"}


class Gemini(Driver):
    wanted: ClassVar = {
        "text": {},
        "tools": {
            "tools": [{"function_declarations": [{"name": "weather", "parameters_json_schema": PARAMETERS}]}],
            "tool_config": {"function_calling_config": {"mode": "ANY"}},
        },
        "structured": {"response_mime_type": "application/json", "response_schema": Lift},
    }

    def client(self) -> Any:
        http, async_http = httpx2.Client(verify=_TLS), httpx2.AsyncClient(verify=_TLS)
        self.closing(http)
        self.closing(async_http)
        options = {"base_url": self.up.gemini_url, "httpx_client": http, "httpx_async_client": async_http}
        return genai.Client(api_key="key", http_options=genai.types.HttpOptions(**options))

    async def ask(self, client: Any, text: str, content: Content, stream: bool) -> Any:
        models = client.aio.models if self.is_async else client.models
        asked = {"model": "gemini-3.8-flash", "contents": text, "config": self.wanted[content] or None}
        if not stream:
            return await settled(models.generate_content(**asked))
        chunks = await self.collected(models.generate_content_stream(**asked))
        parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts or ()]
        return {
            "types": sorted({type(chunk).__qualname__ for chunk in chunks}),
            "text": "".join(part.text or "" for part in parts),
            "calls": [part.function_call for part in parts if part.function_call],
            "finish": chunks[-1].candidates[0].finish_reason,
            "usage": chunks[-1].usage_metadata,
            "response_id": {chunk.response_id for chunk in chunks},
        }


class Converse(Driver):
    model = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
    wanted: ClassVar = {
        "text": {},
        "tools": {
            "toolConfig": {
                "tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": PARAMETERS}}}],
                "toolChoice": {"any": {}},
            }
        },
        "structured": {
            "outputConfig": {
                "textFormat": {
                    "type": "json_schema",
                    "structure": {"jsonSchema": {"name": "lift", "schema": json.dumps(LIFT_SCHEMA)}},
                }
            }
        },
    }

    def client(self) -> Any:
        keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "not-a-secret"}
        config = Config(retries={"total_max_attempts": 1})
        given = {"endpoint_url": self.up.bedrock_url, "region_name": "us-east-1", "config": config, **keys}
        client = self.closing(boto3.client("bedrock-runtime", **given))
        if self.is_async:
            client.__class__ = _as_aiobotocore_makes_it(type(client))
        return client

    async def ask(self, client: Any, text: str, content: Content, stream: bool) -> Any:
        messages = [{"role": "user", "content": [{"text": text}]}]
        asked = {"modelId": self.model, "messages": messages, **self.wanted[content]}
        return _joined(client.converse_stream(**asked)["stream"]) if stream else client.converse(**asked)


class Invoke(Converse):
    wanted: ClassVar = {
        "text": {},
        "tools": Messages.wanted["tools"],
        "structured": {"output_config": {"format": {"type": "json_schema", "schema": LIFT_SCHEMA}}},
    }

    async def ask(self, client: Any, text: str, content: Content, stream: bool) -> Any:
        asked = {"max_tokens": 500, "messages": [{"role": "user", "content": text}], **self.wanted[content]}
        given = {"modelId": self.model, "body": json.dumps({"anthropic_version": "bedrock-2023-05-31", **asked})}
        if not stream:
            return json.loads(client.invoke_model(**given)["body"].read())
        frames = client.invoke_model_with_response_stream(**given)["body"]
        events = [json.loads(frame["chunk"]["bytes"]) for frame in frames]
        # No part of the answer: a sign of life, and what AWS counted of this call.
        events[-1].pop("amazon-bedrock-invocationMetrics", None)
        named = {"content_block_delta": "contentBlockDelta"}
        return _joined({named.get(event["type"], event["type"]): event} for event in events if event["type"] != "ping")


def _joined(events: Iterable[dict[str, Any]]) -> list[Any]:
    """The events of a stream, the deltas of a block in one: how an answer is cut up is no part of it."""
    found: list[Any] = []
    for event in events:
        ((kind, data),) = event.items()
        if kind != "contentBlockDelta":
            found.append([kind, data])
            continue
        if found[-1][0] != kind:
            found.append([kind, defaultdict(str)])
        for name, text in _strings(data["delta"]):
            found[-1][1][name] += text
    for _, data in found:
        for arguments in ("input", "partial_json"):
            if arguments in data:
                data[arguments] = json.loads(data[arguments])
    return found


def _strings(delta: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in delta.items():
        yield from _strings(value) if isinstance(value, dict) else [(name, value)] if name != "type" else ()


def _as_aiobotocore_makes_it(kind: type) -> type:
    class Async(kind):  # type: ignore[misc]
        async def _make_api_call(self, *arguments: Any) -> None: ...

    return Async
