"""Gemini ``generateContent`` and ``streamGenerateContent``, of the Developer API and of Vertex.

Fields and stream order: google-genai 3.4.0 (``types``, ``models``), read 2026-11-21. The path names the model and says
whether the answer streams, so the edge hands it in as the header ``:path`` (the name that HTTP/2 gives it, RFC 9113,
8.3.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from semcache.types import Request, Usage
from semcache.wire import _sse
from semcache.wire._common import (
    AT_A_URL,
    Block,
    NotRecordable,
    Reading,
    StreamRecorder,
    Uncacheable,
    blocks,
    conversation,
    count,
    digest,
    expect,
    field,
    join,
    new_request,
    pieces,
    routed,
    without,
)
from semcache.wire._json import loads_object
from semcache.wire._sse import Event
from semcache.wire.base import Codec, Recorder, Storable

_PATH: Final = re.compile(r"/(?P<model>[^/]+/[^/:]+):(?:generateContent|(?P<stream>streamGenerateContent))$")
_AS_EVENTS: Final = "&alt=sse"
# Request fields that do not change the answer. Source: SDK types, 2026-11-21.
_TRANSPORT_ONLY: Final = frozenset({"labels", "serviceTier"})
# What was uploaded to the Files API never changes. Likewise.
_UPLOADED: Final = re.compile(r"https://generativelanguage\.googleapis\.com/[^/]+/files/[^/]+$")
_PLAIN: Final = frozenset({"text", "thought"})
_BASE64URL: Final = str.maketrans("-_", "+/")


class Gemini(Codec):
    """``POST …/models/MODEL:generateContent`` and ``:streamGenerateContent?alt=sse``."""

    name = "gemini"
    stream_type = _sse.MEDIA_TYPE

    def matches(self, method: str, path: str) -> bool:
        return method == "POST" and _PATH.search(path) is not None

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        model, stream, answers = routed(_PATH, headers.get(":path", ""), upstream)
        config = body.get("generationConfig") or {}
        named = {"model": model.rpartition("/")[2], "stream": stream, "temperature": field(config, "temperature")}
        request = new_request(self.name, body, upstream=answers.replace(_AS_EVENTS, ""), headers=headers, named=named)

        def read() -> Reading:
            expect(bool(model), "path")
            expect(not stream or _AS_EVENTS in upstream, "a stream that is not of events")
            return _read(body, config, model)

        return conversation(request, read)

    def storable(self, body: Mapping[str, Any]) -> Storable:
        candidates = body.get("candidates")
        feedback = body.get("promptFeedback")
        if isinstance(feedback, Mapping) and feedback.get("blockReason"):
            return Storable("never", "refusal")
        if not isinstance(candidates, list) or len(candidates) != 1 or not isinstance(candidates[0], Mapping):
            return Storable("never", "not one candidate")
        (candidate,) = candidates
        if candidate.get("finishReason") != "STOP":
            return Storable("never", f"finishReason: {candidate.get('finishReason')}")
        for name in ("groundingMetadata", "urlContextMetadata", "citationMetadata"):
            if candidate.get(name):
                return Storable("never", f"citations of what the provider has looked up: {name}")
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, Mapping) else None
        if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
            return Storable("never", "empty answer")
        return _storable_parts(parts)

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        usage = body.get("usageMetadata")
        if not isinstance(usage, Mapping):
            return None
        thoughts = count(usage, "thoughtsTokenCount")
        return Usage(
            # What tools put into the prompt, and what the model thought, are counted beside the rest.
            input_tokens=count(usage, "promptTokenCount") + count(usage, "toolUsePromptTokenCount"),
            output_tokens=count(usage, "candidatesTokenCount") + thoughts,
            cache_read_tokens=count(usage, "cachedContentTokenCount"),
            reasoning_tokens=thoughts,
        )

    def recorder(self, body: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> Recorder:
        record = _Record()
        return StreamRecorder(record.take, record.build)

    def replay(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[bytes]:
        (candidate,) = answer["candidates"]
        content = candidate["content"]
        base = without(answer, frozenset({"candidates", "usageMetadata", "promptFeedback"}))
        *early, last = [step for part in content["parts"] for step in _part_steps(part)]
        for part in early:
            begun = {"content": {**content, "parts": [part]}, "index": candidate.get("index", 0)}
            yield _sse.write({**base, "candidates": [begun]})
        yield _sse.write({**answer, "candidates": [{**candidate, "content": {**content, "parts": [last]}}]})


def _read(body: Mapping[str, Any], config: object, model: str) -> Reading:
    messages = [_normal_content(content) for content in blocks(body.get("contents"), "contents")]
    expect(bool(messages), "no contents")
    expect(isinstance(config, dict), "generationConfig")
    assert isinstance(config, dict)
    # The API takes each name in two spellings; a codec that knew one of them would miss what the other asks.
    expect(not any("_" in name for name in (*body, *config)), "names in snake_case")
    seen = {**without(body, _TRANSPORT_ONLY.union(("contents",))), "model": model}
    system = seen.get("systemInstruction")
    if isinstance(system, dict) and system.get("parts"):
        seen["systemInstruction"] = _with_digests(system)
    return Reading(messages, seen, _bypass(body, config))


def _normal_content(content: Block) -> Block:
    """A turn as a message of the other formats, with digests for attachments."""
    normal = without(content, frozenset({"role", "parts"}))
    parts = [_normal_part(part) for part in blocks(content.get("parts"), "parts")]
    role = content.get("role") or "user"
    return {**normal, "role": "assistant" if role == "model" else role, "content": parts}


def _normal_part(part: Block) -> Block:
    return {"type": "text", **part} if part.keys() == {"text"} else _digested(part)


def _digested(part: Block) -> Block:
    """A part with a digest of what is attached, or of what a tool has attached to its result."""
    data, file, result = part.get("inlineData"), part.get("fileData"), part.get("functionResponse")
    if file is not None and not _UPLOADED.match(str(field(file, "fileUri"))):
        raise Uncacheable(AT_A_URL)
    if isinstance(data, dict) and isinstance(data.get("data"), str):
        content = digest(data["data"].translate(_BASE64URL), None)
        return {**part, "inlineData": {**data, "data": content or data["data"]}}
    if isinstance(result, dict) and result.get("parts"):
        return {**part, "functionResponse": _with_digests(result)}
    return part


def _with_digests(content: Block) -> Block:
    return {**content, "parts": [_digested(part) for part in blocks(content["parts"], "parts")]}


def _bypass(body: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Why this request must not be cached; empty if it may."""
    if body.get("cachedContent"):
        return "server-side state: cachedContent"
    if config.get("candidateCount") not in (None, 1):
        return "n>1"
    modalities = config.get("responseModalities") or []
    expect(isinstance(modalities, list), "responseModalities")
    if any(modality != "TEXT" for modality in modalities):
        return "the answer is not only text"
    for tool in blocks(body.get("tools") or [], "tools"):
        for name in tool:
            if name != "functionDeclarations":
                return f"server tool: {name}"
    return ""


