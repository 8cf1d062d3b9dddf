"""Entries as bytes, for every store that outlives its process.

Layout, integers little-endian::

    magic "SCE", version (1 byte)
    xxh3_64 of everything after this field (8 bytes)
    lengths of header, canonical form, vector, response (4 x uint32)
    id, scope id (2 x int64), scope length (uint32)
    created_at, expires_at (infinite: never), latency_s (3 x float64)
    header: JSON array of text, api, namespace, tenant, model, usage, tags, fingerprint
    canonical form | vector as float16 | response

Another layout takes another version byte. The checksum finds accidents, not forgers: who can write to the store can
forge an entry, so a store must be writable by trusted parties only.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import orjson
from xxhash import xxh3_64_intdigest

from semcache.errors import EntryDamaged, StoreError
from semcache.types import Entry, Key, Usage

if TYPE_CHECKING:
    import numpy.typing as npt

_MAGIC = b"SCE\x01"
_CHECKED_FROM = 12
_CHECKSUM = struct.Struct("<4sQ")
_FIXED = struct.Struct("<IIIIqqIddd")
_BODY_AT = _CHECKSUM.size + _FIXED.size
_NEVER = math.inf


def pack_vector(vector: npt.NDArray[Any] | bytes | None) -> bytes:
    """A vector as little-endian float16 bytes, the form of ``Entry.vector`` in stores; empty for ``None``."""
    if vector is None:
        return b""
    return vector if isinstance(vector, bytes) else vector.astype("<f2").tobytes()


def encode(entry: Entry) -> bytes:
    """The bytes that :func:`decode` turns into an equal entry (its vector as float16 bytes).

    Raises:
        StoreError: A field has no JSON form (a lone surrogate in a text) or a part is over 4 GiB.
    """
    key, vector, response = entry.key, pack_vector(entry.vector), entry.response
    try:
        header = orjson.dumps(
            (
                entry.text,
                entry.api,
                entry.namespace,
                entry.tenant,
                entry.model,
                None if entry.usage is None else _counted(entry.usage),
                entry.tags,
                entry.fingerprint,
            )
        )
        fixed = _FIXED.pack(
            len(header),
            len(key.canonical),
            len(vector),
            len(response),
            key.id,
            key.scope_id,
            key.scope_length,
            entry.created_at,
            _NEVER if entry.expires_at is None else entry.expires_at,
            entry.latency_s,
        )
    except (TypeError, struct.error) as error:
        raise StoreError(f"the entry cannot be written: {error}") from error
    checked = b"".join((fixed, header, key.canonical, vector, response))
    return _CHECKSUM.pack(_MAGIC, xxh3_64_intdigest(checked)) + checked


def _counted(usage: Usage) -> list[int]:
    """The fields of a usage up to the last one that says anything; most calls read and write no provider's cache."""
    fields = list(usage)
    while fields and not fields[-1]:
        fields.pop()
    return fields


def decode(data: bytes) -> Entry:
    """The entry in ``data``.

    Raises:
        EntryDamaged: The bytes are torn, corrupt, or of another version.
    """
    if len(data) < _BODY_AT or data[:4] != _MAGIC:
        strange = len(data) > 3 and data[:3] == _MAGIC[:3] and data[3] != _MAGIC[3]
        raise EntryDamaged(f"an entry of version {data[3]}" if strange else "not an entry")
    (
        header_length,
        canonical_length,
        vector_length,
        response_length,
        id,
        scope_id,
        scope_length,
        created_at,
        expires_at,
        latency_s,
    ) = _FIXED.unpack_from(data, _CHECKED_FROM)
    canonical_at = _BODY_AT + header_length
    vector_at = canonical_at + canonical_length
    response_at = vector_at + vector_length
    if len(data) != response_at + response_length:
        raise EntryDamaged("an entry of the wrong length")
    if xxh3_64_intdigest(memoryview(data)[_CHECKED_FROM:]) != int.from_bytes(data[4:_CHECKED_FROM], "little"):
        raise EntryDamaged("an entry with a wrong checksum")
    try:
        text, api, namespace, tenant, model, usage, tags, fingerprint = orjson.loads(data[_BODY_AT:canonical_at])
        return Entry(
            Key(id, scope_id, data[canonical_at:vector_at], scope_length),
            text,
            data[response_at:],
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
    except (ValueError, TypeError) as error:  # sound bytes, but not written by this codec
        raise EntryDamaged(f"an entry with a strange header: {error}") from error
