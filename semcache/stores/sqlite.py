"""Entries in one SQLite file, shared by the processes of one machine."""

from __future__ import annotations

import glob
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from semcache.errors import ConfigurationError
from semcache.stores import _feed
from semcache.stores._persistent import SHARED_SLOT, PersistentStore, Stored
from semcache.stores._sqlite_file import Connection, Database
from semcache.stores.base import DEFAULT_BUDGET_S, Changes, Selector, StoreStats
from semcache.stores.entry_codec import encode, pack_vector
from semcache.stores.sealing import KeySource
from semcache.types import Entry, Event

_STEP: Final = 16
"""How many expired or surplus entries a put removes at most."""
_CHUNK: Final = 500
"""How many entries one transaction of a deletion covers, so that other writers get their turn."""

# A cross join is the one whose order SQLite keeps: the entry first, then its head.
_JOINED = "FROM entries CROSS JOIN heads USING (head)"
_GET = f"SELECT entries.data, heads.data {_JOINED} WHERE id = ?"
_PUT = "INSERT INTO entries (seq, id, head, expires_at, data) VALUES (?, ?, ?, ?, ?)"
_PUT_HEAD = (
    "INSERT INTO heads (head, scope_id, namespace, tenant, embedder, data) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (head) DO UPDATE SET data = excluded.data WHERE data <> excluded.data"  # it mends a damaged one
)
_PAGE = (
    f"SELECT seq, id, entries.data, heads.data {_JOINED} WHERE seq > ? AND embedder = ? "
    "AND (expires_at IS NULL OR expires_at > ?) ORDER BY seq LIMIT ?"
)
_REMOVED = (
    "SELECT id FROM removals WHERE seq > :after AND seq <= :upto AND id NOT IN (SELECT id FROM entries) "
    f"UNION SELECT id {_JOINED} WHERE seq > :after AND seq <= :upto AND embedder <> :embedder"
)
# Up to the last character that there is: else all names above the prefix would be read.
_COUNTERS = "SELECT name, value FROM counters WHERE name >= ?1 AND name < ?1 || char(1114111)"
_WRONG = "SELECT a, b FROM wrong_pairs WHERE seq > ? AND seq <= ? ORDER BY seq"

_Head = tuple[int, int, str, str | None, int, bytes]
"""A row of ``heads``. Its number is a hash of the rest, so that nothing is written twice. Should two ever have one
number, the checksums of their entries tell."""


