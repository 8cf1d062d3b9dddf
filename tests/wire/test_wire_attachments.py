"""Images, files and audio, in every place that a wire format has for them: known by their content, or not cached."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from semcache.keys import canonical
from semcache.types import Request
from semcache.wire import CODECS

Json = dict[str, Any]
CONTENT, OTHER = (base64.b64encode(content * 9).decode() for content in (b"a recording", b"another one"))
PATHS = {"gemini": "/v1beta/models/m:generateContent", "bedrock": "/model/m/converse"}
NAMED = {codec.name: codec for codec in CODECS}


def parse(api: str, body: Json) -> Request:
    return NAMED[api].parse(body, upstream="u", headers={":path": PATHS.get(api, "")})


def chat(*parts: Json, role: str = "user") -> Json:
    return {"model": "m", "messages": [{"role": role, "content": list(parts)}]}


def responses(*items: Json) -> Json:
    return {"model": "m", "store": False, "input": list(items)}


def said(*parts: Json) -> Json:
    return {"role": "user", "content": list(parts)}


def anthropic(*content: Json) -> Json:
    return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": list(content)}]}


def gemini(*parts: Json, **fields: Any) -> Json:
    return {"contents": [{"role": "user", "parts": list(parts)}], **fields}


def bedrock(*content: Json) -> Json:
    return {"messages": [{"role": "user", "content": list(content)}]}


def media(source: Json, kind: str = "image") -> Json:
    return {kind: {"format": "f", "source": source}}


def url(data: str) -> str:
    return f"data:image/png;base64,{data}"


HELD: dict[str, tuple[str, Callable[[str], Json]]] = {
    "chat: image": ("openai_chat", lambda d: chat({"type": "image_url", "image_url": {"url": url(d)}})),
    "chat: image, short": ("openai_chat", lambda d: chat({"type": "image_url", "image_url": url(d)})),
    "chat: video": ("openai_chat", lambda d: chat({"type": "video_url", "video_url": {"url": url(d)}})),
    "chat: audio": (
        "openai_chat",
        lambda d: chat({"type": "input_audio", "input_audio": {"data": d, "format": "wav"}}),
    ),
    "chat: file": ("openai_chat", lambda d: chat({"type": "file", "file": {"file_data": url(d)}})),
    "chat: of a tool": (
        "openai_chat",
        lambda d: chat({"type": "image_url", "image_url": {"url": url(d)}}, role="tool"),
    ),
    "responses: image": ("openai_responses", lambda d: responses(said({"type": "input_image", "image_url": url(d)}))),
    "responses: file": ("openai_responses", lambda d: responses(said({"type": "input_file", "file_data": d}))),
    "responses: audio": (
        "openai_responses",
        lambda d: responses(said({"type": "input_audio", "input_audio": {"data": d, "format": "mp3"}})),
    ),
    "responses: screenshot": (
        "openai_responses",
        lambda d: responses(
            {
                "type": "computer_call_output",
                "call_id": "c",
                "output": {"type": "computer_screenshot", "image_url": url(d)},
            }
        ),
    ),
    "responses: of a tool": (
        "openai_responses",
        lambda d: responses(
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_image", "image_url": url(d)}],
            }
        ),
    ),
    "responses: drawn before": (
        "openai_responses",
        lambda d: responses({"type": "image_generation_call", "id": "i", "result": d}, said()),
    ),
    "anthropic: image": (
        "anthropic",
        lambda d: anthropic({"type": "image", "source": {"type": "base64", "media_type": "i", "data": d}}),
    ),
    "anthropic: of a tool": (
        "anthropic",
        lambda d: anthropic(
            {
                "type": "tool_result",
                "tool_use_id": "t",
                "content": [{"type": "image", "source": {"type": "base64", "media_type": "i", "data": d}}],
            }
        ),
    ),
    "gemini: audio": ("gemini", lambda d: gemini({"inlineData": {"mimeType": "audio/wav", "data": d}})),
    "gemini: of a tool": (
        "gemini",
        lambda d: gemini({"functionResponse": {"name": "f", "parts": [{"inlineData": {"mimeType": "i", "data": d}}]}}),
    ),
    "gemini: of the system": (
        "gemini",
        lambda d: gemini(
            {"text": "q"}, systemInstruction={"parts": [{"inlineData": {"mimeType": "i", "data": d}}, {"text": "s"}]}
        ),
    ),
    "bedrock: image": ("bedrock", lambda d: bedrock(media({"bytes": d}))),
    "bedrock: audio": ("bedrock", lambda d: bedrock(media({"bytes": d}, "audio"))),
    "bedrock: of a tool": (
        "bedrock",
        lambda d: bedrock({"toolResult": {"toolUseId": "t", "content": [media({"bytes": d})]}}),
    ),
}


@pytest.mark.parametrize(("api", "build"), HELD.values(), ids=HELD)
def test_what_is_attached_is_known_by_a_digest_of_its_content(api: str, build: Callable[[str], Json]) -> None:
    one, again, other = (parse(api, build(data)) for data in (CONTENT, CONTENT[:8] + "\n" + CONTENT[8:], OTHER))
    assert one.bypass is None
    assert CONTENT.encode() not in canonical(one.scope)
    assert canonical(one.scope) == canonical(again.scope) != canonical(other.scope)


AT_A_URL = "https://example.org/today.png"
ELSEWHERE: dict[str, tuple[str, Json]] = {
    "chat: image": ("openai_chat", chat({"type": "image_url", "image_url": {"url": AT_A_URL}})),
    "chat: image, short": ("openai_chat", chat({"type": "image_url", "image_url": AT_A_URL})),
    "chat: audio": ("openai_chat", chat({"type": "input_audio", "input_audio": {"data": AT_A_URL, "format": "wav"}})),
    "chat: file": ("openai_chat", chat({"type": "file", "file": {"file_id": "gs://bucket/today.pdf"}})),
    "responses: image": ("openai_responses", responses(said({"type": "input_image", "image_url": AT_A_URL}))),
    "responses: file": ("openai_responses", responses(said({"type": "input_file", "file_url": AT_A_URL}))),
    "anthropic: image": ("anthropic", anthropic({"type": "image", "source": {"type": "url", "url": AT_A_URL}})),
    "gemini: file": ("gemini", gemini({"fileData": {"mimeType": "i", "fileUri": "gs://bucket/today.png"}})),
    "gemini: page": ("gemini", gemini({"fileData": {"fileUri": AT_A_URL}}, systemInstruction={"parts": []})),
    "bedrock: image": ("bedrock", bedrock(media({"s3Location": {"uri": "s3://bucket/today.png"}}))),
    "bedrock: audio": ("bedrock", bedrock(media({"s3Location": {"uri": "s3://bucket/today.mp3"}}, "audio"))),
}


@pytest.mark.parametrize(("api", "body"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_what_stands_at_a_url_may_change_there_so_the_request_is_not_cached(api: str, body: Json) -> None:
    assert (parse(api, body).bypass or "").startswith("attachment at a URL")


UPLOADED: dict[str, tuple[str, Json]] = {
    "chat": ("openai_chat", chat({"type": "file", "file": {"file_id": "file-1"}})),
    "responses": ("openai_responses", responses(said({"type": "input_image", "file_id": "file-1", "image_url": None}))),
    "anthropic": ("anthropic", anthropic({"type": "document", "source": {"type": "file", "file_id": "file_1"}})),
    "gemini": (
        "gemini",
        gemini(
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc", "mimeType": "i"}}
        ),
    ),
}


@pytest.mark.parametrize(("api", "body"), UPLOADED.values(), ids=UPLOADED)
def test_an_uploaded_file_never_changes_and_is_known_by_its_id(api: str, body: Json) -> None:
    assert parse(api, body).bypass is None
