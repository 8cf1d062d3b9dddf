"""A request body as the provider's prompt cache sees it: a chain of prefixes, each with its length and place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import orjson
import xxhash

from semcache.wire._common import UnknownShape, blocks, expect

Path = tuple[str | int, ...]
Kind = Literal["head", "turns"]

# Fields that carry cache points, in any format: what a caller may have placed already. 2026-11-21.
_MARKS: Final = frozenset({"cache_control", "prompt_cache_breakpoint", "cachePoint"})
_OPTIONS: Final = frozenset(
    {
        "cache_control", "prompt_cache_options", "cache_salt",
        "cache_control_injection_points", "enable_prompt_caching",  # of LiteLLM
    }
)  # fmt: skip
# Blocks that take a mark. Sources: anthropic 2.12.0 and openai 3.54.0 types, 2026-11-21.
_ANTHROPIC_BLOCKS: Final = frozenset({"text", "image", "document", "tool_use", "tool_result", "search_result"})
_OPENAI_PARTS: Final = frozenset(
    {"text", "image_url", "file", "input_audio", "input_text", "input_image", "input_file"}
)
# What LiteLLM may make tools or settings of the whole prompt of. litellm 1.106.2, 2026-11-21.
_LITELLM_FRONT: Final = ("response_format", "functions", "tool_choice", "reasoning_effort", "thinking", "output_config")


class Boundary(NamedTuple):
    """The end of a prefix where a cache point may stand.

    Args:
        path: Where in the body the mark goes: on a block, on a string that becomes a block, or (Bedrock) behind
            a block.
        prefix: Hash of everything up to here, as sent, without marks.
        chars: Length of everything up to here, in characters of text.
        kind: ``head`` (tools, system prompt) or ``turns`` (earlier messages).
        wrap: Type of the block that a string becomes.
    """

    path: Path
    prefix: int
    chars: int
    kind: Kind
    wrap: str = "text"


class Outline(NamedTuple):
    """``head``: hash of the tools and the system prompt, ``None`` without any. ``marked``: by the caller."""

    boundaries: tuple[Boundary, ...]
    head: int | None
    marked: bool


class _Piece(NamedTuple):
    value: Any
    kind: Kind
    path: Path | None = None
    wrap: str = "text"


def outline(api: str, body: Mapping[str, Any], *, partition: str = "") -> Outline | None:
    """The prefixes of a request, or ``None`` if its shape is not understood.

    The last message varies and is no part of any prefix.

    Args:
        api: ``anthropic``, ``openai_chat``, ``openai_responses``, ``bedrock`` (Converse) or ``litellm`` (its arguments
            for a provider with Anthropic's cache points).
        partition: What else keeps provider caches apart: account, upstream, tenant.
    """
    pieces = _FORMATS.get(api)
    if pieces is None:
        return None
    try:
        return _chain(list(pieces(body)), partition, str(body.get("model", body.get("modelId", ""))), has_marks(body))
    except (UnknownShape, TypeError, ValueError, RecursionError):
        return None


def head_of(api: str, body: Mapping[str, Any]) -> list[Any]:
    """The tools and system blocks of a request that :func:`outline` understands, in the order of the prompt."""
    return [piece.value for piece in _FORMATS[api](body) if piece.kind == "head"]


def thread_of(api: str, body: Mapping[str, Any]) -> int:
    """Hash of what tells one conversation from others of its program: the first message that is no system prompt."""
    turns = body.get("input") if api == "openai_responses" else body.get("messages")
    if isinstance(turns, list):
        heads = ("system", "developer")
        turns = next((turn for turn in turns if not (isinstance(turn, Mapping) and turn.get("role") in heads)), None)
    return int(xxhash.xxh3_64_intdigest(_bytes(_as_blocks(turns) if isinstance(turns, Mapping) else turns)))


def _chain(pieces: list[_Piece], partition: str, model: str, marked: bool) -> Outline:
    found: list[Boundary] = []
    head, chars = None, 0
    chain = xxhash.xxh3_64(json.dumps([partition, model]).encode("utf-8", "surrogatepass"))
    for piece in pieces:
        chain.update(_bytes(piece.value) + b"\n")
        chars += _chars(piece.value)
        prefix = chain.intdigest()
        if piece.kind == "head":
            head = prefix
        if piece.path is not None:
            found.append(Boundary(piece.path, prefix, chars, piece.kind, piece.wrap))
    return Outline(tuple(found), head, marked)


def _anthropic(body: Mapping[str, Any]) -> Iterator[_Piece]:
    tools = blocks(body.get("tools") or [], "tools")
    if tools:
        # A deferred tool is no part of the prompt yet, and takes no mark.
        yield _Piece(tools, "head", None if tools[-1].get("defer_loading") else ("tools", len(tools) - 1))
    system = body.get("system") or []
    if isinstance(system, str):
        yield _Piece([{"type": "text", "text": system}], "head", ("system",))
    else:
        for i, block in enumerate(blocks(system, "system")):
            yield _Piece([block], "head", ("system", i) if block.get("text") else None)
    # These invalidate the messages, and not what comes before them.
    yield _Piece({name: body.get(name) for name in ("tool_choice", "thinking", "output_config")}, "turns")
    for i, message in enumerate(blocks(body.get("messages"), "messages")[:-1]):
        path = _last_block(message, ("messages", i), "type", _ANTHROPIC_BLOCKS)
        yield _Piece(_as_blocks(message), "turns", path)


def _openai_chat(body: Mapping[str, Any]) -> Iterator[_Piece]:
    names = ("tools", "response_format", "reasoning_effort", "verbosity")
    front = {name: body[name] for name in names if body.get(name)}
    if front:
        yield _Piece(front, "head")
    yield from _openai_messages(blocks(body.get("messages"), "messages"), "messages", "text")


def _openai_responses(body: Mapping[str, Any]) -> Iterator[_Piece]:
    names = ("instructions", "tools", "text", "reasoning")
    front = {name: body[name] for name in names if body.get(name)}
    if front:
        yield _Piece(front, "head")
    if not isinstance(body.get("input"), str):
        yield from _openai_messages(blocks(body.get("input"), "input"), "input", "input_text")


def _openai_messages(messages: list[dict[str, Any]], field: str, wrap: str) -> Iterator[_Piece]:
    kind: Kind = "head"
    for i, message in enumerate(messages[:-1]):
        role = message.get("role")
        if role not in ("system", "developer"):
            kind = "turns"
        takes_mark = role in ("system", "developer", "user", "tool")
        path = _last_block(message, (field, i), "type", _OPENAI_PARTS) if takes_mark else None
        yield _Piece(_as_blocks(message, wrap), kind, path, wrap)


def _bedrock(body: Mapping[str, Any]) -> Iterator[_Piece]:
    config = body.get("toolConfig") or {}
    expect(isinstance(config, Mapping), "toolConfig")
    tools = blocks(config.get("tools") or [], "tools")
    if tools:
        yield _Piece(tools, "head", ("toolConfig", "tools", len(tools) - 1))
    for i, block in enumerate(blocks(body.get("system") or [], "system")):
        yield _Piece([block], "head", ("system", i))
    yield _Piece({"toolChoice": config.get("toolChoice"), "more": body.get("additionalModelRequestFields")}, "turns")
    for i, message in enumerate(blocks(body.get("messages"), "messages")[:-1]):
        content = blocks(message.get("content"), "content")
        ends = bool(content) and "reasoningContent" not in content[-1]
        yield _Piece(message, "turns", ("messages", i, "content", len(content) - 1) if ends else None)


def _litellm(body: Mapping[str, Any]) -> Iterator[_Piece]:
    """As LiteLLM 1.106.2 hands them on: marks on tools, on parts of a content, and on tool messages as a whole."""
    front = {name: body[name] for name in _LITELLM_FRONT if body.get(name)}
    if front:
        yield _Piece(front, "head")
    tools = blocks(body.get("tools") or [], "tools")
    if tools:
        takes_mark = tools[-1].get("type") == "function" and "defer_loading" not in str(tools[-1])
        yield _Piece(tools, "head", ("tools", len(tools) - 1) if takes_mark else None)
    for piece in _openai_messages(blocks(body.get("messages"), "messages"), "messages", "text"):
        yield piece._replace(path=piece.path and piece.path[:2]) if piece.value.get("role") == "tool" else piece


_FORMATS: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[_Piece]]]] = {
    "anthropic": _anthropic,
    "openai_chat": _openai_chat,
    "openai_responses": _openai_responses,
    "bedrock": _bedrock,
    "litellm": _litellm,
}


def _last_block(message: Mapping[str, Any], path: Path, tag: str, takes_mark: frozenset[str]) -> Path | None:
    """The path of the end of a message, if a mark may stand there."""
    content = message.get("content")
    if isinstance(content, str):
        return (*path, "content") if content else None
    if content is None:
        return None
    parts = blocks(content, "content")
    if not parts or parts[-1].get(tag) not in takes_mark or parts[-1].get("text") == "":
        return None
    return (*path, "content", len(parts) - 1)


def _as_blocks(message: Mapping[str, Any], wrap: str = "text") -> dict[str, Any]:
    """A message whose content is a list of blocks, as a mark makes it: a string is the same prompt."""
    content = message.get("content")
    return {**message, "content": [{"type": wrap, "text": content}]} if isinstance(content, str) else dict(message)


def has_marks(body: Mapping[str, Any]) -> bool:
    """Whether a body has cache points, or settings of them, of any vendor."""
    config = body.get("toolConfig")
    tools = config.get("tools") if isinstance(config, Mapping) else body.get("tools")
    places = (tools, body.get("system"), body.get("messages"), body.get("input"))
    more = body.get("extra_body")
    return (
        any(body.get(name) is not None for name in _OPTIONS)
        or any(map(_has_mark, places))
        or (isinstance(more, Mapping) and has_marks(more))
    )


def _has_mark(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_mark, value))
    if not isinstance(value, Mapping):
        return False
    # Not into schemas and tool inputs, where such a name means something else.
    return not _MARKS.isdisjoint(value) or any(_has_mark(value.get(name)) for name in ("content", "function", "output"))


def _bytes(value: Any) -> bytes:
    """As sent: field order counts for the provider."""
    try:
        return orjson.dumps(value, default=_attachment)
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        return json.dumps(value, separators=(",", ":"), default=_attachment).encode("ascii")


def _attachment(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return hashlib.sha256(value).hexdigest()
    raise TypeError(f"not JSON: {type(value).__name__}")


def _chars(value: Any) -> int:
    """Characters of text; attachments count for nothing, so a prefix is not taken for longer than it is."""
    if isinstance(value, str):
        return 0 if value.startswith("data:") else len(value)
    if isinstance(value, Mapping):
        if value.get("type") == "base64":
            return 0
        return sum(len(name) + _chars(item) for name, item in value.items() if name not in ("type", "role"))
    if isinstance(value, list):
        return sum(map(_chars, value))
    return 0
