"""SDK clients of models that others host: Anthropic's on Bedrock and Vertex, OpenAI's on Azure."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from sdk_clients import collected, settled

from semcache import SemanticCache, last_outcome
from semcache.testing.upstream import Fault, Upstream

QUESTION = "Is it up?"
_TLS = ssl.create_default_context()


@dataclass(frozen=True)
class Hosted:
    """One kind of client: the names of its sync and async classes, and its model."""

    name: str
    model: str
    is_async: bool

    def client(self, up: Upstream, **options: Any) -> Any:
        http = (httpx2.AsyncClient if self.is_async else httpx2.Client)(verify=_TLS)
        given = {"max_retries": 0, "http_client": http, **self.settings(up), **options}
        module = openai if self.name == "AzureOpenAI" else anthropic
        client = getattr(module, f"{'Async' * self.is_async}{self.name}")(**given)
        _open.append(client)
        return client

    def settings(self, up: Upstream) -> dict[str, Any]:
        if self.name == "AnthropicBedrock":
            keys = {"aws_access_key": "AKIDEXAMPLE", "aws_secret_key": "not-a-secret"}
            return {"base_url": up.bedrock_url, "aws_region": "us-east-1", **keys}
        if self.name == "AnthropicVertex":
            return {"base_url": up.vertex_url, "region": "europe-west1", "project_id": "p", "access_token": "token"}
        return {"azure_endpoint": up.url, "api_version": "2026-10-01", "api_key": "key"}

    async def create(self, client: Any, text: str = QUESTION, **more: Any) -> Any:
        asked = {"model": self.model, "messages": [{"role": "user", "content": text}], **more}
        if self.name == "AzureOpenAI":
            return await settled(client.chat.completions.create(**asked))
        return await settled(client.messages.create(max_tokens=500, **asked))

    async def ask(self, client: Any, text: str = QUESTION, **more: Any) -> str:
        answer = await self.create(client, text, **more)
        if self.name == "AzureOpenAI":
            return answer.choices[0].message.content or ""
        return "".join(block.text for block in answer.content if block.type == "text")

    async def tell(self, client: Any, text: str = QUESTION, **more: Any) -> str:
        events = await collected(await self.create(client, text, stream=True, **more))
        if self.name == "AzureOpenAI":
            return "".join(event.choices[0].delta.content or "" for event in events if event.choices)
        return "".join(getattr(event.delta, "text", "") for event in events if event.type == "content_block_delta")


_open: list[Any] = []
_MODELS = {
    "AnthropicBedrock": "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "AnthropicVertex": "claude-haiku-4-5@20251001",
    "AzureOpenAI": "my-deployment",
}
CLIENTS = [Hosted(name, model, is_async) for name, model in _MODELS.items() for is_async in (False, True)]
EACH = pytest.mark.parametrize("sdk", CLIENTS, ids=lambda sdk: f"{'Async' * sdk.is_async}{sdk.name}")


@pytest.fixture(autouse=True)
async def no_open_client() -> AsyncIterator[None]:
    yield
    while _open:
        await settled(_open.pop().close())


def status() -> str:
    outcome = last_outcome()
    assert outcome is not None
    return outcome.status


@EACH
@pytest.mark.parametrize("stored_as", ["plain", "stream"])
async def test_an_answer_serves_both_ways_of_asking(
    sdk: Hosted, stored_as: str, up: Upstream, exact_cache: SemanticCache
) -> None:
    bare = await sdk.ask(sdk.client(up))
    client = exact_cache.wrap(sdk.client(up))
    assert type(client) is type(sdk.client(up))
    first = await (sdk.ask if stored_as == "plain" else sdk.tell)(client)
    assert await sdk.ask(client) == await sdk.tell(client) == first == bare
    assert up.calls() == 2
    outcome = last_outcome()
    assert outcome is not None
    assert (outcome.status, outcome.model) == ("hit", sdk.model)
    assert outcome.usage is not None
    assert outcome.usage.output_tokens > 0


@EACH
async def test_model_endpoint_and_question_keep_answers_apart(
    sdk: Hosted, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up), upstream="label")
    await sdk.ask(client)
    await sdk.ask(client, model=sdk.model + "-other")
    await sdk.ask(client, "Is it down?")
    assert up.calls() == 3
    await sdk.ask(exact_cache.wrap(sdk.client(up)))
    assert up.calls() == 4
    await sdk.ask(exact_cache.wrap(sdk.client(up), upstream="label"))
    assert up.calls() == 4


@EACH
async def test_where_a_model_is_hosted_keeps_answers_apart(
    sdk: Hosted, up: Upstream, exact_cache: SemanticCache
) -> None:
    elsewhere: dict[str, Any] = {
        "AnthropicBedrock": {"base_url": f"{up.bedrock_url.replace('127.0.0.1', 'localhost')}"},
        "AnthropicVertex": {"region": "us-east5"},
        "AzureOpenAI": {"api_version": "2025-01-01"},
    }
    await sdk.ask(exact_cache.wrap(sdk.client(up)))
    await sdk.ask(exact_cache.wrap(sdk.client(up, **elsewhere[sdk.name])))
    assert up.calls() == 2


FAULTS = {"500": Fault(status=500), "429": Fault(status=429), "400": Fault(status=400), "cut": Fault(cut_after=1)}
FAILING = [
    pytest.param(stream, fault, id=f"{'stream' if stream else 'plain'}-{name}")
    for stream in (False, True)
    for name, fault in {**FAULTS, **({"error event": Fault(error_after=1)} if stream else {})}.items()
]


@EACH
@pytest.mark.parametrize(("stream", "fault"), FAILING)
async def test_what_fails_raises_as_without_the_cache_and_is_not_stored(
    sdk: Hosted, stream: bool, fault: Fault, up: Upstream, exact_cache: SemanticCache
) -> None:
    raised = []
    for client in (sdk.client(up), exact_cache.wrap(sdk.client(up))):
        up.script([fault])
        with pytest.raises(Exception) as caught:  # noqa: PT011  the bare client says which
            await (sdk.tell if stream else sdk.ask)(client)
        raised.append(caught.value)
    assert type(raised[1]) is type(raised[0])
    assert getattr(raised[1], "status_code", None) == getattr(raised[0], "status_code", None)
    assert up.calls() == 2, "no retries of our own"
    await sdk.ask(client)
    assert status() == "miss"


@EACH
async def test_tool_calls(sdk: Hosted, up: Upstream, exact_cache: SemanticCache) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    if sdk.name == "AzureOpenAI":
        tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
        more: dict[str, Any] = {"tools": tools, "tool_choice": "required"}
    else:
        more = {"tools": [{"name": "weather", "input_schema": schema}], "tool_choice": {"type": "any"}}
    client = exact_cache.wrap(sdk.client(up))
    first, second = await sdk.create(client, **more), await sdk.create(client, **more)
    assert first.model_dump() == second.model_dump()
    assert "weather" in first.model_dump_json()
    assert up.calls() == 1


@pytest.mark.parametrize("is_async", [False, True])
async def test_azures_other_endpoints(is_async: bool, up: Upstream, exact_cache: SemanticCache) -> None:
    sdk = Hosted("AzureOpenAI", "my-deployment", is_async)
    client = exact_cache.wrap(sdk.client(up))
    for _ in range(2):
        response = await settled(client.responses.create(model=sdk.model, input=QUESTION, store=False))
        assert response.output_text
        found = await settled(client.embeddings.create(model="text-embedding-3-small", input=QUESTION))
        assert len(found.data) == 1
    assert up.calls() == 2


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("name", ["AnthropicBedrock", "AnthropicVertex"])
async def test_the_sdks_own_accumulator_takes_a_replay(
    name: str, is_async: bool, up: Upstream, exact_cache: SemanticCache
) -> None:
    sdk = Hosted(name, _MODELS[name], is_async)
    client = exact_cache.wrap(sdk.client(up))
    found = []
    for _ in range(2):
        asked: Any = [{"role": "user", "content": QUESTION}]
        manager = client.messages.stream(model=sdk.model, max_tokens=500, messages=asked)
        if is_async:
            async with manager as stream:
                found.append(await stream.get_final_message())
        else:
            with manager as stream:
                found.append(stream.get_final_message())
    assert found[0].model_dump() == found[1].model_dump()
    assert up.calls() == 1


@EACH
async def test_the_provider_gets_what_the_bare_client_sends(
    sdk: Hosted, up: Upstream, exact_cache: SemanticCache
) -> None:
    for client in (sdk.client(up), exact_cache.wrap(sdk.client(up))):
        await sdk.ask(client, "wörd")
    bare, sent = up.requests()
    assert (sent.path, sent.raw) == (bare.path, bare.raw)
    assert sent.headers.keys() == bare.headers.keys()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_request_that_aws_has_a_signature_of_gets_no_cache_points(
    is_async: bool, up: Upstream, exact_cache: SemanticCache
) -> None:
    system = "You answer questions about the harbour lifts of a northern town, briefly and kindly. " * 80
    sdk = Hosted("AnthropicBedrock", "anthropic.claude-sonnet-5-20260201-v1:0", is_async)
    client = exact_cache.wrap(sdk.client(up), provider="bedrock")
    for number in range(3):
        await sdk.ask(client, f"Question {number}?", system=system)
    assert not any("cache_control" in request.raw for request in up.requests())
    up.reset()
    none = {"aws_access_key": None, "aws_secret_key": None}
    with_token = exact_cache.wrap(sdk.client(up, api_key="token", **none), provider="bedrock")
    for number in range(3, 6):
        await sdk.ask(with_token, f"Question {number}?", system=system)
    assert any("cache_control" in request.raw for request in up.requests())
