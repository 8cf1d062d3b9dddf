"""What is asked of the functions that a user hands over."""

from __future__ import annotations

import inspect

from semcache.errors import ConfigurationError


def must_not_await(role: str, function: object) -> None:
    """Refuse a coroutine function. It would be called on a thread, and what came back would be no answer.

    Raises:
        ConfigurationError: It is one, or an object whose call is.
    """
    if any(map(inspect.iscoroutinefunction, (function, getattr(type(function), "__call__", None)))):  # noqa: B004
        raise ConfigurationError(f"{role} is called on a thread and must be a plain function, not a coroutine function")
