"""``semcache demo --provider``: the day through each provider's real SDK. LiteLLM's runs where it is installed."""

from __future__ import annotations

import itertools
import json
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner, Result

from semcache import Policy, SemanticCache
from semcache.cli import main
from semcache.demo.providers import SDKS, Provider
from semcache.demo.questions import load_answers, load_questions
from semcache.demo.run import run_demo
from semcache.testing.upstream import Upstream

MODULES = {"openai": "openai", "anthropic": "anthropic", "gemini": "google.genai", "bedrock": "boto3"}
MARKS = ("prompt_cache_breakpoint", "cache_control", "cachePoint")
WITH_LITELLM = find_spec("litellm") is not None
HERE = ("litellm",) if WITH_LITELLM else tuple(MODULES)
REQUESTS = 60

# LiteLLM's own, on import and in its logging threads.
_OF_LITELLM = [f"ignore::{kind}" for kind in ("DeprecationWarning", "ResourceWarning", "UserWarning")]
pytestmark = [pytest.mark.filterwarnings(one) for one in _OF_LITELLM if WITH_LITELLM]


def run(store: Path, *arguments: str) -> Result:
    command = ["demo", "--store", str(store), "--speed", "40", "--requests", str(REQUESTS), *arguments]
    return CliRunner().invoke(main, command)


@pytest.mark.parametrize("provider", HERE)
def test_a_provider_gets_its_own_model_and_marks_and_gives_the_right_answers(provider: Provider) -> None:
    questions, right = load_questions(REQUESTS), load_answers()
    prepared = {question.text: right[question.label] for question in questions}
    seconds = itertools.count(1_800_000_000)  # in the time of the test, a prompt would hardly be seen to come back
    with (
        SemanticCache(store="memory://", policy=Policy(embed_budget_s=10), clock=lambda: next(seconds)) as cache,
        Upstream(answers=prepared) as upstream,
    ):
        made = run_demo(cache, upstream, questions, right, provider=provider)
        sent = upstream.requests()
    assert made.ways == (provider,)
    assert not any(call.wrong for call in made.calls if call.outcome.layer != "semantic")
    spared = [call for call in made.calls if call.outcome.hit or call.outcome.collapsed]
    assert {call.question.stream for call in spared} == {False, True}
    assert {call.outcome.status for call in made.calls} == {"hit", "miss"}
    assert all(call.outcome.usd_micro for call in made.calls), "every model has a price"
    model = SDKS[provider].model.removeprefix("openai/")
    assert all(request.body.get("model") == model or model in unquote(request.path) for request in sent)
    marked = any(mark in request.raw for request in sent for mark in MARKS)
    assert marked == (SDKS[provider].vendor is not None)


@pytest.mark.parametrize("provider", HERE)
def test_the_command_says_what_is_real_and_what_is_not(provider: Provider, tmp_path: Path) -> None:
    shown = run(tmp_path / "demo.db", "--provider", provider)
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.stdout.split())
    package = SDKS[provider].package
    assert f"Real: {package} {version(package)}" in text
    assert "Simulated: the provider" in text
    made = json.loads(run(tmp_path / "demo.db", "--provider", provider, "--json").stdout)
    assert (made["provider"], made["clients"], made["clients_missing"]) == (provider, [provider], [])
    assert made["requests"] == made["hits"] + made["collapsed"] + made["misses"] == REQUESTS
    assert made["store"]["entries_before"] > 0


@pytest.mark.parametrize("provider", SDKS)
def test_a_missing_sdk_is_named_with_its_extra(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, MODULES.get(provider, provider), None)
    shown = run(tmp_path / "demo.db", "--provider", provider)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert f"{SDKS[provider].package} is not installed; run: pip install 'semcache-llm[{provider}]'" in shown.stderr
