"""Where answers are kept: in this process, in one SQLite file, or in Redis."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from semcache.errors import ConfigurationError
from semcache.stores.base import DEFAULT_BUDGET_S, Changes, Selector, Store, StoreStats

if TYPE_CHECKING:
    from semcache.stores.memory import MemoryStore
    from semcache.stores.redis import RedisStore
    from semcache.stores.sealing import KeySource
    from semcache.stores.sqlite import SqliteStore

__all__ = [
    "Changes",
    "MemoryStore",
    "RedisStore",
    "Selector",
    "SqliteStore",
    "Store",
    "StoreStats",
    "open_store",
]

_HOME = {"MemoryStore": "memory", "RedisStore": "redis", "SqliteStore": "sqlite"}
_FORMS = (
    "a pathlib.Path, memory://, sqlite:// (the default file), sqlite:///absolute/path, redis://host:port/db, "
    "rediss://…, unix:///path/to/socket"
)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"semcache.stores.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_store(url: str | os.PathLike[str] | None = None, *, key: KeySource | None = None) -> Store:
    """The store that a URL names.

    Args:
        url: ``memory://``, ``sqlite://`` (the default file, and the default), ``sqlite:///absolute/path``, or what
            redis-py takes: ``redis://[user:password@]host[:port][/db]``, ``rediss://…``,
            ``unix:///path/to/socket?db=0``. All but memory take ``budget_s=seconds`` as an option, the Redis forms
            ``prefix=name`` too. A ``pathlib.Path`` is the path of an SQLite file.
        key: Encrypt what is kept, see :mod:`semcache.stores.sealing`; by default with the keys in the environment
            variable ``SEMCACHE_KEY``, if it is set. A store in memory is not encrypted.

    Raises:
        ConfigurationError: No such scheme, or what the store itself refuses.
    """
    key = os.environ.get("SEMCACHE_KEY") or None if key is None else key
    if isinstance(url, os.PathLike):
        from semcache.stores.sqlite import SqliteStore

        return SqliteStore(url, key=key)
    url = "sqlite://" if url is None else url
    if not isinstance(url, str):
        raise ConfigurationError(f"not a store: {url!r}; known forms are {_FORMS}")
    parts = urlsplit(url)
    if parts.scheme == "memory" and not parts.netloc and not parts.path:
        from semcache.stores.memory import MemoryStore

        return MemoryStore()
    if parts.scheme == "sqlite" and not parts.netloc:
        from semcache.stores.sqlite import SqliteStore

        budget = _budget(dict(parse_qsl(parts.query, keep_blank_values=True)), parts.scheme)
        return SqliteStore(_sqlite_path(parts), budget_s=budget, key=key)
    if parts.scheme in ("redis", "rediss", "unix"):
        from semcache.stores.redis import RedisStore

        where, _, query = url.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        prefix = options.pop("prefix", "semcache")
        budget = _budget(options, parts.scheme)
        return RedisStore(f"{where}?{urlencode(options)}", prefix=prefix, budget_s=budget, key=key)
    # Without what follows the scheme: there may be a password in it.
    named = f"{parts.scheme}://…" if parts.scheme else "a string without a scheme"
    raise ConfigurationError(f"not a store: {named}; known forms are {_FORMS}")


def _budget(options: dict[str, str], name: str) -> float:
    """Take the time budget out of a URL's options."""
    try:
        return float(options.pop("budget_s", DEFAULT_BUDGET_S))
    except ValueError:
        raise ConfigurationError(f"{name}: budget_s is a number of seconds") from None


def _sqlite_path(parts: SplitResult) -> str | None:
    # SQLAlchemy writes absolute paths with four slashes; both mean the same here.
    path = unquote(parts.path)
    return f"/{path.lstrip('/')}" if path.strip("/") else None