class SqliteStore(PersistentStore):
    """A store in one SQLite file: write-ahead log, synchronous NORMAL (safe against killed processes; a power cut
    may take the last entries, never the file).

    Args:
        path: The file; by default ``semcache.db`` under the platform's folder for user data. A folder that has to
            be made gets mode 0700, the file 0600.
        max_entries: Above it the oldest entry goes; ``None`` for no bound.
        max_bytes: The same for the bytes of all entries. An entry larger than all of it is not kept.
        budget_s: How long a call waits for another process that is writing, in seconds.
        key: Encrypt the entries, and tenants, namespaces and tags beside them (``docs/privacy.md``). Entries without
            encryption, and those of other keys, are misses.

    Raises:
        ConfigurationError: The file cannot be made or read, is another program's, or is of another version.
    """

    inline_reads = True
    inline_writes = False

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        max_entries: int | None = 1_000_000,
        max_bytes: int | None = 4 * 2**30,
        budget_s: float = DEFAULT_BUDGET_S,
        key: KeySource | None = None,
    ) -> None:
        super().__init__(key)
        for name, bound in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if bound is not None and bound < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {bound}")
        if budget_s <= 0:
            raise ConfigurationError(f"budget_s must be above 0, not {budget_s}")
        self.path = _absolute(path)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.budget_s = budget_s
        self._file = Database(self.path, wait_s=budget_s, on_damage=self._tell_damage)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot make the folder {self.path.parent}: {error.strerror}") from error
        self._file.check()
        if key is not None:
            self._remove_snapshots()  # one from before there was a key

    @property
    def snapshot_path(self) -> Path | None:
        """Where a snapshot of the vector index may be written: beside the file, or nowhere if it is encrypted."""
        return None if self._keyring is not None else Path(f"{self.path}.index")

    def _remove_snapshots(self) -> None:
        name = glob.escape(f"{self.path.name}.index")
        for path in (*self.path.parent.glob(name), *self.path.parent.glob(f".{name}.*.tmp")):
            path.unlink(missing_ok=True)

    def _tell_damage(self, message: str) -> None:
        self.on_event(Event("store_error", message))

    # Reading ------------------------------------------------------------------------------------------------------

    def _load(self, id: int) -> Stored | None:
        with self._file.connection() as connection:
            row: Stored | None = connection.db.execute(_GET, (id,)).fetchone()
        return row

    def _load_many(self, ids: Sequence[int]) -> list[Stored | None]:
        with self._file.connection() as connection:
            found = {
                id: (own, shared)
                for chunk in _chunks(ids)
                for id, own, shared in connection.db.execute(
                    f"SELECT id, entries.data, heads.data {_JOINED} WHERE id IN ({_marks(chunk)})", chunk
                )
            }
        return [found.get(id) for id in ids]

    def scopes(self, limit: int = 1000) -> dict[int, int]:
        with self._file.connection() as connection:
            rows = connection.db.execute(
                f"SELECT scope_id, count(*) {_JOINED} GROUP BY scope_id ORDER BY 2 DESC LIMIT ?", (limit,)
            )
            return dict(rows)

    def stats(self) -> StoreStats:
        with self._file.connection() as connection:
            entries, size = connection.db.execute("SELECT entries, bytes FROM meta").fetchone()
        return StoreStats("sqlite", str(self.path), entries, size)

    # Writing ------------------------------------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        parts = encode(entry)
        id, own, head = entry.key.id, self._seal(entry.key.id, parts.own), self._head(entry, parts.shared)
        if self._max_bytes is not None and len(own) + len(head[-1]) > self._max_bytes:
            return
        tags = [self._name("tag", tag) for tag in entry.tags]
        with self._file.writing() as connection:
            db = connection.db
            seq = _now(db) + 1
            db.execute("DELETE FROM entries WHERE id = ?", (id,))
            db.execute(_PUT_HEAD, head)
            db.execute(_PUT, (seq, id, head[0], entry.expires_at, own))
            if tags:
                db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(tag, seq) for tag in tags])
            self._shrink(db)

    def _head(self, entry: Entry, shared: bytes) -> _Head:
        embedder = 0 if entry.vector is None else _feed.embedder_number(entry.fingerprint)
        secret = b"" if self._keyring is None else self._keyring.number_key
        number = hashlib.blake2b(embedder.to_bytes(8, "little") + shared, digest_size=8, key=secret).digest()
        namespace = self._name("namespace", entry.namespace)
        tenant = None if entry.tenant is None else self._name("tenant", entry.tenant)
        data = self._seal(SHARED_SLOT, shared)
        return int.from_bytes(number, "little") >> 1, entry.key.scope_id, namespace, tenant, embedder, data

    def _shrink(self, db: sqlite3.Connection) -> None:
        expired = "SELECT seq FROM entries WHERE expires_at <= ? LIMIT ?"
        _remove(db, [seq for (seq,) in db.execute(expired, (time.time() - self.keep_expired_s, _STEP))])
        for _ in range(_STEP):
            if self._fits(*db.execute("SELECT entries, bytes FROM meta").fetchone()):
                break
            _remove(db, db.execute("SELECT min(seq) FROM entries").fetchone())

    def _fits(self, entries: int, size: int) -> bool:
        return (self._max_entries is None or entries <= self._max_entries) and (
            self._max_bytes is None or size <= self._max_bytes
        )

    def delete(self, selector: Selector) -> int:
        selector.check()
        return self._remove_in_steps([seq for seq, _ in self._chosen(selector)])

    def _chosen(self, selector: Selector) -> list[tuple[int, int]]:
        """Number and id of the entries that a selector means."""
        parts = [None] if selector.ids is None else list(_chunks(selector.ids))
        queries = [_query(one._replace(ids=ids)) for one in self._selectors(selector) for ids in parts]
        with self._file.connection() as connection:
            return [row for query in queries for row in connection.db.execute(*query)]

    def erase(self, selector: Selector) -> int:
        """As :meth:`delete`; then the file is written anew without free pages, and what lies beside it is removed:
        the log, snapshots of the index, and damaged files that were set aside.

        Raises:
            StoreError: Another process held on to the file, and old pages may be left; try again.
        """
        selector.check()
        chosen = self._chosen(selector)
        count = self._remove_in_steps([seq for seq, _ in chosen])
        with self._file.writing() as connection:
            gone = [(id, id) for _, id in chosen]
            connection.db.executemany("DELETE FROM wrong_pairs WHERE a = ? OR b = ?", gone)
            for (head,) in connection.db.execute("SELECT data FROM heads").fetchall():
                self._tell_if_locked(SHARED_SLOT, head)
        self._remove_snapshots()
        self._file.scrub()
        return count

    def _forget(self, ids: Sequence[int]) -> int:
        return self.delete(Selector(ids=tuple(ids)))

    def _remove_in_steps(self, seqs: Sequence[int]) -> int:
        count = 0
        for chunk in _chunks(seqs):
            with self._file.writing() as connection:
                count += _remove(connection.db, chunk)
        return count

    def mark_wrong(self, a: int, b: int) -> None:
        with self._file.writing() as connection:
            db = connection.db
            seq = _now(db) + 1
            db.execute("INSERT OR REPLACE INTO wrong_pairs VALUES (?, ?, ?)", (seq, min(a, b), max(a, b)))
            db.execute(
                "DELETE FROM wrong_pairs WHERE seq <= (SELECT seq FROM wrong_pairs ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (_feed.MAX_WRONG_PAIRS,),
            )

    # Feed and counters --------------------------------------------------------------------------------------------

    def changes(self, cursor: str | None, *, fingerprint: str, limit: int = 1000) -> Changes | None:
        with self._file.connection() as connection:
            if connection.quiet == (cursor, fingerprint, *_state(connection)):
                return None
        with self._file.reading() as connection:
            db = connection.db
            state = _state(connection)
            now = _now(db)
            at, reset = _feed.resume(cursor, store_id=connection.store_id, now=now)
            embedder = _feed.embedder_number(fingerprint)
            rows = db.execute(_PAGE, (at.position, embedder, time.time(), limit)).fetchall()
            more = len(rows) == limit and rows[-1][0] < now
            upto = rows[-1][0] if more else now
            removed = db.execute(_REMOVED, {"after": at.removals_from, "upto": upto, "embedder": embedder})
            gone = [id for (id,) in removed]
            pairs = db.execute(_WRONG, (at.position, upto)).fetchall()
            if not more:
                connection.quiet = (str(at._replace(position=upto)), fingerprint, *state)
        return _feed.page(
            self._vectors(rows),
            removed=gone,
            wrong_pairs=pairs,
            cursor=str(at._replace(position=upto)),
            more=more,
            reset=reset,
            first=cursor is None,
        )

    def _vectors(self, rows: Iterable[tuple[int, int, bytes, bytes]]) -> list[tuple[int, int, bytes]]:
        entries = ((id, self._read(id, (own, shared))) for _, id, own, shared in rows)
        return [(id, entry.key.scope_id, pack_vector(entry.vector)) for id, entry in entries if entry is not None]

    def add_counters(self, deltas: Mapping[str, int], *, once: str | None = None) -> None:
        # What raises here has been rolled back, so there is nothing to remember for ``once``.
        with self._file.writing() as connection:
            connection.db.executemany(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                deltas.items(),
            )

    def counters(self, prefix: str = "") -> dict[str, int]:
        with self._file.connection() as connection:
            rows = connection.db.execute(_COUNTERS, (prefix,))
            return dict(rows)

    def drop_counters(self, names: Sequence[str]) -> None:
        if not names:
            return  # a transaction would have every follower of the feed look again
        with self._file.writing() as connection:
            connection.db.executemany("DELETE FROM counters WHERE name = ?", ((name,) for name in names))

    # Life ---------------------------------------------------------------------------------------------------------

    def ping(self) -> None:
        self.stats()

    def close(self) -> None:
        self._file.close()


