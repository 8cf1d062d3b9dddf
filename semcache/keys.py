"""Canonical form and keys. One encoder decides the bytes, and the format carries a version.

Two requests are equal exactly when their canonical bytes are equal. The form is::

    semcache/1 \\n <scope as canonical JSON> \\n <fuzzy text as a JSON string, or null> [\\n <history>]

The history (canonical JSON) is there when earlier turns are no part of the scope, see ``Request.history``.

Canonical JSON: keys sorted, no spaces, UTF-8, strings and keys in Unicode NFC, ``1.0`` written as ``1``. NaN, the
infinities, integers beyond 64 bits, lone surrogates and anything that is not JSON are refused: an encoder that
writes NaN as ``null`` gives two requests one key.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from unicodedata import is_normalized, normalize

import orjson
import xxhash

from semcache.errors import CanonicalError
from semcache.types import Key, Request

FORMAT: Final = b"semcache/1\n"
_MASK: Final = (1 << 63) - 1  # stores and FAISS want signed 64-bit ids
_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)


def canonical(value: Any) -> bytes:
    """Canonical JSON of a JSON-like value; bytes objects stand as the SHA-256 of their content.

    Raises:
        CanonicalError: The value has no canonical form; the message says where.
    """
    try:
        return orjson.dumps(value if _is_normal(value) else _normalise(value, "$"), option=_OPTIONS)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise CanonicalError(f"no canonical form: {error}") from error


def make_key(request: Request, namespace: str, tenant: str | None, user: str | None = None) -> Key:
    """The key of a request in a namespace and tenant, and for one user if one is given.

    Raises:
        CanonicalError: The request has no canonical form.
    """
    fields = {"api": request.api, "namespace": namespace, "tenant": tenant, "request": request.scope}
    if user is not None:
        fields["user"] = user
    scope = FORMAT + canonical(fields)
    whole = scope + b"\n" + canonical(request.text)
    if request.history:
        whole += b"\n" + canonical(request.history)
    return Key(
        id=xxhash.xxh3_128_intdigest(whole) & _MASK,
        scope_id=xxhash.xxh3_64_intdigest(scope) & _MASK,
        canonical=whole,
        scope_length=len(scope),
    )


def history_of(key: Key) -> list[dict[str, Any]]:
    """The earlier turns that are part of a key and not of its scope."""
    history = key.canonical[key.scope_length + 1 :].partition(b"\n")[2]
    return orjson.loads(history) if history else []


class Difference(NamedTuple):
    """One field in which two requests differ. A side that lacks the field holds ``ABSENT``."""

    path: str
    a: Any
    b: Any


class _Absent:
    def __repr__(self) -> str:
        return "<absent>"


ABSENT: Final = _Absent()


def diff(a: Key, b: Key) -> list[Difference]:
    """The fields that make two keys differ, in path order; empty when they are one request."""
    found: list[Difference] = []
    _diff(_readable(a), _readable(b), "", found)
    return found


def _readable(key: Key) -> dict[str, Any]:
    scope: dict[str, Any] = orjson.loads(key.canonical[len(FORMAT) : key.scope_length])
    text, _, history = key.canonical[key.scope_length + 1 :].partition(b"\n")
    scope["text"] = orjson.loads(text)
    if history:
        scope["history"] = orjson.loads(history)
    return scope


def _diff(a: Any, b: Any, path: str, found: list[Difference]) -> None:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(a.keys() | b.keys()):
            _diff(a.get(name, ABSENT), b.get(name, ABSENT), f"{path}.{name}" if path else name, found)
    elif isinstance(a, list) and isinstance(b, list):
        for i in range(max(len(a), len(b))):
            _diff(a[i] if i < len(a) else ABSENT, b[i] if i < len(b) else ABSENT, f"{path}[{i}]", found)
    elif type(a) is not type(b) or a != b:
        found.append(Difference(path, a, b))


def _is_normal(value: Any) -> bool:
    """Whether the encoder may have the value as it is. Nearly every request is, and this allocates nothing."""
    kind = type(value)
    if kind is str:
        return value.isascii() or is_normalized("NFC", value)
    if kind is dict:
        for key, item in value.items():  # loops, since this runs on every call and all() costs as much again
            if type(key) is not str or not key.isascii() or not _is_normal(item):
                return False
        return True
    if kind is list:
        for item in value:  # noqa: SIM110
            if not _is_normal(item):
                return False
        return True
    if kind is int:
        return True  # the encoder itself refuses what passes 64 bits
    if kind is float:
        return math.isfinite(value) and not value.is_integer()
    return value is None or kind is bool


def _normalise(value: Any, path: str) -> Any:
    if isinstance(value, str):
        return normalize("NFC", str.__str__(value))
    if isinstance(value, Mapping):
        return _normalise_mapping(value, path)
    if isinstance(value, (list, tuple)):
        return [_normalise(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CanonicalError(f"no canonical form: {path} is {value}")
        # An integral float equals the integer of the same value; beyond 64 bits only the float can be written.
        return int(value) if value.is_integer() and abs(value) < 2**63 else float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$sha256": hashlib.sha256(value).hexdigest()}
    raise CanonicalError(f"no canonical form: {path} is a {type(value).__qualname__}")


def _normalise_mapping(value: Mapping[Any, Any], path: str) -> dict[str, Any]:
    normal: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise CanonicalError(f"no canonical form: {path} has the key {key!r}, which is not a string")
        name = normalize("NFC", str.__str__(key))
        if name in normal:
            raise CanonicalError(f"no canonical form: {path} has the key {name!r} twice after normalisation")
        normal[name] = _normalise(item, f"{path}.{name}")
    return normal
