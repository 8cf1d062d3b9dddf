"""The counters of a Redis store, in one hash for each kind."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

_ADD_ONCE: Final = """
if redis.call('SET', KEYS[1], '', 'NX', 'EX', 3600) then
    redis.call('SADD', KEYS[2], unpack(KEYS, 3))
    for i = 1, #ARGV, 3 do
        redis.call('HINCRBY', KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2])
    end
end
"""
"""A lost connection does not tell whether the server did what it was sent; the mark does, when it is sent again."""

_PAGE: Final = 10_000


class RedisCounters:
    """Counters by name.

    Readers ask for one kind about once a second, and must not walk over the years of another. So the counters whose
    names begin with ``<kind>|`` have a hash ``…counters:<kind>``, all others have ``…counters``, and ``…kinds`` is the
    set of these hashes.

    Args:
        slot: What all keys begin with, so that a cluster keeps them together.
        call: Calls a method of the client, as the store does.
        batch: Sends several commands together.
    """

    def __init__(self, client: Any, slot: str, call: Callable[..., Any], batch: Callable[..., Any]) -> None:
        self._client = client
        self._call = call
        self._batch = batch
        self._others = f"{slot}counters"
        self._kinds = f"{slot}kinds"

    def add(self, deltas: Mapping[str, int], once: str | None) -> None:
        """See :meth:`Store.add_counters`."""
        if not deltas:
            return
        hashes = list({self._hash(name): None for name in deltas})
        if once is None:
            added = (("HINCRBY", self._hash(name), name, value) for name, value in deltas.items())
            self._batch(("SADD", self._kinds, *hashes), *added)
            return
        keys = [f"{self._kinds}:once:{once}", self._kinds, *hashes]
        number = {key: n for n, key in enumerate(keys, 1)}
        numbered = ((number[self._hash(name)], name, value) for name, value in deltas.items())
        self._call(self._client.eval, _ADD_ONCE, len(keys), *keys, *chain.from_iterable(numbered))

    def read(self, prefix: str) -> dict[str, int]:
        """All whose name starts with ``prefix``."""
        if "|" in prefix:
            return self._read(self._hash(prefix), prefix)
        hashes = [key.decode() for key in self._call(self._client.smembers, self._kinds)]
        return {name: value for key in hashes for name, value in self._read(key, prefix).items()}

    def _read(self, key: str, prefix: str) -> dict[str, int]:
        pattern, cursor, found = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*", 0, {}
        while True:
            cursor, page = self._call(self._client.hscan, key, cursor, pattern, _PAGE)
            found.update(page)
            if cursor == 0:
                return {name.decode(): int(value) for name, value in found.items()}

    def drop(self, names: Sequence[str]) -> None:
        """Remove counters by name."""
        by_hash: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_hash[self._hash(name)].append(name)
        if by_hash:
            self._batch(*(("HDEL", key, *its) for key, its in by_hash.items()))

    def _hash(self, name: str) -> str:
        kind, bar, _ = name.partition("|")
        return f"{self._others}:{kind}" if bar else self._others
