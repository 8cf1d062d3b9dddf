"""The transport itself: what it keeps of the HTTP client behind it, and both HTTP libraries."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import openai
import pytest
from sdk_clients import QUESTION, SDKS, Sdk, close_clients

from semcache import ConfigurationError, SemanticCache, last_outcome
from semcache.clients.http import AsyncCacheTransport, CacheTransport, wrap_client
from semcache.testing.upstream import Fault, Upstream

LIBRARIES = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
OPENAI, ASYNC_OPENAI = SDKS[0], SDKS[1]
BODY = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": QUESTION}]}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
}


@pytest.fixture(autouse=True)
async def no_open_client() -> AsyncIterator[None]:
    yield
    await close_clients()


def behind(handle: Callable[[httpx2.Request], httpx2.Response], **settings: Any) -> httpx2.Client:
    """An HTTP client whose network is a function: for what a server on this machine cannot show."""
    return httpx2.Client(transport=httpx2.MockTransport(handle), **settings)


def answers(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, json=ANSWER)


# Both libraries ---------------------------------------------------------------------------------------------------


@LIBRARIES
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_of_either_library(library: Any, stream: bool, up: Upstream, exact_cache: SemanticCache) -> None:
    url = f"{up.openai_url}/chat/completions"
    with library.Client() as http, CacheTransport(http, exact_cache.engine).client() as client:
        miss, hit = [client.post(url, json={**BODY, "stream": stream}) for _ in range(2)]
    assert isinstance(miss, library.Response)
    assert isinstance(hit, library.Response)
    assert miss.headers["cache-status"].startswith("semcache; fwd=uri-miss")
    assert hit.headers["cache-status"].startswith("semcache; hit")
    assert hit.headers["content-type"] == miss.headers["content-type"]
    if not stream:
        assert hit.content == miss.content
    assert up.calls() == 1


@LIBRARIES
@pytest.mark.parametrize("stream", [False, True])
async def test_an_async_client_of_either_library(
    library: Any, stream: bool, up: Upstream, exact_cache: SemanticCache
) -> None:
    url = f"{up.openai_url}/chat/completions"
    async with library.AsyncClient() as http, AsyncCacheTransport(http, exact_cache.engine).client() as client:
        statuses = [(await client.post(url, json={**BODY, "stream": stream})).headers["cache-status"] for _ in range(2)]
    assert statuses[0].startswith("semcache; fwd=uri-miss")
    assert statuses[1].startswith("semcache; hit")
    assert up.calls() == 1


def test_a_transport_in_a_client_of_the_users_own(up: Upstream, exact_cache: SemanticCache) -> None:
    with (
        httpx.Client(auth=("user", "pass")) as http,
        httpx.Client(transport=CacheTransport(http, exact_cache.engine)) as client,
    ):
        for _ in range(2):
            assert client.post(f"{up.openai_url}/chat/completions", json=BODY).status_code == 200
    (request,) = up.requests()
    assert request.headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_sdk_client_on_the_older_library(is_async: bool, up: Upstream, exact_cache: SemanticCache) -> None:
    sdk = ASYNC_OPENAI if is_async else OPENAI
    http = httpx.AsyncClient() if is_async else httpx.Client()
    client = exact_cache.wrap(sdk.client(up, http_client=http))
    assert await sdk.tell(client) == await sdk.ask(client) == await sdk.tell(client)
    assert up.calls() == 1
    up.fail_next(500)
    with pytest.raises(openai.InternalServerError):
        await sdk.ask(client, "Another")
    up.script([Fault(cut_after=3)])
    with pytest.raises(openai.APIConnectionError):
        await sdk.tell(client, "Another")


@pytest.mark.parametrize("thing", [object(), 3, openai.OpenAI, httpx2.Client])
def test_what_is_no_sdk_client_is_refused(thing: object, exact_cache: SemanticCache) -> None:
    with pytest.raises(ConfigurationError, match="not an SDK client"):
        wrap_client(thing, exact_cache.engine)
    with pytest.raises(ConfigurationError, match="not an httpx2 or httpx client"):
        CacheTransport(thing, exact_cache.engine)


# What the HTTP client behind keeps doing --------------------------------------------------------------------------


def test_headers_parameters_auth_and_hooks_of_the_http_client_stay_in_force(
    up: Upstream, exact_cache: SemanticCache
) -> None:
    seen: list[str] = []
    http = httpx2.Client(
        headers={"x-team": "lift"},
        auth=("user", "pass"),
        event_hooks={
            "request": [lambda request: seen.append(request.method)],
            "response": [lambda response: seen.append(str(response.status_code)), lambda response: response.read()],
        },
    )
    client = exact_cache.wrap(OPENAI.client(up, http_client=http))
    for _ in range(2):
        client.chat.completions.create(**OPENAI.arguments())
    for _ in client.chat.completions.create(**OPENAI.arguments("Another"), stream=True):
        pass
    client.models.list()
    first = up.requests()[0]
    assert first.headers["x-team"] == "lift"
    assert base64.b64decode(first.headers["authorization"].removeprefix("Basic ")) == b"user:pass"
    assert seen == ["POST", "200", "POST", "200", "GET", "200"], "once for each request that went upstream"


def test_an_auth_of_the_call_replaces_the_default_one(up: Upstream, exact_cache: SemanticCache) -> None:
    with (
        httpx2.Client(auth=("user", "pass")) as http,
        CacheTransport(http, exact_cache.engine).client() as client,
    ):
        client.post(f"{up.openai_url}/chat/completions", json=BODY, auth=("other", "one"))
    (request,) = up.requests()
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"other:one"


def test_cookies_are_one_set(exact_cache: SemanticCache) -> None:
    sent = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers.get("cookie"))
        return httpx2.Response(200, json=ANSWER, headers={"set-cookie": "seat=7; path=/"})

    http = behind(handle, cookies={"old": "1"})
    client = CacheTransport(http, exact_cache.engine).client()
    client.post("https://host/v1/chat/completions", json=BODY)
    client.get("https://host/v1/models")
    http.get("https://host/v1/models")
    assert [sorted(cookies.split("; ")) for cookies in sent] == [["old=1"], ["old=1", "seat=7"], ["old=1", "seat=7"]]


def test_a_redirect_is_followed_as_the_http_client_would(exact_cache: SemanticCache) -> None:
    asked = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.host)
        if request.url.host == "old":
            return httpx2.Response(307, headers={"location": "https://new/v1/chat/completions"})
        return httpx2.Response(200, json=ANSWER)

    url = "https://old/v1/chat/completions"
    follows = CacheTransport(behind(handle, follow_redirects=True), exact_cache.engine).client()
    assert [follows.post(url, json=BODY).json() for _ in range(2)] == [ANSWER] * 2
    assert asked == ["old", "new", "old"], "an answer is stored under the address that gave it"
    stays = CacheTransport(behind(handle), exact_cache.engine).client()
    assert stays.post(url, json=BODY).status_code == 307


def test_a_compressed_answer_reaches_the_caller_whole(exact_cache: SemanticCache) -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        headers = {"content-encoding": "gzip", "content-type": "application/json", "x-kept": "1"}
        return httpx2.Response(200, headers=headers, content=gzip.compress(json.dumps(ANSWER).encode()))

    client = CacheTransport(behind(handle), exact_cache.engine).client()
    miss, hit = [client.post("https://host/v1/chat/completions", json=BODY) for _ in range(2)]
    assert miss.json() == hit.json() == ANSWER
    assert miss.headers["x-kept"] == "1"
    assert "content-encoding" not in miss.headers


def test_what_another_cache_said_stays(exact_cache: SemanticCache) -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=ANSWER, headers={"cache-status": "edge; fwd=miss"})

    client = CacheTransport(behind(handle), exact_cache.engine).client()
    status = client.post("https://host/v1/chat/completions", json=BODY).headers["cache-status"]
    assert status.startswith("edge; fwd=miss, semcache; fwd=uri-miss")


# What is no chat call, or not readable ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "GET", "url": "https://host/v1/chat/completions"},
        {"method": "POST", "url": "https://host/v1/moderations", "json": {"input": "x"}},
        {"method": "POST", "url": "https://host/v1/chat/completions", "content": b"{torn"},
        {"method": "POST", "url": "https://host/v1/chat/completions", "content": b"[1]"},
        {
            "method": "POST",
            "url": "https://host/v1/chat/completions",
            "content": gzip.compress(b"{}"),
            "headers": {"content-encoding": "gzip"},
        },
        {"method": "POST", "url": "https://host/v1/files", "files": {"file": b"data"}},
    ],
)
def test_other_requests_pass_through_untouched(request_: dict[str, Any], exact_cache: SemanticCache) -> None:
    got = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        got.append(request.read())
        return httpx2.Response(200, content=b"raw", headers={"x-own": "1"})

    client = CacheTransport(behind(handle), exact_cache.engine).client()
    response = client.request(**request_)
    assert (response.content, response.headers["x-own"]) == (b"raw", "1")
    assert "cache-status" not in response.headers
    if "content" in request_:
        assert got == [request_["content"]]


@pytest.mark.parametrize("body", [{**BODY, "messages": 5}, {**BODY, "n": 2}, {**BODY, "seed": 1 << 80}])
def test_a_chat_call_that_cannot_be_keyed_goes_upstream(body: dict[str, Any], exact_cache: SemanticCache) -> None:
    client = CacheTransport(behind(answers), exact_cache.engine).client()
    for _ in range(2):
        response = client.post("https://host/v1/chat/completions", json=body)
        assert response.json() == ANSWER
        assert response.headers["cache-status"].startswith("semcache; fwd=bypass; detail=")


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, content=b"<html>"),
        httpx2.Response(200, json=[1]),
        httpx2.Response(200, json={}),
        httpx2.Response(202, json=ANSWER),
        httpx2.Response(204),
        httpx2.Response(200, content=b"data: {}\n\n", headers={"content-type": "text/event-stream"}),
    ],
)
def test_an_answer_of_another_kind_is_handed_on_and_not_stored(
    answer: httpx2.Response, exact_cache: SemanticCache
) -> None:
    client = CacheTransport(
        behind(lambda _: httpx2.Response(answer.status_code, content=answer.content, headers=answer.headers)),
        exact_cache.engine,
    ).client()
    for _ in range(2):
        response = client.post("https://host/v1/chat/completions", json=BODY)
        assert (response.status_code, response.content) == (answer.status_code, answer.content)
        assert response.headers["cache-status"].startswith("semcache; fwd=uri-miss")


def test_an_answer_that_no_stream_can_be_made_of_is_handed_on_and_not_stored(exact_cache: SemanticCache) -> None:
    odd = {"type": "text", "text": None}, {"type": "text", "text": "Yes."}
    message = {"type": "message", "content": odd, "stop_reason": "end_turn"}
    client = CacheTransport(behind(lambda _: httpx2.Response(200, json=message)), exact_cache.engine).client()
    for stream in (False, True):
        body = {"model": "m", "messages": BODY["messages"], "max_tokens": 9, "stream": stream}
        answer = client.post("https://host/v1/messages", json=body)
        assert answer.json()["content"] == list(odd)
    outcome = last_outcome()
    assert outcome is not None
    assert (outcome.stored, outcome.reason) == (False, "no stream can be made of it")


def test_a_server_that_ignores_stream_is_stored_all_the_same(exact_cache: SemanticCache) -> None:
    client = CacheTransport(behind(answers), exact_cache.engine).client()
    url = "https://host/v1/chat/completions"
    assert client.post(url, json={**BODY, "stream": True}).json() == ANSWER
    replayed = client.post(url, json={**BODY, "stream": True})
    assert replayed.headers["cache-status"].startswith("semcache; hit")
    assert replayed.content.endswith(b"data: [DONE]\n\n")


def test_credentials_in_the_address_are_no_part_of_the_key(exact_cache: SemanticCache) -> None:
    client = CacheTransport(behind(answers), exact_cache.engine).client()

    def status(query: str) -> str:
        url = f"https://user:pass@host/v1/chat/completions?{query}"
        status: str = client.post(url, json=BODY).headers["cache-status"]
        return status

    assert "hit" not in status("key=one&version=1")
    assert "hit" in status("version=1&key=two")
    assert "hit" not in status("version=2&key=two")
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.key is not None
    assert b"pass" not in outcome.key.canonical
    assert b"two" not in outcome.key.canonical


def test_what_a_gateway_is_told_in_headers_is_part_of_the_key(exact_cache: SemanticCache) -> None:
    client = CacheTransport(behind(answers), exact_cache.engine).client()

    def status(**headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = client.post("https://gateway/v1/chat/completions", json=BODY, headers=named)
        status: str = answer.headers["cache-status"]
        return status

    assert "hit" not in status()
    assert "hit" not in status(x_portkey_config='{"provider": "azure-openai", "api_key": "very secret"}')
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.key is not None
    assert b"very secret" not in outcome.key.canonical
    assert "hit" not in status(x_portkey_config='{"provider": "groq", "api_key": "very secret"}')
    assert "hit" not in status(helicone_target_url="https://api.groq.com")
    assert "hit" in status(x_portkey_trace_id="1")


@pytest.mark.parametrize(
    ("host", "asks"),
    [
        ("api.openai.com", True),
        ("eu.api.openai.com", True),
        ("localhost", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("api.openai.com.evil.org", False),
        ("notapi.openai.com", False),
        ("192.168.0.1", False),
        ("host.openai.azure.com", False),
    ],
)
def test_usage_is_asked_of_hosts_that_are_known_to_report_it(host: str, asks: bool, exact_cache: SemanticCache) -> None:
    sent = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append("stream_options" in json.loads(request.read()))
        return httpx2.Response(500)

    for choice in (None, True, False):
        client = CacheTransport(behind(handle), exact_cache.engine, ask_usage=choice).client()
        client.post(f"https://{host}/v1/chat/completions", json={**BODY, "stream": True})
    assert sent == [asks, True, False]


def test_azure(exact_cache: SemanticCache) -> None:
    asked = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return httpx2.Response(200, json=ANSWER if "chat" in request.url.path else {"object": "list", "data": []})

    original = openai.AzureOpenAI(
        azure_endpoint="https://res.openai.azure.com", api_version="2026-01-01", api_key="k", http_client=behind(handle)
    )
    client = exact_cache.wrap(original)
    assert type(client) is openai.AzureOpenAI
    for _ in range(2):
        assert client.chat.completions.create(**OPENAI.arguments()).choices[0].message.content == "yes"
    client.models.list()
    assert asked == [
        "https://res.openai.azure.com/openai/deployments/gpt-6-luna/chat/completions?api-version=2026-01-01",
        "https://res.openai.azure.com/openai/models?api-version=2026-01-01",
    ]


# At the same time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if not sdk.is_async], ids=lambda sdk: sdk.name)
def test_threads_with_one_question_make_one_call(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    up.script([Fault(stall_s=0.5)])
    ready = threading.Barrier(12)

    def ask(stream: bool) -> str:
        ready.wait()
        if not stream:
            return sdk.text(sdk.endpoint(client).create(**sdk.arguments()))
        return "".join(map(sdk.piece, sdk.endpoint(client).create(**sdk.arguments(), stream=True)))

    with ThreadPoolExecutor(12) as pool:
        assert len(set(pool.map(ask, [True, False] * 6))) == 1
    assert up.calls() == 1


@pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.is_async], ids=lambda sdk: sdk.name)
async def test_tasks_with_one_question_make_one_call(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    up.script([Fault(stall_s=0.3)])
    told = await asyncio.gather(*(call(client) for call in (sdk.tell, sdk.ask) * 6))
    assert len(set(told)) == 1
    assert up.calls() == 1


def wait_for_a_call(up: Upstream) -> None:
    while not up.calls():
        time.sleep(0.01)


@pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.is_async], ids=lambda sdk: sdk.name)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_call_leaves_its_followers_to_go_on(
    sdk: Sdk, stream: bool, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    up.script([Fault(delay_s=20.0)])  # of a whole answer, or of each piece
    leader = asyncio.create_task((sdk.tell if stream else sdk.ask)(client))
    await asyncio.to_thread(wait_for_a_call, up)
    follower = asyncio.create_task(sdk.ask(client))
    await asyncio.sleep(0.1)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert await asyncio.wait_for(follower, 20)
    assert (await sdk.status(client)).startswith("semcache; hit")
