"""The data of providers, against the price table and hand-picked rows of the vendors' pages."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from semcache.errors import ConfigurationError
from semcache.prompt_cache import break_even, find_rules
from semcache.prompt_cache.rules import litellm_provider

ANTHROPIC, OPENAI = "https://api.anthropic.com/v1", "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("api", "host", "model", "style", "minimum", "read", "writes"),
    [
        ("anthropic", ANTHROPIC, "claude-opus-5-5-20261001", "cache_control", 512, 0.05, {"5m": 1.25, "1h": 2}),
        ("anthropic", ANTHROPIC, "claude-fable-5-2", "cache_control", 512, 0.025, {"5m": 1.25, "1h": 2}),
        ("anthropic", ANTHROPIC, "claude-opus-4-6", "cache_control", 4096, 0.1, {"5m": 1.25, "1h": 2}),
        ("litellm", ANTHROPIC, "anthropic/claude-sonnet-5", "cache_control", 1024, 0.1, {"5m": 1.25, "1h": 2}),
        ("openai_chat", OPENAI, "gpt-5.6-sol", "breakpoints", 1024, 0.1, {"30m": 1.25}),
        ("openai_responses", OPENAI, "gpt-6.1-terra", "breakpoints", 1024, 0.05, {"30m": 1.25, "12h": 2.5}),
        ("openai_chat", OPENAI, "gpt-5-mini-2025-08-07", "key", 1024, 0.1, {}),
        ("openai_chat", "https://x.openai.azure.com/openai", "gpt-6-sol", "breakpoints", 1024, 0.1, {"30m": 1.25}),
        (
            "bedrock",
            "bedrock-runtime.eu-west-1.amazonaws.com",
            "eu.anthropic.claude-opus-4-7-v1:0",
            "cache_point",
            2048,
            0.1,
            {"5m": 1.25, "1h": 2},
        ),
        (
            "bedrock",
            "bedrock-runtime.us-east-1.amazonaws.com",
            "us.anthropic.claude-sonnet-4-20250514-v1:0",
            "cache_point",
            1024,
            0.1,
            {"5m": 1.25},
        ),
        (
            "anthropic",
            "europe-west1-aiplatform.googleapis.com",
            "claude-haiku-4-5@20251001",
            "cache_control",
            4096,
            0.1,
            {"5m": 1.25, "1h": 2},
        ),
    ],
)
def test_rules_of_a_model(
    api: str, host: str, model: str, style: str, minimum: int, read: float, writes: dict[str, float]
) -> None:
    rules = find_rules(api, host, model)
    assert rules is not None
    assert (rules.style, rules.minimum, rules.read, dict(rules.writes)) == (style, minimum, read, writes)


@pytest.mark.parametrize(
    ("api", "host"),
    [
        ("openai_chat", "http://localhost:8000/v1"),
        ("openai_chat", "https://api.openai.com.evil.example/v1"),
        ("openai_chat", "https://api.deepseek.com"),
        ("anthropic", "https://gateway.example"),
        ("openai_chat", "[bad"),
        ("openai_chat", "my label"),
    ],
)
def test_other_hosts_have_no_rules(api: str, host: str) -> None:
    assert find_rules(api, host, "gpt-6-sol") is None


@pytest.mark.parametrize(
    "model",
    ["anthropic.claude-3-haiku-20240307-v1:0", "anthropic.claude-3-5-sonnet-20240620-v1:0", "anthropic.claude-v2:1"],
)
@pytest.mark.parametrize("api", ["bedrock", "anthropic"])
def test_a_model_that_refuses_marks_gets_none(api: str, model: str) -> None:
    assert find_rules(api, "bedrock-runtime.us-east-1.amazonaws.com", model) is None


@pytest.mark.parametrize("model", ["amazon.nova-lite-v1:0", "meta.llama4-scout-17b-instruct-v1:0"])
def test_only_anthropics_models_are_known_on_bedrock(model: str) -> None:
    assert find_rules("bedrock", "bedrock-runtime.us-east-1.amazonaws.com", model) is None


def test_the_user_may_name_the_vendor() -> None:
    rules = find_rules("openai_chat", "http://gpu:8000", "any/model", vendor="vllm")
    assert rules is not None
    assert rules.style == "salt"
    with pytest.raises(ConfigurationError, match="known: anthropic"):
        find_rules("openai_chat", "http://gpu:8000", "m", vendor="vlm")


def test_rules_and_prices_agree() -> None:
    text = resources.files("semcache").joinpath("data/prices.json").read_text(encoding="utf-8")
    compared = 0
    for model, price in json.loads(text)["models"].items():
        api, host = ("anthropic", ANTHROPIC) if model.startswith("claude") else ("openai_chat", OPENAI)
        rules = find_rules(api, host, model)
        # One early release never had a cache price of its own.
        if rules is not None and model != "gpt-4o-2024-05-13":
            short = min((w.multiple for w in rules.writes), default=1)
            assert (rules.read, short) == (price.get("read", 1), price.get("write", 1)), model
            compared += 1
    assert compared > 20


def test_break_even() -> None:
    assert break_even(0.1, 1.25) == pytest.approx(0.2174, abs=1e-4)
    assert break_even(0.025, 2.0) == pytest.approx(0.5063, abs=1e-4)


@pytest.mark.parametrize("route", ["bedrock/", "bedrock/converse/", "bedrock/invoke/", ""])
def test_litellm_drops_the_longer_lifetime_of_bedrock(route: str) -> None:
    rules = find_rules("litellm", "", f"{route}us.anthropic.claude-sonnet-4-5-20250929-v1:0", vendor="bedrock")
    assert rules is not None
    assert (rules.minimum, [write.ttl for write in rules.writes]) == (1024, ["5m"])


def test_litellm_hands_no_marks_on_that_pay_for_storage() -> None:
    assert litellm_provider("gemini") is None
    assert find_rules("litellm", "", "vertex_ai/gemini-3.8-flash", vendor="vertex") is None
    for name in ("anthropic", "bedrock", "vertex_ai", "openai"):
        known = litellm_provider(name)
        assert known is not None
        assert find_rules(
            known.api, "", "claude-sonnet-5" if known.api == "litellm" else "gpt-6-sol", vendor=known.vendor
        )
