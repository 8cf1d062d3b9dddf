"""Confirmed pairs in the store: what one process has had verified, every process on the store serves.

A verdict is an entry of its own, in no index and found by its key alone. So it is bounded, encrypted, invalidated and
forgotten as answers are, and it expires with the answer that it is about.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import orjson

from semcache.errors import StoreError, StoreUnavailable
from semcache.keys import make_key
from semcache.types import Entry, Event, Key, Request
from semcache.verifiers.base import Verifier, fingerprint

if TYPE_CHECKING:
    from semcache.steps import Verify
    from semcache.stores.base import Store

API: Final = "verdict"
"""What such an entry has in place of a wire format."""


class KeptVerdicts:
    """The verdicts of one verifier.

    Args:
        at_least: Least probability that confirms. The rest is not kept: it would crowd out answers.
        emit: Takes ``store_error``.
    """

    def __init__(self, store: Store, verifier: Verifier, at_least: float, emit: Callable[[Event], None]) -> None:
        self._store = store
        self._scope = {"verifier": fingerprint(verifier)}
        self._at_least = at_least
        self._emit = emit

    def recall(self, asked: Verify) -> float | None:
        """The probability of a confirmed pair; ``None`` if it is not known.

        Raises:
            StoreError: The store cannot be read.
        """
        entry = self._store.get(self._key(asked))
        if entry is None:
            return None
        known = orjson.loads(entry.response)
        return float(known) if isinstance(known, (int, float)) and math.isfinite(known) else None

    def keep(self, asked: Verify, probability: float) -> None:
        """Keep a pair for as long as its answer lives, if it is confirmed. Trouble is an event."""
        if probability < self._at_least:
            return
        about = asked.entry
        verdict = Entry(
            key=self._key(asked),
            text=None,
            response=orjson.dumps(probability),
            api=API,
            namespace=about.namespace,
            tenant=about.tenant,
            model=None,
            created_at=about.created_at,
            expires_at=about.expires_at,
            tags=tuple(dict.fromkeys((*about.tags, *asked.tags))),
        )
        try:
            self._store.put(verdict)
        except StoreUnavailable:
            return  # that it failed has been said once
        except StoreError as error:
            self._emit(Event("store_error", f"a verdict was not kept: {error}", error))

    def _key(self, asked: Verify) -> Key:
        pair = orjson.dumps([asked.query, asked.entry.text]).decode()
        return make_key(Request(API, self._scope, pair), asked.entry.namespace, asked.entry.tenant)
