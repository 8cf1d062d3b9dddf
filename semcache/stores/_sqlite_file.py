"""One SQLite file that many threads and processes share: connections, schema, fork and damage."""

from __future__ import annotations

import contextlib
import glob
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from semcache._fork import hold_over_fork
from semcache.errors import ConfigurationError, StoreError

SCHEMA_VERSION: Final = 2
APPLICATION_ID: Final = 0x73636368
CREATE_WAIT_S: Final = 5.0
SCRUB_WAIT_S: Final = 30.0

# With entries of 1 to 5 kB, smaller pages cost reads (1 kB: 19 us against 15) and larger ones space (8 kB: 0.8 kB more
# an entry) without quicker reads of what is in use (10 us for all).
_PAGE_BYTES: Final = 2048
_PRAGMAS: Final = (
    "synchronous = NORMAL",
    "foreign_keys = ON",
    "wal_autocheckpoint = 20000",  # pages, 40 MB: rare checkpoints keep puts quick
    "journal_size_limit = 67108864",
)

# Entries are appended, so that pages are full and the oldest come first; `id` finds them. What the entries of a scope
# share is written once, as a head, and goes with the last of them. Puts, removals and wrong pairs are numbered from one
# clock, which is why a newest row may only go after a newer one is there.
_SCHEMA: Final = """
CREATE TABLE meta (store_id TEXT NOT NULL, entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE heads (
    head INTEGER PRIMARY KEY,
    scope_id INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    tenant TEXT,
    embedder INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX heads_by_scope ON heads (scope_id, namespace, tenant);
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY,
    id INTEGER NOT NULL UNIQUE,
    head INTEGER NOT NULL REFERENCES heads,
    expires_at REAL,
    data BLOB NOT NULL
);
CREATE INDEX entries_by_head ON entries (head);
CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE tags (
    tag TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
    PRIMARY KEY (tag, seq)
) WITHOUT ROWID;
CREATE INDEX tags_by_entry ON tags (seq);
CREATE TABLE removals (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL);
CREATE TABLE wrong_pairs (seq INTEGER PRIMARY KEY, a INTEGER NOT NULL, b INTEGER NOT NULL, UNIQUE (a, b));
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIEW clock AS SELECT max(
    ifnull((SELECT max(seq) FROM entries), 0),
    ifnull((SELECT max(seq) FROM removals), 0),
    ifnull((SELECT max(seq) FROM wrong_pairs), 0)
) AS now;
CREATE TRIGGER count_up AFTER INSERT ON entries BEGIN
    UPDATE meta SET entries = entries + 1, bytes = bytes + length(new.data);
END;
CREATE TRIGGER count_down AFTER DELETE ON entries BEGIN
    UPDATE meta SET entries = entries - 1, bytes = bytes - length(old.data);
    DELETE FROM heads WHERE head = old.head AND NOT EXISTS (SELECT 1 FROM entries WHERE head = old.head);
END;
CREATE TRIGGER head_up AFTER INSERT ON heads BEGIN
    UPDATE meta SET bytes = bytes + length(new.data);
END;
CREATE TRIGGER head_down AFTER DELETE ON heads BEGIN
    UPDATE meta SET bytes = bytes - length(old.data);
END;
"""


class Connection:
    """One SQLite connection, used by one thread at a time.

    Attributes:
        store_id: Name of the store in the file; another file has another.
        commits: How many transactions were written through it: the only ones its ``data_version`` does not show.
        quiet: A feed position with the state of the file in which nothing came after it.
    """

    def __init__(self, path: Path, *, wait_s: float) -> None:
        self.lock = threading.Lock()
        self.commits = 0
        self.quiet: object = None
        self.usable = True
        _make_file(path)
        self.db = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
        try:
            if not _is_ready(self.db, path):
                _create(self.db, path)
            for pragma in _PRAGMAS:
                self.db.execute(f"PRAGMA {pragma}")
            self.db.execute(f"PRAGMA busy_timeout = {max(1, round(wait_s * 1000))}")
            self.inode = _inode(path)
            (self.store_id,) = self.db.execute("SELECT store_id FROM meta").fetchone()
        except BaseException:
            self.db.close()
            raise

    def close(self) -> None:
        self.usable = False
        self.db.close()


