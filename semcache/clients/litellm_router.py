"""``litellm.Router``: deployments, fallbacks and retries stay the Router's; the cache is before its two calls."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from semcache.clients.litellm_answerers import FALLBACKS, Answerer, prompt_cache
from semcache.clients.litellm_calls import Edge, async_call, plain, sync_call
from semcache.clients.litellm_streams import READER
from semcache.wire.litellm_chat import question

if TYPE_CHECKING:
    from semcache.engine import Engine
    from semcache.types import Prompt

R = TypeVar("R")

# What decides, beside the deployments, which of them answers a group. litellm 1.106.2, 2026-11-21.
_ROUTES: Final = (*FALLBACKS, "default_fallbacks", "model_group_alias")
# They return a stream that hides LiteLLM's own reader, which alone knows whether the provider has finished. Where a
# version of LiteLLM has no such methods, no stream of a Router is stored.
_STREAM_ITERATORS: Final = ("_completion_streaming_iterator", "_acompletion_streaming_iterator")


def wrap_router(router: R, engine: Engine, *, upstream: str | None, vendor: str | None) -> R:
    """A Router that is ``router`` in all but ``completion`` and ``acompletion``, which ask the cache first.

    Both have one state (``__dict__``): deployments, cooldowns and settings of one are those of the other.

    Args:
        upstream: A stable label for who answers, instead of a digest of the deployments and fallbacks.
        vendor: Whose prompt cache is behind a base URL of one's own.
    """
    given: Any = router
    kind: Any = type(router)
    reading = {name: _with_reader(getattr(kind, name)) for name in _STREAM_ITERATORS if hasattr(kind, name)}
    # LiteLLM holds Routers weakly: the original must live as long as what stands before it.
    front_kind: Any = type(kind.__name__, (kind,), {**reading, "chat": property(_chat), "_semcache_original": router})
    front: Any = object.__new__(front_kind)
    front.__dict__ = router.__dict__
    # Read now: LiteLLM's ``chat`` writes its last call's arguments into the defaults.
    defaults = question(plain(dict(given.default_litellm_params)))
    answered_by = functools.partial(_answered_by, given, upstream, vendor, defaults)
    for name, kind_of_call in (("completion", sync_call), ("acompletion", async_call)):
        behind = getattr(super(front_kind, front), name)
        call = functools.wraps(behind)(kind_of_call(Edge(behind, engine, answered_by), behind))
        setattr(front_kind, name, staticmethod(call))
    result: R = front
    return result


def _chat(front: Any) -> Any:
    """``router.chat.completions.create``, which would otherwise go around the cache."""
    import litellm

    return litellm.Chat(params=front.default_litellm_params, router_obj=front)


def _with_reader(iterator: Callable[..., Any]) -> Callable[..., Any]:
    """A method that gives its stream the reader that it was made from, as an attribute."""

    def marked(stream: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        setattr(stream, READER, kwargs.get("model_response", args[0] if args else None))
        return stream

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return marked(iterator(self, *args, **kwargs), args, kwargs)

    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        return marked(await iterator(self, *args, **kwargs), args, kwargs)

    return acall if inspect.iscoroutinefunction(iterator) else call


def _answered_by(
    router: Any, label: str | None, vendor: str | None, defaults: Any, arguments: Mapping[str, Any]
) -> Answerer:
    """Who answers a Router's call: one of its deployments, or of its fallbacks.

    A group of which all deployments are of one model is priced as that model.
    """
    group = arguments.get("model")
    models = {
        deployment["litellm_params"].get("model")
        for deployment in router.model_list
        if deployment["model_name"] == group
    }
    model = models.pop() if len(models) == 1 else group
    name = label or f"litellm router {_digest(router, defaults)}"
    return Answerer(name, model, prompt_cache=_prompt_cache(router, vendor, arguments))


def _prompt_cache(router: Any, vendor: str | None, arguments: Mapping[str, Any]) -> Prompt | None:
    """Whose prompt cache is behind a group, if that is known: it has one deployment, and who else may be asked takes
    marks of the same kind."""
    group = arguments.get("model")
    own = [deployment for deployment in router.model_list if deployment["model_name"] == group]
    if len(own) != 1 or any(map(arguments.get, FALLBACKS)) or getattr(router, "model_group_alias", None):
        return None
    falls_back = any(getattr(router, name, None) for name in _ROUTES)
    try:
        known = [
            prompt_cache(vendor, {**router.default_litellm_params, **deployment["litellm_params"], **_given(arguments)})
            for deployment in [*own, *(router.model_list if falls_back else ())]
        ]
    except Exception:  # LiteLLM says so itself when it is called
        return None
    first = known[0]
    return first if all(other is not None and first is not None and other.api == first.api for other in known) else None


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name != "model" and value is not None}


def _digest(router: Any, defaults: Any) -> str:
    """Of all that decides who answers: routers that differ in it share no answers."""
    deployments = [
        [
            deployment["model_name"],
            question(plain(deployment["litellm_params"])),
            deployment["litellm_params"].get("api_base"),
        ]
        for deployment in router.model_list
    ]
    routes = {name: plain(getattr(router, name, None)) for name in _ROUTES}
    told = json.dumps([deployments, routes, defaults], sort_keys=True, default=repr)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
