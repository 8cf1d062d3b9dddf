"""Server-sent events, read and written (WHATWG HTML, 9.2 "Server-sent events")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from semcache.wire._json import dumps

MEDIA_TYPE: Final = "text/event-stream; charset=utf-8"

_BLANK_LINE = re.compile(rb"(?:\r\n|\r(?!\n)|\n){2}")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event, or a block of comments (``data`` empty). ``raw`` is its exact bytes with the blank line."""

    name: str
    data: bytes
    raw: bytes


class Splitter:
    """Cuts a byte stream, in any split, into events. The ``raw`` of all events and ``rest`` join to the stream."""

    def __init__(self) -> None:
        self._buffer = b""
        self._scanned = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Events that are complete with this chunk."""
        buffer, start = self._buffer + chunk, 0
        scanned, self._scanned = self._scanned, 0
        try:
            for blank in _BLANK_LINE.finditer(buffer, scanned):
                raw, start = buffer[start : blank.end()], blank.end()
                yield _parse(raw)
            # A blank line is at most four bytes, of which three may be here already.
            self._scanned = max(0, len(buffer) - start - 3)
        finally:
            self._buffer = buffer[start:]

    def rest(self) -> bytes:
        """What has come after the last complete event; forgets it."""
        rest, self._buffer, self._scanned = self._buffer, b"", 0
        return rest


def _parse(raw: bytes) -> Event:
    name, data = b"", []
    # Splitting bytes, not text: str.splitlines would also cut at U+2028 inside a JSON string.
    for line in raw.removeprefix(_BOM).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name.decode(errors="replace"), b"\n".join(data), raw)


def write(data: Any, name: str | None = None) -> bytes:
    """One event; ``data`` is a JSON value, or bytes that stand for themselves."""
    payload = data if isinstance(data, bytes) else dumps(data)
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + payload + b"\n\n"
