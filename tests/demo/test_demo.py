"""``semcache demo``, run for real: upstream process, SDK clients, SQLite, FAISS, embedder."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from semcache.cli import main
from semcache.demo.questions import load_answers, load_questions
from semcache.demo.run import run_demo
from semcache.testing.upstream import Upstream

STABLE_KEYS = {
    "requests", "hits", "exact_hits", "semantic_hits", "collapsed", "hit_rate", "wrong_hits", "false_hit_rate",
    "unsafe_served_rate", "tokens_saved", "usd_saved", "latency_ms", "misses", "explain", "wrong", "store",
    "clients", "clients_missing", "upstream_speed", "seconds",
}  # fmt: skip

REQUESTS = 390
"""Enough for a question in other words that comes long after the one it means: of two in flight neither is a hit."""
Demo = Callable[..., Result]


def run_command(store: Path, *arguments: str) -> Result:
    command = ["demo", "--store", str(store), "--speed", "40", *arguments]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return functools.partial(run_command, tmp_path / "demo.db")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    store, requests = tmp_path_factory.mktemp("runs") / "demo.db", ("--requests", str(REQUESTS))
    return {
        "first": run_command(store, *requests, "--json"),
        "second": run_command(store, *requests, "--json"),
        "table": run_command(store, *requests),
    }


def as_json(result: Result) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(result.stdout)
    return made


def test_the_figures_agree_with_each_other(runs: dict[str, Result]) -> None:
    result = runs["first"]
    assert result.stderr == ""
    made = as_json(result)
    assert made.keys() >= STABLE_KEYS
    assert made["requests"] == made["labelled"] == REQUESTS
    assert made["hits"] == made["exact_hits"] + made["semantic_hits"]
    assert made["requests"] == made["hits"] + made["collapsed"] + made["misses"]
    assert made["exact_hits"] > 0
    assert made["collapsed"] > 0
    assert 0 < made["stored"] <= len({question.text for question in load_questions(REQUESTS)})
    assert made["wrong_hits"] == len(made["wrong"])
    assert made["false_hit_rate"] == pytest.approx(made["wrong_hits"] / made["hits"])
    assert made["unsafe_served_rate"] == pytest.approx(made["wrong_hits"] / REQUESTS)
    assert made["tokens_saved"] > 0
    assert made["usd_saved"] > 0
    assert made["latency_ms"]["hit"]["p50"] < made["latency_ms"]["miss"]["p50"]
    assert set(made["clients"]) == {"function", "openai", "anthropic"}
    assert made["store"]["entries_before"] == 0
    assert made["store"]["entries"] == made["stored"]


def test_the_second_run_finds_the_store_of_the_first(demo: Demo) -> None:
    first = as_json(demo("--requests", "40", "--json"))
    second = as_json(demo("--requests", "40", "--json"))
    assert second["store"]["entries_before"] == first["store"]["entries"] > 0
    assert second["hits"] >= first["store"]["entries"]
    fresh = as_json(demo("--requests", "40", "--json", "--fresh"))
    assert fresh["store"]["entries_before"] == 0
    assert fresh["misses"] > 0
    assert "found" in demo("--requests", "5").stdout


@pytest.mark.parametrize("run", ["first", "second"])
def test_a_run_has_both_examples(runs: dict[str, Result], run: str) -> None:
    made = as_json(runs[run])
    hit, trap = made["explain"]["semantic_hit"], made["explain"]["rejected_trap"]
    labels = {question.text: question.label for question in load_questions()}
    assert hit["served"]
    assert hit["reasons"] == []
    assert hit["asked"] != hit["stored"]
    assert labels[hit["asked"]] == labels[hit["stored"]]
    assert not trap["served"]
    assert trap["reasons"]
    assert labels[trap["asked"]] != labels[trap["stored"]]


def test_the_table_shows_what_the_json_says(runs: dict[str, Result]) -> None:
    made, text = as_json(runs["second"]), runs["table"].stdout
    for expected in ("money saved", "p50", "p99", "false-hit rate", "unsafe-served rate"):
        assert expected in text
    assert f"requests {made['requests']}" in " ".join(text.split())
    for example in made["explain"].values():
        assert f"asked {example['asked']} stored {example['stored']}" in " ".join(text.split())
        assert all(reason in text for reason in example["reasons"])


@pytest.mark.parametrize("missing", [["openai"], ["openai", "anthropic"]])
def test_without_an_sdk_the_function_asks_its_questions(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, missing: list[str]
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    text = demo("--requests", "30").stdout
    assert f"pip install 'semcache-llm[{','.join(missing)}]'" in text
    made = as_json(demo("--requests", "30", "--json", "--fresh"))
    assert made["clients_missing"] == missing
    assert made["requests"] == 30
    assert made["wrong_hits"] == len(made["wrong"])


def test_an_answer_of_another_class_is_counted_as_wrong() -> None:
    from semcache import SemanticCache

    questions = load_questions(40) * 2
    right = load_answers()
    swapped = dict.fromkeys(right, "Have you tried to turn it off and on again?")
    prepared = {question.text: swapped[question.label] for question in questions}
    with SemanticCache.open("memory://") as cache, Upstream(answers=prepared) as upstream:
        run = run_demo(cache, upstream, questions, right)
    made = run.report.to_dict()
    assert made["hits"] >= 30
    assert made["wrong_hits"] == made["hits"]
    assert made["false_hit_rate"] == 1.0
    assert run.semantic_hit is None


def test_answers_are_the_upstreams_own_text_on_every_path() -> None:
    from semcache import SemanticCache

    questions, right = load_questions(60), load_answers()
    prepared = {question.text: right[question.label] for question in questions}
    with SemanticCache.open("memory://") as cache, Upstream(answers=prepared) as upstream:
        run = run_demo(cache, upstream, questions, right)
    assert not any(call.wrong for call in run.calls if not call.outcome.hit)
    streamed = [call for call in run.calls if call.question.stream]
    assert {call.outcome.hit or call.outcome.collapsed for call in streamed} == {False, True}
    assert not any(call.wrong for call in streamed if call.outcome.layer == "exact")


def test_the_store_is_in_the_data_folder_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_path", lambda name, appauthor: tmp_path / name)
    result = CliRunner().invoke(main, ["demo", "--requests", "3", "--speed", "40", "--json"], catch_exceptions=False)
    assert as_json(result)["store"]["path"] == str(tmp_path / "semcache" / "demo" / "demo.db")
    assert (tmp_path / "semcache" / "demo" / "demo.db").exists()


def test_a_wrong_argument_is_refused() -> None:
    assert CliRunner().invoke(main, ["demo", "--requests", "0"]).exit_code == 2
    assert CliRunner().invoke(main, ["demo", "--speed", "0"]).exit_code == 2
