"""OpenAI Responses.

Fields and stream order: openai 3.54.0 (``types/responses``, ``lib/streaming/responses``), read 2026-11-21.

The provider keeps a response under its id unless ``store`` is false, and a later request may continue from it. So:

- A request that leans on kept state (``previous_response_id``, ``conversation``, ``prompt``, item references,
  ``background``), or that demands to be kept (``store: true``), is bypassed.
- One that leaves ``store`` out may be continued from: it is only matched exactly, since the id of an answer to another
  question would lead on from that question.
- One with ``store: false`` is matched by meaning too. The two kinds share no answers.
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
    new_request,
    pieces,
    plain,
    strictest,
    without,
)
from semcache.wire._json import loads_object
from semcache.wire._sse import Event
from semcache.wire.base import Codec, Recorder, Storable

# Fields of the request that an answer echoes and that say who asked. Source: SDK types, 2026-11-21.
_ABOUT_THE_CALLER: Final[Block] = {"metadata": {}, "prompt_cache_key": None, "safety_identifier": None, "user": None}
# Request fields that do not change the answer. Source: API reference and SDK types, 2026-11-21.
_TRANSPORT_ONLY: Final = frozenset(
    {
        *_ABOUT_THE_CALLER,
        "cache_salt",  # vLLM's
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
        "stream",
        "stream_options",
    }
)
_MARKS: Final = frozenset({"prompt_cache_breakpoint", "cache_control"})
_HEADERS: Final = ("openai-organization", "openai-project", "openai-beta")
_ATTACHMENTS: Final = ("image_url", "file_url", "file_data")
_OF_ITS_ANSWER: Final = frozenset({"id", "status", "type"})
# A prompt template lives at the provider, and its newest version may change under its id.
_SERVER_SIDE: Final = ("previous_response_id", "conversation", "background", "prompt")
_SEARCH_MODEL: Final = re.compile(r"-search-(preview|api)|-deep-research")
# Tools that run at the caller's; any other type runs at the provider's. Source: SDK types, 2026-11-21.
_CLIENT_TOOLS: Final = (
    "apply_patch",
    "computer",
    "computer_use_preview",
    "custom",
    "function",
    "local_shell",
    "namespace",
)
_CHAINABLE: Final = "store: a later request may continue from this answer (send store=False to match by meaning)"

# Fields of a response that are not known yet when it begins.
_FINAL: Final = ("completed_at", "incomplete_details", "moderation", "usage")
# The delta event of an item or part, and its field of text.
_CALLS: Final = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
}
_PARTS: Final = {
    "output_text": ("response.output_text", "text"),
    "refusal": ("response.refusal", "refusal"),
    "reasoning_text": ("response.reasoning_text", "text"),
}


class OpenAIResponses(Codec):
    """``POST …/responses``."""

    name = "openai_responses"
    stream_type = _sse.MEDIA_TYPE

    def matches(self, method: str, path: str) -> bool:
        return method == "POST" and path.endswith("/responses")

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        request = new_request(self.name, body, upstream=upstream, headers=headers, in_scope=_HEADERS)
        return conversation(request, lambda: _read(body))

    def storable(self, body: Mapping[str, Any]) -> Storable:
        output, status = body.get("output"), body.get("status")
        if body.get("object") != "response" or not isinstance(output, list) or body.get("error"):
            return Storable("never", "not a response")
        if status != "completed":
            return Storable("never", f"status: {status}")
        for field in _SERVER_SIDE:
            if body.get(field):
                return Storable("never", f"server-side state: {field}")
        found = strictest(_storable_item(item) for item in output)
        if found.keep != "all":
            return found
        if not any(item["type"] == "message" for item in output):
            return Storable("never", "empty answer")
        if body.get("moderation") is not None:
            return Storable("exact", "moderation results belong to one prompt")
        return Storable("all")

    def anonymous(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        own = {name: empty for name, empty in _ABOUT_THE_CALLER.items() if body.get(name)}
        return {**body, **own} if own else None

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        usage = body.get("usage")
        if not isinstance(usage, Mapping):
            return None
        return Usage(
            input_tokens=count(usage, "input_tokens"),
            output_tokens=count(usage, "output_tokens"),
            cache_read_tokens=count(usage, "input_tokens_details", "cached_tokens"),
            cache_write_tokens=count(usage, "input_tokens_details", "cache_write_tokens"),
            reasoning_tokens=count(usage, "output_tokens_details", "reasoning_tokens"),
            cache_write_long_tokens=count(
                usage, "input_tokens_details", "cache_write_tokens_details", "ttl_12h_tokens"
            ),
        )

    def recorder(self, body: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> Recorder:
        record = _Record()
        return StreamRecorder(record.take, record.build)

    def replay(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[bytes]:
        for number, event in enumerate(_events(answer)):
            yield _sse.write({**event, "sequence_number": number}, event["type"])


def _read(body: Mapping[str, Any]) -> Reading:
    items = [_normal_item(item) for item in _items(body.get("input"))]
    expect(bool(items), "no input")
    bypass = _bypass(body, items)
    keeps = body.get("store") is not False
    # The items stand in the scope as messages do in that of any other format (``semcache.context``).
    seen = {**without(body, _TRANSPORT_ONLY.union(_SERVER_SIDE, ("input",))), "store": keeps}
    return Reading(items, seen, bypass, _CHAINABLE if keeps else "")


def _items(given: object) -> list[Block]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return blocks(given, "input")


def _normal_item(item: Block) -> Block:
    """An input item without cache marks, with digests for attachments; one form of a message for all its spellings."""
    normal = without(item, _MARKS)
    if "role" in normal and "content" in normal:
        expect(isinstance(normal["content"], (str, list)), "message content")
        if normal.get("type") == "message":
            # An earlier answer handed back whole says the same as its role and text alone.
            normal = without(normal, _OF_ITS_ANSWER)
    for field in ("content", "output"):
        if isinstance(normal.get(field), list):
            normal[field] = plain([_normal_part(part) for part in blocks(normal[field], f"{field} parts")])
        elif isinstance(normal.get(field), dict):  # a screenshot
            normal[field] = _normal_part(normal[field])
    if normal.get("type") == "image_generation_call":
        normal["result"] = attached(normal.get("result"))
    return normal


def _normal_part(part: Block) -> Block:
    normal = without(part, _MARKS)
    if normal.get("type") == "output_text":
        normal = {name: value for name, value in normal.items() if value or name not in ("annotations", "logprobs")}
    if normal.get("type") in ("input_text", "output_text"):
        normal["type"] = "text"
    normal.update({name: attached(normal[name]) for name in _ATTACHMENTS if name in normal})
    audio = normal.get("input_audio")
    if isinstance(audio, dict):
        normal["input_audio"] = {**audio, "data": attached(audio.get("data"))}
    return normal


def _bypass(body: Mapping[str, Any], items: list[Block]) -> str:
    """Why this request must not be cached; empty if it may."""
    stream, model, store = body.get("stream"), body.get("model"), body.get("store")
    expect(stream is None or isinstance(stream, bool), "stream")
    expect(isinstance(model, str), "model")
    expect(store is None or isinstance(store, bool), "store")
    for field in _SERVER_SIDE:
        if body.get(field):
            return f"server-side state: {field}"
    if store:
        return "store: the provider is to keep the answer"
    options = body.get("prompt_cache_options")
    if isinstance(options, Mapping) and options.get("prewarm"):
        return "prompt-cache warm-up"
    if _SEARCH_MODEL.search(str(model)):
        return "live web search"
    for item in items:
        # Only an item that is nothing but a reference may leave its type out.
        if item.get("type") == "item_reference" or item.keys() <= {"id", "type"}:
            return "server-side state: item_reference"
        if kind := _server_tool(item.get("tools")):
            return f"server tool: {kind}"
    kind = _server_tool(body.get("tools"))
    return f"server tool: {kind}" if kind else ""


def _server_tool(tools: object) -> str:
    """The type of the first tool that runs at the provider's; empty if there is none."""
    for tool in blocks(tools or [], "tools"):
        if tool.get("type") not in _CLIENT_TOOLS:
            return str(tool.get("type"))
        if kind := _server_tool(tool.get("tools")):
            return kind
    return ""


