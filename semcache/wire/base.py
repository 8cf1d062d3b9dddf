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
    """Takes a stream's bytes as they pass; knows at the end whether they make a complete answer.

    Never raises: a stream that it cannot follow is passed on and ends as ``None``.
    """

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take decoded body bytes in any split; yield those for the caller, an event at a time.

        Lazy on purpose: an event counts as seen once it has been pulled, so a reader that walks away before the
        last event leaves an incomplete record, however the network had packed the events. Events that only the
        recorder asked for are left out.
        """

    def flush(self) -> bytes:
        """The stream has ended: what is still held back for the caller."""

    def finish(self) -> dict[str, Any] | None:
        """The equivalent non-stream body, or ``None`` if the stream was not complete."""


class Codec(Protocol):
    """One wire format. Codecs derive from it, and have its answers where they have none of their own.

    Contract (each line is a test in ``semcache.testing.codec_contract``; where attachments and transport-only fields
    stand, and what an SDK makes of a stream, is tested in ``tests/wire``):

    - ``parse`` puts every field of the body into ``Request.scope`` except transport-only ones and the fuzzy text,
      whose place keeps a marker; a field that the codec has never heard of is part of the scope.
    - Base64 attachments stand in the scope as a strong digest of their content.
    - ``parse`` never changes ``body``. What it does not understand becomes ``Request.bypass``, not an exception.
    - ``replay(record(stream))`` makes the SDK's own accumulators give an equal final message.
    - An answer that ``storable`` does not know to be whole is never kept.
    """

    name: str
    stream_type: str  # media type of an answer that streams

    def matches(self, method: str, path: str) -> bool: ...

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        """Read a request. ``upstream`` names who answers (URL, or the user's own label, and the query); header names
        are in lower case, and ``:path`` is the URL's path, percent-decoded and without its query."""

    def forward(self, body: Mapping[str, Any], *, ask_usage: bool) -> dict[str, Any] | None:
        """The body to send instead, or ``None`` to send the caller's bytes unchanged.

        ``ask_usage``: the upstream is known to report a stream's usage when asked to.
        """
        return None

    def storable(self, body: Mapping[str, Any]) -> Storable: ...

    def anonymous(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer as others may have it, without what it repeats of who asked; ``None`` if that is ``body``."""
        return None

    def usage(self, body: Mapping[str, Any]) -> Usage | None: ...

    def recorder(self, body: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> Recorder:
        """A recorder for the answer to the streaming request ``body``, sent upstream as ``sent``."""

    def replay(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[bytes]:
        """A stored answer as the bytes of a stream in answer to the request ``body``, in the event order of the
        provider, one event at a time."""
