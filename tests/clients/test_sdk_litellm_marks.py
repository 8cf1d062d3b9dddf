"""Marks for the provider's prompt cache through LiteLLM, over real HTTP.

Runs in an environment of its own: see ``test_sdk_litellm.py``.
"""

from __future__ import annotations

import inspect
from typing import Any

import litellm
import pytest
from litellm_ways import MESSAGES, SECRET, TOOLS

from semcache import SemanticCache, last_outcome
from semcache.clients.litellm_answerers import answered_by
from semcache.errors import ConfigurationError
from semcache.testing.upstream import Fault, Upstream

pytestmark = [
    # LiteLLM's own, on import and in its logging threads.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

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


def test_a_gateway_at_an_ipv6_address_is_not_the_provider() -> None:
    prompt = answered_by(
        None, None, {"model": "anthropic/claude-sonnet-5", "api_base": "http://[::1]:4000"}
    ).prompt_cache
    assert prompt is not None
    assert (prompt.host, prompt.provider) == ("::1", None)


def test_an_endpoint_that_is_no_address_is_left_to_litellm() -> None:
    arguments = {
        "model": "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0",
        "aws_bedrock_runtime_endpoint": "http://[bad",
    }
    assert answered_by(None, None, arguments).prompt_cache is None
