"""LiteLLM: ``completion``, ``acompletion`` and ``Router``.

The cache sits outside of LiteLLM's retries, fallbacks and callbacks: what LiteLLM returns or raises is what the caller
gets, and a hit runs none of them. Nothing in LiteLLM is changed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from semcache.clients._exchange import Exchange, Recording
from semcache.clients.litellm_answerers import Answerer, answered_by
from semcache.clients.litellm_streams import AsyncStream, Stream, adrain, atee, chunks, drain, tee
from semcache.errors import ConfigurationError
from semcache.prompt_cache.rules import checked_vendor
from semcache.steps import StreamReply
from semcache.types import Reply
from semcache.wire._json import loads_object
from semcache.wire.cache_status import HEADER, cache_status
from semcache.wire.litellm_chat import LiteLLMChat

if TYPE_CHECKING:
    from semcache.engine import Engine
    from semcache.served import Served

T = TypeVar("T")
Arguments = dict[str, Any]
Marked = Mapping[str, Any] | None

CODEC: Final = LiteLLMChat()
_WRAPPABLE: Final = "litellm.completion, litellm.acompletion, or a litellm.Router"


def wrap_litellm(target: T, engine: Engine, *, upstream: str | None = None, provider: str | None = None) -> T:
    """``litellm.completion``, ``litellm.acompletion`` or a ``Router`` with the cache before it.

    Args:
        upstream: A stable label for who answers, instead of what LiteLLM makes of the arguments and the environment
            (for a Router: its deployments and fallbacks). Calls with one label share answers.
        provider: Whose prompt cache is behind a base URL of one's own.

    Raises:
        ConfigurationError: ``target`` is something else of LiteLLM, or no such provider is known.
    """
    import litellm

    vendor = checked_vendor(provider)

    if isinstance(target, litellm.Router):
        from semcache.clients.litellm_router import wrap_router

        return wrap_router(target, engine, upstream=upstream, vendor=vendor)
    # Of a method, the qualified name is another.
    kind = {"completion": sync_call, "acompletion": async_call}.get(getattr(target, "__qualname__", ""))
    if kind is None or not callable(target):
        raise ConfigurationError(f"of LiteLLM, wrap {_WRAPPABLE}, not {getattr(target, '__qualname__', target)}")
    edge = Edge(target, engine, functools.partial(answered_by, upstream, vendor))
    return cast(T, functools.wraps(target)(kind(edge, target)))


def sync_call(edge: Edge, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` (``completion``, of LiteLLM or a Router) with the cache before it."""

    def upstream(exchange: Exchange, arguments: Arguments, marked: Marked = None) -> Reply | StreamReply:
        value = function(**edge.sent(exchange, arguments, marked))
        if not edge.streams(exchange, value):
            return edge.reply(exchange, value)
        return StreamReply(value, functools.partial(drain, exchange, value))

    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = edge.bind(args, kwargs)
        exchange = edge.open(arguments)
        served = edge.engine.run(
            exchange.request,
            functools.partial(upstream, exchange, arguments),
            refresh=exchange.refresh,
            later=functools.partial(_copied, upstream, exchange, arguments),
            prompt=exchange.prompt,
        )
        if served.pending is None:
            return edge.answer(exchange, served, Stream)
        return Stream(tee(served.value, Recording(exchange, served.pending), exchange), served.value)

    return call


