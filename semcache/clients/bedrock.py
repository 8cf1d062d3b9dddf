"""The cache for boto3's ``bedrock-runtime`` clients.

A wrapped client is a copy of the original whose endpoint sends through the cache, at the place where botocore keeps
its HTTP session. So all that botocore does around a request stays botocore's: it checks the arguments, signs, retries,
makes ``ClientError`` of an error, ``ResponseMetadata`` of the headers, and reads the ``EventStream`` or
``StreamingBody`` of a hit as that of a miss. (A hook at ``before-send`` would sit in the same place, but hooks are
found by name in a registry that the copy shares with the original.) Each retry asks the cache again. Other operations
pass through untouched.

The copy shares credentials, event hooks and connections with the original. Closing it leaves them open.
"""

from __future__ import annotations

import copy
import functools
import inspect
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.response import StreamingBody
from urllib3 import HTTPResponse

from semcache.clients._exchange import Exchange, Recording, drain, tee
from semcache.errors import ConfigurationError
from semcache.prompt_cache.rules import checked_vendor
from semcache.steps import StreamReply
from semcache.types import Event, Prompt, Reply, Request
from semcache.wire import find
from semcache.wire._json import dumps, loads_object
from semcache.wire.cache_status import HEADER, cache_status

if TYPE_CHECKING:
    from semcache.engine import Engine
    from semcache.served import Served
    from semcache.wire import Codec

Client = TypeVar("Client")

_SERVICE: Final = "bedrock-runtime"
# By the last part of the path.
_OPERATIONS: Final = {
    "converse": "Converse",
    "converse-stream": "ConverseStream",
    "invoke": "InvokeModel",
    "invoke-with-response-stream": "InvokeModelWithResponseStream",
}
_BEARER: Final = "Bearer "
_SIGNED_FOR: Final = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/")


def wrap_bedrock(client: Client, engine: Engine, *, upstream: str | None = None, provider: str | None = None) -> Client:
    """A copy of a boto3 ``bedrock-runtime`` client whose calls go through the cache; ``client`` is not changed.

    Cached are ``converse``, ``converse_stream``, and ``invoke_model`` and ``invoke_model_with_response_stream`` with
    Anthropic's body. ``invoke_model`` reads the body before it returns, so what breaks it is raised there.

    Args:
        upstream: A stable label for who answers, instead of endpoint and region: clients with one label share answers.
        provider: Whose prompt cache it is, where the host does not tell: see :func:`semcache.clients.http.wrap_client`.

    Raises:
        ConfigurationError: ``client`` is of another service, or an async one (aiobotocore).
    """
    given: Any = client
    service = given.meta.service_model.service_name
    if service != _SERVICE:
        raise ConfigurationError(f"cannot wrap a boto3 client of {service}: only one of {_SERVICE}")
    if inspect.iscoroutinefunction(given._make_api_call):
        raise ConfigurationError("cannot wrap an async client of botocore: only boto3's own")
    # Not copy.copy(): it asks a client without attributes for one, which sends botocore into a recursion.
    wrapped: Any = object.__new__(type(given))
    vars(wrapped).update(vars(given))
    wrapped._endpoint = copy.copy(given._endpoint)
    wrapped._endpoint.http_session = _Session(given, engine, upstream, checked_vendor(provider))
    result: Client = wrapped
    return result


