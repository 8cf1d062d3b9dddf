"""``semcache estimate``: a log's cost with and without the cache, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from semcache.cli import main
from semcache.money.estimates import guess_tokens


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Any:
    from semcache.policy import Policy

    policy = tmp_path / "policy.toml"
    Policy(semantic=False).save(policy)

    def run(log: Path, *args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["estimate", str(log), "--policy", str(policy), *args])
        assert result.exit_code == code, result.output
        return result

    return run


def test_the_logs_own_usage_is_taken_as_it_is(run: Any, tmp_path: Path) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 500, "cache_read_tokens": 400}
    rows = [{"text": text, "usage": usage} for text in ("a", "b", "a", "a")]
    found = json.loads(
        run(write(tmp_path / "log.jsonl", *rows), "--model", "gpt-5-mini", "--model", "x", "--json").stdout
    )
    assert (found["requests"], found["hits"], found["estimated_requests"]) == (4, 2, 0)
    known, unknown = found["models"]
    one = 600 * 0.25 + 400 * 0.025 + 1000  # 1,160 micro-dollars
    assert known["without_cache"] == {"usd": 4 * one / 1e6, "low": 4 * one / 1e6, "high": 4 * one / 1e6}
    assert known["with_cache"]["usd"] == known["saved"]["usd"] == 2 * one / 1e6
    assert known["price_id"] == "semcache:gpt-5-mini@2026-11-21"
    assert unknown == {"model": "x", "price_id": None, "without_cache": None, "with_cache": None, "saved": None}


def test_what_is_missing_is_estimated_with_a_band(run: Any, tmp_path: Path) -> None:
    text = "What does it cost to send a parcel of two kilograms from here to an address abroad? " * 40
    answer = "It depends on the country and on how fast it shall be there. " * 20
    log = write(
        tmp_path / "log.jsonl",
        {"text": text, "response": {"choices": [{"message": {"content": answer}}]}},
        {"text": text},
        {"text": "Other?"},
    )
    found = json.loads(run(log, "--model", "claude-opus-5-5", "--json").stdout)
    assert (found["hits"], found["estimated_requests"], found["requests_without_answer"]) == (1, 3, 2)
    without = found["models"][0]["without_cache"]
    said = round(guess_tokens(answer))
    prompts = 2 * guess_tokens(text) + guess_tokens("Other?")
    assert without["usd"] * 1e6 == pytest.approx(prompts * 4 + 3 * said * 20, rel=0.02)
    assert without["low"] == pytest.approx(0.7 * without["usd"], rel=0.01)
    assert without["high"] == pytest.approx(1.3 * without["usd"], rel=0.01)
    shown = run(log, "--model", "claude-opus-5-5").stdout
    assert "3 requests, of which the cache answers 1 (33.3%)." in shown
    assert "The tokens of 3 requests are estimates, ±30 %." in shown
    assert "2 requests have no answer in the log" in shown


def test_the_logs_own_usage_corrects_the_estimates(run: Any, tmp_path: Path) -> None:
    text = "Which of the trains on Sunday has a place for a bicycle, and must it be booked? " * 20
    guess = round(guess_tokens(text))
    reported = [{"text": f"{n} {text}", "usage": {"input_tokens": 2 * guess, "output_tokens": 0}} for n in range(40)]
    log = write(tmp_path / "log.jsonl", *reported, {"text": text})
    all_, known = (
        json.loads(run(path, "--model", "gpt-6-sol", "--json").stdout)["models"][0]["without_cache"]["usd"]
        for path in (log, write(tmp_path / "known.jsonl", *reported))
    )
    assert (all_ - known) * 1e6 == pytest.approx(2 * guess * 2, rel=0.1)


def test_own_prices_and_a_bad_log(run: Any, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[models.house]\ninput = 1\noutput = 1\n")
    log = write(tmp_path / "log.jsonl", {"text": "a", "usage": {"input_tokens": 5, "output_tokens": 5}})
    found = json.loads(run(log, "--model", "house", "--prices", str(prices), "--json").stdout)
    assert found["models"][0]["without_cache"]["usd"] == 1e-5
    assert "log.jsonl" in run(write(tmp_path / "log.jsonl", {"nothing": 1}), "--model", "house", code=2).stderr


def test_the_embedder_is_used_where_the_policy_has_a_semantic_tier(tmp_path: Path) -> None:
    rows = [{"text": text} for text in ("How can I reset my password?", "How do I reset my password?", "Why?")]
    result = CliRunner().invoke(main, ["estimate", str(write(tmp_path / "l.jsonl", *rows)), "--model", "o3", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["hits"] == 1