def _now(db: sqlite3.Connection) -> int:
    (now,) = db.execute("SELECT now FROM clock").fetchone()
    assert isinstance(now, int)
    return now


def _state(connection: Connection) -> tuple[int, int]:
    """Differs whenever anything was written, by this connection or another."""
    (version,) = connection.db.execute("PRAGMA data_version").fetchone()
    return version, connection.commits


def _remove(db: sqlite3.Connection, seqs: Sequence[int]) -> int:
    """Remove entries by number within a transaction, leaving word for the feed."""
    if not seqs:
        return 0
    rows = db.execute(f"SELECT id FROM entries WHERE seq IN ({_marks(seqs)})", seqs).fetchall()
    now = _now(db)
    db.executemany("INSERT INTO removals VALUES (?, ?)", [(now + i, id) for i, (id,) in enumerate(rows, 1)])
    db.execute(f"DELETE FROM entries WHERE seq IN ({_marks(seqs)})", seqs)
    db.execute("DELETE FROM removals WHERE seq < ?", (now - _feed.HISTORY,))
    return len(rows)


def _query(selector: Selector) -> tuple[str, list[object]]:
    parts: list[str] = []
    values: list[object] = []
    if selector.ids is not None:
        parts.append(f"id IN ({_marks(selector.ids)})")
        values += selector.ids
    if selector.tag is not None:
        parts.append("seq IN (SELECT seq FROM tags WHERE tag = ?)")
        values.append(selector.tag)
    of_head = {column: getattr(selector, column) for column in ("scope_id", "namespace", "tenant")}
    if asked := {column: value for column, value in of_head.items() if value is not None}:
        parts.append(f"head IN (SELECT head FROM heads WHERE {' AND '.join(f'{column} = ?' for column in asked)})")
        values += asked.values()
    return f"SELECT seq, id FROM entries WHERE {' AND '.join(parts) or 'TRUE'}", values


def _chunks(values: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return (tuple(values[at : at + _CHUNK]) for at in range(0, len(values), _CHUNK))


def _marks(values: Sequence[int]) -> str:
    return ",".join("?" * len(values))


def _absolute(path: str | os.PathLike[str] | None) -> Path:
    if path is None:
        from platformdirs import user_data_path

        path = user_data_path("semcache", appauthor=False) / "semcache.db"
    return Path(path).expanduser().absolute()