class Database:
    """Connections to one file.

    SQLite keeps its file locks per process and its book-keeping per file, so a child of ``fork`` that opens the
    file while inherited connections exist believes to hold locks that only its parent holds, and the parent may
    delete the log under it (https://www.sqlite.org/howtocorrupt.html, 2.6). Hence every connection is closed before
    a fork and opened again on use.

    A file that SQLite finds damaged is moved aside and a new one is started: a cache must not become the outage.

    Args:
        path: The file; made with mode 0600 if it is not there.
        wait_s: How long to wait for another writer.
        on_damage: Told, in words, when a file was moved aside.
    """

    def __init__(self, path: Path, *, wait_s: float, on_damage: Callable[[str], None]) -> None:
        self._path = path
        self._wait_s = wait_s
        self._on_damage = on_damage
        self._gate = threading.Lock()  # connections are opened, and closed all at once, behind it
        self._writer = threading.Lock()  # SQLite polls for its lock; threads of one process can queue instead
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._closed = False
        hold_over_fork(self)

    def check(self) -> None:
        """Open the file for the first time. Trouble that may pass is left to the first use.

        Raises:
            ConfigurationError: The file cannot be opened or is not a store of this version.
        """
        try:
            self._idle.append(self._open())
        except OSError as error:
            raise ConfigurationError(f"cannot open {self._path}: {error.strerror}") from error
        except StoreError:
            pass
        except sqlite3.Error as error:
            if "unable to open" in str(error):
                raise ConfigurationError(f"cannot open {self._path}: it is no file, or not yours") from error

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for this thread alone.

        Raises:
            StoreError: In place of whatever goes wrong with the file, here and in the body.
        """
        connection = self._acquire()
        try:
            try:
                yield connection
            finally:
                connection.lock.release()
                self._idle.append(connection)
        except sqlite3.Error as error:
            if _is_damage(error):
                with self._gate:
                    moved = self._set_aside(connection.inode)
                self._tell(moved)
            raise StoreError(f"{self._path}: {error}") from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the file throughout."""
        with self.connection() as connection:
            connection.db.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.db.rollback()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection whose changes are written together at the end, or not at all."""
        with self.connection() as connection:
            if not self._writer.acquire(timeout=self._wait_s):
                raise StoreError(f"{self._path}: other threads have been writing for {self._wait_s} s")
            try:
                connection.db.execute("BEGIN IMMEDIATE")
                yield connection
                connection.db.execute("COMMIT")
                connection.commits += 1
            finally:
                if connection.db.in_transaction:
                    connection.db.rollback()
                self._writer.release()

    def scrub(self) -> None:
        """Leave nothing that was deleted: no free pages, an empty log, no damaged files set aside.

        Raises:
            StoreError: Others read or wrote the file all the while.
        """
        for aside in self._path.parent.glob(f"{glob.escape(self._path.name)}.damaged-*"):
            aside.unlink(missing_ok=True)
        with self.connection() as connection:
            db = connection.db
            db.execute(f"PRAGMA busy_timeout = {round(SCRUB_WAIT_S * 1000)}")
            try:
                db.execute("VACUUM")
                connection.commits += 1
                (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                db.execute(f"PRAGMA busy_timeout = {max(1, round(self._wait_s * 1000))}")
        if busy:
            raise StoreError(f"{self._path}: in use, the log could not be emptied")

    def _acquire(self) -> Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                try:
                    connection = self._open()
                # A ConfigurationError is too late to tell whoever chose the file.
                except (sqlite3.Error, OSError, ConfigurationError) as error:
                    raise StoreError(f"{self._path}: {error}") from error
            connection.lock.acquire()
            if connection.usable:
                return connection
            connection.lock.release()

    def _open(self) -> Connection:
        moved = None
        with self._gate:
            if self._closed:
                raise StoreError(f"{self._path}: the store is closed")
            try:
                connection = Connection(self._path, wait_s=self._wait_s)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                moved = self._set_aside(_inode(self._path))
                connection = Connection(self._path, wait_s=self._wait_s)
            self._all.add(connection)
        self._tell(moved)
        return connection

    def _set_aside(self, inode: int | None) -> Path | None:
        """Move the damaged file away, unless another process has done so and the path names a new one."""
        self._close_all()
        try:
            with _exclusive(self._path.parent):
                if inode is None or _inode(self._path) != inode:
                    return None
                aside = f"{self._path}.damaged-{time.strftime('%Y%m%dT%H%M%S')}"
                # The log first: a new file must never meet an old log.
                for suffix in ("-wal", "-shm", ""):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(f"{self._path}{suffix}", f"{aside}{suffix}")
                _make_file(self._path)
        except OSError as error:
            raise StoreError(f"{self._path} is damaged and cannot be moved: {error}") from error
        return Path(aside)

    def _tell(self, moved: Path | None) -> None:
        if moved is not None:
            self._on_damage(f"{self._path} was damaged: moved to {moved.name}, and a new store was started")

    def _close_all(self) -> None:
        for connection in self._all:
            # A damaged file may fail even here.
            with connection.lock, contextlib.suppress(sqlite3.Error):
                connection.close()
        self._all.clear()
        self._idle.clear()

    def close(self) -> None:
        """Write the log back into the file and let go of it. Calls after this raise StoreError."""
        with contextlib.suppress(StoreError), self.connection() as connection:
            connection.db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        with self._gate:
            self._closed = True
            self._close_all()

    def before_fork(self) -> None:
        self._gate.acquire()
        self._close_all()

    def after_fork(self) -> None:
        self._gate.release()


def _create(db: sqlite3.Connection, path: Path) -> None:
    """Make a store of an empty file, unless another process is quicker."""
    db.execute(f"PRAGMA busy_timeout = {round(CREATE_WAIT_S * 1000)}")
    db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    _switch_to_wal(db)
    db.execute("BEGIN IMMEDIATE")
    if not _is_ready(db, path):
        for statement in _statements(_SCHEMA):
            db.execute(statement)
        db.execute("INSERT INTO meta VALUES (?, 0, 0)", (uuid.uuid4().hex,))
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _is_ready(db: sqlite3.Connection, path: Path) -> bool:
    # In this order: another process may make the store, in one transaction, between two of these.
    if db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        return False
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise ConfigurationError(f"{path} is a database of another program: name another file")
    if version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path} is a store of format {version}, and this version reads format {SCHEMA_VERSION}: "
            "delete the file (it is only a cache) or name another"
        )
    return True


def _switch_to_wal(db: sqlite3.Connection) -> None:
    """Turn on the write-ahead log; SQLite does not wait by itself when two processes do so at once."""
    give_up_at = time.monotonic() + CREATE_WAIT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.005)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: ``executescript`` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _is_damage(error: sqlite3.Error) -> bool:
    # The codes of errors are not in Python 3.10.
    return "malformed" in str(error) or "not a database" in str(error)


def _make_file(path: Path) -> None:
    # Exclusively: opening and closing the file would drop the locks that other connections of this process hold.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes that would do the same to files of this folder waiting."""
    try:
        import fcntl
    except ImportError:  # not on Windows; there an open file cannot be moved anyway
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
