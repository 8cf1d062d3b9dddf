"""LiteLLM's streams: recorded as they pass, and replayed as chunks of LiteLLM's own class."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from typing import Any, Final

from semcache.clients._exchange import Exchange, Recording
from semcache.types import Reply
from semcache.wire import Recorder, _sse
from semcache.wire._json import loads_object

READER: Final = "_semcache_reader"
"""Attribute of a stream that hides LiteLLM's own reader of the provider's stream: that reader."""


class Stream:
    """The chunks of a stream. Any other attribute is that of LiteLLM's own stream, where there is one."""

    def __init__(self, chunks: Generator[Any, None, None], source: Any) -> None:
        self._chunks = chunks
        self._source = source

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._chunks)

    def close(self) -> None:
        """Read no further: what has not been read to its end is not stored."""
        self._chunks.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


class AsyncStream:
    """As :class:`Stream`, for an event loop."""

    def __init__(self, chunks: AsyncGenerator[Any, None] | Generator[Any, None, None], source: Any) -> None:
        self._chunks = _awaited(chunks) if isinstance(chunks, Generator) else chunks
        self._source = source

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await self._chunks.__anext__()

    async def aclose(self) -> None:
        """As :meth:`Stream.close`; LiteLLM's own stream lets go of its connection."""
        await self._chunks.aclose()
        if (close := getattr(self._source, "aclose", None)) is not None:
            await close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


async def _awaited(chunks: Iterator[Any]) -> AsyncGenerator[Any, None]:
    for chunk in chunks:
        yield chunk


def chunks(body: Mapping[str, Any], exchange: Exchange, hidden: dict[str, Any]) -> Generator[Any, None, None]:
    """A stored answer as LiteLLM's chunks."""
    from litellm.types.utils import ModelResponseStream

    events = _sse.Splitter()
    for raw in exchange.codec.replay(body, exchange.body):
        for event in events.feed(raw):
            chunk = loads_object(event.data)
            if chunk is not None:
                response = ModelResponseStream(**chunk)
                response._hidden_params = dict(hidden)
                yield response


def tee(source: Any, recording: Recording, exchange: Exchange) -> Generator[Any, None, None]:
    """The chunks of a stream, recorded as they are read, without those that only the cache has asked for."""
    listener = _Listener(recording.recorder, exchange)
    try:
        for chunk in source:
            if listener.hear(chunk):
                yield chunk
    except BaseException:
        recording.abandon()
        raise
    listener.end(source)
    recording.settle()


async def atee(source: Any, recording: Recording, exchange: Exchange) -> AsyncGenerator[Any, None]:
    """As :func:`tee`."""
    listener = _Listener(recording.recorder, exchange)
    try:
        async for chunk in source:
            if listener.hear(chunk):
                yield chunk
    except BaseException:
        recording.abandon()
        raise
    listener.end(source)
    await recording.asettle()


def drain(exchange: Exchange, source: Any) -> Reply:
    """Read a stream that has no other reader."""
    recorder = exchange.codec.recorder(exchange.body, exchange.sent)
    listener = _Listener(recorder, exchange)
    for chunk in source:
        listener.hear(chunk)
    listener.end(source)
    return exchange.drained(recorder.finish())


async def adrain(exchange: Exchange, source: Any) -> Reply:
    """As :func:`drain`."""
    recorder = exchange.codec.recorder(exchange.body, exchange.sent)
    listener = _Listener(recorder, exchange)
    async for chunk in source:
        listener.hear(chunk)
    listener.end(source)
    return exchange.drained(recorder.finish())


class _Listener:
    """Tells a recorder what LiteLLM's chunks say, in the words of the wire."""

    def __init__(self, recorder: Recorder, exchange: Exchange) -> None:
        self._recorder = recorder
        self._hides_usage = exchange.sent is not None
        self._unseen: dict[str, Any] | None = None
        self._lost = False

    def hear(self, chunk: Any) -> bool:
        """Take a chunk; whether it is for the caller. What cannot be followed is passed on, and not recorded."""
        try:
            return self._follow(chunk)
        except (AttributeError, KeyError, TypeError, ValueError):
            self._lost = True
            return True

    def _follow(self, chunk: Any) -> bool:
        plain = chunk.model_dump(mode="json", exclude_none=True)
        for choice in plain.get("choices") or ():
            choice["delta"] = {name: value for name, value in choice["delta"].items() if value not in ({}, [])}
        self._tell(plain)
        # Usage that the provider reported unasked. Read here: later, LiteLLM puts its own estimate in its place.
        unasked = chunk._hidden_params.get("usage")
        if unasked is not None and unasked.total_tokens:
            self._unseen = unasked.model_dump(mode="json", exclude_none=True)
        return not (self._hides_usage and "usage" in plain)

    def end(self, source: Any) -> None:
        """The stream has ended. Whether that was its proper end, only LiteLLM's own reader knows: where the provider
        has given no finish reason, its last chunk says ``stop`` all the same."""
        reader = getattr(source, READER, source)
        finished = (getattr(reader, name, None) for name in ("received_finish_reason", "intermittent_finish_reason"))
        if self._lost or not any(finished):
            return
        if self._unseen is not None:
            self._tell({"choices": [], "usage": self._unseen})
        self._tell(b"[DONE]")

    def _tell(self, data: Any) -> None:
        deque(self._recorder.feed(_sse.write(data)), maxlen=0)
