"""What the codecs share: taking a request apart, and following a stream."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from semcache.messages import split_last_user_text
from semcache.types import Keep, Request
from semcache.wire._sse import Event, Splitter
from semcache.wire.base import Storable

PIECE_CHARS: Final = 120
"""Length of the pieces of a replayed text, in characters."""

AT_A_URL: Final = "attachment at a URL: what is there may change"
_SCHEME_CHARS: Final = 32

Block = dict[str, Any]


class Uncacheable(Exception):
    """A request that must not be cached; its message becomes the bypass reason."""


class UnknownShape(Uncacheable):
    """A request body that the codec does not understand."""


def expect(ok: bool, what: str) -> None:
    """Raise UnknownShape unless ``ok``."""
    if not ok:
        raise UnknownShape(f"unknown shape: {what}")


def new_request(
    api: str,
    body: Mapping[str, Any],
    *,
    upstream: str,
    headers: Mapping[str, str],
    in_scope: tuple[str, ...] = (),
    named: Mapping[str, Any] | None = None,
) -> Request:
    """A request with all of ``body`` in its scope, for the codec to refine.

    Args:
        in_scope: Lower-case names of the headers that change what the provider does. Their values are lists of
            tokens, in which order means nothing.
        named: ``model``, ``stream`` and ``temperature``, where they are no fields of ``body`` itself.
    """
    named = body if named is None else named
    chosen = {name: sorted(token.strip() for token in headers[name].split(",")) for name in in_scope if name in headers}
    scope: dict[str, Any] = {"upstream": upstream, "body": dict(body)}
    if chosen:
        scope["headers"] = chosen
    model, temperature = named.get("model"), named.get("temperature")
    is_number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    return Request(
        api=api,
        scope=scope,
        text=None,
        model=model if isinstance(model, str) else None,
        stream=named.get("stream") is True,
        temperature=temperature if is_number else None,
    )


def without(block: Mapping[str, Any], names: frozenset[str]) -> Block:
    return {name: value for name, value in block.items() if name not in names}


def blocks(value: object, what: str) -> list[Block]:
    """``value`` as a list of JSON objects, or UnknownShape."""
    expect(isinstance(value, list) and all(isinstance(item, dict) for item in value), what)
    return value  # type: ignore[return-value]


class Route(NamedTuple):
    """What a URL's path says of a call. ``upstream`` is one for a plain call and a streaming one."""

    model: str
    stream: bool
    upstream: str


def routed(pattern: re.Pattern[str], path: str, upstream: str) -> Route:
    """The route of a path that ends in the model and then the method; without a model if it is another path.

    Args:
        pattern: With the groups ``model`` and ``stream``, of which the second takes part where the answer streams.
    """
    found = pattern.search(path)
    if found is None:
        return Route("", False, upstream)
    method = re.escape(path[found.end("model") :])
    return Route(found["model"], found["stream"] is not None, re.sub(f"{method}(?=&|$)", "", upstream, count=1))


class Reading(NamedTuple):
    """What a codec has read in the body of a conversation.

    Args:
        messages: Normalised: ``role`` and ``content``, a string or blocks, of which those of text have the type
            ``text``.
        rest: All else that must match exactly.
        bypass: Why the request must not be cached; empty if it may.
        exact_only: Why it may only match exactly; empty if nothing but its last message may forbid more.
    """

    messages: list[Block]
    rest: Block
    bypass: str = ""
    exact_only: str = ""


def conversation(request: Request, read: Callable[[], Reading]) -> Request:
    """``request`` with the fuzzy text apart and all else that ``read`` finds as its scope.

    An Uncacheable that ``read`` raises becomes the reason of a bypass.
    """
    try:
        reading = read()
    except Uncacheable as reason:
        return replace(request, bypass=str(reason))
    split = split_last_user_text(reading.messages)
    exact_only = split.exact_only or ("" if split.text and not split.text.isspace() else "no text to embed")
    return replace(
        request,
        scope={**request.scope, "body": {**reading.rest, "messages": split.messages}},
        text=split.text,
        bypass=reading.bypass or None,
        exact_only=exact_only or reading.exact_only or None,
    )


