"""Entries encrypted at rest: AES-256-GCM (NIST SP 800-38D) under keys that only the processes of the cache hold.

A sealed entry is::

    magic "SCX", version (1 byte) | key id (8 bytes) | nonce (12 bytes) | ciphertext and tag

The plaintext is an entry, or one of its two parts, as :mod:`semcache.stores.entry_codec` writes it. Magic, key id and
the entry's id are authenticated with it, so a sealed entry is of no use in another slot; a shared part has no slot of
its own, and the checksum inside an entry says which it goes with. Nonces are random: after 2**32 entries a key should
be replaced (SP 800-38D, 8.3).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
from collections.abc import Callable
from typing import Any, Final

from semcache.errors import ConfigurationError, EntryDamaged, MissingExtraError
from semcache.stores.base import Selector

KeySource = str | Callable[[], str]
"""One or more keys as :func:`new_key` writes them, separated by commas or spaces, or a function that fetches them.

The first key writes; all of them read. To replace a key, put the new one before it, and drop the old one when its
entries have expired.
"""

KEY_VARIABLE: Final = "SEMCACHE_KEY"

_MAGIC: Final = b"SCX\x01"
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_NONCE_AT: Final = len(_MAGIC) + _ID_BYTES
_SEALED_AT: Final = _NONCE_AT + _NONCE_BYTES
_SLOT: Final = struct.Struct("<q")


class Locked(EntryDamaged):
    """A sound entry, as far as can be told, for which this process has no key."""


def new_key() -> str:
    """A fresh random key, in the form that stores take."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode()


def is_sealed(data: bytes) -> bool:
    """Whether stored bytes are encrypted, under whatever key."""
    return data[: len(_MAGIC)] == _MAGIC


class Keyring:
    """The keys of a store.

    Args:
        source: See :data:`KeySource`.

    Raises:
        ConfigurationError: No key, or one that is not 32 bytes in base64. The message shows nothing of it.
        MissingExtraError: ``cryptography`` is not installed.
    """

    def __init__(self, source: KeySource) -> None:
        text = source() if callable(source) else source
        keys = [_decode(part) for part in text.replace(",", " ").split()]
        if not keys:
            raise ConfigurationError("a store's key is empty: make one with semcache.stores.sealing.new_key()")
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtraError("cryptography", "encryption") from error
        self._invalid_tag = InvalidTag
        self._ciphers: dict[bytes, Any] = {_key_id(key): AESGCM(_derived(key, b"entries")) for key in keys}
        self._naming = [_derived(key, b"names") for key in keys]
        self._writing = _key_id(keys[0])
        self.mask_key = _derived(keys[0], b"masks")
        self.number_key = _derived(keys[0], b"numbers")

    def seal(self, id: int, data: bytes) -> bytes:
        """The bytes of the entry ``id``, encrypted."""
        nonce = os.urandom(_NONCE_BYTES)
        head = _MAGIC + self._writing
        sealed: bytes = self._ciphers[self._writing].encrypt(nonce, data, head + _SLOT.pack(id))
        return head + nonce + sealed

    def open(self, id: int, data: bytes) -> bytes:
        """What :meth:`seal` was given.

        Raises:
            Locked: It was sealed with another key.
            EntryDamaged: It is not sealed, was changed, or is another entry's.
        """
        if not is_sealed(data):
            raise EntryDamaged("an entry that is not encrypted, in a store with a key")
        head = data[:_NONCE_AT]
        cipher = self._ciphers.get(head[len(_MAGIC) :])
        if cipher is None:
            raise Locked(f"encrypted with the key {head[len(_MAGIC) :].hex()}, which this process was not given")
        try:
            plain: bytes = cipher.decrypt(data[_NONCE_AT:_SEALED_AT], data[_SEALED_AT:], head + _SLOT.pack(id))
        except (self._invalid_tag, ValueError) as error:
            raise EntryDamaged("an entry that was changed after it was encrypted") from error
        return plain

    def name(self, kind: str, text: str) -> str:
        """What stands for a tenant, namespace or tag beside sealed entries, so that these can be found and deleted."""
        return _name(self._naming[0], kind, text)

    def selectors(self, selector: Selector) -> list[Selector]:
        """What to look for beside sealed entries: the names under each key, and those from before there was one."""
        kinds = {kind: text for kind in ("tag", "namespace", "tenant") if (text := getattr(selector, kind)) is not None}
        if not kinds:
            return [selector]
        named: list[dict[str, Any]] = [
            {kind: _name(key, kind, text) for kind, text in kinds.items()} for key in self._naming
        ]
        return [selector, *(selector._replace(**names) for names in named)]


def _name(key: bytes, kind: str, text: str) -> str:
    return hmac.digest(key, f"{kind}\0{text}".encode("utf-8", "surrogatepass"), "sha256")[:16].hex()


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"semcache/1 " + purpose, "sha256")


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"semcache/1 id " + _derived(key, b"id")).digest()[:_ID_BYTES]


def _decode(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"a store's key is {_KEY_BYTES} random bytes in base64, as semcache.stores.sealing.new_key() makes it"
        )
    return key
