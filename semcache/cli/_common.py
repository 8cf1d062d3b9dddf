"""What the commands share: options, an open store, safe text, tables."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import click

if TYPE_CHECKING:
    from rich.console import Console

    from semcache.stores.base import Store
    from semcache.types import Entry, Event, Request

F = TypeVar("F", bound=Callable[..., Any])

PLAIN_WIDTH: Final = 120
"""Columns of a table that goes to a file or a pipe."""


def store_option(function: F) -> F:
    """Add ``--store URL``."""
    return click.option(
        "--store",
        "store_url",
        metavar="URL",
        envvar="SEMCACHE_STORE",
        show_envvar=True,
        default="sqlite://",
        help="sqlite:///path or redis://host:port/db; by default the SQLite file in your data folder.",
    )(function)


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")(function)


def must_exist(url: str) -> None:
    """Refuse the URL of an SQLite file that is not there: opening it would make an empty one.

    Raises:
        ConfigurationError: It is not there.
    """
    from semcache.errors import ConfigurationError

    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme == "sqlite" and path.strip("/") and not os.path.exists(path):
        raise ConfigurationError(f"{url}: there is no such file; a cache makes it when it is first used")


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """The store at a URL, known to answer; closed in the end.

    Raises:
        ConfigurationError: The URL is wrong, or nothing is there.
        StoreError: It does not answer.
    """
    from semcache.stores import open_store

    must_exist(url)
    store = open_store(url)
    try:
        store.ping()
        yield store
    finally:
        store.close()


def asked_like(entry: Entry, text: str) -> tuple[Request, dict[str, Any]]:
    """The request that an entry answers with ``text`` as its last user text, and the options that it is made under.

    Raises:
        InputError: The entry is not of this version's format.
    """
    import orjson

    from semcache.errors import InputError
    from semcache.keys import FORMAT
    from semcache.types import Request

    if not entry.key.scope.startswith(FORMAT):
        raise InputError(f"entry {entry.key.id:#x} is of another format")
    fields = orjson.loads(entry.key.scope.removeprefix(FORMAT))
    options = {name: fields.get(name) for name in ("namespace", "tenant", "user")}
    return Request(fields["api"], fields["request"], text, model=entry.model), options


def warn(event: Event) -> None:
    """Say on stderr what went wrong in a part of the cache."""
    click.echo(f"Warning: {event.kind}: {safe(event.message)}", err=True)


def console(*, stderr: bool = False) -> Console:
    """A console that takes no markup from what it prints, since that comes from callers of the cache."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, markup=False, highlight=False, emoji=False, width=None if stream.isatty() else PLAIN_WIDTH
    )


def safe(text: str | None) -> str:
    """A text from outside, on one line and without characters that would steer a terminal."""
    if text is None:
        return "–"
    return "".join(char if char.isprintable() else " " for char in text)


def counted(entries: int) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{entries:,} {'entry' if entries == 1 else 'entries'}"


def print_json(value: Any) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def number(value: str) -> int:
    """An id, decimal or ``0x`` hexadecimal, as the commands print it."""
    try:
        found = int(value, 0)
    except ValueError:
        found = -1
    if found < 0:
        raise click.BadParameter(f"{value!r} is not an id; give it as explain prints it, like 0x1f3a")
    return found
