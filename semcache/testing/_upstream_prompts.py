"""The local provider's prompt cache: Anthropic's cache points, OpenAI's breakpoints and its automatic caching.

A prefix is what comes before a cache point, without marks. It is kept for the lifetime of its mark from its last
use. Rules as in the providers' pages (read 2026-10), but that the minimum is 1,024 tokens for every model, and that
nothing is dropped early.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from semcache.testing._upstream_model import Cached, Json, pieces

MINIMUM = 1024
LOOKBACK = 20
"""Blocks before a cache point in which an earlier prefix is still found."""

_SECONDS = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "12h": 43_200.0}
_MARKS = ("cache_control", "prompt_cache_breakpoint")


class _Place(NamedTuple):
    """The end of a block: hash and tokens of everything up to it, and the lifetime of a mark on it."""

    prefix: str
    tokens: int
    ttl: str | None


class Prompts:
    """What the provider keeps. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, float]] = {}  # prefix -> until, lifetime

    def forget(self) -> None:
        """Drop everything, as a provider may at any time."""
        with self._lock:
            self._kept.clear()

    def use(self, body: Json, *, marks: bool) -> Cached:
        """Read and write what one request asks for.

        Args:
            marks: Anthropic's rules: without a cache point nothing is read. Else OpenAI's.
        """
        chain = list(_chain(body))
        if not chain:
            return Cached()
        if not marks and (body.get("prompt_cache_options") or {}).get("mode") != "explicit":
            chain[-1] = chain[-1]._replace(ttl=chain[-1].ttl or "30m")
        points = [i for i, place in enumerate(chain) if place.ttl is not None and place.tokens >= MINIMUM]
        now = time.time()
        with self._lock:
            found = max((self._found(chain, i, now, LOOKBACK if marks else i) for i in points), default=-1)
            read = chain[found].tokens if found >= 0 else 0
            written, covered = [], read
            for i in points:
                prefix, tokens, ttl = chain[i]
                assert ttl is not None
                self._kept[prefix] = now + _SECONDS[ttl], _SECONDS[ttl]
                if i > found:
                    written.append((ttl, tokens - covered))
                    covered = tokens
        # Earlier models of OpenAI write for nothing, and do not tell.
        return Cached(read, tuple(written) if marks or body["model"].startswith("gpt-6") else ())

    def _found(self, chain: list[_Place], point: int, now: float, lookback: int) -> int:
        for i in range(point, max(point - lookback, 0) - 1, -1):
            until, lifetime = self._kept.get(chain[i].prefix, (0.0, 0.0))
            if until > now:
                self._kept[chain[i].prefix] = now + lifetime, lifetime
                return i
        return -1


def _chain(body: Json) -> Iterator[_Place]:
    digest = hashlib.sha256(json.dumps([body["model"], body.get("prompt_cache_key")]).encode())
    tokens = 0
    for block in _blocks(body):
        plain = json.dumps({name: value for name, value in block.items() if name not in _MARKS})
        digest.update(plain.encode() + b"\n")
        tokens += len(pieces(plain))
        mark: Any = next((block[name] for name in _MARKS if block.get(name)), None)
        default = "30m" if "prompt_cache_breakpoint" in block else "5m"
        yield _Place(digest.hexdigest(), tokens, None if mark is None else mark.get("ttl", default))


def _blocks(body: Json) -> Iterator[Json]:
    """Every part of a prompt in its order. A string is the text block that it stands for."""
    yield from body.get("tools") or []
    yield from _parts("system", body.get("system"))
    yield from _parts("system", body.get("instructions"))
    for message in body.get("messages") or _items(body.get("input")):
        rest = {name: value for name, value in message.items() if name != "content"}
        for part in _parts(str(message.get("role")), message.get("content")):
            yield {**rest, **part}


def _items(given: Any) -> list[Json]:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given or []


def _parts(role: str, content: Any) -> list[Json]:
    if content is None:
        return []
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [{"in": role, **block, "type": str(block.get("type")).removeprefix("input_")} for block in blocks]
