"""A budget of wrong hits: what happens when audits break it, and how it is set."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from audited import ALL, BUDGET, equal, settled
from bank import ANSWER, OTHER, RESET, RESET_AGAIN, Upstream, eventually
from click.testing import CliRunner

from semcache import ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.cli import main
from semcache.live.record import Standing

BRANCH = "Where is my nearest branch?"


def break_budget(cache, ask, up):
    """Two wrong hits of two audited, which is enough at 5 %."""
    up.answer = ANSWER
    ask(RESET)
    ask(OTHER)
    up.answer = "It has changed."
    ask(RESET_AGAIN)
    settled(cache)
    ask(OTHER.lower())
    return settled(cache)


def test_a_broken_budget_ends_semantic_hits_in_every_cache_on_the_store(lasting_url):
    up, heard, events = Upstream(), [], []
    with (
        SemanticCache.open(lasting_url, policy=BUDGET, judge=equal) as cache,
        SemanticCache.open(lasting_url) as other,
    ):
        cache.on_event(events.append)
        other.on_event(heard.append)
        ask, other_ask = cache.wrap(up.ask, name="ask"), other.wrap(up.ask, name="ask")
        ask(BRANCH)
        assert other_ask(BRANCH.lower()) == ANSWER
        assert last_outcome().layer == "semantic"
        assert break_budget(cache, ask, up) == Standing(audited=2, wrong=2, off=True)
        assert [event.kind for event in events] == ["semantic_off"]

        assert other_ask(BRANCH) == ANSWER  # the exact tier goes on
        eventually(lambda: other_ask.request and not _serves(other, other_ask.request(BRANCH.lower())))
        assert [event.kind for event in heard] == ["semantic_off"]
        assert "2 of 2 audited hits were wrong" in other.explain(other_ask.request(BRANCH.lower())).reason

        assert other_ask(BRANCH.lower()) == "It has changed."
        outcome = last_outcome()
        assert outcome.reason.startswith("semantic tier off")
        assert (outcome.would_serve.layer, outcome.stored) == ("semantic", True)
        assert other_ask(BRANCH.lower()) == "It has changed."
        assert last_outcome().layer == "exact"

        child = f"""
from semcache import SemanticCache
with SemanticCache.open({lasting_url!r}) as cache:
    print(cache.stats().live["default"].off, cache.resume("default"), cache.stats().live["default"].off)
"""
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        run = subprocess.run(
            [sys.executable, "-c", child], env=environment, capture_output=True, text=True, check=True, timeout=300
        )
        assert run.stdout.split() == ["True", "True", "False"]
        eventually(lambda: _serves(other, other_ask.request("Where is my nearest branch??")))
    assert [event.kind for event in heard] == ["semantic_off", "semantic_on"]


def _serves(cache, request):
    return cache.lookup(request).outcome.hit


def test_while_it_is_off_withheld_hits_are_audited_for_nothing_until_it_comes_back(monkeypatch):
    monkeypatch.setattr("semcache.live.evidence.clean_audits", lambda budget, confidence: 3)
    up = Upstream()
    with SemanticCache(store="memory://", policy=BUDGET, judge=equal) as cache:
        ask = cache.wrap(up.ask)
        assert break_budget(cache, ask, up).off
        up.answer = ANSWER
        ask(BRANCH)
        for marks in ("??", "???", "?!"):
            calls = up.calls
            ask(BRANCH + marks)
            assert last_outcome().would_serve.layer == "semantic"
            settled(cache)
            assert last_outcome().would_serve.agrees is True
            assert up.calls == calls + 1  # the call that the caller made is the fresh answer
        assert settled(cache) == Standing()
        ask(BRANCH + "!!")
        assert last_outcome().layer == "semantic"


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigurationError, match="needs a judge"):
        SemanticCache(store="memory://", policy=BUDGET)
    with pytest.raises(ConfigurationError, match="a judge is called on a thread"):
        SemanticCache(store="memory://", policy=ALL, judge=asyncio.sleep)
    with pytest.raises(ConfigurationError, match="audit_rate"):
        Policy(max_false_hit_rate=0.01)
    for wrong in ({"audit_rate": 1.5}, {"audit_rate": 1.0, "max_false_hit_rate": 0.0}, {"audit_confidence": 1.0}):
        with pytest.raises(ConfigurationError):
            Policy(**wrong)


def test_the_audit_settings_live_in_policy_files(tmp_path):
    policy = Policy(audit_rate=0.25, max_false_hit_rate=0.01, audit_confidence=0.99)
    policy.save(tmp_path / "policy.toml")
    assert Policy.load(tmp_path / "policy.toml") == policy


def test_explain_and_replay_take_a_policy_that_is_for_live_traffic(tmp_path):
    policy, log, url = tmp_path / "policy.toml", tmp_path / "log.jsonl", f"sqlite:///{tmp_path / 'cache.sqlite'}"
    Policy(mode="shadow", audit_rate=1.0, max_false_hit_rate=0.01).save(policy)
    with SemanticCache.open(url) as cache:
        cache.store(RESET, ANSWER)
    explained = CliRunner().invoke(main, ["explain", RESET_AGAIN, "--store", url, "--policy", str(policy)])
    assert "Miss: shadow mode" in explained.stdout
    log.write_text("\n".join(json.dumps({"text": text}) for text in (RESET, RESET_AGAIN)))
    replayed = CliRunner().invoke(main, ["replay", str(log), "--policy", str(policy), "--json"])
    assert replayed.exit_code == 0, replayed.output
    assert json.loads(replayed.stdout)["semantic_hits"] == 1
