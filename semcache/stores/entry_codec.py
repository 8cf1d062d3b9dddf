"""Entries as bytes, for every store that outlives its process.

An entry is written in two parts: its own, and what it shares with every entry of its scope. A store may keep each
shared part once, however many entries have it. Layout, integers little-endian::

    own     magic "SCE", version (1 byte)
            xxh3_64 of everything after this field, both parts, with the entry's id as seed (8 bytes)
            lengths of details, question, vector, response (4 x uint32)
            created_at, expires_at (infinite: never), latency_s (3 x float64)
            details: JSON array of text, usage, tags; the text is ``true`` where it is all that the question says
            question: the canonical form after the scope | vector as float16 | response
    shared  scope id (int64), length of names (uint32)
            names: JSON array of api, namespace, tenant, model, fingerprint
            scope: the beginning of the canonical form

Another layout takes another version byte. The checksum finds accidents, a part that belongs to another entry among
them, not forgers: who can write to the store can forge an entry, so a store must be writable by trusted parties only.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from xxhash import xxh3_64_intdigest

from semcache.errors import EntryDamaged, StoreError
from semcache.types import Entry, Key, Usage

if TYPE_CHECKING:
    import numpy.typing as npt

_MAGIC = b"SCE\x02"
_CHECKED_FROM = 12
_CHECKSUM = struct.Struct("<4sQ")
_FIXED = struct.Struct("<IIIIddd")
_DETAILS_AT = _CHECKSUM.size + _FIXED.size
_SHARED = struct.Struct("<qI")
_NEVER = math.inf


class Parts(NamedTuple):
    """An entry as bytes; joined they are what :func:`decode` reads."""

    own: bytes
    shared: bytes


def pack_vector(vector: npt.NDArray[Any] | bytes | None) -> bytes:
    """A vector as little-endian float16 bytes, the form of ``Entry.vector`` in stores; empty for ``None``."""
    if vector is None:
        return b""
    return vector if isinstance(vector, bytes) else vector.astype("<f2").tobytes()


def encode(entry: Entry) -> Parts:
    """The bytes that :func:`decode` turns into an equal entry (its vector as float16 bytes).

    Raises:
        StoreError: A field has no JSON form (a lone surrogate in a text) or a part is over 4 GiB.
    """
    key, vector, response = entry.key, pack_vector(entry.vector), entry.response
    question = key.canonical[key.scope_length :]
    try:
        names = orjson.dumps((entry.api, entry.namespace, entry.tenant, entry.model, entry.fingerprint))
        shared = _SHARED.pack(key.scope_id, len(names)) + names + key.scope
        text = True if question == b"\n" + orjson.dumps(entry.text) and entry.text is not None else entry.text
        details = orjson.dumps((text, None if entry.usage is None else _counted(entry.usage), entry.tags))
        fixed = _FIXED.pack(
            len(details),
            len(question),
            len(vector),
            len(response),
            entry.created_at,
            _NEVER if entry.expires_at is None else entry.expires_at,
            entry.latency_s,
        )
    except (TypeError, struct.error) as error:
        raise StoreError(f"the entry cannot be written: {error}") from error
    own = b"".join((fixed, details, question, vector, response))
    return Parts(_CHECKSUM.pack(_MAGIC, xxh3_64_intdigest(own + shared, key.id)) + own, shared)


def _counted(usage: Usage) -> list[int]:
    """The fields of a usage up to the last one that says anything; most calls read and write no provider's cache."""
    fields = list(usage)
    while fields and not fields[-1]:
        fields.pop()
    return fields


def decode(id: int, data: bytes) -> Entry:
    """The entry of that id in ``data``, which is both parts of it.

    Raises:
        EntryDamaged: The bytes are torn, corrupt, another entry's, or of another version.
    """
    if len(data) < _DETAILS_AT or data[:4] != _MAGIC:
        strange = len(data) > 3 and data[:3] == _MAGIC[:3] and data[3] != _MAGIC[3]
        raise EntryDamaged(f"an entry of version {data[3]}" if strange else "not an entry")
    if xxh3_64_intdigest(memoryview(data)[_CHECKED_FROM:], id) != int.from_bytes(data[4:_CHECKED_FROM], "little"):
        raise EntryDamaged("an entry with a wrong checksum")
    details_length, question_length, vector_length, response_length, created_at, expires_at, latency_s = (
        _FIXED.unpack_from(data, _CHECKED_FROM)
    )
    question_at = _DETAILS_AT + details_length
    vector_at = question_at + question_length
    response_at = vector_at + vector_length
    shared_at = response_at + response_length
    try:
        scope_id, names_length = _SHARED.unpack_from(data, shared_at)
        names_at = shared_at + _SHARED.size
        scope_at = names_at + names_length
        question, scope = data[question_at:vector_at], data[scope_at:]
        text, usage, tags = orjson.loads(data[_DETAILS_AT:question_at])
        api, namespace, tenant, model, fingerprint = orjson.loads(data[names_at:scope_at])
        return Entry(
            Key(id, scope_id, scope + question, len(scope)),
            orjson.loads(question) if text is True else text,
            data[response_at:shared_at],
            api,
            namespace,
            tenant,
            model,
            created_at,
            None if expires_at == _NEVER else expires_at,
            latency_s,
            None if usage is None else Usage(*usage),
            tuple(tags),
            data[vector_at:response_at] or None,
            fingerprint,
        )
    except (ValueError, TypeError, struct.error) as error:  # sound bytes, but not written by this codec
        raise EntryDamaged(f"an entry with a strange header: {error}") from error
