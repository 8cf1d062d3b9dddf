"""Cache points on what real SDK clients send, and what the provider then reads, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from click.testing import CliRunner
from sdk_clients import SDKS, Sdk, close_clients, collected

from semcache import Policy, SemanticCache, last_outcome
from semcache.cli import main
from semcache.errors import ConfigurationError
from semcache.testing.upstream import Fault, Upstream
from semcache.types import Event

EACH = pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
SYSTEM = "You answer questions about the harbour lifts of a northern town, briefly and kindly. " * 80


@pytest.fixture(autouse=True)
async def no_open_client() -> AsyncIterator[None]:
    yield
    await close_clients()


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        yield cache


@pytest.fixture
def events(cache: SemanticCache) -> list[Event]:
    seen: list[Event] = []
    cache.on_event(seen.append)
    return seen


def provider(sdk: Sdk) -> str:
    return "openai" if sdk.is_openai else "anthropic"


def prompt(sdk: Sdk, text: str, system: str = SYSTEM) -> dict[str, Any]:
    """Arguments for a question after a long system prompt, in the order that the SDK's caller wrote them."""
    asked = sdk.arguments(text)
    asked["model"] = "gpt-6-sol" if sdk.is_openai else "claude-sonnet-5"
    if sdk.is_openai:
        asked["messages"] = [{"role": "system", "content": system}, *asked["messages"]]
        return asked
    return {**asked, "system": system}


async def ask(sdk: Sdk, client: Any, text: str, **more: Any) -> Any:
    asked = prompt(sdk, text, **more)
    return await sdk.create(client, asked["messages"][-1]["content"], **asked)


def marks_in(value: Any) -> int:
    if isinstance(value, dict):
        return sum(
            (name in ("cache_control", "prompt_cache_breakpoint")) + marks_in(item) for name, item in value.items()
        )
    return sum(map(marks_in, value)) if isinstance(value, list) else 0


@EACH
async def test_a_prefix_that_comes_back_is_marked_and_read(sdk: Sdk, up: Upstream, cache: SemanticCache) -> None:
    client = cache.wrap(sdk.client(up), provider=provider(sdk))
    for number in range(4):
        await ask(sdk, client, f"Question {number}?")
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.marks is not None
    assert outcome.usage is not None
    assert [point.ttl for point in outcome.marks.points]
    assert outcome.usage.cache_read_tokens > 1000
    assert outcome.expected_read_tokens == pytest.approx(outcome.usage.cache_read_tokens, rel=0.1)
    assert all(marks_in(request.body) for request in up.requests()[1:])


@EACH
async def test_only_marks_are_added_and_the_order_of_fields_stays(sdk: Sdk, up: Upstream, cache: SemanticCache) -> None:
    bare, marked = sdk.client(up), cache.wrap(sdk.client(up), provider=provider(sdk))
    for number in range(3):
        await ask(sdk, bare, f"Question {number}?")
        await ask(sdk, marked, f"Question {number}?")
    sent = [request.body for request in up.requests()]
    for plain, with_marks in zip(sent[::2], sent[1::2], strict=True):
        assert [name for name in with_marks if name in plain] == list(plain)
        assert json.dumps(unmarked(with_marks)) == json.dumps(unmarked(plain))


def unmarked(value: Any) -> Any:
    """A body without marks, a lone text block as the string that it stands for."""
    if isinstance(value, list):
        items = [unmarked(item) for item in value]
        lone = len(items) == 1 and isinstance(items[0], dict) and items[0].keys() == {"type", "text"}
        return items[0]["text"] if lone else items
    if not isinstance(value, dict):
        return value
    added = ("cache_control", "prompt_cache_breakpoint", "prompt_cache_options", "prompt_cache_key")
    return {name: unmarked(item) for name, item in value.items() if name not in added}


@EACH
async def test_marks_are_no_part_of_the_key(sdk: Sdk, up: Upstream, cache: SemanticCache) -> None:
    first = cache.wrap(sdk.client(up), provider=provider(sdk))
    for number in range(3):
        await ask(sdk, first, f"Question {number}?")
    calls = up.calls()
    await ask(sdk, first, "Question 2?")
    await ask(sdk, cache.wrap(sdk.client(up)), "Question 2?")
    assert up.calls() == calls
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.hit
    assert outcome.marks is None