def _storable_parts(parts: list[Mapping[str, Any]]) -> Storable:
    kinds = {name for part in parts for name in part}
    for kind in sorted(kinds - {"text", "thought", "thoughtSignature", "functionCall"}):
        return Storable("never", f"content of type {kind}")
    if "functionCall" in kinds:
        return Storable("exact", "tool calls")
    if not any(part.get("text") and not part.get("thought") for part in parts):
        return Storable("never", "empty answer")
    if "thoughtSignature" in kinds or any(part.get("thought") for part in parts):
        return Storable("exact", "reasoning artefacts belong to one prompt")
    return Storable("all")


class _Record:
    """The answer as its chunks come in. The stream has no end of its own: its last chunk has a finish reason."""

    def __init__(self) -> None:
        self._top: Block = {}
        self._candidate: Block = {}
        self._content: Block = {}
        self._parts: list[Block] = []
        self._texts: list[list[str]] = []

    def take(self, event: Event) -> bytes:
        chunk = loads_object(event.data)
        if chunk is None or chunk.get("error"):
            raise NotRecordable
        self._top.update((name, value) for name, value in chunk.items() if name != "candidates" and value is not None)
        for candidate in chunk.get("candidates") or ():
            if candidate.get("index", 0) != 0:
                raise NotRecordable
            self._candidate.update((n, v) for n, v in candidate.items() if n != "content" and v is not None)
            content = candidate.get("content") or {}
            self._content.update(without(content, frozenset({"parts"})))
            for part in content.get("parts") or ():
                self._take_part(part)
        return event.raw

    def _take_part(self, part: Block) -> None:
        call = part.get("functionCall")
        if call is not None and ("partialArgs" in call or call.get("willContinue")):
            raise NotRecordable
        # Plain texts in a row were one text; a signature closes its part.
        joins = self._parts and part.keys() <= _PLAIN and self._parts[-1].keys() == part.keys()
        if joins and self._parts[-1].get("thought") == part.get("thought") and "text" in part:
            self._texts[-1].append(part["text"])
        else:
            self._parts.append(part)
            self._texts.append([part["text"]] if "text" in part else [])

    def build(self) -> Block | None:
        if not self._candidate.get("finishReason"):
            return None
        pairs = zip(self._parts, self._texts, strict=True)
        parts = [{**part, "text": join(texts)} if texts else part for part, texts in pairs]
        return {**self._top, "candidates": [{"content": {**self._content, "parts": parts}, **self._candidate}]}


def _part_steps(part: Block) -> Iterator[Block]:
    if part.keys() <= _PLAIN and part.get("text"):
        yield from ({**part, "text": piece} for piece in pieces(part["text"]))
    else:
        yield part
