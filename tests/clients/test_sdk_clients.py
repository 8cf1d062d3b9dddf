"""Real SDK clients through the cache, over real HTTP: what is served, in every way of calling."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import pydantic
import pytest
from sdk_clients import QUESTION, SDKS, Sdk, close_clients, closed, collected, settled

from semcache import SemanticCache, last_outcome
from semcache.testing.upstream import Fault, Upstream

EACH = pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
SYNC = pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if not sdk.is_async], ids=lambda sdk: sdk.name)
HIT, MISS = "semcache; hit", "semcache; fwd=uri-miss"


@pytest.fixture(autouse=True)
async def no_open_client() -> AsyncIterator[None]:
    yield
    await close_clients()


class Lift(pydantic.BaseModel):
    working: bool
    since: str


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tools(sdk: Sdk) -> dict[str, Any]:
    if sdk.is_openai:
        tool: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
        return {"tools": [tool], "tool_choice": "required"}
    return {"tools": [{"name": "weather", "input_schema": PARAMETERS}], "tool_choice": {"type": "any"}}


@EACH
async def test_a_repeated_call_is_answered_without_the_provider(
    sdk: Sdk, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    first, second = await sdk.create(client), await sdk.create(client)
    assert first.model_dump() == second.model_dump()
    assert up.calls() == 1
    outcome = last_outcome()
    assert outcome is not None
    assert (outcome.status, outcome.layer) == ("hit", "exact")
    assert outcome.usage is not None
    assert outcome.usage.input_tokens > 0
    await sdk.ask(client, "Another question")
    assert up.calls() == 2


@EACH
async def test_a_streamed_answer_serves_plain_calls(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    told = await sdk.tell(client)
    answer = await sdk.create(client)
    assert sdk.text(answer) == told == await sdk.ask(sdk.client(up))
    assert up.calls() == 2
    assert answer.usage.model_dump() == (await sdk.create(sdk.client(up))).usage.model_dump()


@EACH
async def test_a_plain_answer_serves_streams(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    asked = await sdk.ask(client)
    assert await sdk.tell(client) == asked == await sdk.tell(client)
    assert up.calls() == 1


@EACH
async def test_tool_calls(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    first = await sdk.create(client, **tools(sdk))
    assert (await sdk.create(client, **tools(sdk))).model_dump() == first.model_dump()
    calls = first.choices[0].message.tool_calls if sdk.is_openai else first.content
    assert calls
    final = await final_of(sdk, client, **tools(sdk))
    if sdk.is_openai:
        (call,) = final.choices[0].message.tool_calls
        assert call.function.arguments == calls[0].function.arguments
    else:
        assert final.content[-1].input == first.content[-1].input
    assert up.calls() == 1


async def final_of(sdk: Sdk, client: Any, **extra: Any) -> Any:
    """The SDK's own final message of a ``.stream()``."""
    manager = sdk.endpoint(client).stream(**sdk.arguments(**extra))
    final = "get_final_completion" if sdk.is_openai else "get_final_message"
    if sdk.is_async:
        async with manager as stream:
            return await getattr(stream, final)()
    with manager as stream:
        return getattr(stream, final)()