@EACH
async def test_an_unknown_host_gets_no_vendors_fields(sdk: Sdk, up: Upstream, cache: SemanticCache) -> None:
    client = cache.wrap(sdk.client(up))
    for number in range(3):
        await ask(sdk, client, f"Question {number}?")
    assert not any(marks_in(request.body) or "prompt_cache_key" in request.body for request in up.requests())
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.marks is None


@EACH
async def test_it_can_be_switched_off(sdk: Sdk, up: Upstream) -> None:
    with SemanticCache(store="memory://", policy=Policy(semantic=False), prompt_cache=False) as cache:
        client = cache.wrap(sdk.client(up), provider=provider(sdk))
        for number in range(3):
            await ask(sdk, client, f"Question {number}?")
    assert not any(marks_in(request.body) or "prompt_cache_key" in request.body for request in up.requests())


def test_a_callers_own_marks_stay_where_they_are(up: Upstream, cache: SemanticCache) -> None:
    sdk = next(sdk for sdk in SDKS if sdk.module is anthropic and not sdk.is_async)
    client = cache.wrap(sdk.client(up), provider="anthropic")
    system = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    for number in range(3):
        asked = {**prompt(sdk, f"Question {number}?"), "system": system}
        client.messages.create(**asked)
    assert [request.body["system"] for request in up.requests()] == [system] * 3
    assert all(marks_in(request.body) == 1 for request in up.requests())


def test_a_stream_is_marked_and_reconciled_at_its_end(up: Upstream, cache: SemanticCache) -> None:
    sdk = next(sdk for sdk in SDKS if sdk.module is anthropic and not sdk.is_async)
    client = cache.wrap(sdk.client(up), provider="anthropic")
    for number in range(3):
        list(client.messages.create(**prompt(sdk, f"Question {number}?"), stream=True))
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.usage is not None
    assert outcome.expected_read_tokens == pytest.approx(outcome.usage.cache_read_tokens, rel=0.1)
    assert outcome.usage.cache_read_tokens > 1000


def test_vllm_is_salted_by_tenant_and_nothing_else_is_added(up: Upstream) -> None:
    sdk = next(sdk for sdk in SDKS if sdk.module is openai and not sdk.is_async)
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        client = cache.wrap(sdk.client(up), provider="vllm")
        salts = []
        for tenant in ("acme", "globex", None):
            with cache.options(tenant=tenant):
                client.chat.completions.create(**prompt(sdk, "Is it up?"))
            body = up.requests()[-1].body
            assert not marks_in(body)
            salts.append(body.get("cache_salt"))
    acme, globex, none = salts
    assert acme
    assert globex
    assert acme != globex
    assert "acme" not in acme
    assert none is None


def test_a_prompt_that_is_asked_more_often_than_a_key_takes_gets_more_of_them(up: Upstream) -> None:
    sdk = next(sdk for sdk in SDKS if sdk.module is openai and not sdk.is_async)
    now = [1_000_000.0]
    with SemanticCache(store="memory://", policy=Policy(semantic=False), clock=lambda: now[0]) as cache:
        client = cache.wrap(sdk.client(up), provider="openai")
        for number in range(40):
            client.chat.completions.create(**prompt(sdk, f"Question {number}?"))
        keys = [request.body["prompt_cache_key"] for request in up.requests()]
        assert len(set(keys[:15])) == 1
        assert len(set(keys)) > 2
        now[0] += 1200
        client.chat.completions.create(**prompt(sdk, "Another?"))
        assert up.requests()[-1].body["prompt_cache_key"] == keys[0]


def refusal_of_marks(sdk: Sdk) -> Fault:
    """An error as the provider words it where a deployment knows less of marks than its vendor's rules say."""
    if sdk.is_openai:
        return Fault(status=400, message="Unknown parameter: 'messages[0].content[0].prompt_cache_breakpoint'.")
    return Fault(status=400, message="system.0.cache_control: Extra inputs are not permitted")