def async_call(edge: Edge, function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """The same for ``acompletion``."""

    async def upstream(exchange: Exchange, arguments: Arguments, marked: Marked = None) -> Reply | StreamReply:
        value = await function(**edge.sent(exchange, arguments, marked))
        if not edge.streams(exchange, value):
            return edge.reply(exchange, value)
        return StreamReply(value, functools.partial(adrain, exchange, value))

    async def call(*args: Any, **kwargs: Any) -> Any:
        arguments = edge.bind(args, kwargs)
        exchange = edge.open(arguments)
        served = await edge.engine.arun(
            exchange.request,
            functools.partial(upstream, exchange, arguments),
            refresh=exchange.refresh,
            later=functools.partial(_copied, upstream, exchange, arguments),
            prompt=exchange.prompt,
        )
        if served.pending is None:
            return edge.answer(exchange, served, AsyncStream)
        return AsyncStream(atee(served.value, Recording(exchange, served.pending), exchange), served.value)

    return call


def _copied(upstream: Callable[..., Any], exchange: Exchange, arguments: Arguments) -> Callable[[], Any]:
    """The call with messages of its own: the caller may go on to append to them."""
    return functools.partial(upstream, exchange, {**arguments, "messages": deepcopy(arguments.get("messages"))})


class Edge:
    """Arguments to request, answer to reply and back. ``answered_by`` names who answers a call."""

    def __init__(
        self, function: Callable[..., Any], engine: Engine, answered_by: Callable[[Arguments], Answerer]
    ) -> None:
        self.engine = engine
        self._signature = inspect.signature(function)
        self._rest = next(p.name for p in self._signature.parameters.values() if p.kind is p.VAR_KEYWORD)
        self._answered_by = answered_by

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """All arguments by name, as the caller gave them."""
        bound = self._signature.bind(*args, **kwargs)
        named = dict(bound.arguments)
        rest = named.pop(self._rest, {})
        return {**named, **rest}

    def open(self, arguments: Arguments) -> Exchange:
        body = {name: plain(value) for name, value in arguments.items() if value is not None}
        answerer = self._answered_by(arguments)
        headers = {str(name).lower(): str(value) for name, value in _headers(arguments)}
        request = replace(CODEC.parse(body, upstream=answerer.label, headers=headers), model=answerer.model)
        cache = arguments.get("cache")
        sent = None if request.bypass else CODEC.forward(body, ask_usage=answerer.reports_usage)
        known = answerer.prompt_cache
        prompt = None if known is None else known._replace(body=sent or body)
        refresh = isinstance(cache, Mapping) and bool(cache.get("no-cache"))
        return Exchange(CODEC, body, request, sent, refresh, prompt)

    def sent(self, exchange: Exchange, arguments: Arguments, marked: Marked) -> Arguments:
        """The caller's arguments, but for those that are others in the body to send."""
        body = marked or exchange.sent or {}
        return {**arguments, **{name: value for name, value in body.items() if value is not exchange.body.get(name)}}

    def streams(self, exchange: Exchange, value: Any) -> bool:
        import litellm

        return exchange.request.stream and not isinstance(value, litellm.ModelResponse)

    def reply(self, exchange: Exchange, value: Any) -> Reply:
        import litellm

        if not isinstance(value, litellm.ModelResponse):
            return Reply(value, None, keep="never", reason=f"not a ModelResponse but a {type(value).__qualname__}")
        try:
            body = value.model_dump(mode="json")
        except ValueError as error:
            return Reply(value, None, keep="never", reason=f"not JSON: {error}")
        return exchange.whole(body)._replace(value=value)

    def answer(self, exchange: Exchange, served: Served, stream: type[Stream] | type[AsyncStream]) -> Any:
        """What the caller gets of a call that is over: LiteLLM's own object, or one like it."""
        if served.body is None:
            return served.value
        import litellm

        body = loads_object(served.body)
        assert body is not None, "stored answers are JSON objects"
        hidden = {
            "cache_hit": True,
            "response_cost": 0.0,
            "additional_headers": {HEADER: cache_status(served.outcome, refresh=exchange.refresh)},
        }
        if exchange.request.stream:
            source = SimpleNamespace(_hidden_params=hidden, model=body.get("model"))
            return stream(chunks(body, exchange, hidden), source)
        # LiteLLM gives every answer a usage; of a stream that reported none there is nothing to say.
        body["usage"] = body.get("usage") or litellm.Usage()
        response = litellm.ModelResponse(**body)
        response._hidden_params = hidden
        return response


def plain(value: Any) -> Any:
    """An argument as JSON: pydantic messages as LiteLLM returns them, and a model class as its schema.

    What is neither stays as it is; such a request has no canonical form, and is bypassed with an event.
    """
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        return {"type": "json_schema", "json_schema": {"name": value.__name__, "schema": value.model_json_schema()}}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _headers(arguments: Arguments) -> Iterator[tuple[Any, Any]]:
    """The headers that a caller has LiteLLM send, in all places that it takes them from."""
    of_provider = arguments.get("provider_specific_header")
    for given in (
        arguments.get("headers"),
        arguments.get("extra_headers"),
        of_provider.get("extra_headers") if isinstance(of_provider, Mapping) else None,
    ):
        if isinstance(given, Mapping):
            yield from given.items()
