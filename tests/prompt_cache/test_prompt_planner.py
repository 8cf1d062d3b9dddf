"""Where marks go, against a search through all choices, and when there are none."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.prompt_cache import Boundary, History, Outline, Plan, Rules, find_rules, note, outline, plan, seen
from semcache.prompt_cache.planner import _best, _Option
from semcache.prompt_cache.rules import SECONDS, Write

START = 1_700_000_000.0
CLAUDE = find_rules("anthropic", "https://api.anthropic.com", "claude-sonnet-5")
GPT = find_rules("openai_responses", "https://api.openai.com", "gpt-6-sol")
LONG = "word " * 4000


def repeat(body: dict[str, Any], rules: Rules | None, gap: float, times: int = 30, api: str = "anthropic") -> Plan:
    """The plan for the last of equal misses at equal gaps."""
    history, decided = History(), Plan("")
    for i in range(times):
        sketch = outline(api, body)
        assert sketch is not None
        history.see(seen(sketch), START + i * gap)
        decided = plan(sketch, rules, history, START + i * gap)
        note(decided, history, START + i * gap)
    return decided


def body_of(system: str) -> dict[str, Any]:
    return {"model": "m", "system": system, "messages": [{"role": "user", "content": LONG}]}


def test_frequent_misses_mark_the_system_prompt_and_never_the_last_message() -> None:
    decided = repeat(body_of(LONG), CLAUDE, gap=60)
    assert [point.boundary.path for point in decided.points] == [("system",)]


@pytest.mark.parametrize(("gap", "ttl"), [(1200, "1h"), (2 * 3600, None)])
def test_the_gap_between_misses_decides(gap: float, ttl: str | None) -> None:
    decided = repeat(body_of(LONG), CLAUDE, gap=gap)
    assert [point.ttl for point in decided.points] == ([ttl] if ttl else [])
    assert decided.style == "cache_control"


def test_a_short_prefix_is_not_marked() -> None:
    decided = repeat(body_of("be brief"), CLAUDE, gap=60)
    assert decided.points == ()
    assert "1024 tokens" in decided.reason


def test_one_shot_turns_do_not_pay_where_the_system_prompt_does() -> None:
    history, decided = History(), Plan("")
    for i in range(60):
        earlier = {"role": "user", "content": f"{i} {LONG}"}
        body = {**body_of(LONG), "messages": [earlier, {"role": "user", "content": "?"}]}
        sketch, now = outline("anthropic", body), START + 60 * i
        assert sketch is not None
        history.see(seen(sketch), now)
        decided = plan(sketch, CLAUDE, history, now)
        note(decided, history, now)
    assert [point.boundary.path for point in decided.points] == [("system",)]


def test_a_warm_prefix_keeps_its_mark_when_misses_become_rare() -> None:
    sketch, history = outline("anthropic", body_of(LONG)), History()
    assert sketch is not None
    for i in range(50):
        history.see(seen(sketch), START + i * 86_400)
    now = START + 50 * 86_400
    assert plan(sketch, CLAUDE, history, now).points == ()
    history.mark(sketch.boundaries[-1].prefix, "1h", now)
    assert [point.ttl for point in plan(sketch, CLAUDE, history, now + 3000).points] == ["1h"]
    assert plan(sketch, CLAUDE, history, now + 3700).points == ()


def test_no_rules_unknown_shape_and_own_marks_leave_the_body_alone() -> None:
    sketch = outline("anthropic", body_of(LONG))
    assert plan(sketch, None, History(), START).style == ""
    assert plan(None, CLAUDE, History(), START).style == ""
    own = outline("anthropic", {**body_of(LONG), "cache_control": {"type": "ephemeral"}})
    assert plan(own, CLAUDE, History(), START) == Plan("", reason="the caller's own marks")


def test_models_that_mark_by_themselves_get_a_key_alone() -> None:
    rules = find_rules("openai_chat", "https://api.openai.com", "gpt-5-mini")
    body = {"messages": [{"role": "system", "content": LONG}, {"role": "user", "content": "?"}]}
    a, b = (outline("openai_chat", body, partition=tenant) for tenant in ("a", "b"))
    first, second = plan(a, rules, History(), START), plan(b, rules, History(), START)
    assert first.points == ()
    assert first.key
    assert first.key != second.key


def test_vllm_gets_a_salt_for_a_tenant() -> None:
    rules = find_rules("openai_chat", "http://gpu", "m", vendor="vllm")
    sketch = outline("openai_chat", {"messages": [{"role": "user", "content": "?"}]})
    one, other = (plan(sketch, rules, History(), START, tenant=name).salt for name in ("acme", "other"))
    assert one
    assert one != other
    assert "acme" not in one
    assert plan(sketch, rules, History(), START).salt is None


OPTIONS = st.lists(
    st.lists(st.tuples(st.sampled_from(["5m", "1h"]), st.floats(-1, 2)), max_size=2),
    min_size=1,
    max_size=5,
)


@given(OPTIONS, st.lists(st.integers(1, 9), min_size=5, max_size=5), st.integers(1, 3), st.booleans())
@settings(max_examples=150, deadline=None)
def test_best_marks_save_as_much_as_any(
    raw: list[list[tuple[str, float]]], sizes: list[int], points: int, ordered: bool
) -> None:
    options = [[_Option(*option) for option in row] for row in raw]
    ends = list(itertools.accumulate(size * 1000 for size in sizes))
    candidates = [Boundary(("system", i), i, ends[i], "head") for i in range(len(options))]
    rules = Rules("x", "cache_control", points, 0, 0.1, (Write("5m", 1.25), Write("1h", 2.0)), ordered)

    def saved(marks: tuple[tuple[int, str], ...]) -> float:
        total, covered = 0.0, 0
        for i, ttl in marks:
            cost = min(option.cost for option in options[i] if option.ttl == ttl)
            total, covered = total + (ends[i] - covered) * (1 - cost), ends[i]
        return total

    every = itertools.product(*([None, *{option.ttl for option in row}] for row in options))
    choices = [tuple((i, ttl) for i, ttl in enumerate(choice) if ttl) for choice in every]
    allowed = [
        marks
        for marks in choices
        if len(marks) <= points
        and not (ordered and any(SECONDS[a[1]] < SECONDS[b[1]] for a, b in itertools.pairwise(marks)))
    ]
    got = _best(candidates, options, rules)
    assert got in allowed
    assert saved(got) == pytest.approx(max(map(saved, allowed)), abs=1e-3)


def test_the_outline_of_a_long_conversation_keeps_its_marks_within_the_limit() -> None:
    assert GPT is not None
    turns = [{"role": "user", "content": f"{i} {LONG}"} for i in range(30)]
    decided = repeat({"model": "m", "input": turns}, GPT, gap=60, api="openai_responses")
    assert 1 <= len(decided.points) <= GPT.points
    assert all(point.boundary.path[1] != 29 for point in decided.points)


def test_what_an_agent_sent_before_is_read_however_much_it_adds_in_a_turn() -> None:
    history, body = History(), body_of(LONG)
    body["messages"] = []
    warm = -1
    for turn in range(6):
        body["messages"] += [{"role": "user", "content": f"{turn} {i} {LONG}"} for i in range(30)]
        sketch, now = outline("anthropic", body), START + 60 * turn
        assert sketch is not None
        history.see(seen(sketch), now)
        decided = plan(sketch, CLAUDE, history, now)
        ends = [sketch.boundaries.index(point.boundary) for point in decided.points]
        assert turn == 0 or warm in ends
        note(decided, history, now)
        warm = ends[-1]


def test_an_outline_does_not_raise() -> None:
    for body in ({}, {"messages": 3}, {"messages": [1]}, {"messages": [{"role": "user", "content": [None]}] * 2}):
        for api in ("anthropic", "openai_chat", "openai_responses", "bedrock"):
            assert outline(api, body) is None
    assert outline("function", {}) is None
    assert isinstance(outline("openai_responses", {"input": "hello"}), Outline)


def test_what_is_new_is_marked_for_the_shortest_lifetime() -> None:
    for rules, shortest in ((CLAUDE, "5m"), (GPT, "30m")):
        (point,) = repeat(body_of(LONG), rules, gap=0, times=1).points
        assert point.ttl == shortest


def test_a_warm_prefix_may_be_marked_for_longer_and_lives_as_long_as_it_was_written_for() -> None:
    sketch, history = outline("anthropic", body_of(LONG)), History()
    assert sketch is not None
    prefix = sketch.boundaries[-1].prefix
    for i in range(30):
        history.see(seen(sketch), START + i * 1200)
    now = START + 30 * 1200
    history.mark(prefix, "5m", now)
    decided = plan(sketch, CLAUDE, history, now + 60)
    assert [point.ttl for point in decided.points] == ["1h"], "what comes behind it may need that"
    note(decided, history, now + 60)
    assert history.warm(prefix, now + 359) == "5m"
    assert history.warm(prefix, now + 361) is None
