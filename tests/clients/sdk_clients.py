"""The four SDK clients behind one face, so that a test is written once for all of them."""

from __future__ import annotations

import inspect
import ssl
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import anthropic
import httpx2
import openai

from semcache.testing.upstream import Upstream

QUESTION = "Is it up?"


_open: list[Any] = []
# Each HTTP client would build its own, in more time than all the rest of a test.
_TLS = ssl.create_default_context()


async def close_clients() -> None:
    """Close every client that :meth:`Sdk.client` made, on the event loop that used it."""
    while _open:
        await closed(_open.pop())


@dataclass(frozen=True)
class Sdk:
    """One kind of client. ``ask`` and ``tell`` (a stream) return the whole answer's text."""

    module: ModuleType
    is_async: bool

    @property
    def name(self) -> str:
        return f"{'async ' if self.is_async else ''}{self.module.__name__}"

    @property
    def is_openai(self) -> bool:
        return self.module is openai

    @property
    def model(self) -> str:
        return "gpt-6-luna" if self.is_openai else "claude-haiku-4-5"

    def client(self, up: Upstream, **options: Any) -> Any:
        kind = ("Async" if self.is_async else "") + ("OpenAI" if self.is_openai else "Anthropic")
        url = up.openai_url if self.is_openai else up.anthropic_url
        if "http_client" not in options:
            options["http_client"] = (httpx2.AsyncClient if self.is_async else httpx2.Client)(verify=_TLS)
        client = getattr(self.module, kind)(base_url=url, api_key="key", **{"max_retries": 0, **options})
        _open.append(client)
        return client

    def endpoint(self, client: Any) -> Any:
        return client.chat.completions if self.is_openai else client.messages

    def arguments(self, text: str = QUESTION, **extra: Any) -> dict[str, Any]:
        bound = {} if self.is_openai else {"max_tokens": 500}
        return {"model": self.model, "messages": [{"role": "user", "content": text}], **bound, **extra}

    async def create(self, client: Any, text: str = QUESTION, **extra: Any) -> Any:
        return await settled(self.endpoint(client).create(**self.arguments(text, **extra)))

    async def ask(self, client: Any, text: str = QUESTION, **extra: Any) -> str:
        return self.text(await self.create(client, text, **extra))

    def text(self, answer: Any) -> str:
        if self.is_openai:
            return answer.choices[0].message.content or ""
        return "".join(block.text for block in answer.content if block.type == "text")

    async def tell(self, client: Any, text: str = QUESTION, **extra: Any) -> str:
        stream = await self.create(client, text, stream=True, **extra)
        return "".join([self.piece(event) for event in await collected(stream)])

    def piece(self, event: Any) -> str:
        if self.is_openai:
            return (event.choices[0].delta.content or "") if event.choices else ""
        return event.delta.text if event.type == "content_block_delta" else ""

    async def raw(self, client: Any, text: str = QUESTION, **extra: Any) -> Any:
        endpoint = self.endpoint(client).with_raw_response
        return await settled(endpoint.create(**self.arguments(text, **extra)))

    async def status(self, client: Any, text: str = QUESTION, **extra: Any) -> str:
        """The ``Cache-Status`` of a plain call."""
        return (await self.raw(client, text, **extra)).headers["cache-status"]


async def settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def collected(stream: Any) -> list[Any]:
    if hasattr(stream, "__aiter__"):
        return [event async for event in stream]
    return list(stream)


async def closed(stream: Any) -> None:
    await settled(stream.close())


SDKS = [Sdk(module, is_async) for module in (openai, anthropic) for is_async in (False, True)]
