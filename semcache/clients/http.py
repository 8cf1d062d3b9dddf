"""The cache as an HTTP transport, for clients built on ``httpx2`` or ``httpx``: the OpenAI and Anthropic SDKs.

A wrapped SDK client is a copy of the original with another HTTP client, whose transport asks the cache first and
forwards through the *original* HTTP client. So proxies, TLS, limits, hooks, auth and cookies stay in force on
everything that goes upstream, every way into the SDK passes through the cache (a transport sees them all), and the
original is not changed. Requests of other endpoints pass through untouched.

Closing a wrapped client leaves the original's connections open: they belong to the original.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from semcache.clients._exchange import Exchange, Recording, adrain, atee, drain, library, library_name, tee
from semcache.errors import BudgetExceeded, ConfigurationError
from semcache.prompt_cache.rules import checked_vendor
from semcache.steps import StreamReply
from semcache.types import Prompt, Reply
from semcache.wire import Codec, find
from semcache.wire._json import dumps, loads_object
from semcache.wire.cache_status import HEADER, cache_status

if TYPE_CHECKING:
    import httpx2

    from semcache.engine import Engine
    from semcache.served import Served

Client = TypeVar("Client")

_USAGE_HOST: Final = "api.openai.com"
# They describe the body as it was sent, and it has been decoded since.
_BODY_HEADERS: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
# Query parameters that are credentials, and no part of what is asked.
_SECRET_PARAMETERS: Final = frozenset(
    {"access_token", "api-key", "api_key", "apikey", "key", "sig", "signature", "subscription-key", "token"}
)
# By which a gateway is told who is to answer, and how: Portkey's and Helicone's documentation, general knowledge, 2026.
_GATEWAY: Final = re.compile(
    r"x-portkey-(?:config|custom-host|provider|virtual-key)|helicone-(?:fallbacks|target-provider|target-url)"
)
_DEFAULT_AUTH: Final = "semcache.default_auth"


def wrap_client(
    client: Client,
    engine: Engine,
    *,
    upstream: str | None = None,
    provider: str | None = None,
    ask_usage: bool | None = None,
) -> Client:
    """A copy of an OpenAI or Anthropic SDK client whose calls go through the cache; ``client`` is not changed.

    Args:
        upstream: A stable label for who answers, instead of the URL: clients with one label share answers.
        provider: Whose prompt cache it is, where the host does not tell (a gateway, vLLM): a vendor's name in
            ``semcache/data/providers.json``. By default the host decides, and an unknown one gets no vendor's fields.
        ask_usage: Ask for the usage of OpenAI streams that the caller did not ask for (its chunk is taken out again).
            Default: only of OpenAI itself and of servers on this machine, since others may refuse the option.

    Raises:
        ConfigurationError: ``client`` is not an SDK client on ``httpx2`` or ``httpx``.
    """
    http_client = getattr(client, "_client", None)  # neither SDK has a public name for it
    if library_name(http_client) is None or not hasattr(client, "with_options"):
        raise ConfigurationError(f"cannot wrap a {type(client).__qualname__}: not an SDK client on httpx2 or httpx")
    kind = AsyncCacheTransport if hasattr(http_client, "aclose") else CacheTransport
    transport = kind(http_client, engine, upstream=upstream, provider=provider, ask_usage=ask_usage)
    wrapped: Client = client.with_options(http_client=transport.client())
    return wrapped


class _Transport:
    """What both transports are made of, and the client over each."""

    _kind: ClassVar[str]

    def __init__(
        self,
        http_client: Any,
        engine: Engine,
        *,
        upstream: str | None = None,
        provider: str | None = None,
        ask_usage: bool | None = None,
    ) -> None:
        self._edge = _Edge(http_client, upstream, provider, ask_usage)
        self._http = http_client
        self._engine = engine

    def client(self) -> Any:
        """An HTTP client over this transport, with the settings of the one that it forwards through."""
        return self._edge.client(self, self._kind)


class CacheTransport(_Transport):
    """A transport that asks the cache first and forwards through ``http_client``.

    Args:
        http_client: A ``Client`` of ``httpx2`` or ``httpx``. It stays the caller's to close.
        engine: What ``SemanticCache`` runs calls with.
        upstream: See :func:`wrap_client`.
        provider: See :func:`wrap_client`.
        ask_usage: See :func:`wrap_client`.
    """

    _kind = "Client"

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        codec = find(request.method, request.url.path)
        exchange = None if codec is None else self._edge.open(codec, request, request.read())
        if exchange is None:
            return self._send(request)
        try:
            served = self._engine.run(
                exchange.request,
                functools.partial(self._call, exchange, request),
                refresh=exchange.refresh,
                prompt=exchange.prompt,
            )
        except BudgetExceeded as error:
            return self._edge.refused(error)
        if served.pending is None:
            return self._edge.answer(exchange, served)
        recording = Recording(exchange, served.pending)
        body = self._edge.library.SyncBody(tee(served.value.iter_bytes(), recording), served.value, recording)
        return self._edge.response(exchange, served, served.value, body)

    def _call(
        self, exchange: Exchange, request: httpx2.Request, marked: Mapping[str, Any] | None = None
    ) -> Reply | StreamReply:
        response = self._send(self._edge.outgoing(exchange, request, marked))
        if exchange.is_streaming(response):
            return StreamReply(response, functools.partial(drain, exchange, response.iter_bytes(), response.close))
        try:
            response.read()
        finally:
            response.close()
        return exchange.reply(response)

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        response: httpx2.Response = self._http.send(request, **self._edge.send_options(request))
        return response

    def close(self) -> None:
        """Does nothing: the connections are those of the HTTP client behind."""

    def __enter__(self) -> CacheTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncCacheTransport(_Transport):
    """As :class:`CacheTransport`, for an ``AsyncClient``."""

    _kind = "AsyncClient"

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        codec = find(request.method, request.url.path)
        exchange = None if codec is None else self._edge.open(codec, request, await request.aread())
        if exchange is None:
            return await self._send(request)
        try:
            served = await self._engine.arun(
                exchange.request,
                functools.partial(self._call, exchange, request),
                refresh=exchange.refresh,
                prompt=exchange.prompt,
            )
        except BudgetExceeded as error:
            return self._edge.refused(error)
        if served.pending is None:
            return self._edge.answer(exchange, served)
        recording = Recording(exchange, served.pending)
        body = self._edge.library.AsyncBody(atee(served.value, recording), served.value, recording)
        return self._edge.response(exchange, served, served.value, body)

    async def _call(
        self, exchange: Exchange, request: httpx2.Request, marked: Mapping[str, Any] | None = None
    ) -> Reply | StreamReply:
        response = await self._send(self._edge.outgoing(exchange, request, marked))
        if exchange.is_streaming(response):
            return StreamReply(response, functools.partial(adrain, exchange, response))
        try:
            await response.aread()
        finally:
            await response.aclose()
        return exchange.reply(response)

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        response: httpx2.Response = await self._http.send(request, **self._edge.send_options(request))
        return response

    async def aclose(self) -> None:
        """Does nothing: the connections are those of the HTTP client behind."""

    async def __aenter__(self) -> AsyncCacheTransport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Edge:
    """What the sync and the async transport share: everything but the waiting."""

    def __init__(self, http_client: Any, upstream: str | None, provider: str | None, ask_usage: bool | None) -> None:
        name = library_name(http_client)
        if name is None:
            raise ConfigurationError(f"not an httpx2 or httpx client: {type(http_client).__qualname__}")
        self.library = library(name)
        self._http = http_client
        self._upstream = upstream
        self._provider = checked_vendor(provider)
        self._ask_usage = ask_usage
        self._marks_auth = False

    def client(self, transport: object, kind: str) -> Any:
        self._marks_auth = True
        http = self._http
        return getattr(self.library.module, kind)(
            transport=transport,
            auth=_mark_default_auth,
            base_url=http.base_url,
            cookies=http.cookies.jar,  # the jar itself, so that both see one set of cookies
            follow_redirects=http.follow_redirects,
            headers=http.headers,
            max_redirects=http.max_redirects,
            params=http.params,
            timeout=http.timeout,
            trust_env=False,  # the environment's proxies are the original's affair
        )

    def open(self, codec: Codec, request: httpx2.Request, content: bytes) -> Exchange | None:
        """The exchange of a request that the cache can read."""
        body = None if "content-encoding" in request.headers else loads_object(content)
        if body is None:
            return None
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers[":path"] = request.url.path
        parsed = codec.parse(body, upstream=self._upstream_name(request.url, headers), headers=headers)
        directives = {token.strip().lower() for token in headers.get("cache-control", "").split(",")}
        if "no-store" in directives:
            parsed = replace(parsed, bypass="cache-control: no-store")
        sent = None if parsed.bypass else codec.forward(body, ask_usage=self._asks_usage(request.url.host))
        # A signature covers the body: AWS would refuse one with marks in it.
        signed = headers.get("authorization", "").startswith("AWS4-")
        prompt = None if signed else Prompt(parsed.api, sent or body, request.url.host, parsed.model, self._provider)
        return Exchange(codec, body, parsed, sent, "no-cache" in directives, prompt)

    def _upstream_name(self, url: httpx2.URL, headers: Mapping[str, str]) -> str:
        query = sorted(item for item in url.params.multi_items() if item[0].lower() not in _SECRET_PARAMETERS)
        # As digests: a gateway's configuration may hold keys.
        query += [(name, _digest(headers[name])) for name in sorted(headers) if _GATEWAY.fullmatch(name)]
        name = self._upstream or f"{url.scheme}://{url.netloc.decode()}{url.path}"
        return name + "".join(f"&{key}={value}" for key, value in query)

    def _asks_usage(self, host: str) -> bool:
        return reports_usage(host) if self._ask_usage is None else self._ask_usage

    def outgoing(self, exchange: Exchange, request: httpx2.Request, marked: Mapping[str, Any] | None) -> httpx2.Request:
        """The request to send: the caller's own, byte for byte, unless there is another body for it."""
        body = marked or exchange.sent
        if body is None:
            return request
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _BODY_HEADERS]
        changed: httpx2.Request = self.library.module.Request(
            request.method, request.url, headers=headers, content=dumps(body), extensions=request.extensions
        )
        return changed

    def send_options(self, request: httpx2.Request) -> dict[str, Any]:
        """How to forward: redirects are left to the client in front, where each hop asks the cache again."""
        options: dict[str, Any] = {"stream": True, "follow_redirects": False}
        # The client in front has applied an auth of the call's own; the default one is for the client behind.
        if self._marks_auth and not request.extensions.pop(_DEFAULT_AUTH, False):
            options["auth"] = self.library.module.Auth()
        return options

    def answer(self, exchange: Exchange, served: Served) -> httpx2.Response:
        """The response of a call that is over: from the cache, another's flight, or a complete upstream response."""
        module = self.library.module
        if served.body is None:
            return self.response(exchange, served, served.value, module.ByteStream(served.value.content))
        status = cache_status(served.outcome, refresh=exchange.refresh)
        if not exchange.request.stream:
            kind, body = "application/json", module.ByteStream(served.body)
        else:
            stored = loads_object(served.body)
            assert stored is not None, "stored answers are JSON objects"
            kind = exchange.codec.stream_type
            body = self.library.Replay(exchange.codec.replay(stored, exchange.body))
        response: httpx2.Response = module.Response(200, headers={"content-type": kind, HEADER: status}, stream=body)
        return response

    def refused(self, error: BudgetExceeded) -> httpx2.Response:
        """What an SDK makes an error of its own from, at once: what is raised it would take for a lost connection."""
        status = 504 if error.cache_only else 402  # RFC 9111, section 5.2.1.7, of only-if-cached
        told = {"type": "budget_exceeded", "code": status, "status": "BUDGET_EXCEEDED", "message": str(error)}
        response: httpx2.Response = self.library.module.Response(
            status,
            headers={"content-type": "application/json", "x-should-retry": "false"},
            content=dumps({"type": "error", "error": told}),
        )
        return response

    def response(self, exchange: Exchange, served: Served, upstream: httpx2.Response, body: Any) -> httpx2.Response:
        """The upstream's response with a decoded body, and what the cache has to say of it."""
        status = cache_status(served.outcome, refresh=exchange.refresh)
        headers = [(name, value) for name, value in upstream.headers.raw if name.lower() not in _BODY_HEADERS]
        extensions = {
            name: upstream.extensions[name] for name in ("http_version", "reason_phrase") if name in upstream.extensions
        }
        response: httpx2.Response = self.library.module.Response(
            upstream.status_code,
            headers=[*headers, (HEADER.encode(), status.encode())],
            stream=body,
            extensions=extensions,
        )
        return response


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:32]


def _mark_default_auth(request: Any) -> Any:
    """Runs as the front client's default auth, so its mark is missing where a call brought its own auth."""
    request.extensions[_DEFAULT_AUTH] = True
    return request


def reports_usage(host: str) -> bool:
    """Whether a host that speaks OpenAI's format is known to report the usage of a stream when asked to."""
    return host == _USAGE_HOST or host.endswith("." + _USAGE_HOST) or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
