"""Anthropic's wire format, as the real SDK reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest

from semcache.testing.upstream import Fault, Upstream

QUESTION = {"role": "user", "content": "Is the lift working?"}
ASK: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 200, "messages": [QUESTION]}
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}


@pytest.fixture
def client(up: Upstream) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=up.anthropic_url, api_key="none", max_retries=0) as client:
        yield client


def test_a_plain_answer(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**ASK)
    assert [block.text for block in answer.content] == ["Yes, the lift is working again."]
    assert answer.stop_reason == "end_turn"
    assert answer.model == "claude-haiku-4-5"
    assert answer.usage.input_tokens > 5
    assert answer.usage.output_tokens > 5
    assert client.messages.create(**ASK).id != answer.id


def test_the_stream_accumulates_to_the_plain_answer(client: anthropic.Anthropic) -> None:
    plain = client.messages.create(**ASK)
    with client.messages.stream(**ASK) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == plain.content[0].text
    assert (final.stop_reason, final.usage) == (plain.stop_reason, plain.usage)
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


def test_events_come_in_the_providers_order(client: anthropic.Anthropic) -> None:
    with client.messages.with_streaming_response.create(**ASK, stream=True) as response:
        names = [line.removeprefix("event: ") for line in response.iter_lines() if line.startswith("event: ")]
    start, block, ping, *deltas, stop_block, delta, stop = names
    assert (start, block, ping) == ("message_start", "content_block_start", "ping")
    assert set(deltas) == {"content_block_delta"}
    assert (stop_block, delta, stop) == ("content_block_stop", "message_delta", "message_stop")


async def test_the_async_client(up: Upstream) -> None:
    async with anthropic.AsyncAnthropic(base_url=up.anthropic_url, api_key="none") as client:
        plain = await client.messages.create(**ASK)
        async with client.messages.stream(**ASK) as stream:
            final = await stream.get_final_message()
    assert plain.content[0].text == final.content[0].text


def test_tool_use_plain_and_streamed(client: anthropic.Anthropic) -> None:
    ask = {**ASK, "messages": [{"role": "user", "content": "Any weather news from Graz?"}], "tools": [WEATHER]}
    plain = client.messages.create(**ask)
    assert plain.stop_reason == "tool_use"
    text, call = plain.content
    assert text.type == "text"
    assert call.name == "get_weather"
    assert call.input["city"] == "Any weather news from Graz?"
    with client.messages.stream(**ask) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert final.content[1].input == call.input


def test_tool_choice_and_tool_results(client: anthropic.Anthropic) -> None:
    def ask(**extra: Any) -> str | None:
        return client.messages.create(**{**ASK, "tools": [WEATHER], **extra}).stop_reason

    assert ask() == "end_turn"
    assert ask(tool_choice={"type": "any"}) == "tool_use"
    assert ask(tool_choice={"type": "tool", "name": "get_weather"}) == "tool_use"
    assert ask(tool_choice={"type": "none"}) == "end_turn"
    turns = [
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "weather: sunny"}]},
    ]
    assert ask(messages=turns) == "end_turn"


def test_thinking_comes_first_and_signed(client: anthropic.Anthropic) -> None:
    ask = {**ASK, "thinking": {"type": "adaptive"}}
    plain = client.messages.create(**ask)
    with client.messages.stream(**ask) as stream:
        final = stream.get_final_message()
    assert [block.type for block in plain.content] == ["thinking", "text"]
    assert final.content[0].thinking == plain.content[0].thinking
    assert final.content[0].signature


def test_structured_output_fits_the_schema(client: anthropic.Anthropic) -> None:
    class Report(pydantic.BaseModel):
        title: str
        urgent: bool

    parsed = client.messages.parse(**ASK, output_format=Report).parsed_output
    assert parsed.title == "Yes, the lift is working again."


def test_a_token_limit_cuts_the_answer(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**{**ASK, "max_tokens": 3})
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
    ],
)
def test_error_statuses(
    client: anthropic.Anthropic, up: Upstream, status: int, error: type[anthropic.APIStatusError]
) -> None:
    up.fail_next(status, message="no luck")
    with pytest.raises(error, match="no luck") as raised:
        client.messages.create(**ASK)
    assert raised.value.response.json()["type"] == "error"


def test_a_request_that_lacks_a_field_is_refused(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="messages: Field required"):
        client.messages.create(**{**ASK, "messages": []})


def test_an_error_inside_a_stream(client: anthropic.Anthropic, up: Upstream) -> None:
    up.script([Fault(error_after=3)])
    with pytest.raises(anthropic.APIStatusError, match="server had an error"):
        list(client.messages.create(**ASK, stream=True))


def test_a_stream_that_stops_short_has_no_stop_reason(client: anthropic.Anthropic, up: Upstream) -> None:
    up.script([Fault(end_after=4)])
    with client.messages.stream(**ASK) as stream:
        for _ in stream:
            pass
        assert stream.current_message_snapshot.stop_reason is None


def test_a_cut_stream_ends_in_an_error(client: anthropic.Anthropic, up: Upstream) -> None:
    up.script([Fault(cut_after=4)])
    with pytest.raises(Exception, match="incomplete chunked read"):
        list(client.messages.create(**ASK, stream=True))


def test_stop_reason_can_be_set(client: anthropic.Anthropic, up: Upstream) -> None:
    up.script([Fault(finish="refusal")] * 2)
    assert client.messages.create(**ASK).stop_reason == "refusal"
    with client.messages.stream(**ASK) as stream:
        assert stream.get_final_message().stop_reason == "refusal"
