"""Entries in a Redis server (6.2 or later, Valkey, or a cluster of them), shared by machines."""

from __future__ import annotations

import math
import re
import struct
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from xxhash import xxh3_64_hexdigest

from semcache.breaker import Breaker
from semcache.errors import ConfigurationError, EntryDamaged, StoreError, StoreUnavailable
from semcache.stores import _feed
from semcache.stores._persistent import PersistentStore, Stored
from semcache.stores._redis_counters import RedisCounters
from semcache.stores.base import DEFAULT_BUDGET_S, Changes, Selector, StoreStats
from semcache.stores.entry_codec import decode, encode, pack_vector
from semcache.stores.sealing import KeySource, Locked, is_sealed
from semcache.types import Entry, Event

if TYPE_CHECKING:
    Client = redis.Redis | redis.RedisCluster

T = TypeVar("T")
_LogEvent = tuple[bytes, dict[bytes, bytes]]

FORMAT: Final = 2

_CHUNK: Final = 64
"""How many whole entries one round trip asks for when many are read."""
_SWEEP_EVERY: Final = 64
_SWEEP_COUNT: Final = 256

_SILENCE = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.RedisClusterException, OSError)
"""Errors that say nothing of the request: the server is away, slow or lost."""


class _Card(NamedTuple):
    """What the index of a store knows of an entry without its bytes."""

    scope_id: int
    embedder: int
    expires_at: float
    namespace: str
    tenant: str | None
    tags: list[str]


_CARD = struct.Struct("<qqd")
_PAIR = struct.Struct("<qq")
_ADDED = struct.Struct("<qq")
_ID = struct.Struct("<q")
_EVENT_ID = re.compile(r"\d+-\d+")


