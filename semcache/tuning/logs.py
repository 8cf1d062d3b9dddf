"""Reads query logs, one record at a time.

A log is JSON Lines (one object a line) or, if its name says so, CSV with a header; either may be gzip-compressed,
which is seen from the first bytes and not from the name. UTF-8, with or without a byte order mark.

Each record is one request:

- ``text``, the question; or ``messages``, a list of ``{"role", "content"}`` as sent to a provider. Assistant
  messages at the end are the answer that was given, not part of the request.
- optional ``cls`` or ``key``, of the record or of its last message: the answer class. Two requests share an answer
  if and only if they share it.
- optional ``ts`` (Unix seconds or ISO 8601), ``model``, and ``usage`` (``input_tokens`` and ``output_tokens``, or
  OpenAI's names for them).

A line that cannot be used raises InputError with the file and the line number.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from os import PathLike, fspath
from typing import Any, BinaryIO, Final, NamedTuple, cast

import orjson

from semcache.errors import InputError
from semcache.types import Usage

_GZIP_MAGIC: Final = b"\x1f\x8b"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_CLASS_FIELDS: Final = ("cls", "key")
_MESSAGE_FIELDS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")
"""What a provider reads. Anything else is the log's own note (a label, perhaps) and must not reach the cache's key."""


class Fields(NamedTuple):
    """Names of the fields to read; ``None`` means the usual names, and a field that is named must be there."""

    text: str | None = None
    label: str | None = None
    ts: str | None = None


_USUAL: Final = Fields()


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One request of a log.

    Args:
        messages: What was sent, as a provider takes it; a bare text is one user message.
        label: The answer class, or ``None`` if the record has none.
        ts: Unix seconds.
        usage: Tokens of the call, if the log says.
    """

    messages: tuple[Mapping[str, Any], ...]
    label: str | None = None
    ts: float | None = None
    model: str | None = None
    usage: Usage | None = None


def read_logs(paths: Iterable[str | PathLike[str]], fields: Fields = _USUAL) -> Iterator[LogRecord]:
    """The records of some logs, file after file, in constant memory.

    Raises:
        InputError: A file cannot be read or holds no record, or a line cannot be used.
    """
    for path in paths:
        path = fspath(path)
        number = 0
        for number, row in read_rows(path):
            try:
                record = _record(row, fields)
            except (ValueError, TypeError) as error:
                raise InputError(str(error), path=path, line=number) from error
            yield record
        if number == 0:
            raise InputError("the log is empty; expected one JSON object with text or messages a line", path=path)


def read_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a JSON Lines or CSV file with their 1-based line numbers, whatever their fields mean.

    Raises:
        InputError: The file cannot be read, or a line is no row.
    """
    number = 0
    try:
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == _GZIP_MAGIC
            plain = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
            read = _csv_rows if path.lower().removesuffix(".gz").endswith(".csv") else _json_rows
            for number, row in read(plain):
                yield number, row
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read: {said}", path=path, line=number + 1 if number else None) from error
    except _BadLine as error:
        raise InputError(error.reason, path=path, line=error.number) from error


class _BadLine(Exception):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number
        self.reason = reason


def _json_rows(lines: Iterable[bytes]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _BadLine(number, f"not JSON in UTF-8: {error.msg} (column {error.colno})") from error
        if not isinstance(row, dict):
            raise _BadLine(number, f"expected a JSON object, got {_kind(row)}")
        yield number, row


def _csv_rows(plain: BinaryIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.TextIOWrapper(plain, encoding="utf-8-sig", newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise _BadLine(reader.line_num, "the row has more or fewer cells than the header")
            yield reader.line_num, {name: cell for name, cell in row.items() if cell != ""}
    except (csv.Error, UnicodeDecodeError) as error:
        raise _BadLine(reader.line_num + 1, f"not CSV in UTF-8: {error}") from error


def _record(row: Mapping[str, Any], fields: Fields) -> LogRecord:
    if fields.text is None and "messages" in row:
        messages = _messages(row["messages"])
    else:
        text = _named(row, fields.text or "text")
        if not isinstance(text, str):
            raise ValueError(f"{fields.text or 'text'!r} must be a string, got {_kind(text)}")
        messages = [{"role": "user", "content": text}]
    model = row.get("model")
    if model is not None and not isinstance(model, str):
        raise ValueError(f"'model' must be a string, got {_kind(model)}")
    return LogRecord(
        tuple({name: message[name] for name in _MESSAGE_FIELDS if name in message} for message in messages),
        _label(row, messages[-1], fields.label),
        _timestamp(row, fields.ts),
        model,
        _usage(row),
    )


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ValueError(f"'messages' must be a list, got {_kind(value)}")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError("each of 'messages' must be an object with a role")
        if not isinstance(message.get("content"), (str, list, type(None))):
            raise ValueError(f"a message's content must be a string or a list, got {_kind(message['content'])}")
    end = len(value)
    while end and value[end - 1]["role"] == "assistant":
        end -= 1
    if not end:
        raise ValueError("'messages' holds no request")
    return value[:end]


def _label(row: Mapping[str, Any], last: Mapping[str, Any], field: str | None) -> str | None:
    if field is not None:
        value = _named(row, field)
    else:
        value = next((place[name] for place in (row, last) for name in _CLASS_FIELDS if name in place), None)
    if isinstance(value, (dict, list)):
        raise ValueError(f"the answer class must be a string or a number, got {_kind(value)}")
    return None if value is None else str(value)


def _timestamp(row: Mapping[str, Any], field: str | None) -> float | None:
    value = row.get("ts") if field is None else _named(row, field)
    if value is None:
        return None
    try:
        seconds = float(value)
    except (ValueError, TypeError):
        seconds = _iso_seconds(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{field or 'ts'!r} must be Unix seconds or ISO 8601, got {value!r}")
    return seconds


def _iso_seconds(value: Any) -> float:
    try:
        when = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except (ValueError, TypeError, AttributeError):
        return math.nan
    return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()


def _usage(row: Mapping[str, Any]) -> Usage | None:
    usage = row.get("usage")
    if usage is None:
        return None
    if not isinstance(usage, dict):
        raise ValueError(f"'usage' must be an object, got {_kind(usage)}")
    names = ("input_tokens", "output_tokens")
    if not usage.keys() & set(names):
        names = ("prompt_tokens", "completion_tokens")
    counts = [usage.get(name, 0) for name in (*names, "cache_read_tokens", "cache_write_tokens")]
    if not usage.keys() & set(names) or any(type(count) is not int or count < 0 for count in counts):
        raise ValueError(f"'usage' must have whole {names[0]} and {names[1]} >= 0, got {usage}")
    return Usage(*counts)


def _named(row: Mapping[str, Any], field: str) -> Any:
    if field not in row:
        raise ValueError(f"no field {field!r}; the line has {', '.join(row) or 'none'}")
    return row[field]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
