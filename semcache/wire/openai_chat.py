"""OpenAI Chat Completions, and the many servers that speak it.

Fields and stream order: openai 3.54.0 (``types/chat``, ``lib/streaming/chat``), read 2026-11-21.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from semcache.types import Request, Usage
from semcache.wire import _sse
from semcache.wire._common import (
    Block,
    NotRecordable,
    Reading,
    StreamRecorder,
    attached,
    blocks,
    conversation,
    count,
    expect,
    join,
    new_request,
    pieces,
    plain,
    strictest,
    without,
)
from semcache.wire._json import loads_object
from semcache.wire._sse import Event
from semcache.wire.base import Codec, Recorder, Storable

# Request fields that do not change the answer. Source: API reference and SDK types, 2026-11-21.
_TRANSPORT_ONLY: Final = frozenset(
    {
        "cache_salt",  # vLLM's
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    }
)
# Prompt-cache marks on messages, content parts and tools: OpenAI's, and Anthropic's as routers take it. 2026-11-21.
_MARKS: Final = frozenset({"prompt_cache_breakpoint", "cache_control"})
_HEADERS: Final = ("openai-organization", "openai-project", "openai-beta")
# Models that search the web on every call, by name: OpenAI's (model pages, 2026-11-21), Perplexity's, Groq's and
# OpenRouter's (their documentation, 2026).
_SEARCH_MODEL: Final = re.compile(r"-search-(preview|api)|(^|/)(sonar(-|$)|compound(-|$))|:online$")
# Fields by which an answer is looked up: OpenAI's, Azure's, xAI's, OpenRouter's, DashScope's. Likewise.
_SEARCHES: Final = ("web_search_options", "data_sources", "search_parameters", "plugins", "enable_search")
_LOOKED_UP: Final = ("citations", "search_results")
_CLIENT_TOOLS: Final = ("function", "custom")
# Content parts by what they attach, with the fields that have it. Video is vLLM's and DashScope's. Likewise.
_ATTACHMENTS: Final = {
    "image_url": ("url",),
    "video_url": ("url",),
    "input_audio": ("data",),
    "file": ("file_data", "file_id"),  # LiteLLM takes a URL for an id
}
# Where compatible servers put what the model has thought. Sources: DeepSeek's and vLLM's API pages, OpenRouter's. 2026.
_THOUGHTS: Final = ("reasoning_content", "reasoning", "reasoning_details")

# Fields of a chunk that are not fields of the whole answer, or are put together by hand.
_CHUNK_ONLY: Final = frozenset({"choices", "object", "obfuscation", "usage"})
_CHOICE_OWN: Final = frozenset({"delta", "index", "finish_reason", "logprobs"})


class OpenAIChat(Codec):
    """``POST …/chat/completions``, Azure's deployment paths included."""

    name = "openai_chat"
    stream_type = _sse.MEDIA_TYPE

    def matches(self, method: str, path: str) -> bool:
        return method == "POST" and path.endswith("/chat/completions")

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        request = new_request(self.name, body, upstream=upstream, headers=headers, in_scope=_HEADERS)
        return conversation(request, lambda: _read(body))

    def forward(self, body: Mapping[str, Any], *, ask_usage: bool) -> dict[str, Any] | None:
        if not ask_usage or body.get("stream") is not True or _wants_usage(body):
            return None
        options = body.get("stream_options") or {}
        return {**body, "stream_options": {**options, "include_usage": True}}

    def storable(self, body: Mapping[str, Any]) -> Storable:
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or body.get("error"):
            return Storable("never", "not a chat completion")
        if any(map(body.get, _LOOKED_UP)):
            return Storable("never", "live web search")
        found = strictest(_storable_choice(choice) for choice in choices)
        if found.keep != "all":
            return found
        if body.get("moderation") is not None:
            return Storable("exact", "moderation results belong to one prompt")
        return Storable("all")

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        usage = body.get("usage")
        if not isinstance(usage, Mapping):
            return None
        read = count(usage, "prompt_tokens_details", "cached_tokens")
        return Usage(
            input_tokens=count(usage, "prompt_tokens"),
            output_tokens=count(usage, "completion_tokens"),
            # DeepSeek reports its reads beside the details.
            cache_read_tokens=read or count(usage, "prompt_cache_hit_tokens"),
            cache_write_tokens=count(usage, "prompt_tokens_details", "cache_write_tokens"),
            reasoning_tokens=count(usage, "completion_tokens_details", "reasoning_tokens"),
        )

    def recorder(self, body: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> Recorder:
        record = _Record(hide_usage=sent is not None and _wants_usage(sent) and not _wants_usage(body))
        return StreamRecorder(record.take, record.build)

    def replay(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[bytes]:
        base = {**without(answer, _CHUNK_ONLY | {"moderation"}), "object": "chat.completion.chunk"}
        with_usage = _wants_usage(body) and answer.get("usage") is not None
        if with_usage:
            base["usage"] = None
        for position, choice in enumerate(answer["choices"]):
            for step in _choice_steps(choice):
                yield _sse.write({**base, "choices": [{"index": choice.get("index", position), **step}]})
        if answer.get("moderation") is not None:
            yield _sse.write({**base, "choices": [], "moderation": answer["moderation"]})
        if with_usage:
            yield _sse.write({**base, "choices": [], "usage": answer["usage"]})
        yield _sse.write(b"[DONE]")


def _wants_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def _read(body: Mapping[str, Any]) -> Reading:
    messages = [_normal_message(message) for message in blocks(body.get("messages"), "messages")]
    expect(bool(messages), "no messages")
    bypass = _bypass(body)
    seen = without(body, _TRANSPORT_ONLY)
    if seen.get("tools"):
        seen["tools"] = [_normal_tool(tool) for tool in seen["tools"]]
    return Reading(messages, seen, bypass)


def _normal_message(message: Block) -> Block:
    normal = without(message, _MARKS)
    content = normal.get("content")
    expect(content is None or isinstance(content, (str, list)), "message content")
    if isinstance(content, list):
        normal["content"] = plain([_normal_part(part) for part in blocks(content, "content parts")])
    return normal


def _normal_part(part: Block) -> Block:
    normal = without(part, _MARKS)
    for kind, fields in _ATTACHMENTS.items():
        held = normal.get(kind)
        if isinstance(held, dict):
            normal[kind] = {**held, **{name: attached(held[name]) for name in fields if name in held}}
        elif isinstance(held, str):
            normal[kind] = attached(held)
    return normal


def _normal_tool(tool: Block) -> Block:
    normal = without(tool, _MARKS)
    if isinstance(normal.get("function"), dict):
        normal["function"] = without(normal["function"], _MARKS)
    return normal


def _bypass(body: Mapping[str, Any]) -> str:
    """Why this request must not be cached; empty if it may."""
    stream, model, n = body.get("stream"), body.get("model"), body.get("n")
    expect(stream is None or isinstance(stream, bool), "stream")
    expect(model is None or isinstance(model, str), "model")
    expect(body.get("stream_options") is None or isinstance(body["stream_options"], dict), "stream_options")
    expect(isinstance(body.get("modalities") or [], list), "modalities")
    tools = blocks(body.get("tools") or [], "tools")
    if n is not None and n != 1:
        return "n>1"
    if "audio" in (body.get("modalities") or []) or body.get("audio") is not None:
        return "the answer is not only text"
    if any(message.get("audio") is not None for message in body["messages"]):
        return "server-side state: audio"
    if body.get("store"):
        return "store: the provider is to keep the answer"
    searches = any(body.get(name) not in (None, False, []) for name in _SEARCHES)
    if searches or (model and _SEARCH_MODEL.search(model)):
        return "live web search"
    for tool in tools:
        if tool.get("type", "function") not in _CLIENT_TOOLS:
            return f"server tool: {tool.get('type')}"
    return ""


def _storable_choice(choice: object) -> Storable:
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        return Storable("never", "not a chat completion")
    finish = choice.get("finish_reason")
    if finish not in ("stop", "tool_calls"):
        return Storable("never", f"finish_reason: {finish}")
    if message.get("refusal"):
        return Storable("never", "refusal")
    if message.get("audio") is not None:
        return Storable("never", "audio")
    if message.get("annotations"):
        return Storable("never", "live web search")
    if message.get("tool_calls"):
        return Storable("exact", "tool calls")
    if not message.get("content"):
        return Storable("never", "empty answer")
    if any(map(message.get, _THOUGHTS)):
        return Storable("exact", "reasoning artefacts belong to one prompt")
    if not isinstance(message["content"], str):
        return Storable("exact", "content of several parts")
    return Storable("all")


class _Record:
    """The answer as its chunks come in."""

    def __init__(self, *, hide_usage: bool) -> None:
        self._hide_usage = hide_usage
        self._top: Block = {}
        self._usage: Any = None
        self._choices: dict[int, _Choice] = {}
        self._done = False

    def take(self, event: Event) -> bytes:
        if event.data.startswith(b"[DONE]"):
            self._done = True
            return event.raw
        chunk = loads_object(event.data)
        if chunk is None or chunk.get("error"):
            raise NotRecordable
        for name, value in chunk.items():
            # Azure's first chunk leaves id and model empty.
            if name not in _CHUNK_ONLY and (name not in self._top or value not in (None, "")):
                self._top[name] = value
        for choice in chunk.get("choices") or ():
            self._choices.setdefault(choice["index"], _Choice()).take(choice)
        usage = chunk.get("usage")
        if usage is not None:
            self._usage = usage
        if not self._hide_usage or "usage" not in chunk:
            return event.raw
        # Whoever did not ask for usage gets neither its chunk nor the nulls that announce it.
        is_usage_chunk = usage is not None and not chunk.get("choices")
        return b"" if is_usage_chunk else _sse.write(without(chunk, frozenset({"usage"})))

    def build(self) -> Block | None:
        if not self._done or not self._choices:
            return None
        choices = [{"index": index, **choice.build()} for index, choice in sorted(self._choices.items())]
        if any(choice["finish_reason"] is None for choice in choices):
            return None
        body = {**self._top, "object": "chat.completion", "choices": choices}
        return body if self._usage is None else {**body, "usage": self._usage}


class _Choice:
    def __init__(self) -> None:
        self._finish: str | None = None
        self._extra: Block = {}
        self._logprobs: Block | None = None
        self._nulls: Block = {}
        self._texts: dict[str, list[str]] = {}
        self._lists: dict[str, list[Any]] = {}
        self._calls: dict[int, Block] = {}

    def take(self, choice: Block) -> None:
        for name, value in (choice.get("delta") or {}).items():
            self._take_delta(name, value)
        self._finish = choice.get("finish_reason") or self._finish
        if choice.get("logprobs") is not None:
            self._logprobs = self._logprobs or {}
            for name, value in choice["logprobs"].items():
                _extend(self._logprobs, name, value)
        for name, value in choice.items():
            if name not in _CHOICE_OWN and (name not in self._extra or value is not None):
                self._extra[name] = value

    def _take_delta(self, name: str, value: Any) -> None:
        if name == "role":
            return
        if value is None:
            self._nulls[name] = None
        elif isinstance(value, str):
            self._texts.setdefault(name, []).append(value)
        elif name == "annotations":
            self._lists.setdefault(name, []).extend(value)
        elif name == "tool_calls":
            for call in value:
                known = self._calls.setdefault(call["index"], {})
                if call.get("id") and known.get("id") not in (None, "", call["id"]):
                    raise NotRecordable  # two calls under one index
                _merge(known, without(call, frozenset({"index"})))
        else:
            # Audio, and whatever else this codec does not know how to join.
            raise NotRecordable

    def build(self) -> Block:
        message: Block = {"role": "assistant", "content": None, **self._nulls, **self._lists}
        message.update({name: join(parts) for name, parts in self._texts.items()})
        if self._calls:
            message["tool_calls"] = [_joined(call) for _, call in sorted(self._calls.items())]
        return {
            "message": message,
            "logprobs": self._logprobs,
            "finish_reason": self._finish,
            **self._extra,
        }


def _extend(into: Block, name: str, value: list[Any] | None) -> None:
    if value is None:
        into.setdefault(name, None)
    elif into.get(name) is None:
        into[name] = list(value)
    else:
        into[name].extend(value)


def _merge(call: Block, delta: Block) -> None:
    """Join a tool-call delta into ``call``, where strings stand as lists of their fragments."""
    for name, value in delta.items():
        if value is None or value == "":
            call.setdefault(name, value)
        elif isinstance(value, dict):
            call[name] = call.get(name) or {}
            _merge(call[name], value)
        elif isinstance(value, str) and name not in ("id", "type"):
            call[name] = call.get(name) or []
            call[name].append(value)
        elif isinstance(value, list):
            raise NotRecordable
        else:
            call[name] = value


def _joined(call: Block) -> Block:
    return {
        name: join(value) if isinstance(value, list) else _joined(value) if isinstance(value, dict) else value
        for name, value in call.items()
    }


def _choice_steps(choice: Block) -> Iterator[Block]:
    """A choice as the choices of its chunks: role, texts, tool calls, finish."""
    message, logprobs = choice["message"], choice.get("logprobs")
    texts = {name: value for name, value in message.items() if isinstance(value, str) and name != "role"}
    # Nulls and lists go whole with the role, as does the empty start of the content.
    first = {name: value for name, value in message.items() if name not in texts and name != "tool_calls"}
    first.update({name: "" for name, value in texts.items() if name == "content" or not value})
    carrier = next((name for name in ("content", "refusal") if message.get(name)), None)
    yield _step(first, logprobs if carrier is None else None)
    # Reasoning, in the fields of compatible servers, comes before the content.
    for name in sorted(texts, key=lambda name: name == "content"):
        if name == carrier and logprobs is not None:
            yield _step({name: texts[name]}, logprobs)
        else:
            yield from (_step({name: piece}) for piece in pieces(texts[name]))
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield from (_step({"tool_calls": [{"index": index, **delta}]}) for delta in _call_deltas(call))
    yield {**without(choice, _CHOICE_OWN | {"message"}), **_step({}), "finish_reason": choice["finish_reason"]}


def _step(delta: Block, logprobs: Any = None) -> Block:
    return {"delta": delta, "logprobs": logprobs, "finish_reason": None}


def _call_deltas(call: Block) -> Iterator[Block]:
    kind = call.get("type", "function")
    field = {"function": "arguments", "custom": "input"}.get(kind)
    if field is None or not isinstance(call[kind].get(field), str):
        yield call
        return
    yield {**call, kind: {**call[kind], field: ""}}
    for piece in pieces(call[kind][field]):
        yield {kind: {field: piece}}