def _storable_item(item: object) -> Storable:
    kind = item.get("type") if isinstance(item, Mapping) else None
    if not isinstance(item, Mapping) or kind not in ("message", "reasoning", *_CALLS):
        return Storable("never", f"output of type {kind}")
    if item.get("status") not in (None, "completed"):
        return Storable("never", f"output with status: {item['status']}")
    if kind in _CALLS:
        return Storable("exact", "tool calls")
    if kind == "message":
        return _storable_content(item.get("content"))
    # A bare item says that the model has thought, and holds nothing of it.
    if item.get("encrypted_content") or item.get("summary") or item.get("content"):
        return Storable("exact", "reasoning artefacts belong to one prompt")
    return Storable("all")


def _storable_content(parts: object) -> Storable:
    if not isinstance(parts, list):
        return Storable("never", "not a response")
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "output_text":
            return Storable("never", "refusal" if kind == "refusal" else f"content of type {kind}")
        if part.get("annotations"):
            return Storable("never", "citations of what the provider has looked up")
    if not any(part.get("text") for part in parts):
        return Storable("never", "empty answer")
    return Storable("all")


class _Record:
    """The answer as its events come in: the last one has the whole of it."""

    def __init__(self) -> None:
        self._items: dict[int, Block] = {}
        self._response: Block | None = None

    def take(self, event: Event) -> bytes:
        if event.data.startswith(b"[DONE]"):  # from compatible servers
            return event.raw
        data = loads_object(event.data)
        if data is None or data.get("error"):
            raise NotRecordable
        kind = data["type"]
        if kind == "response.output_item.done":
            self._items[data["output_index"]] = data["item"]
        elif kind in ("response.completed", "response.incomplete"):
            self._response = dict(data["response"])
        elif kind in ("response.failed", "error"):
            raise NotRecordable
        return event.raw

    def build(self) -> Block | None:
        if self._response is not None and self._response.get("output") is None:
            # Some servers leave the output out of the last event; the SDK puts it together likewise.
            self._response["output"] = [item for _, item in sorted(self._items.items())]
        return self._response