@EACH
async def test_the_stream_helper(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    live, replayed = await final_of(sdk, client), await final_of(sdk, client)
    assert replayed.model_dump() == live.model_dump()
    assert up.calls() == 1


@EACH
async def test_parse(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    endpoint = sdk.endpoint(client)
    field = "response_format" if sdk.is_openai else "output_format"
    answers = [await settled(endpoint.parse(**sdk.arguments(), **{field: Lift})) for _ in range(2)]
    parsed = [answer.choices[0].message.parsed if sdk.is_openai else answer.parsed_output for answer in answers]
    assert isinstance(parsed[0], Lift)
    assert parsed[0] == parsed[1]
    assert up.calls() == 1
    await sdk.ask(client)
    assert up.calls() == 2


@EACH
async def test_raw_responses_carry_the_cache_status(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    miss, hit = await sdk.raw(client), await sdk.raw(client)
    assert miss.headers["cache-status"].startswith(f"{MISS}; stored; key=")
    assert hit.headers["cache-status"].startswith(HIT)
    assert hit.headers["cache-status"].endswith("detail=exact")
    assert hit.headers["content-type"] == miss.headers["content-type"] == "application/json"
    assert (await settled(hit.parse())).model_dump() == (await settled(miss.parse())).model_dump()
    # Hits invent no identity; misses keep the provider's headers.
    assert not {"x-request-id", "request-id"} & set(hit.headers)
    assert {"x-request-id", "request-id"} & set(miss.headers)
    assert hit.elapsed.total_seconds() >= 0


@EACH
async def test_streamed_responses_carry_the_cache_status(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    for expected in (MISS, HIT):
        response = await sdk.raw(client, stream=True)
        assert response.headers["cache-status"].startswith(expected)
        assert response.headers["content-type"].startswith("text/event-stream")
        await collected(await settled(response.parse()))


@EACH
async def test_with_streaming_response(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    bodies = []
    for _ in range(2):
        manager = sdk.endpoint(client).with_streaming_response.create(**sdk.arguments())
        if sdk.is_async:
            async with manager as response:
                bodies.append(await response.read())
        else:
            with manager as response:
                bodies.append(response.read())
    assert bodies[0] == bodies[1]
    assert up.calls() == 1


@EACH
@pytest.mark.parametrize("how", ["with_options", "copy"])
async def test_copies_stay_behind_the_cache(sdk: Sdk, how: str, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    copied = getattr(client, how)(max_retries=3)
    await sdk.ask(client)
    await sdk.ask(copied)
    assert up.calls() == 1
    assert type(copied) is type(client)


@EACH
async def test_two_clients_share_answers_only_under_one_label(
    sdk: Sdk, up: Upstream, exact_cache: SemanticCache
) -> None:
    elsewhere = {"base_url": str(sdk.client(up).base_url).replace("127.0.0.1", "localhost")}
    await sdk.ask(exact_cache.wrap(sdk.client(up)))
    await sdk.ask(exact_cache.wrap(sdk.client(up).with_options(**elsewhere)))
    assert up.calls() == 2
    await sdk.ask(exact_cache.wrap(sdk.client(up), upstream="prod"))
    await sdk.ask(exact_cache.wrap(sdk.client(up).with_options(**elsewhere), upstream="prod"))
    assert up.calls() == 3


@EACH
async def test_cache_control_of_the_request(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    no_store = {"extra_headers": {"cache-control": "no-store"}}
    status = await sdk.status(client, **no_store)
    assert status == 'semcache; fwd=bypass; detail="cache-control: no-store"'
    assert (await sdk.status(client)).startswith(MISS)
    fresh = await sdk.raw(client, extra_headers={"Cache-Control": "max-age=0, no-cache"})
    assert fresh.headers["cache-status"].startswith("semcache; fwd=request; stored")
    assert up.calls() == 3
    assert (await sdk.create(client)).id == (await settled(fresh.parse())).id
    assert up.calls() == 3


@EACH
async def test_bypassed_calls_say_why(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    with exact_cache.options(bypass=True):
        assert (await sdk.status(client)).startswith("semcache; fwd=bypass; detail=")
        assert await sdk.tell(client)
    assert up.calls() == 2
    assert (await sdk.status(client)).startswith(MISS)


@EACH
async def test_the_provider_gets_the_very_bytes_that_the_bare_client_sends(
    sdk: Sdk, up: Upstream, exact_cache: SemanticCache
) -> None:
    plain = {"extra_body": {"top_p": 1.0, "later_field": ["ü", 0.1]}}
    streamed = {"stream_options": {"include_usage": True}} if sdk.is_openai else {}
    for client in (sdk.client(up), exact_cache.wrap(sdk.client(up))):
        await sdk.ask(client, **plain)
        await sdk.tell(client, **streamed)
    bare_plain, bare_stream, plain_sent, stream_sent = up.requests()
    assert plain_sent.raw == bare_plain.raw
    assert stream_sent.raw == bare_stream.raw
    ignored = {"x-stainless-read-timeout", "idempotency-key"}
    for bare, sent in ((bare_plain, plain_sent), (bare_stream, stream_sent)):
        assert {k: v for k, v in sent.headers.items() if k not in ignored} == {
            k: v for k, v in bare.headers.items() if k not in ignored
        }


@SYNC
def test_the_original_client_is_left_alone(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    original = sdk.client(up)
    wrapped = exact_cache.wrap(original)
    assert type(wrapped) is type(original)
    for _ in range(2):
        response = sdk.endpoint(original).with_raw_response.create(**sdk.arguments())
        assert "cache-status" not in response.headers
    wrapped.close()
    assert wrapped.is_closed()
    assert not original.is_closed()
    sdk.endpoint(original).create(**sdk.arguments())
    assert up.calls() == 3


@SYNC
def test_a_wrapped_client_outlives_the_name_of_its_original(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    known = sdk.client(up)
    wrapped = exact_cache.wrap(type(known)(base_url=known.base_url, api_key="key"))  # with the SDK's own HTTP client
    gc.collect()
    assert sdk.endpoint(wrapped).create(**sdk.arguments())
    assert up.calls() == 1


@SYNC
def test_nothing_in_the_client_goes_around_the_transport(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    original = sdk.client(up)
    wrapped = exact_cache.wrap(original)
    seen, waiting = set(), [wrapped, wrapped.with_raw_response, wrapped.with_streaming_response]
    while waiting:
        thing = waiting.pop()
        seen.add(type(thing))
        client = getattr(thing, "_client", None)
        assert client is not original
        assert client is not original._client
        names = [name for name in dir(type(thing)) if not name.startswith("_")]
        parts = [getattr(thing, name) for name in names if hasattr(getattr(type(thing), name), "func")]
        waiting += [part for part in parts if type(part) not in seen]
    assert len(seen) > 20, "the walk has found the SDK's resources"
    reachable = gc.get_referents(wrapped, wrapped.__dict__, wrapped._client.__dict__)
    assert not any(thing is original or thing is original._client for thing in reachable)


@EACH
async def test_other_endpoints_pass_through(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    if sdk.is_openai:
        assert (await settled(client.models.with_raw_response.list())).headers.get("cache-status") is None
    with pytest.raises(sdk.module.NotFoundError):
        await settled(client.post("/v1/nothing/here", body={"a": 1}, cast_to=object))


# What must never be stored ----------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=429, headers={"retry-after": "0"}),
        Fault(status=400),
        Fault(status=401),
        Fault(cut_after=3),
        Fault(malformed_after=4),
    ],
    ids=["500", "429", "400", "401", "cut", "malformed"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_raises_as_without_the_cache_and_is_not_stored(
    sdk: Sdk, fault: Fault, stream: bool, up: Upstream, exact_cache: SemanticCache
) -> None:
    raised = []
    for client in (sdk.client(up), exact_cache.wrap(sdk.client(up))):
        up.script([fault])
        call = sdk.tell if stream else sdk.ask
        with pytest.raises(Exception) as caught:  # noqa: PT011  the bare client says which
            await call(client)
        raised.append(caught.value)
    bare, wrapped = raised
    assert type(wrapped) is type(bare)
    for field in ("status_code", "code", "type"):
        assert getattr(wrapped, field, None) == getattr(bare, field, None)
    assert up.calls() == 2, "no retries of our own"
    assert (await sdk.status(client)).startswith(MISS)


@EACH
@pytest.mark.parametrize("fault", [Fault(error_after=3), Fault(cut_after=1)], ids=["error event", "cut at once"])
async def test_a_stream_that_breaks_off_is_not_stored(
    sdk: Sdk, fault: Fault, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    up.script([fault])
    with pytest.raises(Exception, match=r".") as caught:
        await sdk.tell(client)
    assert type(caught.value).__module__.partition(".")[0] in (sdk.module.__name__, "httpx2")
    outcome = last_outcome()
    assert outcome is not None
    assert not outcome.stored
    assert (await sdk.status(client)).startswith(MISS)


@EACH
@pytest.mark.parametrize(
    "fault",
    [Fault(end_after=3), Fault(finish="length"), Fault(finish="content_filter")],
    ids=["ends early", "length", "content filter"],
)
async def test_an_answer_that_is_not_whole_is_handed_on_and_not_stored(
    sdk: Sdk, fault: Fault, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    up.script([fault])
    await sdk.tell(client)
    assert (await sdk.status(client)).startswith(MISS)
    if fault.finish:
        up.script([fault])
        assert "stored" not in await sdk.status(client, "Something else")
        assert (await sdk.status(client, "Something else")).startswith(MISS)


@SYNC
def test_the_garbage_collector_waits_for_no_lock_of_ours(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    """It comes whenever something is allocated, also while this very thread holds one."""
    client = exact_cache.wrap(sdk.client(up))
    flights = exact_cache.engine.performer.flights

    def collect() -> None:
        stream = sdk.endpoint(client).create(**sdk.arguments(stream=True))
        next(iter(stream))
        knot = [stream]
        knot.append(knot)
        del stream, knot
        with flights._lock:
            gc.collect()

    collecting = threading.Thread(target=collect, daemon=True)
    collecting.start()
    collecting.join(20)
    assert not collecting.is_alive()
    assert str(sdk.endpoint(client).create(**sdk.arguments()))
    assert len(flights) == 0


@EACH
@pytest.mark.parametrize("how", ["close", "drop"])
async def test_an_abandoned_stream_is_not_stored(sdk: Sdk, how: str, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    stream = await sdk.create(client, stream=True)
    if sdk.is_async:
        await stream.__anext__()
    else:
        next(stream)
    if how == "close":
        await closed(stream)
    del stream
    gc.collect()
    outcome = last_outcome()
    assert outcome is not None
    for _ in range(500):  # the loop closes dropped generators when it gets to it
        if outcome.reason.startswith("the stream"):
            break
        await asyncio.sleep(0.01)
    assert not outcome.stored
    assert outcome.reason == "the stream was not read to its end"
    assert (await sdk.status(client)).startswith(MISS)


@EACH
async def test_a_timeout_is_the_sdks_own_and_frees_the_key(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    up.script([Fault(stall_s=20.0)])
    with pytest.raises(sdk.module.APITimeoutError):
        await sdk.ask(client.with_options(timeout=0.5))
    assert await sdk.ask(client)


@EACH
async def test_retries_are_the_sdks(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up, max_retries=2))
    up.fail_next(429, headers={"retry-after": "0.01"}, times=2)
    assert (await sdk.status(client)).startswith(MISS)
    assert up.calls() == 3
    assert (await sdk.status(client)).startswith(HIT)


@EACH
async def test_a_closed_port_is_the_sdks_connection_error(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up).with_options(base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(sdk.module.APIConnectionError):
        await sdk.ask(client)


def test_usage_that_nobody_asked_for_is_recorded_and_not_shown(up: Upstream, exact_cache: SemanticCache) -> None:
    (sdk, *_) = SDKS
    bare, client = sdk.client(up), exact_cache.wrap(sdk.client(up))
    shapes = []
    for each in (bare, client, client):
        chunks = list(each.chat.completions.create(**sdk.arguments(), stream=True))
        assert all("usage" not in chunk.model_fields_set for chunk in chunks)
        shapes.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    assert len(set(shapes)) == 1
    assert [b'"include_usage":true' in request.raw.encode() for request in up.requests()] == [False, True]
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.usage is not None
    assert outcome.usage.output_tokens > 0
    asked = list(client.chat.completions.create(**sdk.arguments(), stream=True, stream_options={"include_usage": True}))
    assert asked[-1].usage.prompt_tokens == outcome.usage.input_tokens
    assert QUESTION in up.requests()[0].raw
