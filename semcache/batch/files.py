"""The lines of batch files, checked as they are read, and files that appear whole or not at all.

Fields: openai 3.54.0 (``types/batch.py``, ``resources/batches``) and the Batch API's reference, read 2026-11-21.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from semcache.errors import ConfigurationError, InputError
from semcache.types import Request
from semcache.wire import Codec, find
from semcache.wire._json import dumps, loads_object

OPENAI: Final = "https://api.openai.com"
"""Whose answers they are by default: an SDK client that is wrapped has them under the same name."""

_BOM: Final = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One request of a batch file; ``raw`` is the line as it stands there, without its end."""

    custom_id: str
    method: str
    url: str
    body: Mapping[str, Any]
    raw: bytes

    @property
    def digest(self) -> str:
        """By which a file made from this line knows it again."""
        return digest(self.raw).hex()

    def parse(self, upstream: str | None) -> Asked:
        """The request as a codec reads it; one to bypass if none knows its endpoint."""
        codec = find(self.method, self.url)
        if codec is None:
            return Asked(None, Request("batch", {}, None, bypass=f"no codec: {self.url}"))
        label = upstream or OPENAI + self.url
        return Asked(codec, codec.parse(self.body, upstream=label, headers={":path": self.url}))


class Asked(NamedTuple):
    """A request, and the codec that has read it, if one could."""

    codec: Codec | None
    request: Request


def read_requests(path: Path) -> Iterator[Line]:
    """The requests of a batch file.

    Raises:
        InputError: A line is not a request, or two have one ``custom_id``.
    """
    seen: dict[str, int] = {}
    for number, _, raw in lines(path):
        found = _object(path, number, raw)
        for field, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
            if not isinstance(found.get(field), kind) or not found[field]:
                what = "an object" if kind is dict else "a string"
                raise InputError(f"{field} must be {what}, and not empty", path=str(path), line=number)
        custom_id = found["custom_id"]
        first = seen.setdefault(custom_id, number)
        if first != number:
            raise InputError(f"custom_id {custom_id!r} is that of line {first} too", path=str(path), line=number)
        yield Line(custom_id, found["method"], found["url"], found["body"], raw)


class Place(NamedTuple):
    """Where a result is: result files may be larger than memory. ``ok``: it is an answer, and not an error."""

    file: int
    offset: int
    ok: bool


class Results:
    """Result files, by ``custom_id``. Of two results for one, an answer goes before an error, and a later one before
    an earlier.

    Raises:
        InputError: A line is not a result.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files: list[IO[bytes]] = []
        self._places: dict[str, Place] = {}
        self.copies: dict[str, dict[str, Any]] = {}
        """Lines that name the equal request whose result is theirs (``same_as``), by ``custom_id``."""
        try:
            for index, path in enumerate(paths):
                self._files.append(path.open("rb"))
                for number, offset, raw in lines(path):
                    self._take(_object(path, number, raw), path, number, Place(index, offset, ok=False))
        except BaseException:
            self.close()
            raise

    def _take(self, found: dict[str, Any], path: Path, number: int, place: Place) -> None:
        custom_id = found.get("custom_id")
        if not isinstance(custom_id, str) or not ({"response", "error", "same_as"} & set(found)):
            raise InputError("not a result: no custom_id, or neither response nor error", path=str(path), line=number)
        if isinstance(found.get("same_as"), str):
            self.copies[custom_id] = found
            return
        known = self._places.get(custom_id)
        place = place._replace(ok=answer_in(found) is not None)
        if known is None or place.ok or not known.ok:
            self._places[custom_id] = place

    def __contains__(self, custom_id: str) -> bool:
        return custom_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def answers(self, custom_id: str) -> bool:
        """Whether there is an answer, and not only an error."""
        place = self._places.get(custom_id)
        return place is not None and place.ok

    def read(self, custom_id: str) -> bytes:
        """The line of a result, as it stands in its file, without its end."""
        place = self._places[custom_id]
        file = self._files[place.file]
        file.seek(place.offset)
        return _bare(file.readline())

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answer_in(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer's body in a result line; ``None`` if the request failed."""
    response = result.get("response")
    if result.get("error") or not isinstance(response, Mapping) or response.get("status_code") != 200:
        return None
    body = response.get("body")
    return body if isinstance(body, dict) else None


def result_line(custom_id: str, id: str, body: Mapping[str, Any], **more: Any) -> bytes:
    """A result as the provider writes it."""
    response = {"status_code": 200, "request_id": "", "body": body}
    return dumps({"id": id, "custom_id": custom_id, "response": response, "error": None, **more})


def digest(raw: bytes) -> bytes:
    """16 bytes that stand for a line, or for a request."""
    return hashlib.blake2b(raw, digest_size=16).digest()


def lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a file that are not blank: 1-based number, offset in bytes, and the line without its end."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if raw := _bare(line):
                yield number, offset, raw
            offset += len(line)


def _bare(line: bytes) -> bytes:
    return line.strip().removeprefix(_BOM)


def _object(path: Path, number: int, raw: bytes) -> dict[str, Any]:
    found = loads_object(raw)
    if found is None:
        raise InputError("not a JSON object", path=str(path), line=number)
    return found


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Write a file anew: under its name is the old one, or the whole new one.

    Raises:
        ConfigurationError: There is no folder for it, or it is no plain file.
    """
    path = path.resolve()
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder for {path}")
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is not a plain file, and cannot be replaced")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with beside.open("xb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, beside)
            os.replace(beside, path)
        except BaseException:
            beside.unlink()
            raise


def distinct(*named: tuple[str, Path]) -> None:
    """Raise ConfigurationError if two of the files are one."""
    seen: dict[Path, str] = {}
    for name, path in named:
        if path.resolve() in seen:
            raise ConfigurationError(f"{seen[path.resolve()]} and {name} are one file: {path}")
        seen[path.resolve()] = name
