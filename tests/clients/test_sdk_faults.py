"""Faults of a provider that is not ours: llmock, in a process of its own, scripted over HTTP.

Whatever goes wrong, the caller sees what the SDK shows without the cache, the provider sees as many attempts, and
nothing of it is stored. llmock speaks for OpenAI, Anthropic and Gemini; the local upstream does the same for all codecs
in the other tests here.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest
from google import genai
from sdk_clients import SDKS, Sdk, close_clients, collected, settled

from semcache import SemanticCache, last_outcome
from semcache.testing.servers import free_port

_TLS = ssl.create_default_context()
RETRIES = 2
QUESTION = "Is it up?"


class Llmock:
    """The process, and its control API. ``openai_url`` and the others are what clients are given."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "llmock.cli", "serve", "--port", str(port), "--log-level", "warning"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.openai_url, self.anthropic_url = f"{self.url}/v1", f"{self.url}/anthropic"
        self.gemini_url = f"{self.url}/gemini"

    def wait(self) -> None:
        for _ in range(600):
            assert self.process.poll() is None, "llmock did not start"
            try:
                urllib.request.urlopen(f"{self.url}/health").close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("llmock does not answer")

    def control(self, method: str, what: str, order: Any = None) -> Any:
        data = None if order is None else json.dumps(order).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/_llmock/{what}", data, method=method)) as told:
            return json.load(told)

    def script(self, *behaviours: dict[str, Any]) -> None:
        """Forget what was, and do this to what comes next."""
        self.control("POST", "reset")
        if behaviours:
            self.control("POST", "scenario", {"behaviors": behaviours})

    def attempts(self) -> int:
        return int(self.control("GET", "requests")["count"])

    def findings(self) -> set[str]:
        """What llmock holds against the client: attempts before ``Retry-After``, attempts after a 400, …"""
        return {finding["code"] for finding in self.control("GET", "verdict")["findings"]}


@pytest.fixture(scope="module")
def llmock_process() -> Iterator[Llmock]:
    server = Llmock()
    try:
        server.wait()
        yield server
    finally:
        server.process.kill()
        server.process.wait()


_to_close: list[Callable[[], Any]] = []


class Gemini(Sdk):
    """google-genai, behind the face of the others."""

    @property
    def name(self) -> str:
        return f"{'async ' if self.is_async else ''}google-genai"

    def client(self, up: Any, *, max_retries: int = 0, timeout: float = 60.0) -> Any:
        http, async_http = httpx2.Client(verify=_TLS), httpx2.AsyncClient(verify=_TLS)
        _to_close.extend((http.close, async_http.aclose))
        clients = {"httpx_client": http, "httpx_async_client": async_http}
        retries = genai.types.HttpRetryOptions(attempts=1 + max_retries, initial_delay=0.01, max_delay=0.02)
        known = {"base_url": up.gemini_url, "api_version": "v1beta"}  # llmock has no v1
        options = genai.types.HttpOptions(**known, timeout=int(timeout * 1000), retry_options=retries, **clients)
        return genai.Client(api_key="key", http_options=options)

    def _models(self, client: Any) -> Any:
        return client.aio.models if self.is_async else client.models

    async def ask(self, client: Any, text: str = QUESTION, **extra: Any) -> str:
        answer = await settled(self._models(client).generate_content(model="gemini-2.5-flash", contents=text))
        return str(answer.text)

    async def tell(self, client: Any, text: str = QUESTION, **extra: Any) -> str:
        stream = self._models(client).generate_content_stream(model="gemini-2.5-flash", contents=text)
        return "".join([chunk.text or "" for chunk in await collected(await settled(stream))])


CLIENTS = [*SDKS, Gemini(genai, False), Gemini(genai, True)]
EACH = pytest.mark.parametrize("sdk", CLIENTS, ids=lambda sdk: sdk.name)
PLAIN_OR_STREAM = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


@pytest.fixture(autouse=True)
async def no_open_client() -> AsyncIterator[None]:
    yield
    await close_clients()
    while _to_close:
        await settled(_to_close.pop()())


def fail(status: int, times: int | None = None) -> dict[str, Any]:
    return {"type": "fail", "status": status, "times": times, "retry_after": 0.05}