@EACH
@pytest.mark.parametrize("stream", [False, True])
async def test_where_marks_are_refused_the_callers_own_body_is_sent(sdk: Sdk, stream: bool, up: Upstream) -> None:
    now = [1_000_000.0]
    events: list[Event] = []
    with SemanticCache(store="memory://", policy=Policy(semantic=False), clock=lambda: now[0]) as cache:
        cache.on_event(events.append)
        client = cache.wrap(sdk.client(up), provider=provider(sdk))
        for number in range(2):
            await ask(sdk, client, f"Question {number}?")
        up.script([refusal_of_marks(sdk)])
        asked = prompt(sdk, "Refused?")
        answer = await sdk.create(client, "Refused?", **asked, stream=stream)
        assert await collected(answer) if stream else answer
        assert [event.kind for event in events] == ["prompt_cache_error"]
        refused, taken = up.requests()[-2:]
        assert marks_in(refused.body) == 1
        assert marks_in(taken.body) == 0
        assert "prompt_cache_key" not in taken.body
        assert (await sdk.status(client, "Refused?", **asked)).startswith("semcache; hit")
        await ask(sdk, client, "Marked?")
        assert marks_in(up.requests()[-1].body) == 0
        now[0] += 3600
        for number in range(8):
            now[0] += 10
            await ask(sdk, client, f"Later {number}?")
        assert marks_in(up.requests()[-1].body) == 1


@EACH
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_what_is_not_about_marks_reaches_the_caller_after_one_call(
    sdk: Sdk, stream: bool, status: int, up: Upstream, cache: SemanticCache, events: list[Event]
) -> None:
    client = cache.wrap(sdk.client(up), provider=provider(sdk))
    for number in range(3):
        await ask(sdk, client, f"Question {number}?")
    for number in range(3):
        up.script([Fault(status=status, message="max_tokens: 9000000 > 64000")])
        with pytest.raises(sdk.module.APIStatusError, match="9000000") as raised:
            await sdk.create(client, "Refused?", **prompt(sdk, "Refused?"), stream=stream)
        assert raised.value.status_code == status
        assert up.calls() == 4 + number, "it was not sent again"
    await ask(sdk, client, "Marked?")
    assert marks_in(up.requests()[-1].body) == 1, "marks were taken before, so they are not why"
    assert events == []


@EACH
async def test_what_may_be_about_marks_is_the_callers_and_stops_them(
    sdk: Sdk, up: Upstream, cache: SemanticCache, events: list[Event]
) -> None:
    client = cache.wrap(sdk.client(up), provider=provider(sdk))
    up.script([Fault(status=400, message="Bad request")])
    with pytest.raises(sdk.module.BadRequestError):
        await ask(sdk, client, "Refused?")
    await ask(sdk, client, "Refused?")
    assert [marks_in(request.body) for request in up.requests()] == [1, 0]
    assert [event.kind for event in events] == ["prompt_cache_error"]


@EACH
async def test_a_key_that_is_refused_says_nothing_of_marks(
    sdk: Sdk, up: Upstream, cache: SemanticCache, events: list[Event]
) -> None:
    client = cache.wrap(sdk.client(up), provider=provider(sdk))
    up.script([Fault(status=401, message="invalid key")])
    with pytest.raises(sdk.module.AuthenticationError):
        await ask(sdk, client, "Refused?")
    await ask(sdk, client, "Refused?")
    assert [marks_in(request.body) for request in up.requests()] == [1, 1]
    assert events == []


