"""Options of the calls inside a ``with`` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from semcache.errors import ConfigurationError

USER_TAG: Final = "user:"
"""What the tag of a user's entries begins with."""

Share = Literal["user", "tenant"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may say about single calls. Unset fields leave the cache's own settings in force.

    Args:
        namespace: A part of the cache with its own policy; never shares answers with another namespace.
        category: Of the question, by which the policy may have rules of its own. No scope: answers are shared.
        tenant: Whose data this is; never shares answers with another tenant.
        user: Who of the tenant asks. Answers stored for a user serve that user only, unless ``share`` says otherwise.
            Entries get the tag ``user:<user>``.
        share: ``"tenant"``: the answers of a user serve the whole tenant, and the tenant's serve the user. By default
            ``"user"`` where a user is named.
        ttl: Seconds that an answer stored now may be served.
        tags: Labels of an answer stored now, for ``invalidate(tag=…)``.
        bypass: Neither look up nor store.
        refresh: Do not look up, but store the new answer.
        min_similarity: Cosine that a semantic hit needs. It only raises the policy's bar.
    """

    namespace: str | None = None
    category: str | None = None
    tenant: str | None = None
    user: str | None = None
    share: Share | None = None
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
        if not all(isinstance(tag, str) for tag in self.tags):
            raise ConfigurationError(f"tags is a sequence of strings, not {self.tags!r}")
        if self.share not in (None, "user", "tenant"):
            raise ConfigurationError(f'share is "user" or "tenant", not {self.share!r}')
        for name in ("namespace", "category", "tenant", "user"):
            value = getattr(self, name)
            if value == "":
                raise ConfigurationError(f"{name} must not be empty; leave it out instead")
            if value is not None and not isinstance(value, str):  # 7 and "7" would be two tenants, or one, by the store
                raise ConfigurationError(f"{name} must be a string, not {value!r}")

    def inside(self, outer: Options) -> Options:
        """These options within ``outer``: set fields win, tags add up, and the higher bar holds.

        What ``outer`` shares of its user is not said of another user.
        """
        if self.user is not None and self.share is None:
            outer = replace(outer, share=None)
        unset = {f.name: getattr(outer, f.name) for f in fields(self) if getattr(self, f.name) == f.default}
        merged = replace(self, **unset)
        bars = [o.min_similarity for o in (self, outer) if o.min_similarity is not None]
        return replace(
            merged,
            tags=tuple(dict.fromkeys((*outer.tags, *self.tags))),
            min_similarity=max(bars, default=None),
        )

    @property
    def private_to(self) -> str | None:
        """The user that is part of the scope, if one is."""
        return None if self.share == "tenant" else self.user


_options: ContextVar[Options | None] = ContextVar("semcache_options", default=None)


def current_options() -> Options | None:
    """The options in force in this thread or task."""
    return _options.get()


@contextmanager
def options_in_force(options: Options) -> Iterator[None]:
    """Put options in force for this thread or task, on top of those that are already.

    Raises:
        ConfigurationError: ``share="user"`` where no user is known.
    """
    outer = _options.get()
    options = options if outer is None else options.inside(outer)
    if options.share == "user" and options.user is None:
        raise ConfigurationError('share="user" needs to know the user')
    token = _options.set(options)
    try:
        yield
    finally:
        _options.reset(token)
