"""AWS event streams (``application/vnd.amazon.eventstream``), read and written.

A message is the lengths of itself and of its headers, the CRC-32 of those 8 bytes, the headers, the payload, and the
CRC-32 of all before; integers are big-endian. Source: Smithy 2.0, "Amazon Event Stream specification", and botocore
1.44.5 (``eventstream``), read 2026-11-21.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

from semcache.wire._json import dumps
from semcache.wire._sse import Event

MEDIA_TYPE: Final = "application/vnd.amazon.eventstream"

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_FRAME: Final = _PRELUDE.size + _CRC.size
_BYTES, _STRING = 6, 7
# Sizes of header values by type: true, false, byte, short, integer, long, timestamp, uuid.
_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class Splitter:
    """Cuts a byte stream, in any split, into messages. The ``raw`` of all and ``rest`` join to the stream.

    Only what is marked as an event has a ``name``: an exception or a damaged message has none.
    """

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Messages that are complete with this chunk."""
        buffer, start = self._buffer + chunk, 0
        try:
            while len(buffer) - start >= _PRELUDE.size:
                total, headers, crc = _PRELUDE.unpack_from(buffer, start)
                damaged = crc32(buffer[start : start + 8]) != crc or total < headers + _FRAME
                # Where a damaged message ends is not known, and nothing may be held back for ever.
                end = len(buffer) if damaged else start + total
                if end > len(buffer):
                    break
                raw, start = buffer[start:end], end
                yield Event("", raw, raw) if damaged else _parse(raw, headers)
        finally:
            self._buffer = buffer[start:]

    def rest(self) -> bytes:
        """What has come after the last complete message; forgets it."""
        rest, self._buffer = self._buffer, b""
        return rest


def _parse(raw: bytes, headers_length: int) -> Event:
    body, (crc,) = raw[: -_CRC.size], _CRC.unpack(raw[-_CRC.size :])
    payload = _PRELUDE.size + headers_length
    try:
        headers = _headers(body[_PRELUDE.size : payload]) if crc32(body) == crc else {}
    except (IndexError, KeyError, struct.error, UnicodeDecodeError):
        headers = {}
    if headers.get(":message-type") != "event":
        return Event("", body, raw)
    return Event(headers.get(":event-type", ""), body[payload:], raw)


def _headers(data: bytes) -> dict[str, str]:
    """The headers whose values are strings."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name, kind, at = data[at + 1 : name_end].decode(), data[name_end], name_end + 1
        if kind in (_BYTES, _STRING):
            (size,) = struct.unpack_from(">H", data, at)
            at += 2
        else:
            size = _FIXED[kind]
        if kind == _STRING:
            found[name] = data[at : at + size].decode()
        at += size
    return found


def write(name: str, data: Any) -> bytes:
    """One event with a JSON value as its payload."""
    payload = dumps(data)
    described = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(_header(field.encode(), value.encode()) for field, value in described.items())
    lengths = struct.pack(">II", len(headers) + len(payload) + _FRAME, len(headers))
    message = lengths + _CRC.pack(crc32(lengths)) + headers + payload
    return message + _CRC.pack(crc32(message))


def _header(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + bytes([_STRING]) + struct.pack(">H", len(value)) + value