def test_a_prefix_that_the_provider_dropped_is_told_once(
    up: Upstream, cache: SemanticCache, events: list[Event]
) -> None:
    sdk = next(sdk for sdk in SDKS if sdk.module is anthropic and not sdk.is_async)
    client = cache.wrap(sdk.client(up), provider="anthropic")
    for number in range(3):
        client.messages.create(**prompt(sdk, f"Question {number}?"))
    assert events == []
    for number in range(3, 6):
        up.forget_prompts()
        client.messages.create(**prompt(sdk, f"Question {number}?"))
    assert [event.kind for event in events] == ["prompt_cache_cold"]
    assert "nothing in that prefix had changed" in events[0].message


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (lambda n: {"system": f"It is 12:0{n}:07 now. {SYSTEM}"}, "a date or time"),
        (lambda n: {"system": f"{SYSTEM} Session 7f3e{n}a1c-99d0-4c1e-8f00-5d1b2c3a4e5f"}, "an id"),
        (lambda n: {"tools": [TOOLS[(i + n) % 3] for i in range(3)]}, "tools are in another order"),
        (lambda n: {"tools": [*TOOLS[:2], {**TOOLS[2], "description": f"Read {n}"}]}, "the tool 'read'"),
    ],
    ids=["time", "id", "order", "tool"],
)
def test_a_head_that_changes_all_the_time_is_told_with_what_changes(
    vary: Any, said: str, up: Upstream, cache: SemanticCache, events: list[Event]
) -> None:
    sdk = next(sdk for sdk in SDKS if sdk.module is anthropic and not sdk.is_async)
    client = cache.wrap(sdk.client(up), provider="anthropic")
    for number in range(4):
        client.messages.create(**{**prompt(sdk, f"Question {number}?"), **vary(number)})
    assert [event.kind for event in events] == ["prompt_cache_cold"]
    assert said in events[0].message
    assert "harbour" not in events[0].message


TOOLS: list[dict[str, Any]] = [
    {"name": name, "description": f"{name} {SYSTEM}", "input_schema": {"type": "object"}}
    for name in ("search", "write", "read")
]


def test_stats_hold_what_was_expected_against_what_was_read(up: Upstream, tmp_path: Path) -> None:
    sdk = next(sdk for sdk in SDKS if sdk.module is anthropic and not sdk.is_async)
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with SemanticCache(store=url, policy=Policy(semantic=False)) as cache:
        client = cache.wrap(sdk.client(up), provider="anthropic")
        for number in range(4):
            client.messages.create(**prompt(sdk, f"Question {number}?"))
        client.messages.create(**prompt(sdk, "Question 0?"))
        outcome = last_outcome()
        assert outcome is not None
        assert outcome.hit
        assert outcome.expected_read_tokens is not None
        assert outcome.expected_read_tokens > 1000
        (row,) = cache.stats().prompt_cache
        assert (row.model, row.counts.calls, row.counts.cold) == ("anthropic/claude-sonnet-5", 4, 0)
        assert row.counts.expected == pytest.approx(row.counts.read, rel=0.1)
        assert len(row.prefixes) == 1
    shown = CliRunner().invoke(main, ["stats", "--store", url])
    assert f"{row.counts.read:,} tokens read from the provider's cache" in " ".join(shown.output.split())
    told = json.loads(CliRunner().invoke(main, ["stats", "--store", url, "--json"]).output)
    assert told["prompt_cache"] == [row.to_dict()]


def test_an_unknown_provider_is_refused(up: Upstream, cache: SemanticCache) -> None:
    with pytest.raises(ConfigurationError, match="unknown vendor 'antropic'"):
        cache.wrap(SDKS[0].client(up), provider="antropic")


def test_trouble_with_a_plan_sends_the_prompt_as_it_is(
    up: Upstream, cache: SemanticCache, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = next(sdk for sdk in SDKS if sdk.module is anthropic and not sdk.is_async)
    marker = cache.engine.performer.marker
    assert marker is not None
    monkeypatch.setattr(marker.shared, "history", None)
    client = cache.wrap(sdk.client(up), provider="anthropic")
    client.messages.create(**prompt(sdk, "Is it up?"))
    assert not marks_in(up.requests()[-1].body)
    assert [event.kind for event in events] == ["prompt_cache_error"]


def test_threads_share_one_history(up: Upstream, cache: SemanticCache, events: list[Event]) -> None:
    sdk = next(sdk for sdk in SDKS if sdk.module is anthropic and not sdk.is_async)
    client = cache.wrap(sdk.client(up), provider="anthropic")

    def work(worker: int) -> None:
        for number in range(5):
            client.messages.create(**prompt(sdk, f"Question {worker}/{number}?"))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert up.calls() == 20
    assert not [event for event in events if event.kind == "prompt_cache_error"]
