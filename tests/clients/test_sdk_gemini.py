"""The google-genai SDK through the cache, over real HTTP."""

from __future__ import annotations

import gc
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pydantic
import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials
from sdk_clients import collected, settled

from semcache import SemanticCache, last_outcome
from semcache.testing.upstream import Fault, Upstream

MODEL, QUESTION = "gemini-3.8-flash", "Is it up?"
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
_TLS = ssl.create_default_context()
Make = Callable[[], genai.Client]


@pytest.fixture
async def make(up: Upstream) -> AsyncIterator[Make]:
    http, async_http = httpx2.Client(verify=_TLS), httpx2.AsyncClient(verify=_TLS)

    def client() -> genai.Client:
        options = types.HttpOptions(base_url=up.gemini_url, httpx_client=http, httpx_async_client=async_http)
        return genai.Client(api_key="key", http_options=options)

    yield client
    http.close()
    await async_http.aclose()


def models(client: genai.Client, is_async: bool) -> Any:
    return client.aio.models if is_async else client.models


async def ask(client: genai.Client, is_async: bool, text: Any = QUESTION, model: str = MODEL, **config: Any) -> Any:
    answer = models(client, is_async).generate_content(model=model, contents=text, config=config or None)
    return await settled(answer)


async def tell(client: genai.Client, is_async: bool, text: Any = QUESTION, **config: Any) -> list[Any]:
    stream = models(client, is_async).generate_content_stream(model=MODEL, contents=text, config=config or None)
    return await collected(await settled(stream))


def said(chunks: list[Any]) -> str:
    return "".join(chunk.text or "" for chunk in chunks)


def plain(answer: Any) -> dict[str, Any]:
    return answer.model_dump(exclude={"sdk_http_response"})


def status() -> str:
    outcome = last_outcome()
    assert outcome is not None
    return outcome.status


@BOTH
@pytest.mark.parametrize("stored_as", ["plain", "stream"])
async def test_an_answer_serves_both_ways_of_asking(
    is_async: bool, stored_as: str, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(make())
    bare = await ask(make(), is_async)
    first = said(await tell(client, is_async)) if stored_as == "stream" else (await ask(client, is_async)).text
    answer, chunks = await ask(client, is_async), await tell(client, is_async)
    assert answer.text == said(chunks) == first == bare.text
    assert answer.usage_metadata == chunks[-1].usage_metadata == bare.usage_metadata
    assert [chunk.candidates[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["STOP"]
    assert up.calls() == 2
    outcome = last_outcome()
    assert outcome is not None
    assert (outcome.status, outcome.layer, outcome.model) == ("hit", "exact", MODEL)
    assert outcome.usage is not None
    assert outcome.usage.output_tokens > 0


@BOTH
async def test_another_model_or_question_is_another_request(
    is_async: bool, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(make(), upstream="one label for all")
    await ask(client, is_async)
    await ask(client, is_async, model="gemini-2.5-flash")
    await ask(client, is_async, "Is it down?")
    await ask(client, is_async, system_instruction="Be brief.")
    await ask(client, is_async, temperature=0.5)
    assert up.calls() == 5
    await ask(exact_cache.wrap(make(), upstream="one label for all"), is_async)
    assert up.calls() == 5


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = types.FunctionDeclaration(name="weather", parameters_json_schema=PARAMETERS)
CALLED = {
    "tools": [types.Tool(function_declarations=[WEATHER])],
    "tool_config": {"function_calling_config": {"mode": "ANY"}},
}


@BOTH
async def test_function_calls(is_async: bool, up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    first, second = await ask(client, is_async, **CALLED), await ask(client, is_async, **CALLED)
    assert first.function_calls[0].name == "weather"
    assert plain(first) == plain(second)
    calls = [call for chunk in await tell(client, is_async, **CALLED) for call in chunk.function_calls or ()]
    assert calls == first.function_calls
    assert up.calls() == 1


class Lift(pydantic.BaseModel):
    working: bool
    since: str


@BOTH
async def test_structured_answers(is_async: bool, up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    config = {"response_mime_type": "application/json", "response_schema": Lift}
    first, second = await ask(client, is_async, **config), await ask(client, is_async, **config)
    assert isinstance(first.parsed, Lift)
    assert first.parsed == second.parsed
    assert up.calls() == 1


@BOTH
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=429), Fault(status=400), Fault(cut_after=1), Fault(malformed_after=1)],
    ids=["500", "429", "400", "cut", "malformed"],
)
async def test_what_fails_raises_as_without_the_cache_and_is_not_stored(
    is_async: bool, stream: bool, fault: Fault, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    raised = []
    for client in (make(), exact_cache.wrap(make())):
        up.script([fault])
        with pytest.raises(Exception) as caught:  # noqa: PT011  the bare client says which
            await (tell if stream else ask)(client, is_async)
        raised.append(caught.value)
    assert type(raised[1]) is type(raised[0])
    assert getattr(raised[1], "code", None) == getattr(raised[0], "code", None)
    if fault.status:
        assert isinstance(raised[1], errors.APIError)
    assert up.calls() == 2, "no retries of our own"
    await ask(client, is_async)
    assert status() == "miss"


@BOTH
@pytest.mark.parametrize(
    "fault",
    [Fault(end_after=1), Fault(finish="length"), Fault(finish="content_filter")],
    ids=lambda f: f.finish or "cut",
)
async def test_an_answer_that_is_not_whole_is_handed_on_and_not_stored(
    is_async: bool, fault: Fault, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(make())
    up.script([fault])
    assert said(await tell(client, is_async))
    await ask(client, is_async)
    assert status() == "miss"


@BOTH
async def test_server_tools_are_bypassed(is_async: bool, up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    for _ in range(2):
        await ask(client, is_async, tools=[{"google_search": {}}])
        assert status() == "bypass"
    assert up.calls() == 2


async def test_the_provider_gets_the_very_bytes_that_the_bare_client_sends(
    up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    for client in (make(), exact_cache.wrap(make())):
        await ask(client, False, "wörd", temperature=0.1)
        await tell(client, True)
    bare_plain, bare_stream, plain_sent, stream_sent = up.requests()
    for bare, sent in ((bare_plain, plain_sent), (bare_stream, stream_sent)):
        assert sent.raw == bare.raw
        assert sent.headers == bare.headers


def test_a_wrapped_client_outlives_the_name_of_its_original(up: Upstream, exact_cache: SemanticCache) -> None:
    wrapped = exact_cache.wrap(genai.Client(api_key="key", http_options={"base_url": up.gemini_url}))
    gc.collect()
    assert wrapped.models.generate_content(model=MODEL, contents=QUESTION).text
    assert wrapped.models.generate_content(model=MODEL, contents=QUESTION).text
    assert up.calls() == 1


@BOTH
async def test_vertex_takes_the_same_path(is_async: bool, up: Upstream, exact_cache: SemanticCache) -> None:
    http, async_http = httpx2.Client(verify=_TLS), httpx2.AsyncClient(verify=_TLS)
    options = types.HttpOptions(base_url=up.gemini_url, httpx_client=http, httpx_async_client=async_http)
    client = exact_cache.wrap(
        genai.Client(vertexai=True, project="p", location="l", credentials=Credentials("token"), http_options=options)
    )
    first = await ask(client, is_async)
    assert plain(await ask(client, is_async)) == plain(first)
    assert said(await tell(client, is_async)) == first.text
    (sent,) = up.requests()
    assert sent.path == f"/v1beta1/projects/p/locations/l/publishers/google/models/{MODEL}:generateContent"
    assert sent.headers["authorization"] == "Bearer token"
    http.close()
    await async_http.aclose()
