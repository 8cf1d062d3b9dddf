"""Options of the calls inside a ``with`` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace

from semcache.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may say about single calls. Unset fields leave the cache's own settings in force.

    Args:
        namespace: A part of the cache with its own policy; never shares answers with another namespace.
        tenant: Whose data this is; never shares answers with another tenant.
        ttl: Seconds that an answer stored now may be served.
        tags: Labels of an answer stored now, for ``invalidate(tag=…)``.
        bypass: Neither look up nor store.
        refresh: Do not look up, but store the new answer.
        min_similarity: Cosine that a semantic hit needs. It only raises the policy's bar.
    """

    namespace: str | None = None
    tenant: str | None = None
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    bypass: bool = False
    refresh: bool = False
    min_similarity: float | None = None

    def __post_init__(self) -> None:
        if self.ttl is not None and not self.ttl > 0:
            raise ConfigurationError(f"ttl must be more than 0 seconds, not {self.ttl!r}")
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise ConfigurationError(f"min_similarity is a cosine in [-1, 1], not {self.min_similarity!r}")
        if isinstance(self.tags, str):
            raise ConfigurationError(f"tags is a sequence of strings, not the string {self.tags!r}")
        for name in ("namespace", "tenant"):
            if getattr(self, name) == "":
                raise ConfigurationError(f"{name} must not be empty; leave it out instead")

    def inside(self, outer: Options) -> Options:
        """These options within ``outer``: set fields win, tags add up, and the higher bar holds."""
        unset = {f.name: getattr(outer, f.name) for f in fields(self) if getattr(self, f.name) == f.default}
        merged = replace(self, **unset)
        bars = [o.min_similarity for o in (self, outer) if o.min_similarity is not None]
        return replace(
            merged,
            tags=tuple(dict.fromkeys((*outer.tags, *self.tags))),
            min_similarity=max(bars, default=None),
        )


_options: ContextVar[Options | None] = ContextVar("semcache_options", default=None)


def current_options() -> Options | None:
    """The options in force in this thread or task."""
    return _options.get()


@contextmanager
def options_in_force(options: Options) -> Iterator[None]:
    outer = _options.get()
    token = _options.set(options if outer is None else options.inside(outer))
    try:
        yield
    finally:
        _options.reset(token)
