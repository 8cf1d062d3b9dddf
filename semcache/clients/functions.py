"""Plain functions: sync, async, generators and async generators.

``f(prompt: str, **params)`` or ``f(messages, **params)``: the prompt, or the last user text, may match by meaning;
every other argument must match exactly. A call whose arguments or answer are not JSON-like passes through uncached,
with an event that says so.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import itertools
import math
import os
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from semcache.errors import ConfigurationError
from semcache.messages import is_messages, split_last_user_text
from semcache.steps import StreamReply
from semcache.types import Reply, Request
from semcache.wire import find_by_answer

if TYPE_CHECKING:
    from semcache.engine import Engine
    from semcache.served import Pending

F = TypeVar("F", bound=Callable[..., Any])
API = "function"


def wrap_function(function: F, engine: Engine, name: str | None = None) -> F:
    """A function with the same signature whose answers are cached.

    The wrapper has a ``request`` attribute: called with the same arguments it gives the ``Request`` they make.

    Args:
        name: Identity of the function in the cache. By default its module and qualified name; give one for a closure
            or method, which has no identity that holds across processes.

    Raises:
        ConfigurationError: The function takes no prompt or messages.
    """
    edge = _Edge(function, name)
    if inspect.isasyncgenfunction(function):
        wrapper = _wrap_async_generator(function, engine, edge)
    elif inspect.isgeneratorfunction(function):
        wrapper = _wrap_generator(function, engine, edge)
    elif inspect.iscoroutinefunction(function):
        wrapper = _wrap_coroutine(function, engine, edge)
    else:
        wrapper = _wrap_plain(function, engine, edge)
    wrapper = functools.update_wrapper(wrapper, function)
    wrapper.request = edge.request  # type: ignore[attr-defined]
    return typing.cast(F, wrapper)


def _wrap_plain(function: Callable[..., Any], engine: Engine, edge: _Edge) -> Callable[..., Any]:
    request, decode, reply, run, bind = edge.request, edge.decode, edge.reply, engine.run, functools.partial

    def call(args: Any, kwargs: Any) -> Reply:
        return reply(function(*args, **kwargs))

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        served = run(request(*args, **kwargs), bind(call, args, kwargs), later=bind(_copied, call, args, kwargs))
        return served.value if served.body is None else decode(served.body)

    return wrapper


def _wrap_coroutine(function: Callable[..., Any], engine: Engine, edge: _Edge) -> Callable[..., Any]:
    bind = functools.partial

    async def call(args: Any, kwargs: Any) -> Reply:
        return edge.reply(await function(*args, **kwargs))

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        served = await engine.arun(
            edge.request(*args, **kwargs), bind(call, args, kwargs), later=bind(_copied, call, args, kwargs)
        )
        return served.value if served.body is None else edge.decode(served.body)

    return wrapper


def _wrap_generator(function: Callable[..., Any], engine: Engine, edge: _Edge) -> Callable[..., Any]:
    bind = functools.partial

    def call(args: Any, kwargs: Any) -> StreamReply:
        chunks = _begun(function(*args, **kwargs))
        return StreamReply(chunks, lambda: edge.reply(list(chunks)))

    def wrapper(*args: Any, **kwargs: Any) -> Iterator[Any]:
        served = engine.run(
            edge.request(*args, **kwargs), bind(call, args, kwargs), later=bind(_copied, call, args, kwargs)
        )
        if served.pending is None:
            yield from orjson.loads(served.body or b"[]")
            return
        chunks: list[Any] = []
        try:
            for chunk in served.value:
                chunks.append(_kept(chunk))
                yield chunk
        except BaseException:
            _give_up(served.pending, served.value)
            raise
        served.pending.complete(edge.reply(chunks))

    return wrapper


def _wrap_async_generator(function: Callable[..., Any], engine: Engine, edge: _Edge) -> Callable[..., Any]:
    bind = functools.partial

    async def call(args: Any, kwargs: Any) -> StreamReply:
        chunks = await _abegun(function(*args, **kwargs))

        async def drain() -> Reply:
            return edge.reply([chunk async for chunk in chunks])

        return StreamReply(chunks, drain)

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        served = await engine.arun(
            edge.request(*args, **kwargs), bind(call, args, kwargs), later=bind(_copied, call, args, kwargs)
        )
        if served.pending is None:
            for chunk in orjson.loads(served.body or b"[]"):
                yield chunk
            return
        chunks: list[Any] = []
        try:
            async for chunk in served.value:
                chunks.append(_kept(chunk))
                yield chunk
        except BaseException:
            served.pending.abandon()
            await served.value.aclose()
            raise
        await served.pending.acomplete(edge.reply(chunks))

    return wrapper


def _begun(chunks: Any) -> Iterator[Any]:
    """A generator that has given its first chunk, so that one that fails at once fails as a call does."""
    first = list(itertools.islice(chunks, 1))

    def all_chunks() -> Iterator[Any]:
        try:
            yield from first
            yield from chunks
        finally:
            chunks.close()

    return all_chunks()


async def _abegun(chunks: Any) -> AsyncGenerator[Any, None]:
    end = object()
    first = await anext(chunks, end)

    async def all_chunks() -> AsyncGenerator[Any, None]:
        try:
            if first is not end:
                yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    return all_chunks()


def _copied(call: Callable[[Any, Any], Any], args: Any, kwargs: Any) -> Callable[[], Any]:
    """The call with arguments of its own: the caller may go on to append to its messages."""
    return functools.partial(call, *copy.deepcopy((args, kwargs)))


def _kept(chunk: Any) -> Any:
    """A chunk as it is now: the caller may change the one that it is given before the stream ends."""
    return chunk if type(chunk) is str or not _survives_json(chunk) else copy.deepcopy(chunk)


def _give_up(pending: Pending, source: Any) -> None:
    pending.abandon()
    source.close()


class _Edge:
    """Arguments to request, result to reply and back, for one function."""

    def __init__(self, function: Callable[..., Any], name: str | None) -> None:
        self._signature = _signature(function)
        parameters = list(self._signature.parameters.values())
        if not parameters or parameters[0].kind in (parameters[0].KEYWORD_ONLY, parameters[0].VAR_KEYWORD):
            raise ConfigurationError(
                f"{_describe(function)} takes no positional argument; a cached function is f(prompt, **params) or "
                "f(messages, **params)"
            )
        self._first = parameters[0].name
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), "")
        self._identity = name or _identity(function)
        self._simple_scope: dict[str, Any] = {"function": self._identity, "arguments": {}}
        self._one_argument = len(parameters) == 1 and parameters[0].kind is not parameters[0].VAR_POSITIONAL
        self._revive = _reviver(function)

    def request(self, *args: Any, **kwargs: Any) -> Request:
        """The request that a call with these arguments makes."""
        if self._one_argument and len(args) == 1 and not kwargs and type(args[0]) is str:
            return Request(API, self._simple_scope, args[0])
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        more = arguments.pop(self._rest, {})
        scope: dict[str, Any] = {"function": self._identity}
        if more.keys() & arguments.keys():
            # ``def f(prompt, /, **params)`` takes a second ``prompt``.
            scope["more"] = more
        else:
            arguments.update(more)
        prompt = arguments.pop(self._first)
        temperature = arguments.get("temperature")
        model = arguments.get("model")
        request = Request(
            API,
            {**scope, "arguments": arguments},
            None,
            model=model if isinstance(model, str) else None,
            temperature=temperature if isinstance(temperature, (int, float)) else None,
        )
        if isinstance(prompt, str):
            request.text = prompt
        elif is_messages(prompt):
            split = split_last_user_text(prompt)
            request.scope = {**request.scope, "messages": split.messages}
            request.text, request.exact_only = split.text, split.exact_only or None
        else:
            request.scope = {**request.scope, "prompt": prompt}
            request.exact_only = "the first argument is neither text nor messages"
        return request

    def reply(self, value: Any) -> Reply:
        """A result as a reply; what would not come back from JSON as it went in is not kept, nor is what a provider's
        codec would not keep of a function that hands on its answers whole."""
        plain = value if self._revive is None else self._revive.dump(value)
        body = _encoded(plain)
        if body is None:
            kind = type(value).__qualname__
            return Reply(value, None, keep="never", reason=f"a {kind} would not come back from JSON as it was")
        codec = find_by_answer(plain) if type(plain) is dict else None
        if codec is None:
            return Reply(value, body)
        storable = codec.storable(plain)
        return Reply(value, body, codec.usage(plain), storable.keep, storable.reason)

    def decode(self, body: bytes) -> Any:
        plain = orjson.loads(body)
        return plain if self._revive is None else self._revive.load(plain)


class _Model:
    """Results of a pydantic model named in the return annotation."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def dump(self, value: Any) -> Any:
        return value.model_dump(mode="json") if type(value) is self._model else value

    def load(self, plain: Any) -> Any:
        return self._model.model_validate(plain)


