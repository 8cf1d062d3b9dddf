"""What every wire codec promises: one file a wire format, all pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from semcache.types import Keep, Request, Usage


class Storable(NamedTuple):
    """Whether a complete answer may be kept, and why not."""

    keep: Keep
    reason: str = ""


class Recorder(Protocol):
    """Takes a stream's bytes as they pass; knows at the end whether they make a complete answer."""

    def feed(self, chunk: bytes) -> bytes:
        """Take decoded body bytes in any split; return the bytes for the caller (chunks that only the recorder
        asked for are taken out)."""

    def finish(self) -> dict[str, Any] | None:
        """After the last byte: the equivalent non-stream body, or ``None`` if the stream was not complete."""


class Codec(Protocol):
    """One wire format.

    Contract (each line is a test in ``tests/wire``):

    - ``parse`` puts every field of the body into ``Request.scope`` except transport-only ones and the fuzzy text;
      a field that the codec has never heard of is part of the scope.
    - Base64 attachments stand in the scope as a strong digest of their content.
    - ``parse`` never changes ``body``. What it does not understand becomes ``Request.bypass``, not an exception.
    - ``replay(record(stream))`` makes the SDK's own accumulators give an equal final message.
    """

    name: str

    def matches(self, method: str, path: str) -> bool: ...

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        """Read a request. ``upstream`` names who answers (an origin, or the user's own label for it)."""

    def forward(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The body to send instead, or ``None`` to send the caller's bytes unchanged."""

    def storable(self, body: Mapping[str, Any]) -> Storable: ...

    def usage(self, body: Mapping[str, Any]) -> Usage | None: ...

    def recorder(self, body: Mapping[str, Any]) -> Recorder:
        """A recorder for the answer to the streaming request ``body``."""

    def replay(self, answer: Mapping[str, Any], request_body: Mapping[str, Any]) -> Iterator[bytes]:
        """A stored answer as the bytes of a stream, in the event order of the provider."""
