"""An upstream that fails, and the answers that have expired: over real HTTP, with the real SDK clients."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import boto3
import botocore.config
import httpx2
import openai
import pytest
from google import genai

from semcache import Policy, SemanticCache, last_outcome
from semcache.errors import ConfigurationError
from semcache.outage import is_outage
from semcache.policy import Override
from semcache.testing.servers import RedisServer
from semcache.testing.upstream import Fault, Upstream

TTL, GRACE = 0.3, 60.0
POLICY = Policy(semantic=False, ttl=TTL, stale_if_error=GRACE)
QUESTION = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Is it up?"}]}


@pytest.fixture
def up() -> Iterator[Upstream]:
    with Upstream() as up:
        yield up


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return f"{server.url}?prefix={tmp_path.name}&budget_s=20"
    return {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path / 'store.db'}"}[request.param]


def cached(up: Upstream, cache: SemanticCache, **options: Any) -> Any:
    client = openai.OpenAI(base_url=up.openai_url, api_key="key", max_retries=0, **options)
    return cache.wrap(client)


def status() -> str:
    outcome = last_outcome()
    assert outcome is not None
    return outcome.status


def test_an_expired_answer_takes_the_place_of_a_500(up: Upstream, url: str) -> None:
    with SemanticCache(store=url, policy=POLICY) as cache:
        events: list[str] = []
        cache.on_event(lambda event: events.append(event.kind))
        client = cached(up, cache)
        fresh = client.chat.completions.create(**QUESTION)
        time.sleep(TTL + 0.05)
        up.fail_next(500)
        raw = client.chat.completions.with_raw_response.create(**QUESTION)
        assert raw.parse().choices[0].message.content == fresh.choices[0].message.content
        assert raw.headers["cache-status"] == 'semcache; fwd=stale; detail="status 500"'
        assert status() == "stale"
        assert events == ["served_stale"]
        client.chat.completions.create(**QUESTION)
        assert status() == "miss"
        assert cache.stats().ledger.totals.stale.calls == 1


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(cut_after=0), Fault(stall_s=60.0)], ids=["503", "cut", "late"]
)
def test_whatever_the_failure(fault: Fault, up: Upstream) -> None:
    with SemanticCache(store="memory://", policy=POLICY) as cache:
        client = cached(up, cache)
        client.chat.completions.create(**QUESTION)
        time.sleep(TTL + 0.05)
        up.script([fault])
        client.with_options(timeout=1.0).chat.completions.create(**QUESTION)
        assert status() == "stale"


def test_an_upstream_that_is_gone(up: Upstream) -> None:
    with SemanticCache(store="memory://", policy=POLICY) as cache:
        client = cached(up, cache)
        client.chat.completions.create(**QUESTION)
        time.sleep(TTL + 0.05)
        up.close()
        client.chat.completions.create(**QUESTION)
        assert status() == "stale"
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(**{**QUESTION, "temperature": 0.5})


@pytest.mark.parametrize("code", [400, 401, 429])
def test_a_refusal_is_no_outage(code: int, up: Upstream) -> None:
    with SemanticCache(store="memory://", policy=POLICY) as cache:
        client = cached(up, cache)
        client.chat.completions.create(**QUESTION)
        time.sleep(TTL + 0.05)
        up.fail_next(code)
        with pytest.raises(openai.APIStatusError) as raised:
            client.chat.completions.create(**QUESTION)
        assert raised.value.status_code == code


def test_streams_too_if_they_fail_before_they_begin(up: Upstream) -> None:
    with SemanticCache(store="memory://", policy=POLICY) as cache:
        client = cache.wrap(anthropic.Anthropic(base_url=up.anthropic_url, api_key="key", max_retries=0))
        asked = {**QUESTION, "model": "claude-haiku-4-5", "max_tokens": 200}

        def told() -> str:
            with client.messages.stream(**asked) as stream:
                return str(stream.get_final_text())

        fresh = told()
        time.sleep(TTL + 0.05)
        up.fail_next(529)
        assert told() == fresh
        assert status() == "stale"
        up.script([Fault(cut_after=3)])
        with pytest.raises(httpx2.HTTPError):
            told()


async def test_on_an_event_loop_too(up: Upstream, url: str) -> None:
    with SemanticCache(store=url, policy=POLICY) as cache:
        client = cache.wrap(openai.AsyncOpenAI(base_url=up.openai_url, api_key="key", max_retries=0))
        fresh = await client.chat.completions.create(**QUESTION)
        await asyncio.sleep(TTL + 0.05)
        up.fail_next(502)
        stale = await client.chat.completions.create(**QUESTION)
        assert stale.choices[0].message.content == fresh.choices[0].message.content
        assert status() == "stale"
        up.fail_next(502)
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(**{**QUESTION, "temperature": 0.5})
        await client.close()


def test_bedrock_and_gemini_too(up: Upstream) -> None:
    with SemanticCache(store="memory://", policy=POLICY) as cache:
        once = botocore.config.Config(retries={"mode": "standard", "total_max_attempts": 1})
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1", "config": once}
        bedrock = cache.wrap(boto3.client("bedrock-runtime", endpoint_url=up.bedrock_url, **keys))
        gemini = cache.wrap(genai.Client(api_key="key", http_options=genai.types.HttpOptions(base_url=up.gemini_url)))
        messages = [{"role": "user", "content": [{"text": "Is it up?"}]}]
        asks: list[Any] = [
            lambda: bedrock.converse(modelId="anthropic.claude-sonnet-5-v1:0", messages=messages)["output"],
            lambda: gemini.models.generate_content(model="gemini-3-flash", contents="Is it up?").text,
        ]
        for ask in asks:
            fresh = ask()
            time.sleep(TTL + 0.05)
            up.fail_next(503)
            assert ask() == fresh
            assert status() == "stale"


def test_a_policy_says_for_how_long(tmp_path: Path) -> None:
    policy = Policy(
        stale_if_error=60.0, namespaces={"strict": Override(stale_if_error=0.0), "lax": Override(stale_if_error=900.0)}
    )
    policy.save(tmp_path / "policy.toml")
    loaded = Policy.load(tmp_path / "policy.toml")
    assert loaded == policy
    assert [loaded.rules(name).stale_if_error for name in ("default", "strict", "lax")] == [60.0, 0.0, 900.0]
    assert loaded.longest_stale == 900.0
    assert Policy().longest_stale == 0.0
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigurationError, match="stale_if_error"):
            Policy(stale_if_error=wrong)


class Refused(Exception):
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (TimeoutError(), True),
        (ValueError("anything"), True),
        (Refused(status_code=500), True),
        (Refused(status_code=404), False),
        (Refused(code=429), False),
        (Refused(code="rate_limit_exceeded", status_code=429), False),
        (Refused(response=httpx2.Response(400)), False),
        (Refused(response=httpx2.Response(503)), True),
        (Refused(response={"ResponseMetadata": {"HTTPStatusCode": 403}}), False),
        (Refused(response={"ResponseMetadata": {"HTTPStatusCode": 503}}), True),
        (Refused(response=None), True),
        (Refused(status_code=408), True),  # LiteLLM's own time-out
        (Refused(status=401), False),  # aiohttp
        (Refused(status="UNAVAILABLE"), True),
        (ConfigurationError("ours"), False),
    ],
)
def test_a_refusal_is_known_from_an_outage(error: Exception, outage: bool) -> None:
    assert is_outage(error) is outage
    gave_up = RuntimeError("gave up after 3 tries")
    gave_up.__cause__ = error
    assert is_outage(gave_up) is (outage or isinstance(error, ConfigurationError))


def test_an_exception_that_is_its_own_cause_is_looked_at_once() -> None:
    error = ValueError()
    error.__cause__ = error
    assert is_outage(error)


def test_a_time_out_at_the_upstream_is_an_outage(up: Upstream) -> None:
    with SemanticCache(store="memory://", policy=POLICY) as cache:
        client = cached(up, cache)
        client.chat.completions.create(**QUESTION)
        time.sleep(TTL + 0.05)
        up.fail_next(408)
        client.chat.completions.create(**QUESTION)
        assert status() == "stale"


def test_followers_get_it_without_a_failure_of_their_own(up: Upstream) -> None:
    with SemanticCache(store="memory://", policy=POLICY) as cache:
        client = cached(up, cache)
        client.chat.completions.create(**QUESTION)
        time.sleep(TTL + 0.05)
        up.script([Fault(stall_s=2.0, status=503)] * 5)
        calls, seen = up.calls(), []

        def work() -> None:
            client.chat.completions.create(**QUESTION)
            seen.append(status())

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == ["stale"] * 4
        assert up.calls() == calls + 1


def test_a_namespace_may_want_the_failure() -> None:
    failing = [False]

    def ask(prompt: str) -> str:
        if failing[0]:
            raise TimeoutError
        return "fresh"

    policy = Policy(semantic=False, ttl=0.05, stale_if_error=GRACE, namespaces={"strict": Override(stale_if_error=0.0)})
    with SemanticCache(store="memory://", policy=policy) as cache:
        wrapped = cache.wrap(ask)
        wrapped("hi")
        with cache.options(namespace="strict"):
            wrapped("hi")
        time.sleep(0.1)
        failing[0] = True
        assert wrapped("hi") == "fresh"
        assert status() == "stale"
        with cache.options(namespace="strict"), pytest.raises(TimeoutError):
            wrapped("hi")


async def test_functions_of_every_kind() -> None:
    failing = [False]

    def check() -> None:
        if failing[0]:
            raise ConnectionError

    async def ask(prompt: str) -> str:
        check()
        return "fresh"

    def tell(prompt: str) -> Iterator[str]:
        check()
        yield "fre"
        yield "sh"

    async def atell(prompt: str) -> AsyncIterator[str]:
        check()
        yield "fre"
        yield "sh"

    with SemanticCache(store="memory://", policy=Policy(semantic=False, ttl=0.05, stale_if_error=GRACE)) as cache:
        a, b, c = cache.wrap(ask), cache.wrap(tell), cache.wrap(atell)
        for _ in range(2):
            assert await a("hi") == "fresh"
            assert "".join(b("hi")) == "fresh"
            assert "".join([piece async for piece in c("hi")]) == "fresh"
            failing[0] = True
            time.sleep(0.1)  # noqa: ASYNC251
        assert status() == "stale"
        with pytest.raises(ConnectionError):
            await a("ho")
        with pytest.raises(ConnectionError):
            list(b("ho"))


def test_an_exception_that_generators_use_themselves_is_handed_on() -> None:
    error = StopIteration()

    def ask(prompt: str) -> str:
        raise error

    with SemanticCache(store="memory://", policy=POLICY) as cache, pytest.raises(StopIteration) as raised:
        cache.wrap(ask)("hi")
    assert raised.value is error