def plain(content: object) -> object:
    """One form of a content that has two: a lone block of nothing but text as the string that it holds."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        (block,) = content
        if block.keys() == {"type", "text"} and block["type"] == "text" and isinstance(block["text"], str):
            return block["text"]
    return content


def digest(encoded: str, media_type: str | None) -> Block | None:
    """Base64 content as a digest of what it decodes to; ``None`` if it is not base64."""
    try:
        # Strictly, but for line breaks: else what stands behind padding would be passed over.
        content = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    found = {"$sha256": hashlib.sha256(content).hexdigest()}
    return found if media_type is None else {**found, "media_type": media_type}


def attached(given: object) -> object:
    """What is attached, by its content: base64, plain or in a ``data:`` URL, as a digest; anything else as it is.

    Raises:
        Uncacheable: It stands at a URL, from where the provider fetches it anew on every call.
    """
    if not isinstance(given, str):
        return given
    if given.startswith("data:"):
        head, comma, encoded = given.removeprefix("data:").partition(",")
        is_base64 = comma and head.endswith(";base64")
        return (digest(encoded, head.removesuffix(";base64")) if is_base64 else None) or given
    if "://" in given[:_SCHEME_CHARS]:
        raise Uncacheable(AT_A_URL)
    return digest(given, None) or given


def field(value: object, name: str) -> Any:
    """A field of what may be no JSON object; ``None`` where there is none."""
    return value.get(name) if isinstance(value, Mapping) else None


def count(usage: Mapping[str, Any], *path: str) -> int:
    """A token count under nested keys; 0 where it is missing or null."""
    value: Any = usage
    for name in path:
        value = field(value, name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def strictest(found: Iterable[Storable]) -> Storable:
    """What may be kept of an answer with several parts: the first of those verdicts that allow least."""
    return min(found, key=lambda one: _STRICT.index(one.keep), default=Storable("all"))


_STRICT: Final[tuple[Keep, ...]] = ("never", "exact", "all")


def pieces(text: str) -> Iterator[str]:
    """A text as the pieces in which it is replayed."""
    for start in range(0, len(text), PIECE_CHARS):
        yield text[start : start + PIECE_CHARS]


def join(fragments: list[str]) -> str:
    """The text that was streamed in ``fragments``, which may have cut a surrogate pair in two."""
    text = "".join(fragments)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


class NotRecordable(Exception):
    """A stream has brought something that the recorder cannot turn into a non-stream body."""


class _Splitter(Protocol):
    def feed(self, chunk: bytes) -> Iterator[Event]: ...

    def rest(self) -> bytes: ...


class StreamRecorder:
    """A :class:`~semcache.wire.base.Recorder` around two functions of a wire format.

    Args:
        take: Sees each event in order; returns its bytes for the caller. Raises NotRecordable (or trips over an
            unexpected shape) to give the record up.
        build: The non-stream body from all events, or ``None`` if the last one has not come.
        splitter: Of the stream's framing, by default server-sent events.
    """

    def __init__(
        self,
        take: Callable[[Event], bytes],
        build: Callable[[], dict[str, Any] | None],
        splitter: _Splitter | None = None,
    ) -> None:
        self._take = take
        self._build = build
        self._splitter: _Splitter = splitter or Splitter()
        self._broken = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        for event in self._splitter.feed(chunk):
            if passed := self._see(event):
                yield passed

    def flush(self) -> bytes:
        return self._splitter.rest()

    def finish(self) -> dict[str, Any] | None:
        if self._broken:
            return None
        try:
            return self._build()
        except _SURPRISES:
            return None

    def _see(self, event: Event) -> bytes:
        if self._broken or not event.data:
            return event.raw
        try:
            return self._take(event)
        except _SURPRISES:
            self._broken = True
            return event.raw


_SURPRISES = (NotRecordable, AttributeError, IndexError, KeyError, TypeError, ValueError)