def _events(answer: Mapping[str, Any]) -> Iterator[Block]:
    opening = {**answer, "status": "in_progress", "output": []}
    opening.update(dict.fromkeys(name for name in _FINAL if name in answer))
    yield {"type": "response.created", "response": opening}
    yield {"type": "response.in_progress", "response": opening}
    for index, item in enumerate(answer["output"]):
        yield from _item_events(index, item)
    yield {"type": "response.completed", "response": answer}


def _item_events(index: int, item: Block) -> Iterator[Block]:
    at = {"item_id": item.get("id", ""), "output_index": index}
    empty = {**item, **{name: [] for name in ("content", "summary") if isinstance(item.get(name), list)}}
    if "status" in item:
        empty["status"] = "in_progress"
    call = _CALLS.get(item["type"])
    if call is not None:
        empty[call[1]] = ""
    yield {"type": "response.output_item.added", "output_index": index, "item": empty}
    if call is not None:
        yield from _text_events(*call, item[call[1]], at)
    for number, part in enumerate(item.get("summary") or ()):
        yield from _summary_events(part, {**at, "summary_index": number})
    for number, part in enumerate(item.get("content") or ()):
        yield from _part_events(part, {**at, "content_index": number})
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _summary_events(part: Block, at: Block) -> Iterator[Block]:
    yield {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}
    yield from _text_events("response.reasoning_summary_text", "text", part["text"], at)
    yield {"type": "response.reasoning_summary_part.done", **at, "part": part}


def _part_events(part: Block, at: Block) -> Iterator[Block]:
    event, field = _PARTS[part["type"]]
    lists: Block = {name: [] for name in ("annotations", "logprobs") if isinstance(part.get(name), list)}
    yield {"type": "response.content_part.added", **at, "part": {**part, field: "", **lists}}
    if part["type"] == "output_text":
        yield from _output_text_events(part, at)
    else:
        yield from _text_events(event, field, part[field], at)
    yield {"type": "response.content_part.done", **at, "part": part}


def _output_text_events(part: Block, at: Block) -> Iterator[Block]:
    text, logprobs = part["text"], part.get("logprobs") or []
    # Whose pieces the probabilities belong to is not kept, so they come with the text as one.
    for piece in [text] if logprobs else pieces(text):
        yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": logprobs}
    for number, annotation in enumerate(part.get("annotations") or ()):
        added = {"annotation_index": number, "annotation": annotation}
        yield {"type": "response.output_text.annotation.added", **at, **added}
    yield {"type": "response.output_text.done", **at, "text": text, "logprobs": logprobs}


def _text_events(event: str, field: str, text: str, at: Block) -> Iterator[Block]:
    for piece in pieces(text):
        yield {"type": f"{event}.delta", **at, "delta": piece}
    yield {"type": f"{event}.done", **at, field: text}