def stream_fault(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "stream_fault", "kind": kind, "after_chunks": 3, "times": None, **more}


async def seen(sdk: Sdk, client: Any, server: Llmock, stream: bool) -> tuple[Any, int]:
    """What the caller saw, and how often the provider was asked."""
    try:
        shown: Any = await (sdk.tell if stream else sdk.ask)(client)
    except Exception as error:
        names = ("status_code", "code", "status", "message", "type")
        shown = type(error), [getattr(error, name, None) for name in names]
    return shown, server.attempts()


async def with_and_without(
    sdk: Sdk, server: Llmock, cache: SemanticCache, stream: bool, behaviour: dict[str, Any], **options: Any
) -> tuple[Any, int]:
    """The fault, first without the cache, then through it, to the same effect."""
    server.script(behaviour)
    bare = await seen(sdk, sdk.client(server, **options), server, stream)
    server.script(behaviour)
    client = cache.wrap(sdk.client(server, **options))
    assert await seen(sdk, client, server, stream) == bare
    return bare


async def assert_nothing_is_stored(sdk: Sdk, server: Llmock, cache: SemanticCache) -> None:
    outcome = last_outcome()
    assert outcome is not None
    assert not outcome.stored
    server.script()
    client = cache.wrap(sdk.client(server))
    answers = [await sdk.ask(client) for _ in range(2)]
    assert answers[0] == answers[1]
    assert server.attempts() == 1


@EACH
@PLAIN_OR_STREAM
@pytest.mark.parametrize(
    ("status", "attempts"), [(429, 1 + RETRIES), (500, 1 + RETRIES), (503, 1 + RETRIES), (400, 1), (401, 1)]
)
async def test_an_error_status(
    sdk: Sdk, stream: bool, status: int, attempts: int, llmock_process: Llmock, exact_cache: SemanticCache
) -> None:
    (kind, fields), asked = await with_and_without(
        sdk, llmock_process, exact_cache, stream, fail(status), max_retries=RETRIES
    )
    assert asked == attempts
    assert "retried_non_retryable" not in llmock_process.findings()
    assert kind.__module__.startswith(sdk.module.__name__)
    assert status in fields
    await assert_nothing_is_stored(sdk, llmock_process, exact_cache)


@EACH
@PLAIN_OR_STREAM
async def test_a_rate_limit_that_the_sdk_waits_for(
    sdk: Sdk, stream: bool, llmock_process: Llmock, exact_cache: SemanticCache
) -> None:
    answer, asked = await with_and_without(
        sdk, llmock_process, exact_cache, stream, fail(429, times=1), max_retries=RETRIES
    )
    assert asked == 2
    if sdk.module is not genai:  # which does not read it
        assert "retry_after_ignored" not in llmock_process.findings()
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.stored
    again = await (sdk.tell if stream else sdk.ask)(exact_cache.wrap(sdk.client(llmock_process)))
    assert again == answer
    assert llmock_process.attempts() == 2


@EACH
@PLAIN_OR_STREAM
async def test_a_timeout(sdk: Sdk, stream: bool, llmock_process: Llmock, exact_cache: SemanticCache) -> None:
    slow = {"type": "delay", "seconds": 1.0, "times": None}
    (kind, _), _ = await with_and_without(sdk, llmock_process, exact_cache, stream, slow, timeout=0.3)
    assert "Timeout" in kind.__name__
    await assert_nothing_is_stored(sdk, llmock_process, exact_cache)


@EACH
@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed", "stall"])
async def test_a_stream_that_breaks(sdk: Sdk, kind: str, llmock_process: Llmock, exact_cache: SemanticCache) -> None:
    stalls = kind == "stall"  # to the others a machine that is slow to answer must not add a time-out
    broken = stream_fault(kind, **({"stall_seconds": 1.0} if stalls else {}))
    limit = {"timeout": 0.3} if stalls else {}
    shown, asked = await with_and_without(sdk, llmock_process, exact_cache, True, broken, **limit)
    assert asked == 1
    assert isinstance(shown, str) == (kind == "truncate"), "no SDK minds a stream that ends early"
    await assert_nothing_is_stored(sdk, llmock_process, exact_cache)