def _reviver(function: Callable[..., Any]) -> _Model | None:
    """How to give back what JSON cannot: the class comes from the annotation, never from what is stored."""
    try:
        annotation = typing.get_type_hints(function).get("return")
    except Exception:
        return None  # an annotation that cannot be resolved tells nothing
    return _Model(annotation) if hasattr(annotation, "model_validate") else None


def _encoded(value: Any) -> bytes | None:
    """JSON from which a value comes back as it was; ``None`` if there is none."""
    if not _survives_json(value):
        return None
    try:
        return orjson.dumps(value)
    except TypeError:  # half a surrogate pair
        return None


_DEEP: Final = 200
"""Levels of lists and dicts that a value may have; orjson goes no deeper than 254."""


def _survives_json(value: Any, levels: int = _DEEP) -> bool:
    """Whether a value comes back from JSON with the same types: no tuples, no keys but strings, no NaN."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if levels == 0:
        return False
    if kind is list:
        return all(_survives_json(item, levels - 1) for item in value)
    return kind is dict and all(type(k) is str and _survives_json(v, levels - 1) for k, v in value.items())


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{_describe(function)} has no signature that can be read: {error}") from error


def _describe(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def _identity(function: Any) -> str:
    """A name under which the same function, and no other, is found again by the next process.

    The code is part of it: two scripts may both have an ``ask`` in ``__main__``, and an edited prompt template wants
    new answers. So are closed-over values, since decorators and factories give many functions one name, and the global
    constants that the code names, as they are now: a template stands in one as often as in the code. What closes over
    something that is not JSON-like, and methods (their object has state), are known to this process only.
    """
    if isinstance(function, functools.partial):
        bound = [list(function.args), function.keywords]
        if _encoded(bound) is not None:
            return f"partial({_identity(function.func)}, {_digest(bound)})"
    elif isinstance(function, types.FunctionType):
        cells = [_content(cell) for cell in function.__closure__ or ()]
        if _encoded(cells) is not None:
            return f"{_describe(function)}#{_digest([_code(function.__code__), cells, _constants(function)])}"
    return f"{_describe(function)}@{os.urandom(12).hex()}"


def _code(code: types.CodeType) -> list[Any]:
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty as yet: most likely to be the function itself, which no JSON can hold
        return cell


def _constants(function: types.FunctionType) -> dict[str, Any]:
    """The JSON-like values among the globals that the code names."""
    named = {name: function.__globals__[name] for name in _names(function.__code__) & function.__globals__.keys()}
    return {name: value for name, value in named.items() if _encoded(value) is not None}


def _names(code: types.CodeType) -> set[str]:
    nested = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*nested)


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
