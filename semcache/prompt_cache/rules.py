"""A provider's prompt-cache rules for one model, read from dated data (``semcache/data/providers.json``)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from semcache.errors import ConfigurationError
from semcache.money.prices import plain_name

SECONDS: Final[Mapping[str, int]] = {"5m": 300, "30m": 1800, "1h": 3600, "12h": 43_200}
"""Lifetime of a cache point in seconds, counted from the start of the request that wrote or last read it."""


class Write(NamedTuple):
    """One lifetime on offer. ``multiple``: price of a written token, in plain input tokens."""

    ttl: str
    multiple: float


class Rules(NamedTuple):
    """What a provider's prompt cache does for one model over one wire format.

    Args:
        vendor: Name in the data file.
        style: How marks are written: ``cache_control``, ``cache_point``, ``breakpoints``, ``key`` or ``salt``.
        points: Most cache points in one request.
        minimum: Shortest prefix that is cached, in tokens. A mark on a shorter one is silently ignored.
        read: Price of a cached token, in plain input tokens.
        writes: Lifetimes on offer, shortest first; empty where the provider needs no marks.
        longest_first: Whether a longer lifetime must not come after a shorter one in the prompt.
    """

    vendor: str
    style: str
    points: int
    minimum: int
    read: float
    writes: tuple[Write, ...]
    longest_first: bool


class LiteLLMProvider(NamedTuple):
    """A provider of LiteLLM that gets marks as they are given to LiteLLM.

    Args:
        vendor: Who answers where no base URL is given.
        api: The wire format that LiteLLM's arguments are like in their marks.
    """

    vendor: str
    api: str


def litellm_provider(name: str) -> LiteLLMProvider | None:
    """What is known of one of LiteLLM's providers."""
    found = _file()["litellm"].get(name)
    return None if found is None else LiteLLMProvider(**found)


def find_rules(api: str, upstream: str, model: str | None, *, vendor: str | None = None) -> Rules | None:
    """The rules that hold for a request, or ``None``: then the body must get no vendor fields.

    Args:
        api: Name of the wire format (``Codec.name``).
        upstream: URL of who answers, or a bare host name. Only a vendor's own host is known; a compatible server
            may refuse fields that it has never heard of.
        model: As the caller gave it: a route, a region or a release date in it does not matter.
        vendor: The user's word on who answers, where the host does not tell (vLLM, a gateway).

    Raises:
        ConfigurationError: ``vendor`` is not in the data file.
    """
    return _find(api, _host(upstream), plain_name(model or ""), checked_vendor(vendor))


def checked_vendor(vendor: str | None) -> str | None:
    """``vendor``, if it is in the data file.

    Raises:
        ConfigurationError: It is not.
    """
    if vendor is not None and vendor not in _file()["vendors"]:
        raise ConfigurationError(f"unknown vendor {vendor!r}; known: {', '.join(sorted(_file()['vendors']))}")
    return vendor


def refusals() -> tuple[str, ...]:
    """What providers say when they refuse cache points without naming the field."""
    return tuple(_file()["refusals"])


def as_of() -> str:
    """The day, ISO 8601, on which the data file was checked."""
    return str(_file()["as_of"])


@lru_cache(maxsize=1024)
def _find(api: str, host: str, model: str, vendor: str | None) -> Rules | None:
    vendors: Mapping[str, Any] = _file()["vendors"]
    name = vendor or next((v for v, row in vendors.items() if any(fnmatchcase(host, h) for h in row["hosts"])), None)
    if name is None or api not in vendors[name]["apis"]:
        return None
    row, wire = vendors[name], vendors[name]["apis"][api]
    inherited = vendors[row["inherit"]]["models"] if "inherit" in row else ()
    models = (*row.get("models", ()), *inherited)
    found = next((m for m in models if re.fullmatch(m["pattern"], model)), None)
    if found is None or found["writes"] is None:
        return None
    writes = tuple(Write(ttl, found["writes"][ttl]) for ttl in wire["ttls"] if ttl in found["writes"])
    style = wire["style"] if writes or wire["style"] != "breakpoints" else "key"
    return Rules(name, style, row["points"], found["minimum"], found["read"], writes, wire.get("longest_first", False))


def _host(upstream: str) -> str:
    try:
        host = urlsplit(upstream if "//" in upstream else f"//{upstream}").hostname
    except ValueError:
        return ""
    return host or ""


@cache
def _file() -> dict[str, Any]:
    text = resources.files("semcache").joinpath("data/providers.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