class _Session:
    """An HTTP session of botocore that asks the cache first and sends through the session of ``client``."""

    def __init__(self, client: Any, engine: Engine, upstream: str | None, provider: str | None) -> None:
        self._session = client._endpoint.http_session
        self._signer = client._request_signer
        self._region = client.meta.region_name
        self._engine = engine
        self._upstream = upstream
        self._provider = provider

    def send(self, request: Any) -> Any:
        path = unquote(urlsplit(request.url).path)
        codec = find(request.method, path)
        exchange = None if codec is None else self._open(codec, request, path)
        if exchange is None:
            return self._session.send(request)
        served = self._engine.run(
            exchange.request, functools.partial(self._call, exchange, request), prompt=exchange.prompt
        )
        if served.pending is not None:
            return _recorded(served, Recording(exchange, served.pending))
        if served.body is None:
            return _described(served, served.value)
        return _replayed(exchange, served, request.url)

    def close(self) -> None:
        """Does nothing: the connections are those of the client behind."""

    def _open(self, codec: Codec, request: Any, path: str) -> Exchange | None:
        """The exchange of a request that the cache can read."""
        # A body that is a file can be read but once.
        body = loads_object(bytes(request.body)) if isinstance(request.body, (bytes, bytearray)) else None
        if body is None:
            return None
        url = urlsplit(request.url)
        host = url.netloc.rpartition("@")[2]  # without user and password
        # A proxy's host does not tell for which region a request is signed.
        upstream = self._upstream or f"{url.scheme}://{host}{path}&region={self._region}"
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        parsed = codec.parse(body, upstream=upstream, headers={**headers, ":path": path})
        return Exchange(codec, body, parsed, None, False, self._prompt(headers, parsed, body, url.hostname or ""))

    def _prompt(self, headers: Mapping[str, str], parsed: Request, body: Mapping[str, Any], host: str) -> Prompt | None:
        """What may get cache points: a request that could be signed again with them."""
        authorization = headers.get("authorization", "")
        if not authorization.startswith(_BEARER) and not _SIGNED_FOR.match(authorization):
            return None
        return Prompt(parsed.api, body, host, parsed.model, self._provider)

    def _call(self, exchange: Exchange, request: Any, marked: Mapping[str, Any] | None = None) -> Reply | StreamReply:
        response = self._session.send(request if marked is None else self._signed_again(request, marked))
        if exchange.is_streaming(response):
            raw = response.raw
            return StreamReply(response, functools.partial(drain, exchange, raw.stream(), raw.close))
        if response.status_code != 200 or not request.stream_output:
            return exchange.reply(response)
        # By botocore's own reader, whose exceptions are those that the caller would see.
        content = StreamingBody(response.raw, response.headers.get("content-length")).read()
        reply = exchange.reply(_Read(200, response.headers, content))
        return reply._replace(value=_whole(request.url, response.headers, content))

    def _signed_again(self, request: Any, marked: Mapping[str, Any]) -> Any:
        """The request with another body; as it is if that cannot be signed."""
        headers = {n: _text(value) for n, value in request.headers.items() if n.lower() != "content-length"}
        changed = AWSRequest(
            request.method, request.url, headers=headers, data=dumps(marked), stream_output=request.stream_output
        )
        if found := _SIGNED_FOR.match(_text(request.headers.get("Authorization", ""))):
            operation = _OPERATIONS[request.url.rpartition("/")[2]]
            try:
                self._signer.sign(operation, changed, region_name=found["region"], signing_name=found["service"])
            except Exception as error:
                message = f"a request with cache points could not be signed, and is sent without them: {error}"
                self._engine.emit(Event("prompt_cache_error", message, error))
                return request
        return changed.prepare()


class _Read(NamedTuple):
    status_code: int
    headers: Mapping[str, str]
    content: bytes


class _Events:
    """What botocore reads an event stream from."""

    def __init__(self, chunks: Iterable[bytes], close: Callable[[], None]) -> None:
        self._chunks = chunks
        self.close = close

    def stream(self) -> Iterator[bytes]:
        return iter(self._chunks)


def _recorded(served: Served, recording: Recording) -> Any:
    """The response of a stream that has begun."""
    response = served.value

    def close() -> None:
        try:
            recording.settle()
        finally:
            response.raw.close()

    events = _Events(tee(response.raw.stream(), recording), close)
    return _described(served, AWSResponse(response.url, 200, response.headers, events))


def _replayed(exchange: Exchange, served: Served, url: str) -> Any:
    """The response of a hit."""
    assert served.body is not None
    if not exchange.request.stream:
        return _described(served, _whole(url, {"content-type": "application/json"}, served.body))
    stored = loads_object(served.body)
    assert stored is not None, "stored answers are JSON objects"
    headers = {"content-type": exchange.codec.stream_type, "x-amzn-bedrock-content-type": "application/json"}
    events = _Events(exchange.codec.replay(stored, exchange.body), lambda: None)
    return _described(served, AWSResponse(url, 200, headers, events))


def _whole(url: str, headers: Mapping[str, str], content: bytes) -> Any:
    """A response that can be read like one from a connection."""
    kept = {name: value for name, value in headers.items() if name.lower() != "transfer-encoding"}
    raw = HTTPResponse(io.BytesIO(content), status=200, preload_content=False)
    return AWSResponse(url, 200, {**kept, "content-length": str(len(content))}, raw)


def _described(served: Served, response: Any) -> Any:
    """The response with what the cache has to say of it."""
    if served.value is None:
        # Callers log the provider's id of a request; this one says by its look that it is none.
        response.headers["x-amzn-requestid"] = f"semcache-{served.outcome.entry_id or 'collapsed'}"
    response.headers[HEADER] = cache_status(served.outcome)
    return response


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