class RedisStore(PersistentStore):
    """A store in Redis.

    Keys, with the default prefix:

    - ``semcache:2:<id in hex>``: one entry (string with a time to live). Spread over the slots of a cluster.
    - ``{semcache:2}:index``: hash, id -> scope, embedder, expiry, namespace, tenant, tags; for all that asks about
      many entries. Cards of entries that have gone are swept out by later puts.
    - ``{semcache:2}:log``: capped stream of what changed.
    - ``{semcache:2}:wrong``: sorted set of wrong pairs.
    - ``{semcache:2}:counters…``: see :class:`~semcache.stores._redis_counters.RedisCounters`.

    The 2 is the format: another version of this package that writes another one keeps out of its way. The keys with
    braces share one slot. Under an ``allkeys-*`` eviction policy Redis may throw these away; a
    ``volatile-*`` policy only takes entries that have a time to live.

    A server that is away or slow costs one call its budget; then the breaker answers with StoreUnavailable for a
    second, and up to 30 while nothing helps. Name resolution is outside the budget: prefer addresses.

    Args:
        client: A URL as redis-py takes it (``redis://``, ``rediss://``, ``unix://``, with user and password), or a
            client of ours or yours (``redis.Redis``, ``redis.RedisCluster``): its time-outs and retries are then
            its own, and it is not closed.
        prefix: First part of every key; stores with other prefixes on one server do not see each other.
        budget_s: How long to wait for a connection, and for each answer, in seconds.
        breaker: Decides when to try again.
        key: Encrypt the entries, and tenants, namespaces and tags beside them (``docs/privacy.md``). Entries without
            encryption, and those of other keys, are misses.

    Raises:
        ConfigurationError: A URL that redis-py refuses, a client that decodes answers to text, or a brace in
            ``prefix``. Nothing is sent yet.
    """

    inline_reads = False
    inline_writes = False

    def __init__(
        self,
        client: str | Client,
        *,
        prefix: str = "semcache",
        budget_s: float = DEFAULT_BUDGET_S,
        breaker: Breaker | None = None,
        key: KeySource | None = None,
    ) -> None:
        super().__init__(key)
        if not prefix or "{" in prefix or "}" in prefix:
            raise ConfigurationError(f"prefix must be a name without braces, not {prefix!r}")
        if budget_s <= 0:
            raise ConfigurationError(f"budget_s must be above 0, not {budget_s}")
        self._owned = isinstance(client, str)
        self.budget_s = budget_s
        self._client: Any = _connect(client, budget_s) if isinstance(client, str) else client
        if self._client.get_encoder().decode_responses:
            raise ConfigurationError("the Redis client must not decode answers: build it with decode_responses=False")
        self._location = _location(client)
        self._breaker = breaker or Breaker()
        self._cluster = isinstance(self._client, redis.RedisCluster)
        self._entry = f"{prefix}:{FORMAT}:"
        slot = f"{{{prefix}:{FORMAT}}}:"
        self._index, self._log, self._wrong = (f"{slot}{name}" for name in ("index", "log", "wrong"))
        self._counters = RedisCounters(self._client, slot, self._call, self._batch)
        self._puts = 0
        self._sweep_at = 0

    # Talking to the server ----------------------------------------------------------------------------------------

    def _call(self, work: Callable[..., T], *args: Any, **options: Any) -> T:
        if not self._breaker.allow():
            raise StoreUnavailable(f"{self._location}: not tried, it failed a moment ago")
        try:
            result = work(*args, **options)
        except _SILENCE as error:
            if self._breaker.failure():
                self.on_event(Event("store_open", f"{self._location}: {error}", error))
            raise StoreError(f"{self._location}: {error}") from error
        except redis.RedisError as error:
            self._breaker.success()
            raise StoreError(f"{self._location}: {error}") from error
        self._breaker.success()
        return result

    def _batch(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands together, in order; not a transaction. On a cluster the order holds within a slot."""

        def send() -> list[Any]:
            with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                results: list[Any] = pipeline.execute()
                return results

        return self._call(send)

    def _key(self, id: int) -> str:
        return f"{self._entry}{id:x}"

    # Reading ------------------------------------------------------------------------------------------------------

    def _load(self, id: int) -> Stored | None:
        data: bytes | None = self._call(self._client.get if self._cluster else self._get_directly, self._key(id))
        return None if data is None else (data,)

    def _get_directly(self, key: str) -> Any:
        """GET on a pooled connection. The client's own ``get`` spends as long again on retries and metrics."""
        pool = self._client.connection_pool
        connection = pool.get_connection()
        try:
            # Both drop the connection when they fail, so that no late answer is read by the next caller.
            connection.send_command("GET", key)
            return connection.read_response()
        finally:
            pool.release(connection)

    def _load_many(self, ids: Sequence[int]) -> list[Stored | None]:
        if not ids:
            return []
        read = self._client.mget_nonatomic if self._cluster else self._client.mget
        return [None if data is None else (data,) for data in self._call(read, [self._key(id) for id in ids])]

    def _cards(self, *, live: bool = True) -> Iterator[tuple[int, _Card]]:
        """Cards of all entries, or all live ones. An entry written meanwhile may be missing."""
        at = 0
        while True:
            at, page = self._cards_page(at, 1000, live=live)
            yield from page
            if at == 0:
                return

    def _cards_page(self, at: int, count: int, *, live: bool = True) -> tuple[int, list[tuple[int, _Card]]]:
        at, page = self._call(self._client.hscan, self._index, at, count=count)
        now = time.time()
        cards = ((_ID.unpack(field)[0], _read_card(value)) for field, value in page.items())
        return int(at), [(id, card) for id, card in cards if not live or card.expires_at > now]

    def scopes(self, limit: int = 1000) -> dict[int, int]:
        return dict(Counter(card.scope_id for _, card in self._cards()).most_common(limit))

    def stats(self) -> StoreStats:
        """The number of entries counts some that have gone and are not swept out yet."""
        return StoreStats("redis", self._location, self._call(self._client.hlen, self._index), None)

    # Writing ------------------------------------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        id, embedder = entry.key.id, 0 if entry.vector is None else _feed.embedder_number(entry.fingerprint)
        keep: tuple[Any, ...] = ("SET", self._key(id), self._seal(id, b"".join(encode(entry))))
        if entry.expires_at is not None:
            keep += ("PX", max(1, round((entry.expires_at + self.keep_expired_s - time.time()) * 1000)))
        tell = (
            ("HSET", self._index, _ID.pack(id), self._card(entry, embedder)),
            self._log_command("a", _ADDED.pack(id, embedder)),
        )
        if self._cluster:
            # Who reads the log must find the entry, and they live on different nodes.
            self._batch(keep)
            self._batch(*tell)
        else:
            self._batch(keep, *tell)
        self._puts += 1
        if self._puts % _SWEEP_EVERY == 0:
            self._sweep()

    def _card(self, entry: Entry, embedder: int) -> bytes:
        tenant = None if entry.tenant is None else self._name("tenant", entry.tenant)
        tags = [self._name("tag", tag) for tag in entry.tags]
        expires_at = math.inf if entry.expires_at is None else entry.expires_at
        rest = orjson.dumps((self._name("namespace", entry.namespace), tenant, tags))
        return _CARD.pack(entry.key.scope_id, embedder, expires_at) + rest

    def _log_command(self, kind: str, value: bytes) -> tuple[Any, ...]:
        return ("XADD", self._log, "MAXLEN", "~", _feed.HISTORY, "*", kind, value)

    def _sweep(self) -> None:
        """Take the cards of some expired entries out of the index."""
        at, page = self._call(self._client.hscan, self._index, self._sweep_at, count=_SWEEP_COUNT)
        self._sweep_at = int(at)
        now = time.time() - self.keep_expired_s
        self._forget([_ID.unpack(field)[0] for field, card in page.items() if _read_card(card).expires_at <= now])

    def delete(self, selector: Selector) -> int:
        selector.check()
        if selector.ids is not None and selector == Selector(ids=selector.ids):
            return self._forget(selector.ids)
        return self._forget_all(self._carded(selector, self._cards(live=False)))  # what has expired may still be served

    def erase(self, selector: Selector) -> int:
        """As :meth:`delete`, with what the index does not know of (entries whose cards were evicted, cards of entries
        that expired), wrong pairs and the log. Files and replicas of the server are its own affair.
        """
        selector.check()
        chosen = {*self._carded(selector, self._cards(live=False)), *self._scanned(selector)}
        count = self._forget_all(iter(chosen))
        pairs = self._call(self._client.zrange, self._wrong, 0, -1)
        if gone := [pair for pair in pairs if chosen.intersection(_PAIR.unpack(pair))]:
            self._batch(("ZREM", self._wrong, *gone))
        self._batch(("UNLINK", self._log))  # followers find their place gone, and begin anew
        self._begin()
        return count

    def _forget_all(self, chosen: Iterator[int]) -> int:
        count = 0
        while chunk := list(islice(chosen, 500)):
            count += self._forget(chunk)
        return count

    def _carded(self, selector: Selector, cards: Iterator[tuple[int, _Card]]) -> Iterator[int]:
        wanted = self._selectors(selector)
        for id, card in cards:
            if any(
                one.matches(id, scope_id=card.scope_id, namespace=card.namespace, tenant=card.tenant, tags=card.tags)
                for one in wanted
            ):
                yield id

    def _scanned(self, selector: Selector) -> Iterator[int]:
        """Ids of all entries on the server that match, from the entries themselves."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._entry) + "*"
        keys = self._call(lambda: list(self._client.scan_iter(match=pattern, count=1000)))
        ids = [int(key[len(self._entry.encode()) :], 16) for key in keys]
        for at in range(0, len(ids), _CHUNK):
            for id, stored in zip(ids[at : at + _CHUNK], self._load_many(ids[at : at + _CHUNK]), strict=True):
                entry = None if stored is None else self._legible(id, stored[0])
                if entry is not None and selector.matches(
                    id, scope_id=entry.key.scope_id, namespace=entry.namespace, tenant=entry.tenant, tags=entry.tags
                ):
                    yield id

    def _legible(self, id: int, data: bytes) -> Entry | None:
        """An entry, expired or not, encrypted or from before there was a key."""
        try:
            return decode(id, self._open(id, data) if is_sealed(data) else data)
        except Locked as error:
            self._tell_locked(error)
        except EntryDamaged:
            self._forget((id,))
        return None

    def _forget(self, ids: Sequence[int]) -> int:
        if not ids:
            return 0
        packed = [_ID.pack(id) for id in ids]
        results = self._batch(
            *(("UNLINK", self._key(id)) for id in ids),
            ("HDEL", self._index, *packed),
            self._log_command("r", b"".join(packed)),
        )
        return sum(results[: len(ids)])

    def mark_wrong(self, a: int, b: int) -> None:
        pair = _PAIR.pack(min(a, b), max(a, b))
        self._batch(
            ("ZADD", self._wrong, time.time(), pair),
            ("ZREMRANGEBYRANK", self._wrong, 0, -(_feed.MAX_WRONG_PAIRS + 1)),
            self._log_command("w", pair),
        )

    # Feed and counters --------------------------------------------------------------------------------------------

    def changes(self, cursor: str | None, *, fingerprint: str, limit: int = 1000) -> Changes | None:
        """One round trip when nothing changed.

        The first walk goes over the index, later ones over the log. The event that a cursor names is asked for
        again: if it has been trimmed away, so may have others.
        """
        place = _Place.parse(cursor)
        if place is not None:
            events = self._call(self._client.xrange, self._log, place.event, "+", limit + 1)
            if events and _digest(events[0]) == place.digest and events[0][0].decode() == place.event:
                if place.scan is not None:
                    return self._scan_page(place, fingerprint, limit, first=False, reset=False)
                return self._log_page(place, events[1:], fingerprint, limit)
        return self._scan_page(self._begin(), fingerprint, limit, first=cursor is None, reset=cursor is not None)

    def _begin(self) -> _Place:
        while not (newest := self._call(self._client.xrevrange, self._log, count=1)):
            self._batch(self._log_command("b", uuid.uuid4().bytes))
        return _Place.after(newest[0])

    def _scan_page(self, place: _Place, fingerprint: str, limit: int, *, first: bool, reset: bool) -> Changes | None:
        assert place.scan is not None
        pairs = self._call(self._client.zrange, self._wrong, 0, -1) if first or reset else []
        at, cards = self._cards_page(place.scan, limit)
        embedder = _feed.embedder_number(fingerprint)
        return _feed.page(
            self._vectors([id for id, card in cards if card.embedder == embedder], fingerprint),
            removed=(),
            wrong_pairs=[_PAIR.unpack(pair) for pair in pairs],
            cursor=str(place._replace(scan=at or None)),
            more=at != 0,
            reset=reset,
            first=first,
        )

    def _log_page(self, place: _Place, events: Sequence[_LogEvent], fingerprint: str, limit: int) -> Changes | None:
        if not events:
            return None
        embedder = _feed.embedder_number(fingerprint)
        latest: dict[int, int] = {}  # id -> embedder of its vector, 0 for none
        pairs = []
        for _, fields in events:
            for kind, value in fields.items():
                if kind == b"a":
                    latest.update([_ADDED.unpack(value)])
                elif kind == b"r":
                    latest.update((id, 0) for (id,) in _ID.iter_unpack(value))
                elif kind == b"w":
                    pairs.append(_PAIR.unpack(value))
        added = self._vectors([id for id, its in latest.items() if its == embedder], fingerprint)
        return _feed.page(
            added,
            removed=latest.keys() - {id for id, _, _ in added},
            wrong_pairs=pairs,
            cursor=str(_Place.after(events[-1], scan=None)),
            more=len(events) == limit,
            reset=False,
            first=False,
        )

    def _vectors(self, ids: Sequence[int], fingerprint: str) -> list[tuple[int, int, bytes]]:
        entries = (entry for at in range(0, len(ids), _CHUNK) for entry in self.fetch(ids[at : at + _CHUNK]) if entry)
        return [
            (entry.key.id, entry.key.scope_id, pack_vector(entry.vector))
            for entry in entries
            if entry.vector is not None and entry.fingerprint == fingerprint
        ]

    def add_counters(self, deltas: Mapping[str, int], *, once: str | None = None) -> None:
        self._counters.add(deltas, once)

    def counters(self, prefix: str = "") -> dict[str, int]:
        return self._counters.read(prefix)

    def drop_counters(self, names: Sequence[str]) -> None:
        self._counters.drop(names)

    # Life ---------------------------------------------------------------------------------------------------------

    def ping(self) -> None:
        self._call(self._client.ping)

    def close(self) -> None:
        if self._owned:
            self._client.close()


class _Place(NamedTuple):
    """A place in the feed: the last event of the log that was seen and, during the first walk, how far it is.

    Events hold random numbers, so an event of the same time and digest is the same one.
    """

    event: str
    digest: str
    scan: int | None = 0

    @classmethod
    def after(cls, event: _LogEvent, scan: int | None = 0) -> _Place:
        return cls(event[0].decode(), _digest(event), scan)

    def __str__(self) -> str:
        return f"{self.event}:{self.digest}:{'' if self.scan is None else self.scan}"

    @classmethod
    def parse(cls, text: str | None) -> _Place | None:
        parts = [] if text is None else text.split(":")
        if len(parts) != 3 or not _EVENT_ID.fullmatch(parts[0]) or not (parts[2].isdecimal() or not parts[2]):
            return None
        return cls(parts[0], parts[1], int(parts[2]) if parts[2] else None)


def _digest(event: _LogEvent) -> str:
    return str(xxh3_64_hexdigest(b"".join(event[1].values())))


def _read_card(data: bytes) -> _Card:
    return _Card(*_CARD.unpack_from(data), *orjson.loads(data[_CARD.size :]))


def _connect(url: str, budget_s: float) -> redis.Redis:
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=budget_s,
            socket_connect_timeout=budget_s,
            # The default waits 3 s on a refused connection and over 25 s on a server that hangs.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            # A burst of threads is no trouble of the server's, which a full pool would look like.
            max_connections=1000,
        )
        # Takes the options, and connects only on use.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (ValueError, TypeError, redis.RedisError) as error:
        raise ConfigurationError(f"not a Redis URL: {error}") from error
    return client


def _location(client: str | Client) -> str:
    """Where the server is, without a password."""
    if isinstance(client, str):
        parts = urlsplit(client)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    where = client.get_connection_kwargs()
    return f"redis://{where.get('host', where.get('path', 'cluster'))}:{where.get('port', '')}".rstrip(":")
