"""LiteLLM through the cache, over real HTTP: completion, acompletion and Router, plain and streamed.

Runs in an environment of its own, since LiteLLM wants an older OpenAI SDK: ``make test-litellm``.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import litellm
import pydantic
import pytest

from semcache import AsyncSemanticCache, Policy, SemanticCache, last_outcome
from semcache.errors import ConfigurationError
from semcache.outage import is_outage
from semcache.testing.upstream import Fault, Upstream

pytestmark = [
    # LiteLLM's own, on import and in its logging threads.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

QUESTION = "Is it up?"
litellm.suppress_debug_info = True
MESSAGES = [{"role": "user", "content": QUESTION}]
SECRET = "sk-very-secret-0123456789"


class Way:
    """One way of calling LiteLLM, wrapped or not. ``ask`` awaits and collects whatever comes back."""

    def __init__(self, name: str, up: Upstream) -> None:
        self.up = up
        self.is_async = name.startswith("a")
        self.is_router = name.endswith("router")

    def target(self, **settings: Any) -> Any:
        if not self.is_router:
            return litellm.acompletion if self.is_async else litellm.completion
        deployment = {
            "model": "openai/gpt-4o-mini",
            "api_base": self.up.openai_url,
            "api_key": SECRET,
            "max_retries": 0,
        }
        return litellm.Router(
            **{"model_list": [{"model_name": "fast", "litellm_params": deployment}], "num_retries": 0, **settings}
        )

    def arguments(self, **extra: Any) -> dict[str, Any]:
        if self.is_router:
            return {"model": "fast", "messages": MESSAGES, **extra}
        own = {"api_base": self.up.openai_url, "api_key": SECRET, "max_retries": 0}
        return {"model": "openai/gpt-4o-mini", "messages": MESSAGES, **own, **extra}

    async def ask(self, target: Any, **extra: Any) -> Any:
        if self.is_router:
            target = target.acompletion if self.is_async else target.completion
        answer = target(**self.arguments(**extra))
        answer = await answer if inspect.isawaitable(answer) else answer
        if isinstance(answer, litellm.ModelResponse):
            return answer
        return [chunk async for chunk in answer] if self.is_async else list(answer)


@pytest.fixture(params=["completion", "acompletion", "router", "arouter"])
def way(request: pytest.FixtureRequest, up: Upstream) -> Way:
    return Way(request.param, up)


@pytest.fixture
def direct(up: Upstream) -> Way:
    return Way("completion", up)


def text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"api_key": {"type": "string"}}, "required": ["api_key"]},
        },
    }
]


async def test_a_repeated_call_is_answered_without_the_provider(way: Way, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(way.target())
    first, second = await way.ask(target), await way.ask(target)
    assert type(second) is litellm.ModelResponse
    assert second.model_dump() == first.model_dump()
    assert second.usage.prompt_tokens == first.usage.prompt_tokens > 0
    assert way.up.calls() == 1
    outcome = last_outcome()
    assert outcome is not None
    assert (outcome.status, outcome.layer, outcome.usage and outcome.usage.input_tokens) == (
        "hit",
        "exact",
        first.usage.prompt_tokens,
    )
    assert outcome.usd_micro is not None
    assert second._hidden_params["cache_hit"] is True
    assert second._hidden_params["additional_headers"]["cache-status"].startswith("semcache; hit")


async def test_streams_and_plain_calls_serve_each_other(way: Way, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(way.target())
    told = await way.ask(target, stream=True, stream_options={"include_usage": True})
    asked = await way.ask(target)
    again = await way.ask(target, stream=True)
    assert way.up.calls() == 1
    assert (
        text(told)
        == text(again)
        == asked.choices[0].message.content
        == (await way.ask(way.target())).choices[0].message.content
    )
    assert asked.usage.prompt_tokens > 0
    assert all(getattr(chunk, "usage", None) is None for chunk in again)
    built = litellm.stream_chunk_builder(again, messages=MESSAGES)
    assert built.choices[0].message.content == text(told)
    assert built.choices[0].finish_reason == "stop"


async def test_usage_is_in_a_replayed_stream_for_who_asks(way: Way, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(way.target())
    answer = await way.ask(target)
    chunks = await way.ask(target, stream=True, stream_options={"include_usage": True})
    assert chunks[-1].usage.prompt_tokens == answer.usage.prompt_tokens
    assert all(type(chunk).__name__ == "ModelResponseStream" for chunk in chunks)


async def test_a_stream_is_metered_though_its_caller_did_not_ask(direct: Way, exact_cache: SemanticCache) -> None:
    chunks = await direct.ask(exact_cache.wrap(litellm.completion), stream=True)
    assert all(getattr(chunk, "usage", None) is None for chunk in chunks)
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.stored
    assert outcome.usage is not None
    assert outcome.usage.input_tokens > 0


async def test_tool_calls(way: Way, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(way.target())
    first = await way.ask(target, tools=TOOLS, tool_choice="required")
    assert (await way.ask(target, tools=TOOLS, tool_choice="required")).model_dump() == first.model_dump()
    chunks = await way.ask(target, tools=TOOLS, tool_choice="required", stream=True)
    (call,) = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert call.function.arguments == first.choices[0].message.tool_calls[0].function.arguments
    assert way.up.calls() == 1


class Lift(pydantic.BaseModel):
    working: bool
    since: str


async def test_a_model_class_as_response_format(way: Way, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(way.target())
    answers = [await way.ask(target, response_format=Lift) for _ in range(2)]
    assert Lift.model_validate_json(answers[1].choices[0].message.content) == Lift.model_validate_json(
        answers[0].choices[0].message.content
    )
    assert way.up.calls() == 1
    await way.ask(target)
    assert way.up.calls() == 2


async def test_messages_as_litellm_returns_them(way: Way, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(way.target())
    said = (await way.ask(target)).choices[0].message
    turns = [*MESSAGES, said, {"role": "user", "content": "And tomorrow?"}]
    for _ in range(2):
        await way.ask(target, messages=turns)
    assert way.up.calls() == 2


@pytest.mark.parametrize(
    "same",
    [
        {"timeout": 7},
        {"num_retries": 0},
        {"metadata": {"trace": "7"}},
        {"user": "someone"},
        {"caching": True},
        {"temperature": None},
        {"extra_headers": {"authorization": "Bearer other"}},
        {"input_cost_per_token": 0.1},
    ],
    ids=lambda same: next(iter(same)),
)
async def test_what_says_nothing_of_the_answer_is_no_part_of_the_key(
    direct: Way, same: dict[str, Any], exact_cache: SemanticCache
) -> None:
    target = exact_cache.wrap(litellm.completion)
    await direct.ask(target)
    await direct.ask(target, **same)
    assert direct.up.calls() == 1


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 0.1},
        {"seed": 2},
        {"model": "openai/gpt-5-mini"},
        {"organization": "other"},
        {"fallbacks": ["openai/gpt-5-mini"]},
        {"metadata": {"tags": ["paid"]}},
        {"some_new_field": 1},
        {"extra_headers": {"openai-beta": "new"}},
        {"extra_headers": {"anthropic-beta": "new"}},
        {"provider_specific_header": {"custom_llm_provider": "openai", "extra_headers": {"openai-beta": "new"}}},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_what_may_change_the_answer_is_part_of_the_key(
    direct: Way, other: dict[str, Any], exact_cache: SemanticCache
) -> None:
    target = exact_cache.wrap(litellm.completion)
    await direct.ask(target)
    await direct.ask(target, **other)
    assert direct.up.calls() == 2


async def test_who_walks_away_from_a_stream_lets_go_of_its_connection(up: Upstream, exact_cache: SemanticCache) -> None:
    way = Way("acompletion", up)
    stream = await exact_cache.wrap(litellm.acompletion)(**way.arguments(stream=True))
    behind = stream._source
    await stream.__anext__()
    assert behind.completion_stream is not None
    await stream.aclose()
    assert behind.completion_stream is None
    unread = await exact_cache.wrap(litellm.acompletion)(**way.arguments(stream=True))
    await unread.aclose()
    for _ in range(500):  # another thread lets its followers go
        if exact_cache.stats().in_flight == 0:
            break
        await asyncio.sleep(0.01)
    assert exact_cache.stats().in_flight == 0
    await way.ask(exact_cache.wrap(litellm.acompletion))
    assert up.calls() == 3, "neither was stored"


@pytest.mark.parametrize(
    ("kind", "outage"),
    [
        (litellm.Timeout, True),
        (litellm.InternalServerError, True),
        (litellm.RateLimitError, False),
        (litellm.BadRequestError, False),
        (litellm.AuthenticationError, False),
    ],
)
def test_what_of_its_exceptions_is_an_outage(kind: Any, outage: bool) -> None:
    assert is_outage(kind("no", model="gpt-4o-mini", llm_provider="openai")) is outage


async def test_no_credential_reaches_the_key(way: Way, exact_cache: SemanticCache) -> None:
    await way.ask(
        exact_cache.wrap(way.target()),
        aws_secret_access_key=SECRET,
        vertex_credentials=SECRET,
        langfuse_secret=SECRET,
        extra_headers={"authorization": SECRET},
        extra_body={"api_key": SECRET},
        fallbacks=[{"model": "openai/gpt-5-mini", "api_key": SECRET}] if not way.is_router else [],
        tools=TOOLS,
    )
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.key is not None
    assert SECRET.encode() not in outcome.key.canonical
    assert b"api_key" in outcome.key.canonical, "a property that the model reads is part of the question"


async def test_who_answers_is_part_of_the_key(
    direct: Way, exact_cache: SemanticCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = exact_cache.wrap(litellm.completion)
    elsewhere = direct.up.openai_url.replace("127.0.0.1", "localhost")
    await direct.ask(target)
    await direct.ask(target, api_base=elsewhere)
    assert direct.up.calls() == 2
    monkeypatch.setenv("OPENAI_BASE_URL", direct.up.openai_url)
    await direct.ask(target, api_base=None)
    assert direct.up.calls() == 2, "the environment names the same server"
    labelled = exact_cache.wrap(litellm.completion, upstream="prod")
    await direct.ask(labelled)
    await direct.ask(labelled, api_base=elsewhere)
    assert direct.up.calls() == 3


async def test_litellms_own_words_for_the_cache(way: Way, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(way.target())
    await way.ask(target, cache={"no-store": True})
    await way.ask(target)
    await way.ask(target, cache={"no-cache": True})
    assert way.up.calls() == 3
    await way.ask(target)
    assert way.up.calls() == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "error"), [(429, litellm.RateLimitError), (400, litellm.BadRequestError)])
async def test_litellms_exceptions_reach_the_caller(
    way: Way, status: int, error: type[Exception], stream: bool, exact_cache: SemanticCache
) -> None:
    target = exact_cache.wrap(way.target())
    way.up.fail_next(status)
    with pytest.raises(error):
        await way.ask(target, stream=stream)
    assert way.up.calls() == 1
    await way.ask(target, stream=stream)
    assert way.up.calls() == 2


@pytest.mark.parametrize("fault", [Fault(cut_after=3), Fault(end_after=3), Fault(malformed_after=3)], ids=str)
async def test_a_stream_that_did_not_finish_is_not_stored(way: Way, fault: Fault, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(way.target())
    way.up.script([fault])
    expected = None
    try:
        await way.ask(target, stream=True)  # after a proper end in the middle, LiteLLM itself says "stop"
    except Exception as error:
        expected = type(error)
    way.up.script([fault])
    plain = None
    try:
        await way.ask(way.target(), stream=True)
    except Exception as error:
        plain = type(error)
    assert expected is plain
    before = way.up.calls()
    whole = await way.ask(target, stream=True)
    assert way.up.calls() == before + 1
    assert text(whole) == (await way.ask(target)).choices[0].message.content
    assert way.up.calls() == before + 1


@pytest.mark.parametrize("finish", ["length", "content_filter", "whatever_else"])
async def test_an_answer_without_a_proper_end_is_not_stored(way: Way, finish: str, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(way.target())
    for stream in (False, True):
        way.up.script([Fault(finish=finish)])
        await way.ask(target, stream=stream)
    assert way.up.calls() == 2


async def test_a_stream_that_is_left_early_holds_nobody_up(direct: Way, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(litellm.completion)
    stream = target(**direct.arguments(stream=True))
    next(stream)
    stream.close()
    unread = target(**direct.arguments(stream=True))
    del unread
    gc.collect()
    await direct.ask(target)
    assert direct.up.calls() == 3
    assert exact_cache.stats().in_flight == 0


async def test_a_stream_has_litellms_attributes(direct: Way, exact_cache: SemanticCache) -> None:
    stream = exact_cache.wrap(litellm.completion)(**direct.arguments(stream=True))
    assert stream.custom_llm_provider == "openai"
    assert text(list(stream))


async def test_equal_calls_in_flight_share_one(up: Upstream) -> None:
    way = Way("acompletion", up)
    async with AsyncSemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        target = cache.wrap(litellm.acompletion)
        up.script([Fault(stall_s=0.3)])
        answers = await asyncio.gather(*(way.ask(target) for _ in range(5)))
    assert up.calls() == 1
    assert len({json.dumps(answer.model_dump()) for answer in answers}) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_through_litellm(direct: Way, stream: bool, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(litellm.completion)
    where = {"model": "anthropic/claude-haiku-4-5", "api_base": direct.up.anthropic_url}
    first = await direct.ask(target, stream=stream, **where)
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.stored
    assert outcome.usage is not None
    assert outcome.usage.input_tokens > 0, "Anthropic reports the usage of streams unasked"
    hit = await direct.ask(target, **where)
    assert direct.up.calls() == 1
    assert hit.choices[0].message.content == (text(first) if stream else first.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
async def test_questions_of_the_same_meaning_and_the_audit_of_their_hits(way: Way, stream: bool) -> None:
    first = [{"role": "user", "content": "How do I reset my password?"}]
    second = [{"role": "user", "content": "How can I reset my password?"}]
    judged: list[str] = []

    def judge(question: str, stored_question: str, stored: str, fresh: str) -> bool:
        judged.append(fresh)
        return True

    with SemanticCache(store="memory://", policy=Policy(audit_rate=1.0), judge=judge) as cache:
        target = cache.wrap(way.target())
        answer = await way.ask(target, messages=first)
        found = await way.ask(target, messages=second, stream=stream)
        second.append({"role": "assistant", "content": "the caller goes on with its list"})
        said = text(found) if stream else found.choices[0].message.content
        assert said == answer.choices[0].message.content
        outcome = last_outcome()
        assert outcome is not None
        assert outcome.layer == "semantic"
        auditor = cache.engine.auditor
        assert auditor is not None
        assert await asyncio.to_thread(auditor.wait, 20.0)
    assert [request.body["messages"][-1]["content"] for request in way.up.requests()] == [
        "How do I reset my password?",
        "How can I reset my password?",
    ]
    assert len(judged) == 1


async def test_no_credential_of_the_address_reaches_the_key(direct: Way, exact_cache: SemanticCache) -> None:
    where = direct.up.openai_url.replace("http://", f"http://user:{SECRET}@")
    await direct.ask(exact_cache.wrap(litellm.completion), api_base=where)
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.key is not None
    assert SECRET.encode() not in outcome.key.canonical


async def test_a_hit_that_is_streamed_has_what_litellm_hides(direct: Way, exact_cache: SemanticCache) -> None:
    target = exact_cache.wrap(litellm.completion)
    await direct.ask(target)
    stream = target(**direct.arguments(stream=True))
    assert stream._hidden_params["cache_hit"] is True
    assert next(stream)._hidden_params["cache_hit"] is True


def test_the_router_before_the_cache_is_not_changed(up: Upstream, exact_cache: SemanticCache) -> None:
    way = Way("router", up)
    router = way.target()
    before = dict(vars(router))
    wrapped = exact_cache.wrap(router)
    assert isinstance(wrapped, litellm.Router)
    assert vars(router) == before
    assert type(router) is litellm.Router
    for _ in range(2):
        router.completion(model="fast", messages=MESSAGES)
    assert up.calls() == 2
    wrapped.chat.completions.create(messages=MESSAGES, model="fast")
    wrapped.completion("fast", MESSAGES)
    assert up.calls() == 3
    router.add_deployment(
        litellm.types.router.Deployment(
            model_name="slow", litellm_params={"model": "openai/gpt-5-mini", "api_base": up.openai_url, "api_key": "k"}
        )
    )
    assert wrapped.get_model_names() == ["fast", "slow"]
    wrapped.completion("fast", MESSAGES)
    assert up.calls() == 4, "other deployments may answer otherwise"


async def test_fallbacks_are_the_routers_own(up: Upstream, exact_cache: SemanticCache) -> None:
    way = Way("arouter", up)
    dead = {"model": "openai/gpt-4o-mini", "api_base": "http://127.0.0.1:9/v1", "api_key": "k", "max_retries": 0}
    alive = {"model": "openai/gpt-5-mini", "api_base": up.openai_url, "api_key": "k"}
    models = [{"model_name": "fast", "litellm_params": dead}, {"model_name": "spare", "litellm_params": alive}]
    target = exact_cache.wrap(way.target(model_list=models, fallbacks=[{"fast": ["spare"]}]))
    first, second = await way.ask(target), await way.ask(target)
    assert first.model_dump() == second.model_dump()
    assert first.model == "gpt-5-mini"
    assert up.calls() == 1
    without = exact_cache.wrap(way.target(model_list=models))
    with pytest.raises(litellm.InternalServerError):
        await way.ask(without)


@pytest.mark.parametrize(
    "target",
    [litellm.embedding, litellm.text_completion, litellm.Router.completion],
    ids=["embedding", "text", "method"],
)
def test_other_functions_of_litellm_are_refused(target: Any, exact_cache: SemanticCache) -> None:
    with pytest.raises(ConfigurationError, match=r"litellm\.completion"):
        exact_cache.wrap(target)


DOCS = Path(__file__).parents[2] / "docs" / "providers.md"


@pytest.mark.parametrize(
    ("heading", "printed"), [("LiteLLM", "miss ModelResponse\nhit ModelResponse"), ("instructor", "miss\nhit")]
)
def test_the_example_of_the_docs(heading: str, printed: str, up: Upstream, tmp_path: Path) -> None:
    section = DOCS.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    example = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0]
    environment = {
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": up.openai_url,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONPATH": ":".join(sys.path),
    }
    run = subprocess.run([sys.executable, "-c", example], env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == printed, run.stderr


# -- marks for the provider's prompt cache ---------------------------------------------------------------------------

SYSTEM = "You answer questions about the harbour lifts of a northern town, briefly and kindly. " * 80
HOSTS: dict[str, Any] = {
    "anthropic": lambda up: {"model": "anthropic/claude-sonnet-5", "api_base": up.anthropic_url, "api_key": SECRET},
    "openai": lambda up: {"model": "openai/gpt-6-sol", "api_base": up.openai_url, "api_key": SECRET},
    "bedrock": lambda up: {
        "model": "bedrock/converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "aws_bedrock_runtime_endpoint": up.bedrock_url,
        "aws_region_name": "us-east-1",
        "aws_access_key_id": "id",
        "aws_secret_access_key": SECRET,
    },
}
MARKS = ("cache_control", "cachePoint", "prompt_cache_breakpoint")


def asked(number: int, **more: Any) -> dict[str, Any]:
    question = {"role": "user", "content": f"Question {number}?"}
    return {"messages": [{"role": "system", "content": SYSTEM}, question], **more}


def is_marked(up: Upstream) -> list[bool]:
    return [any(mark in request.raw for mark in MARKS) for request in up.requests()]


def routed(*hosts: dict[str, Any], **settings: Any) -> litellm.Router:
    models = [
        {"model_name": f"group-{number}", "litellm_params": {**host, "max_retries": 0}}
        for number, host in enumerate(hosts)
    ]
    return litellm.Router(model_list=models, num_retries=0, **settings)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", ["completion", "acompletion", "router", "arouter"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_prefix_that_comes_back_is_marked_and_read(
    kind: str, host: str, stream: bool, up: Upstream, exact_cache: SemanticCache
) -> None:
    where = HOSTS[host](up)
    if kind.endswith("router"):
        router = exact_cache.wrap(routed(where), provider=host)
        call = router.acompletion if kind == "arouter" else router.completion
        arguments: dict[str, Any] = {"model": "group-0"}
    else:
        call, arguments = exact_cache.wrap(getattr(litellm, kind), provider=host), where
    if stream:
        arguments = {**arguments, "stream": True, "stream_options": {"include_usage": True}}
    for number in range(4):
        answer = call(**asked(number, **arguments))
        answer = await answer if inspect.isawaitable(answer) else answer
        if stream:
            assert [chunk async for chunk in answer] if kind.startswith("a") else list(answer)
    assert all(is_marked(up))
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.marks is not None
    assert [point.ttl for point in outcome.marks.points]
    assert outcome.usage is not None
    assert outcome.usage.cache_read_tokens > 1000
    assert outcome.expected_read_tokens == pytest.approx(outcome.usage.cache_read_tokens, rel=0.1)
    again = call(**asked(3, **arguments))
    assert await again if inspect.isawaitable(again) else again
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.hit, "marks are no part of the key"


def test_tools_and_their_results_are_marked_where_litellm_hands_marks_on(
    up: Upstream, exact_cache: SemanticCache
) -> None:
    completion = exact_cache.wrap(litellm.completion, provider="anthropic")
    tools = [{**TOOLS[0], "function": {**TOOLS[0]["function"], "description": SYSTEM}}]  # type: ignore[dict-item]
    use = {"id": "a1", "type": "function", "function": {"name": "weather", "arguments": '{"api_key": "k"}'}}
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Is it raining?"}]
    for number in range(3):
        completion(messages=turns, tools=tools, **HOSTS["anthropic"](up))
        call = {**use, "id": f"a{number}"}
        turns = [
            *turns,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": SYSTEM},
        ]
    first, *_, last = (request.body for request in up.requests())
    assert first["tools"][-1]["cache_control"]["type"] == "ephemeral"
    results = [block for turn in last["messages"] for block in turn["content"] if block["type"] == "tool_result"]
    assert "cache_control" in results[0]
    assert "cache_control" not in results[-1], "the last message varies"
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.usage is not None
    assert outcome.usage.cache_read_tokens > 1000
    assert outcome.expected_read_tokens == pytest.approx(outcome.usage.cache_read_tokens, rel=0.1)


OWN = {"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("more", "setting"),
    [
        ({"cache_control_injection_points": [{"location": "message", "role": "user"}]}, None),
        ({"messages": [{"role": "user", "content": [OWN]}, *MESSAGES]}, None),
        ({"fallbacks": ["openai/gpt-4o-mini"]}, None),
        ({}, "enable_anthropic_prompt_caching"),
    ],
    ids=["injection", "own mark", "fallback", "setting"],
)
def test_marks_that_others_place_are_theirs(
    more: dict[str, Any],
    setting: str | None,
    up: Upstream,
    exact_cache: SemanticCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if setting:
        monkeypatch.setattr(litellm, setting, True, raising=False)
    arguments = {**asked(0, **HOSTS["anthropic"](up)), **more}
    litellm.completion(**arguments)
    exact_cache.wrap(litellm.completion, provider="anthropic")(**arguments)
    plain, sent = up.requests()
    assert sent.raw == plain.raw


def test_an_unknown_host_gets_no_marks(up: Upstream, exact_cache: SemanticCache) -> None:
    for host in HOSTS.values():
        for number in range(3):
            exact_cache.wrap(litellm.completion)(**asked(number, **host(up)))
    assert not any(is_marked(up))
    assert not any("prompt_cache" in request.raw for request in up.requests())
    with pytest.raises(ConfigurationError, match="unknown vendor"):
        exact_cache.wrap(litellm.completion, provider="antropic")


def test_a_router_that_may_ask_somebody_else_places_no_marks(up: Upstream, exact_cache: SemanticCache) -> None:
    here, elsewhere = HOSTS["anthropic"](up), HOSTS["openai"](up)
    two = litellm.Router(
        model_list=[
            {"model_name": "group-0", "litellm_params": {**here, "api_key": key, "max_retries": 0}}
            for key in ("a", "b")
        ]
    )
    falls_back = routed(here, elsewhere, fallbacks=[{"group-0": ["group-1"]}])
    for router in (two, falls_back):
        for number in range(3):
            exact_cache.wrap(router, provider="anthropic").completion(**asked(number, model="group-0"))
    assert not any(is_marked(up))
    alike = routed(here, {**here, "model": "anthropic/claude-haiku-4-5"}, fallbacks=[{"group-0": ["group-1"]}])
    exact_cache.wrap(alike, provider="anthropic").completion(**asked(9, model="group-0"))
    assert is_marked(up)[-1]


@pytest.mark.parametrize("kind", ["completion", "acompletion"])
async def test_a_refusal_is_sent_again_only_where_it_names_a_mark(
    kind: str, up: Upstream, exact_cache: SemanticCache
) -> None:
    call = exact_cache.wrap(getattr(litellm, kind), provider="anthropic")

    async def ask(number: int) -> Any:
        answer = call(**asked(number, num_retries=0, **HOSTS["anthropic"](up)))
        return await answer if inspect.isawaitable(answer) else answer

    for number in range(2):
        await ask(number)
    up.script([Fault(status=400, message="max_tokens: 9000000 > 64000")])
    with pytest.raises(litellm.BadRequestError, match="9000000"):
        await ask(2)
    assert up.calls() == 3
    up.script([Fault(status=400, message="system.0.cache_control: Extra inputs are not permitted")])
    assert (await ask(3)).choices[0].message.content
    assert is_marked(up) == [True, True, True, True, False]
