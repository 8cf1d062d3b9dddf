"""instructor: its retries stay its own, and an answer that its model refuses is not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from semcache.errors import CacheTrouble, ConfigurationError
from semcache.served import last_outcome
from semcache.stores.base import Selector
from semcache.types import Event

if TYPE_CHECKING:
    from semcache.engine import Engine

C = TypeVar("C")

_BUILDERS: Final = {"openai": "from_openai", "anthropic": "from_anthropic"}
"""How an instructor client over an SDK's client is built, by the SDK."""


def wrap_instructor(client: C, engine: Engine, *, upstream: str | None = None) -> C:
    """An instructor client over the wrapped SDK client, in the same mode and with the same hooks.

    An answer that fails the response model's validation is dropped from the cache. instructor then asks again, with the
    error: that is another request, with an answer of its own. If the refused answer were kept, the first question
    would be answered with it for as long as it lives.

    Args:
        upstream: See :func:`semcache.clients.http.wrap_client`.

    Raises:
        ConfigurationError: instructor did not build ``client`` over an OpenAI or Anthropic client.
    """
    import instructor

    from semcache.clients.http import wrap_client

    given: Any = client
    inner = getattr(given, "client", None)
    provider = getattr(getattr(given, "provider", None), "value", None)
    if not isinstance(client, instructor.Instructor) or inner is None or provider not in _BUILDERS:
        raise ConfigurationError(
            f"cannot wrap this {type(client).__qualname__}: wrap what it is built from, as in "
            "instructor.from_openai(cache.wrap(client))"
        )
    build = getattr(instructor, _BUILDERS[provider])
    wrapped: Any = build(wrap_client(inner, engine, upstream=upstream), mode=given.mode, **given.kwargs)
    wrapped.hooks = given.hooks.copy()
    wrapped.default_model = given.default_model
    wrapped.on("parse:error", lambda error, **_: _drop_refused(engine))
    result: C = wrapped
    return result


def _drop_refused(engine: Engine) -> None:
    """Evict the answer of the call that has just been made in this thread or task, if one is kept."""
    outcome = last_outcome()
    if outcome is None or outcome.entry_id is None:
        return
    try:
        engine.store.delete(Selector(ids=(outcome.entry_id,)))
        if engine.semantic is not None:
            engine.semantic.remove([outcome.entry_id])
    except CacheTrouble as error:
        engine.emit(Event("store_error", f"a refused answer could not be dropped: {error}", error))
