"""Answers that must keep to a JSON schema: what is demanded, what is checked, and that nothing else is served."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache import Policy, SemanticCache, last_outcome
from semcache.embedders import CallableEmbedder
from semcache.schemas import demanded, keeps_to
from semcache.testing.upstream import Fault, Upstream
from semcache.types import Request

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"working": {"type": "boolean"}, "floors": {"type": "array", "items": {"type": "integer"}}},
    "required": ["working"],
    "additionalProperties": False,
}
OPENAPI = {
    "type": "OBJECT",
    "properties": {"working": {"type": "BOOLEAN"}, "since": {"type": "STRING", "nullable": True}},
    "required": ["working"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "lift", "schema": SCHEMA}}


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": FORMAT},
        {"text": {"format": {"type": "json_schema", "name": "lift", "schema": SCHEMA}}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
        {"generationConfig": {"responseJsonSchema": SCHEMA}},
        {"generationConfig": {"responseSchema": SCHEMA}},
        {"outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": SCHEMA}}}}},
        {"guided_json": SCHEMA},
        {"structured_outputs": {"json": SCHEMA}},
    ],
)
def test_the_schema_of_every_wire_format_is_found(body: dict[str, Any]) -> None:
    assert demanded(Request("api", {"body": body}, "hi")) == SCHEMA


def test_a_function_may_be_given_one() -> None:
    scope = {"function": "ask", "arguments": {"response_format": FORMAT}}
    assert demanded(Request("function", scope, "hi")) == SCHEMA


JSON_MODE: dict[str, Any] = {"type": "json_object"}


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": JSON_MODE},
        {"text": {"format": JSON_MODE}},
        {"generationConfig": {"responseMimeType": "application/json"}},
    ],
)
def test_json_mode_demands_json_of_any_kind(body: dict[str, Any]) -> None:
    schema = demanded(Request("api", {"body": body}, "hi"))
    assert schema is not None
    assert keeps_to(schema, said('{"working": 1}')) == ""
    assert keeps_to(schema, said("It works.")) == "it is not JSON"
    # Which the function may have made of an answer in JSON.
    assert keeps_to(schema, b'"It works."') == ""


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ('{"working": true}', ""),
        ('{"floors": []}', "/ breaks /required"),
        ("It works.", None),  # which the function may have made of an answer that did keep to it
        ({"working": 1}, ""),
    ],
)
def test_what_a_function_returns_is_checked_if_it_is_json_text(answer: Any, wrong: str | None) -> None:
    assert keeps_to(SCHEMA, json.dumps(answer).encode()) == wrong


def test_a_property_may_be_called_nullable() -> None:
    schema = {"type": "object", "properties": {"nullable": {"type": "string"}}, "additionalProperties": False}
    assert keeps_to(schema, said('{"nullable": "yes"}')) == ""
    assert keeps_to(schema, said('{"nullable": 1}')) == "/nullable breaks /properties/nullable/type"


@pytest.mark.parametrize(
    "scope", [{}, {"body": None}, {"body": {"response_format": {"type": "text"}}}, {"body": {"text": "hi"}}]
)
def test_a_request_may_demand_none(scope: dict[str, Any]) -> None:
    assert demanded(Request("api", scope, "hi")) is None


def said(text: str | None, **more: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text, **more}}]}).encode()


@pytest.mark.parametrize(
    ("schema", "text", "wrong"),
    [
        (SCHEMA, '{"working": true}', ""),
        (json.dumps(SCHEMA), '{"working": true, "floors": [1, 2]}', ""),
        (SCHEMA, '{"working": "yes, Mr Smith"}', "/working breaks /properties/working/type"),
        (SCHEMA, '{"working": true, "floors": [1, "2"]}', "/floors/1 breaks /properties/floors/items/type"),
        (SCHEMA, '{"floors": []}', "/ breaks /required"),
        (SCHEMA, "It works.", "it is not JSON"),
        (SCHEMA, '{"working": NaN}', "it is not JSON"),
        (OPENAPI, '{"working": true, "since": null}', ""),
        (OPENAPI, '{"working": 1}', "/working breaks /properties/working/type"),
        ({"type": "strange"}, "{}", None),
        ({"$ref": "https://example.org/lift.json"}, "{}", None),
        ("no schema", "{}", None),
    ],
)
def test_what_is_wrong_is_told_by_its_place(schema: Any, text: str, wrong: str | None) -> None:
    assert keeps_to(schema, said(text)) == wrong


def test_what_is_no_text_is_not_the_schemas_affair() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert keeps_to(SCHEMA, said(None, tool_calls=[call])) == ""
    assert keeps_to(SCHEMA, said(None, refusal="No.")) == ""


@pytest.mark.parametrize(
    "answer",
    [
        {"type": "message", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "{}"}]},
        {"type": "message", "content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "{}"}]},
        {"choices": [{"message": {"content": "{}", "reasoning_content": "hm"}}]},
        {"object": "response", "output": [{"type": "reasoning"}, {"type": "message", "content": [{"text": "{}"}]}]},
        {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}, {"text": "{}"}]}}]},
        {"output": {"message": {"content": [{"reasoningContent": {}}, {"text": "{}"}]}}},
    ],
)
def test_what_the_model_has_thought_is_no_part_of_the_text(answer: dict[str, Any]) -> None:
    assert keeps_to(SCHEMA, json.dumps(answer).encode()) == "/ breaks /required"


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_no_schema_and_no_answer_makes_it_raise(value: Any) -> None:
    keeps_to({"type": "object", "properties": {"a": value}}, said(json.dumps(value)))
    keeps_to(SCHEMA, json.dumps(value).encode())


# Over real HTTP ---------------------------------------------------------------------------------------------------


def one_vector(texts: Any) -> Any:
    import numpy as np

    return np.eye(1, 8, dtype=np.float32).repeat(len(texts), axis=0)


@pytest.fixture
def up() -> Any:
    with Upstream() as up:
        yield up


@pytest.fixture
def cache() -> Any:
    policy = Policy(threshold=0.5, min_probability=0.0, guards=())
    embedder = CallableEmbedder(one_vector, fingerprint="one")
    with SemanticCache(store="memory://", policy=policy, embedder=embedder) as cache:
        yield cache


def ask(client: Any, text: str, demands: Any = FORMAT) -> str:
    asked = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": text}], "response_format": demands}
    return str(client.chat.completions.create(**asked).choices[0].message.content)


def outcome() -> Any:
    return last_outcome()


@pytest.mark.parametrize("again", ["Is it up?", "Is the lift up?"], ids=["exact", "semantic"])
def test_a_stored_answer_that_breaks_the_schema_is_not_served(again: str, up: Upstream, cache: SemanticCache) -> None:
    events: list[str] = []
    cache.on_event(lambda event: events.append(event.kind))
    client = cache.wrap(openai.OpenAI(base_url=up.openai_url, api_key="key"))
    up.script([Fault(answer='{"working": "perhaps"}')])
    assert ask(client, "Is it up?") == '{"working": "perhaps"}'
    assert isinstance(json.loads(ask(client, again))["working"], bool)
    assert outcome().status == "miss"
    assert events == ["schema_mismatch"]
    assert ask(client, again)
    assert outcome().status == "hit"
    assert events == ["schema_mismatch"]


@pytest.mark.parametrize("again", ["Is it up?", "Is the lift up?"], ids=["exact", "semantic"])
def test_in_json_mode_nothing_else_is_served(again: str, up: Upstream, cache: SemanticCache) -> None:
    client = cache.wrap(openai.OpenAI(base_url=up.openai_url, api_key="key"))
    up.script([Fault(answer="It works."), Fault(answer='{"working": true}')])
    assert ask(client, "Is it up?", JSON_MODE) == "It works."
    assert [ask(client, again, JSON_MODE) for _ in range(2)] == ['{"working": true}'] * 2
    assert outcome().status == "hit"


def test_an_answer_that_keeps_to_it_is_served_by_meaning_too(up: Upstream, cache: SemanticCache) -> None:
    client = cache.wrap(anthropic.Anthropic(base_url=up.anthropic_url, api_key="key"))
    asked = {"model": "claude-haiku-4-5", "max_tokens": 300, "output_config": FORMAT_OF_ANTHROPIC}
    first = client.messages.create(**asked, messages=[{"role": "user", "content": "Is it up?"}])
    second = client.messages.create(**asked, messages=[{"role": "user", "content": "Is the lift up?"}])
    assert (outcome().status, outcome().layer) == ("hit", "semantic")
    assert second.content == first.content


FORMAT_OF_ANTHROPIC = {"format": {"type": "json_schema", "schema": SCHEMA}}


def test_what_cannot_be_checked_is_served_in_the_exact_tier_only(up: Upstream, cache: SemanticCache) -> None:
    client = cache.wrap(openai.OpenAI(base_url=up.openai_url, api_key="key"))
    strange = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strange"}}}

    def ask(text: str) -> None:
        up.script([Fault(answer="{}")])
        asked = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": text}], "response_format": strange}
        client.chat.completions.create(**asked)

    ask("Is it up?")
    ask("Is it up?")
    assert (outcome().status, outcome().layer) == ("hit", "exact")
    ask("Is the lift up?")
    assert (outcome().status, outcome().reason) == (
        "miss",
        "the JSON schema that the request demands cannot be checked",
    )


def test_without_the_validator_it_cannot_be_told_of_json() -> None:
    code = (
        "import sys; sys.modules['jsonschema_rs'] = None\n"
        "from semcache.schemas import available, keeps_to\n"
        "assert not available()\n"
        'said = b\'{"choices": [{"message": {"content": "%s"}}]}\'\n'
        "assert keeps_to({'type': 'object'}, said % b'{}') is None\n"
        "assert keeps_to({'type': 'object'}, said % b'It works.') == 'it is not JSON'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_of_a_function_too_nothing_else_is_served() -> None:
    """A policy that was loosened, or an older version of the function: its answer is there, and breaks the schema."""
    answers = iter(['{"working": "perhaps"}', '{"working": true}'])

    def ask(prompt: str, response_format: Any = None) -> str:
        return next(answers)

    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        asked = cache.wrap(ask, name="ask")
        assert [asked("hi", FORMAT) for _ in range(3)] == ['{"working": "perhaps"}', *['{"working": true}'] * 2]
