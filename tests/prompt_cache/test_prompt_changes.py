"""What makes two heads of prompts differ, in words."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.prompt_cache import head_of
from semcache.prompt_cache.changes import what_changed

TEXT = "You answer questions about the harbour lifts of a northern town, briefly and kindly. " * 10


def tool(name: str, about: str = "Looks it up.") -> dict[str, Any]:
    return {"name": name, "description": about, "input_schema": {"type": "object", "properties": {}}}


def head(system: str = TEXT, tools: list[dict[str, Any]] | None = None) -> list[Any]:
    body = {"system": system, "tools": tools or [], "messages": [{"role": "user", "content": "Hi"}]}
    return head_of("anthropic", body)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (head(f"It is 12:01. {TEXT}"), head(f"It is 12:02. {TEXT}"), "a date or time at character 10"),
        (head(f"{TEXT} 2026-11-21"), head(f"{TEXT} 2026-11-22"), "a date or time"),
        (head(f"Now {1_763_712_000}. {TEXT}"), head(f"Now {1_763_712_777}. {TEXT}"), "a date or time"),
        (head(f"{TEXT} id 0f8fad5b-d9cb-469f"), head(f"{TEXT} id 7c9e6679-7425-40de"), "an id"),
        (head(f"{TEXT} You have 3 tries."), head(f"{TEXT} You have 12 tries."), "a number"),
        (head(f"{TEXT} For Ann."), head(f"{TEXT} For Bob."), "text at character"),
        (head(tools=[tool("a"), tool("b")]), head(tools=[tool("b"), tool("a")]), "tools are in another order"),
        (head(tools=[tool("a"), tool("b")]), head(tools=[tool("a")]), "tools: 1 instead of 2"),
        (head(tools=[tool("a", f"{TEXT} 1")]), head(tools=[tool("a", f"{TEXT} 2")]), "the tool 'a'"),
        (
            head(tools=[tool("a")]),
            head(tools=[dict(reversed(tool("a").items()))]),
            "the fields of the tool 'a' are in another order",
        ),
        (head(tools=[tool("a")]), head(tools=[{**tool("a"), "strict": True}]), "the field 'strict' came or went"),
    ],
)
def test_what_changed_is_named(before: list[Any], after: list[Any], said: str) -> None:
    assert said in what_changed(before, after)
    assert "harbour" not in what_changed(before, after)


def test_it_is_named_in_openais_terms_too() -> None:
    def chat(system: str, *tools: str) -> list[Any]:
        declared = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in tools]
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "Hi"}]
        return head_of("openai_chat", {"messages": messages, "tools": declared})

    assert what_changed(chat(TEXT, "a", "b"), chat(TEXT, "b", "a")) == "tools are in another order"
    assert "in the system text, a date or time" in what_changed(chat(f"9:15 {TEXT}"), chat(f"9:16 {TEXT}"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (head(), head()),
        (head(), head("Write poems about trains and nothing else at all, please. " * 9)),
        ([], head()),
        (head(tools=[tool("a"), tool("b"), tool("c")]), head(tools=[tool("x"), tool("y")])),
        (head(tools=[tool("a"), tool("b")]), head("Write poems about trains. " * 30, tools=[tool("b"), tool("a")])),
    ],
    ids=["equal", "another prompt", "none", "another program's tools", "another prompt with tools of the first"],
)
def test_what_has_little_in_common_is_another_prompt(before: list[Any], after: list[Any]) -> None:
    assert what_changed(before, after) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(JSON, max_size=4), st.lists(JSON, max_size=4))
def test_it_never_raises_and_nothing_differs_from_itself(a: list[Any], b: list[Any]) -> None:
    what_changed(a, b)
    assert what_changed(a, copy.deepcopy(a)) == ""


def test_long_texts_are_compared_in_a_few_steps() -> None:
    a, b = head(f"{TEXT * 1000} 1"), head(f"{TEXT * 1000} 2")
    started = time.thread_time()
    what_changed(a, b)
    once = time.thread_time() - started
    started = time.thread_time()
    sum(x == y for x, y in zip(a[0][0]["text"], b[0][0]["text"], strict=True))
    assert once < (time.thread_time() - started) / 2
