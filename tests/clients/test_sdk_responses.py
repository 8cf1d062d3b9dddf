"""The Responses endpoint of the real OpenAI SDK through the cache, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pydantic
import pytest
from sdk_clients import Sdk, close_clients, collected, settled

from semcache import SemanticCache, last_outcome
from semcache.testing.upstream import Fault, Upstream

HIT, MISS = "semcache; hit", "semcache; fwd=uri-miss"
KEPT_APART = {"store": False}


class Responses(Sdk):
    """``client.responses`` of an OpenAI client."""

    def endpoint(self, client: Any) -> Any:
        return client.responses

    def arguments(self, text: str = "Is it up?", **extra: Any) -> dict[str, Any]:
        return {"model": self.model, "input": text, **extra}

    def text(self, answer: Any) -> str:
        return str(answer.output_text)

    def piece(self, event: Any) -> str:
        return event.delta if event.type == "response.output_text.delta" else ""

    async def final(self, client: Any, **extra: Any) -> Any:
        """The SDK's own final response of a ``.stream()``."""
        manager = self.endpoint(client).stream(**self.arguments(**extra))
        if self.is_async:
            async with manager as stream:
                return await stream.get_final_response()
        with manager as stream:
            return stream.get_final_response()


EACH = pytest.mark.parametrize("sdk", [Responses(openai, False), Responses(openai, True)], ids=lambda sdk: sdk.name)


@pytest.fixture(autouse=True)
async def no_open_client() -> AsyncIterator[None]:
    yield
    await close_clients()


@EACH
@pytest.mark.parametrize("stored_as", ["plain", "stream"])
async def test_an_answer_serves_both_ways_of_asking(
    sdk: Responses, stored_as: str, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    first = await (sdk.create(client) if stored_as == "plain" else sdk.final(client))
    plain, final = await sdk.create(client), await sdk.final(client)
    assert sdk.text(plain) == sdk.text(final) == sdk.text(first) == await sdk.tell(client)
    assert plain.id == final.id == first.id
    assert plain.usage == final.usage == first.usage
    assert up.calls() == 1
    outcome = last_outcome()
    assert outcome is not None
    assert (outcome.status, outcome.layer) == ("hit", "exact")
    assert outcome.usage is not None
    assert outcome.usage.output_tokens == plain.usage.output_tokens > 0


@EACH
async def test_what_is_replayed_has_the_events_of_the_provider(
    sdk: Responses, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    runs = []
    for _ in range(2):
        events = await collected(await sdk.create(client, stream=True))
        runs.append([event.type for at, event in enumerate(events) if event.type != events[at - 1].type])
    assert runs[0] == runs[1]
    assert up.calls() == 1


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": None}


@EACH
async def test_function_calls(sdk: Responses, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    asked = {"tools": [WEATHER], "tool_choice": "required"}
    first = await sdk.create(client, **asked)
    assert first.output[0].type == "function_call"
    assert (await sdk.create(client, **asked)).model_dump() == first.model_dump()
    final = await sdk.final(client, **asked)
    assert final.output[0].arguments == first.output[0].arguments
    assert up.calls() == 1


class Lift(pydantic.BaseModel):
    working: bool
    since: str


@EACH
async def test_parse(sdk: Responses, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    parsed = [
        (await settled(client.responses.parse(**sdk.arguments(), text_format=Lift))).output_parsed for _ in range(2)
    ]
    assert isinstance(parsed[0], Lift)
    assert parsed[0] == parsed[1] == (await sdk.final(client, text_format=Lift)).output_parsed
    assert up.calls() == 1
    await sdk.ask(client)
    assert up.calls() == 2


@EACH
async def test_reasoning_is_replayed_whole_to_the_same_question(
    sdk: Responses, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    asked: Any = {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"], **KEPT_APART}
    first = await sdk.final(client, **asked)
    assert first.output[0].encrypted_content
    assert (await sdk.final(client, **asked)).model_dump() == first.model_dump()
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.hit
    assert up.calls() == 1


@EACH
async def test_what_leans_on_state_at_the_provider_goes_there(
    sdk: Responses, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    for fields, reason in [
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "server tool"),
    ]:
        for _ in range(2):
            status = await sdk.status(client, **fields)
            assert status.startswith("semcache; fwd=bypass")
            assert reason in status
    with pytest.raises(openai.BadRequestError, match="not found"):
        await sdk.ask(client, previous_response_id="resp_1")
    assert up.calls() == 9
    # An answer that the provider has not kept is no answer for whoever may continue from it.
    assert (await sdk.status(client)).startswith(MISS)
    assert (await sdk.status(client, **KEPT_APART)).startswith(MISS)
    assert (await sdk.status(client, **KEPT_APART)).startswith(HIT)


@EACH
@pytest.mark.parametrize("stream", [False, True])
async def test_who_asked_first_stays_unknown(
    sdk: Responses, stream: bool, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    about: Any = {"metadata": {"name": "Ada"}, "safety_identifier": "ada", "prompt_cache_key": "ada"}
    ask = sdk.final if stream else sdk.create
    first, other = await ask(client, **about), await ask(client)
    assert (first.metadata, first.safety_identifier) == (about["metadata"], "ada")
    assert up.calls() == 1
    assert sdk.text(other) == sdk.text(first)
    assert (other.metadata, other.safety_identifier, other.prompt_cache_key) == ({}, None, None)


@EACH
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=429, headers={"retry-after": "0"}),
        Fault(status=401),
        Fault(cut_after=3),
        Fault(malformed_after=4),
    ],
    ids=["500", "429", "401", "cut", "malformed"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_raises_as_without_the_cache_and_is_not_stored(
    sdk: Responses, fault: Fault, stream: bool, up: Upstream, exact_cache: SemanticCache
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
    assert (await sdk.status(client)).startswith(MISS)


@EACH
@pytest.mark.parametrize(
    "fault",
    [Fault(end_after=6), Fault(error_after=6), Fault(finish="length"), Fault(finish="content_filter")],
    ids=["ends early", "error event", "length", "content filter"],
)
async def test_an_answer_that_is_not_whole_is_handed_on_and_not_stored(
    sdk: Responses, fault: Fault, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    up.script([fault])
    assert await sdk.tell(client)
    assert (await sdk.status(client)).startswith(MISS)
    if fault.finish:
        up.script([fault])
        assert "stored" not in await sdk.status(client, "Something else")
        assert (await sdk.status(client, "Something else")).startswith(MISS)


@EACH
async def test_the_provider_gets_the_very_bytes_that_the_bare_client_sends(
    sdk: Responses, up: Upstream, exact_cache: SemanticCache
) -> None:
    for client in (sdk.client(up), exact_cache.wrap(sdk.client(up))):
        await sdk.ask(client, extra_body={"later_field": ["ü", 0.1]})
        await sdk.tell(client)
    bare_plain, bare_stream, plain, stream = up.requests()
    assert (plain.raw, stream.raw) == (bare_plain.raw, bare_stream.raw)
