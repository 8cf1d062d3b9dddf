"""LiteLLM through the cache, over real HTTP: completion, acompletion and Router, plain and streamed.

Runs in an environment of its own, since LiteLLM wants an older OpenAI SDK: ``make test-litellm``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import litellm
import pydantic
import pytest
from litellm_ways import MESSAGES, SECRET, TOOLS, Way, text

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


@pytest.fixture(params=["completion", "acompletion", "router", "arouter"])
def way(request: pytest.FixtureRequest, up: Upstream) -> Way:
    return Way(request.param, up)


@pytest.fixture
def direct(up: Upstream) -> Way:
    return Way("completion", up)


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
