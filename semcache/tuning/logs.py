"""Reads query logs, one record at a time.

A log is JSON Lines (one object a line); or, if its name says so, CSV with a header, either of them gzip-compressed or
not; or Parquet. Compression and Parquet are seen from the first bytes and not from the name. Text is UTF-8, with or
without a byte order mark.

Each record is one request:

- ``text``, the question; or ``messages``, a list of ``{"role", "content"}`` as sent to a provider; or ``body`` (as in
  the lines of OpenAI's batch files) or ``request``, the whole body as sent. Assistant messages at the end are the
  answer that was given, not part of the request. Lists and objects may also be JSON in a string.
- optional ``cls`` or ``key``, of the record or of its last message: the answer class. Two requests share an answer
  if and only if they share it.
- optional ``ts`` (Unix seconds or ISO 8601), ``model``, ``latency_s`` (seconds that the call took), and ``usage``
  (``input_tokens`` and ``output_tokens``, or OpenAI's names for them), or the counts themselves.
- optional ``response``, the body that came back, for what it says of usage, model, time and answer.

A field may be named by a path (``input.question``). A line that cannot be used raises InputError with the file and
the line number.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from os import PathLike, fspath
from typing import Any, BinaryIO, Final, NamedTuple, cast

import orjson

from semcache.errors import InputError, MissingExtraError
from semcache.guards import fold
from semcache.live.answers import text_of
from semcache.types import Usage

_GZIP_MAGIC: Final = b"\x1f\x8b"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_PARQUET_MAGIC: Final = b"PAR1"
_CLASS_FIELDS: Final = ("cls", "key")
_MESSAGE_FIELDS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")
"""What a provider reads. Anything else is the log's own note (a label, perhaps) and must not reach the cache's key."""

_ASKED: Final = ("messages", "input")
"""Where a body has what is asked: the latter in OpenAI's Responses API (API reference, read 2026-11-21)."""

_FAR_FUTURE: Final = 1e11
"""Unix seconds of the year 5138."""

_TEXT_PARTS: Final = ("input_text", "output_text")
_TOKEN_FIELDS: Final = (("input_tokens", "output_tokens"), ("prompt_tokens", "completion_tokens"))


class Fields(NamedTuple):
    """Names of the fields to read; ``None`` means the usual names, and a field that is named must be there.

    There is no usual name for ``namespace`` (records of different ones share no answer) and ``category`` (by which a
    policy may have rules); of these one record at least must have the field that is named. Where ``answer`` is named
    and the record has no class, its answer is its class: equal but for case, white space and punctuation at the ends.
    """

    text: str | None = None
    label: str | None = None
    ts: str | None = None
    model: str | None = None
    namespace: str | None = None
    answer: str | None = None
    latency: str | None = None
    category: str | None = None


_USUAL: Final = Fields()


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One request of a log.

    Args:
        messages: What was sent, as a provider takes it; a bare text is one user message.
        label: The answer class, or ``None`` if the record has none.
        ts: Unix seconds.
        usage: Tokens of the call, if the log says.
        params: What else the body of the request held (temperature, tools, …).
        answer: The answer that was given, if the log has it.
        latency_s: Seconds that the call took.
        namespace: Part of the cache that it belongs to; ``None`` is the cache's own.
        category: Of the question, as a caller would give it.
    """

    messages: tuple[Mapping[str, Any], ...]
    label: str | None = None
    ts: float | None = None
    model: str | None = None
    usage: Usage | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    answer: str | None = None
    latency_s: float | None = None
    namespace: str | None = None
    category: str | None = None


def in_time_order(records: Sequence[LogRecord]) -> list[LogRecord]:
    """Sorted by time if all have one; else as they stand, since it cannot be told where the others belong."""
    if all(record.ts is not None for record in records):
        return sorted(records, key=lambda record: record.ts or 0.0)
    return list(records)


def read_logs(paths: Iterable[str | PathLike[str]], fields: Fields = _USUAL) -> Iterator[LogRecord]:
    """The records of some logs, file after file, in constant memory.

    Raises:
        InputError: A file cannot be read or holds no record, or a line cannot be used.
    """
    for path in paths:
        path = fspath(path)
        number = 0
        lacking = {name for name in (fields.namespace, fields.category) if name is not None}
        for number, row in read_rows(path):
            try:
                record = _record(row, fields)
            except (ValueError, TypeError) as error:
                raise InputError(str(error), path=path, line=number) from error
            lacking -= {name for name in lacking if optional(row, name) is not None}
            yield record
        if number == 0:
            raise InputError("the log is empty; expected one JSON object with text or messages a line", path=path)
        if lacking:
            raise InputError(f"no record has a field {min(lacking)!r}", path=path)


def read_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a file with their 1-based line (in Parquet, row) numbers, whatever their fields mean.

    Raises:
        InputError: The file cannot be read, or a line is no row.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
    """
    number = 0
    try:
        with open(path, "rb") as raw:
            for number, row in _reader(raw, path):
                yield number, row
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read: {said}", path=path, line=number + 1 if number else None) from error
    except _BadLine as error:
        raise InputError(error.reason, path=path, line=error.number) from error


