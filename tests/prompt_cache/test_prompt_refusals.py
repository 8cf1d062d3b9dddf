"""Whether an error is about marks: texts as providers word them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from semcache.prompt_cache import Boundary, Plan, Point, names_marks, places

BODY: dict[str, Any] = {"model": "m", "prompt_cache_key": "sc-1"}
PLAN = Plan("breakpoints", key="sc-1")


@pytest.mark.parametrize(
    "said",
    [
        "system.0.cache_control: Extra inputs are not permitted",
        "tools.20.custom.cache_control.ephemeral.ttl: Extra inputs are not permitted",
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        "Malformed input request: #/messages/6/content/0: extraneous key [cachePoint] is not permitted",
        "This model doesn't support the cachePoint field",
        "You invoked an unsupported model or your request did not allow prompt caching. See the documentation.",
        "Unrecognized request argument supplied: prompt_cache_key",
        json.dumps({"error": {"message": "Unknown parameter", "param": "prompt_cache_options"}}),
        json.dumps({"detail": [{"loc": ["body", "cache_salt"], "msg": "extra", "input": {"cache_salt": "x"}}]}),
    ],
)
def test_errors_that_name_a_mark(said: str) -> None:
    assert names_marks(said, PLAN, BODY)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "max_tokens: Field required",
        "messages: roles must alternate",
        "Invalid 'prompt_cache_retention': not supported with this model",
        json.dumps({"detail": [{"loc": ["body", "n"], "input": {"cache_salt": "x", "n": -1}}]}),
        json.dumps({"message": json.dumps({"input": {"cache_control": {"type": "ephemeral"}}})}),
        str([{"loc": ("body",), "input": {"prompt_cache_key": "sc-1"}}]),
    ],
)
def test_errors_that_are_about_something_else_or_repeat_the_body(said: str) -> None:
    assert not names_marks(said, PLAN, BODY)


def test_a_key_of_the_callers_is_his_own_affair() -> None:
    said = "Unknown parameter: 'prompt_cache_key'."
    assert names_marks(said, PLAN, BODY)
    assert not names_marks(said, PLAN, {**BODY, "prompt_cache_key": "x"})


def test_places_are_the_same_in_every_prompt() -> None:
    points = (
        Point(Boundary(("system",), 1, 5, "head"), "1h"),
        Point(Boundary(("messages", 3, "content", 2), 2, 9, "turns"), "5m"),
    )
    assert places(Plan("cache_control", points)) == {("1h", "system"), ("5m", "messages", "content")}
    assert places(PLAN) == {()}
