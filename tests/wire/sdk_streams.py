"""Drives the real SDKs over given bytes, in process: what their accumulators make of a stream or a body."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import anthropic
import httpx2
import openai

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


class Chunks(httpx2.SyncByteStream):
    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


def _http_client(chunks: Sequence[bytes], kind: str) -> httpx2.Client:
    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": kind}, stream=Chunks(chunks))

    return httpx2.Client(transport=httpx2.MockTransport(handle))


def openai_final(chunks: Sequence[bytes]) -> dict[str, Any]:
    """The final completion that ``chat.completions.stream`` makes of a stream."""
    client = openai.OpenAI(api_key="k", http_client=_http_client(chunks, "text/event-stream"))
    with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        return stream.get_final_completion().model_dump()


def openai_plain(body: bytes) -> dict[str, Any]:
    client = openai.OpenAI(api_key="k", http_client=_http_client([body], "application/json"))
    return client.chat.completions.create(model="m", messages=MESSAGES).model_dump()


def responses_final(chunks: Sequence[bytes]) -> dict[str, Any]:
    """The final response that ``responses.stream`` makes of a stream."""
    client = openai.OpenAI(api_key="k", http_client=_http_client(chunks, "text/event-stream"))
    with client.responses.stream(model="m", input="hi") as stream:
        return stream.get_final_response().model_dump()


def responses_events(chunks: Sequence[bytes]) -> list[Any]:
    """The events of ``responses.create(stream=True)``, as the SDK's own types."""
    client = openai.OpenAI(api_key="k", http_client=_http_client(chunks, "text/event-stream"))
    with client.responses.create(model="m", input="hi", stream=True) as stream:
        return list(stream)


def responses_plain(body: bytes) -> dict[str, Any]:
    client = openai.OpenAI(api_key="k", http_client=_http_client([body], "application/json"))
    return client.responses.parse(model="m", input="hi").model_dump()


def anthropic_final(chunks: Sequence[bytes]) -> dict[str, Any]:
    """The final message that ``messages.stream`` makes of a stream."""
    client = anthropic.Anthropic(api_key="k", http_client=_http_client(chunks, "text/event-stream"))
    with client.messages.stream(model="m", messages=MESSAGES, max_tokens=9) as stream:
        return stream.get_final_message().model_dump()


def anthropic_plain(body: bytes) -> dict[str, Any]:
    client = anthropic.Anthropic(api_key="k", http_client=_http_client([body], "application/json"))
    return client.messages.create(model="m", messages=MESSAGES, max_tokens=9).model_dump()


def cut(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    """``stream`` in pieces of ``sizes``, over and over."""
    found, start, turn = [], 0, 0
    while start < len(stream):
        size = sizes[turn % len(sizes)]
        found.append(stream[start : start + size])
        start, turn = start + size, turn + 1
    return found