def _reader(raw: io.BufferedReader, path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    start = raw.peek(4)[:4]
    if start == _PARQUET_MAGIC:
        return _parquet_rows(raw)
    plain = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if start[:2] == _GZIP_MAGIC else raw
    is_csv = path.lower().removesuffix(".gz").endswith(".csv")
    return _csv_rows(plain) if is_csv else _json_rows(plain)


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


def _parquet_rows(raw: BinaryIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(raw).iter_batches(batch_size=1024):
            columns = [
                # Python's datetime has no nanoseconds.
                column.cast(arrow.timestamp("us", column.type.tz), safe=False)
                if arrow.types.is_timestamp(column.type)
                else column
                for column in batch.columns
            ]
            for row in zip(*(column.to_pylist() for column in columns), strict=True):
                number += 1
                yield (
                    number,
                    {name: cell for name, cell in zip(batch.schema.names, row, strict=True) if cell is not None},
                )
    except arrow.ArrowException as error:
        raise _BadLine(number + 1, f"not Parquet: {error}") from error


def _record(row: Mapping[str, Any], fields: Fields) -> LogRecord:
    body, response = _body(row), _response(row)
    if fields.text is None and (where := _where(body)):
        messages = _messages(_decoded(body[where]), where)
    else:
        text = _named(row, fields.text or "text")
        if not isinstance(text, str):
            raise ValueError(f"{fields.text or 'text'!r} must be a string, got {_kind(text)}")
        messages, body = [{"role": "user", "content": text}], row
    answer = _text(_named(row, fields.answer), fields.answer) if fields.answer else text_of(response)
    label = _label(row, messages[-1], fields.label)
    if label is None and fields.answer and answer is not None:
        label = fold(answer)
    return LogRecord(
        messages=tuple(
            {name: message[name] for name in _MESSAGE_FIELDS if name == "content" or message.get(name) is not None}
            for message in messages
        ),
        label=label,
        ts=_timestamp(_picked(row, fields.ts, "ts", _created(response)), fields.ts or "ts"),
        model=_text(_picked(row, fields.model, "model", body.get("model") or response.get("model")), "model"),
        usage=_usage(row, response),
        params={} if body is row else {k: v for k, v in body.items() if k not in (*_ASKED, "model")},
        answer=answer,
        latency_s=_seconds(_picked(row, fields.latency, "latency_s"), fields.latency or "latency_s"),
        namespace=optional(row, fields.namespace),
        category=optional(row, fields.category),
    )


def _body(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a row that is the request as it was sent: one of its fields, or the row itself."""
    for name in ("body", "request"):
        inner = _decoded(row.get(name))
        if isinstance(inner, dict) and _where(inner):
            return inner
    return row


def _where(body: Mapping[str, Any]) -> str | None:
    """The field of a request that holds what is asked; a row with a text of its own is no request."""
    asked = _ASKED[:1] if isinstance(body.get("text"), str) else _ASKED
    return next((name for name in asked if name in body), None)


def _created(response: Mapping[str, Any]) -> Any:
    return response.get("created", response.get("created_at"))


def _response(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What came back; in the lines of a batch file the body is one level down. Empty if the log does not say."""
    response = _decoded(row.get("response"))
    inner = response.get("body") if isinstance(response, dict) else None
    found = inner if isinstance(inner, dict) else response
    return found if isinstance(found, dict) else {}


def _decoded(value: Any) -> Any:
    """A list or object, also where a table holds it as JSON in a string."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _picked(row: Mapping[str, Any], field: str | None, usual: str, otherwise: Any = None) -> Any:
    if field is not None:
        return _named(row, field)
    return otherwise if row.get(usual) is None else row[usual]


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name!r} must be a string, got {_kind(value)}")
    return value


def _messages(value: Any, where: str) -> list[dict[str, Any]]:
    if where == "input" and isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise ValueError(f"{where!r} must be a list, got {_kind(value)}")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"each of {where!r} must be an object with a role")
        if not isinstance(message.get("content"), (str, list, type(None))):
            raise ValueError(f"a message's content must be a string or a list, got {_kind(message['content'])}")
    end = len(value)
    while end and value[end - 1]["role"] == "assistant":
        end -= 1
    if not end:
        raise ValueError(f"{where!r} holds no request")
    return [{**message, "content": _parts(message.get("content"))} for message in value[:end]]


def _parts(content: Any) -> Any:
    """Parts of a message, those of text under the one name that the cache knows them by."""
    if not isinstance(content, list):
        return content
    return [
        {**part, "type": "text"} if isinstance(part, dict) and part.get("type") in _TEXT_PARTS else part
        for part in content
    ]


def _label(row: Mapping[str, Any], last: Mapping[str, Any], field: str | None) -> str | None:
    if field is not None:
        value = _named(row, field)
    else:
        value = next((place[name] for place in (row, last) for name in _CLASS_FIELDS if name in place), None)
    if isinstance(value, (dict, list)):
        raise ValueError(f"the answer class must be a string or a number, got {_kind(value)}")
    return None if value is None else str(value)


def _timestamp(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except (ValueError, TypeError):
        seconds = _iso_seconds(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{name!r} must be Unix seconds or ISO 8601, got {value!r}")
    if seconds >= _FAR_FUTURE:
        raise ValueError(f"{name!r} must be Unix seconds, and {value!r} looks like milliseconds")
    return seconds


def _seconds(value: Any, name: str) -> float | None:
    try:
        seconds = None if value is None else float(value)
    except (ValueError, TypeError):
        seconds = math.nan
    if seconds is not None and not 0.0 <= seconds < math.inf:
        raise ValueError(f"{name!r} must be seconds, got {value!r}")
    return seconds


def _iso_seconds(value: Any) -> float:
    try:
        when = value if isinstance(value, datetime) else datetime.fromisoformat(value.replace("Z", "+00:00"))
    except (ValueError, TypeError, AttributeError):
        return math.nan
    return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()


def _usage(row: Mapping[str, Any], response: Mapping[str, Any]) -> Usage | None:
    usage = _decoded(row.get("usage", response.get("usage")))
    if usage is None:
        if not any(pair[0] in row for pair in _TOKEN_FIELDS):
            return None
        usage = row
    if not isinstance(usage, dict):
        raise ValueError(f"'usage' must be an object, got {_kind(usage)}")
    names = next((pair for pair in _TOKEN_FIELDS if usage.keys() & set(pair)), None)
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    asked = names or _TOKEN_FIELDS[0]
    found = [usage.get(name) for name in (*asked, "cache_read_tokens", "cache_write_tokens")]
    counts = [_count(value) for value in (*found[:2], found[2] if cached is None else cached, found[3])]
    if names is None or None in counts:
        raise ValueError(f"'usage' must have whole {asked[0]} and {asked[1]} >= 0, got {usage}")
    return Usage(*cast("tuple[int, int, int, int]", tuple(counts)))


def _count(value: Any) -> int | None:
    """A whole number >= 0, 0 for none, and ``None`` for what is no such number."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return 0 if value is None else value if type(value) is int and value >= 0 else None


def optional(row: Mapping[str, Any], field: str | None) -> str | None:
    """A string or number that not every row has.

    Raises:
        ValueError: It is something else.
    """
    try:
        value = None if field is None else _named(row, field)
    except ValueError:
        return None
    if isinstance(value, (dict, list, bool)):
        raise ValueError(f"{field!r} must be a string or a number, got {_kind(value)}")
    return None if value in (None, "") else str(value)


def _named(row: Mapping[str, Any], field: str) -> Any:
    if field in row:
        return row[field]
    value: Any = row
    for part in field.split("."):
        value = _decoded(value)
        if not isinstance(value, dict) or part not in value:
            raise ValueError(f"no field {field!r}; the line has {', '.join(row) or 'none'}")
        value = value[part]
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
