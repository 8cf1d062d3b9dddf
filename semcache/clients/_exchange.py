"""One request on its way through a transport, and the bodies of the responses to it."""

from __future__ import annotations

import functools
import importlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from semcache.outage import is_refusal, is_trouble
from semcache.types import Prompt, Reply, Request
from semcache.wire import Codec
from semcache.wire._json import dumps, loads_object

if TYPE_CHECKING:
    import httpx2

    from semcache.served import Pending


class Response(Protocol):
    """What is needed of a response, whichever HTTP library it comes from."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as the cache sees it. ``sent`` is the body to send instead of the caller's; ``prompt`` has either."""

    codec: Codec
    body: Mapping[str, Any]
    request: Request
    sent: Mapping[str, Any] | None
    refresh: bool
    prompt: Prompt | None = None

    def is_streaming(self, response: Response) -> bool:
        kind, wanted = response.headers.get("content-type", ""), self.codec.stream_type.partition(";")[0]
        return self.request.stream and response.status_code == 200 and kind.startswith(wanted)

    def reply(self, response: Response) -> Reply:
        """A response that has been read."""
        if response.status_code != 200:
            status = response.status_code
            return Reply(
                response,
                None,
                keep="never",
                reason=f"status {status}",
                failed=True,
                outage=is_trouble(status),
                refusal=response.content.decode(errors="replace") if is_refusal(status) else None,
            )
        body = loads_object(response.content)
        if body is None:
            return Reply(response, None, keep="never", reason="not a JSON object")
        return self.whole(body, response.content)._replace(value=response)

    def whole(self, body: dict[str, Any], content: bytes | None = None) -> Reply:
        """An answer that came in one piece, as ``content``; others may ask for it as a stream."""
        reply = self._reply(body, content)
        if reply.keep != "never":
            try:
                deque(self.codec.replay(body, self.body), maxlen=0)
            except Exception:  # of a shape that no codec foresaw: it must not trip over it before a caller's eyes
                return reply._replace(keep="never", reason="no stream can be made of it")
        return reply

    def recorded(self, body: dict[str, Any]) -> Reply:
        """A stream that was read to its end."""
        return self._reply(body)

    def drained(self, body: dict[str, Any] | None) -> Reply:
        """A stream that was read to its end, whole or not."""
        return Reply(None, None, keep="never", reason="the stream broke off") if body is None else self.recorded(body)

    def _reply(self, body: dict[str, Any], content: bytes | None = None) -> Reply:
        storable, shared = self.codec.storable(body), self.codec.anonymous(body)
        if shared is not None or content is None:
            content = dumps(body if shared is None else shared)
        return Reply(None, content, self.codec.usage(body), storable.keep, storable.reason)


class Recording:
    """A stream on its way to the caller, and the call that waits for its end."""

    def __init__(self, exchange: Exchange, pending: Pending) -> None:
        self._pending: Pending | None = pending
        self._exchange = exchange
        self.recorder = exchange.codec.recorder(exchange.body, exchange.sent)

    def settle(self) -> None:
        """The caller reads no further: keep the answer if its last event has been handed out."""
        if (ended := self._end()) is not None:
            pending, reply = ended
            pending.complete(reply)

    async def asettle(self) -> None:
        if (ended := self._end()) is not None:
            pending, reply = ended
            await pending.acomplete(reply)

    def abandon(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.abandon()

    def _end(self) -> tuple[Pending, Reply] | None:
        body = self.recorder.finish() if self._pending is not None else None
        if body is None:
            self._drop()
            return None
        pending, self._pending = self._pending, None
        return None if pending is None else (pending, self._exchange.recorded(body))

    def _drop(self) -> None:
        """As :meth:`abandon`, where the garbage collector may be who asks for it: SDKs close what was dropped."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.drop()

    def __del__(self) -> None:
        # A response that was dropped unread would keep its followers waiting.
        self._drop()


def tee(chunks: Iterable[bytes], recording: Recording) -> Iterator[bytes]:
    """The bytes of a stream, unchanged, recorded as they are read."""
    try:
        for chunk in chunks:
            yield from recording.recorder.feed(chunk)
        if rest := recording.recorder.flush():
            yield rest
    except GeneratorExit:  # the reader stopped: whether it had everything is settled on close
        raise
    except BaseException:
        recording.abandon()
        raise
    recording.settle()


async def atee(upstream: httpx2.Response, recording: Recording) -> AsyncGenerator[bytes, None]:
    """As :func:`tee`."""
    try:
        async for chunk in upstream.aiter_bytes():
            for piece in recording.recorder.feed(chunk):
                yield piece
        if rest := recording.recorder.flush():
            yield rest
    except GeneratorExit:
        raise
    except BaseException:
        recording.abandon()
        raise
    await recording.asettle()


def drain(exchange: Exchange, chunks: Iterable[bytes], close: Callable[[], None]) -> Reply:
    """Read a stream that has no other reader, and close it."""
    recorder = exchange.codec.recorder(exchange.body, exchange.sent)
    try:
        for chunk in chunks:
            deque(recorder.feed(chunk), maxlen=0)
    finally:
        close()
    recorder.flush()
    return exchange.drained(recorder.finish())


async def adrain(exchange: Exchange, upstream: httpx2.Response) -> Reply:
    """As :func:`drain`."""
    recorder = exchange.codec.recorder(exchange.body, exchange.sent)
    try:
        async for chunk in upstream.aiter_bytes():
            deque(recorder.feed(chunk), maxlen=0)
    finally:
        await upstream.aclose()
    recorder.flush()
    return exchange.drained(recorder.finish())


class _SyncBody:
    """The body of a stream that is being recorded."""

    def __init__(self, chunks: Iterator[bytes], upstream: httpx2.Response, recording: Recording) -> None:
        self._chunks = chunks
        self._upstream = upstream
        self._recording = recording

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        try:
            self._recording.settle()
        finally:
            self._upstream.close()


class _AsyncBody:
    def __init__(self, chunks: AsyncGenerator[bytes, None], upstream: httpx2.Response, recording: Recording) -> None:
        self._chunks = chunks
        self._upstream = upstream
        self._recording = recording

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        try:
            await self._recording.asettle()
            await self._chunks.aclose()
        finally:
            await self._upstream.aclose()


class _Replay:
    """The body of a stored answer. A class, since an HTTP library tells sync from async bodies by their base."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk

    def close(self) -> None:
        """Nothing to release."""

    async def aclose(self) -> None:
        """Nothing to release."""


class _Library(NamedTuple):
    """What is needed of ``httpx2`` or ``httpx``. Their clients want bodies that derive from their own bases."""

    module: Any
    SyncBody: Any
    AsyncBody: Any
    Replay: Any


@functools.cache
def library(name: str) -> _Library:
    """``httpx`` or ``httpx2``, with bodies of streams that its clients take."""
    module = importlib.import_module(name)
    return _Library(
        module,
        type("SyncBody", (_SyncBody, module.SyncByteStream), {}),
        type("AsyncBody", (_AsyncBody, module.AsyncByteStream), {}),
        type("Replay", (_Replay, module.SyncByteStream, module.AsyncByteStream), {}),
    )


def library_name(http_client: object) -> str | None:
    """``httpx2`` or ``httpx``, whichever an HTTP client (or a subclass of one) comes from."""
    for kind in type(http_client).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in ("httpx2", "httpx") and kind.__name__ in ("Client", "AsyncClient"):
            return root
    return None
