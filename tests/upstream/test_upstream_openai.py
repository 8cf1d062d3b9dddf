"""OpenAI's wire format, as the real SDK reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import openai
import pydantic
import pytest

from semcache.testing.upstream import Fault, Upstream

QUESTION = [{"role": "user", "content": "Is the lift working?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city", "unit", "days"],
            "additionalProperties": False,
        },
    },
}
CALENDAR = {
    "type": "function",
    "function": {"name": "list_appointments", "strict": True, "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture
def client(up: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=up.openai_url, api_key="none", max_retries=0) as client:
        yield client


def test_a_plain_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-6-luna", messages=QUESTION)
    assert answer.choices[0].message.content == "Yes, the lift is working again."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-6-luna"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > 5
    assert answer.id.startswith("chatcmpl-")
    again = client.chat.completions.create(model="gpt-6-luna", messages=QUESTION)
    assert again.id != answer.id


def test_the_stream_says_the_same_as_the_plain_answer(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="gpt-6-luna", messages=QUESTION)
    with client.chat.completions.stream(model="gpt-6-luna", messages=QUESTION) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert final.choices[0].message.content == plain.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    assert final.usage is None
    assert sum(event.type == "content.delta" for event in events) > 3


def test_usage_comes_in_the_last_chunk_if_asked_for(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="gpt-6-luna", messages=QUESTION)
    options = {"include_usage": True, "include_obfuscation": False}
    chunks = list(
        client.chat.completions.create(model="gpt-6-luna", messages=QUESTION, stream=True, stream_options=options)
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    padded = client.chat.completions.create(model="gpt-6-luna", messages=QUESTION, stream=True)
    assert all("obfuscation" in chunk.model_fields_set for chunk in padded)
    assert not any("obfuscation" in chunk.model_fields_set for chunk in chunks)


async def test_the_async_client(up: Upstream) -> None:
    async with openai.AsyncOpenAI(base_url=up.openai_url, api_key="none") as client:
        plain = await client.chat.completions.create(model="gpt-6-luna", messages=QUESTION)
        async with client.chat.completions.stream(model="gpt-6-luna", messages=QUESTION) as stream:
            final = await stream.get_final_completion()
    assert plain.choices[0].message.content == final.choices[0].message.content


def test_a_question_with_a_word_of_a_tool_calls_it(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "What weather will we have in Graz?"}]
    answer = client.chat.completions.create(model="m", messages=messages, tools=[WEATHER, CALENDAR])
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert arguments["unit"] in ("celsius", "fahrenheit")
    assert 1 <= arguments["days"] <= 7

    with client.chat.completions.stream(model="m", messages=messages, tools=[WEATHER, CALENDAR]) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert json.loads(streamed.message.tool_calls[0].function.arguments) == arguments


def test_two_tools_in_one_stream_keep_apart(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Will the weather spoil my appointments?"}]
    tools = [WEATHER, CALENDAR]
    with client.chat.completions.stream(model="m", messages=messages, tools=tools) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "list_appointments"]
    assert len({call.id for call in calls}) == 2
    single = client.chat.completions.create(model="m", messages=messages, tools=tools, parallel_tool_calls=False)
    assert len(single.choices[0].message.tool_calls) == 1


def test_tool_choice_and_tool_results(client: openai.OpenAI) -> None:
    def ask(**extra: object) -> str:
        answer = client.chat.completions.create(model="m", messages=QUESTION, tools=[WEATHER], **extra)
        return answer.choices[0].finish_reason

    assert ask() == "stop"
    assert ask(tool_choice="required") == "tool_calls"
    assert ask(tool_choice={"type": "function", "function": {"name": "get_weather"}}) == "tool_calls"
    assert ask(tool_choice="none") == "stop"
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    answer = client.chat.completions.create(model="m", messages=turns, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "stop"


def test_structured_output_fits_the_schema(client: openai.OpenAI) -> None:
    class Part(pydantic.BaseModel):
        name: str
        count: int = pydantic.Field(ge=2, le=9)
        spare: bool

    class Report(pydantic.BaseModel):
        title: str
        parts: list[Part]
        note: str | None

    arguments = {"model": "m", "messages": QUESTION, "response_format": Report}
    parsed = client.chat.completions.parse(**arguments).choices[0].message.parsed
    assert parsed.title == "Yes, the lift is working again."
    assert parsed.parts
    with client.chat.completions.stream(**arguments) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == parsed


def test_a_token_limit_cuts_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=QUESTION, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    assert "Yes, the lift is working again.".startswith(answer.choices[0].message.content)


def test_several_choices(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="m", messages=QUESTION, n=3)
    assert [choice.index for choice in plain.choices] == [0, 1, 2]
    with client.chat.completions.stream(model="m", messages=QUESTION, n=3) as stream:
        assert len(stream.get_final_completion().choices) == 3


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client: openai.OpenAI, encoding: str) -> None:
    texts = ["turn the alarm off", "switch the alarm off", "grow tomatoes"]
    answer = client.embeddings.create(
        model="text-embedding-3-small", input=texts, encoding_format=encoding, dimensions=64
    )
    vectors = [item.embedding for item in answer.data]
    if encoding == "base64":
        default = client.embeddings.create(model="text-embedding-3-small", input=texts, dimensions=64)
        assert isinstance(vectors[0], str)
        vectors = [item.embedding for item in default.data]
    assert all(len(vector) == 64 for vector in vectors)
    assert all(math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-5) for vector in vectors)

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2])
    assert answer.usage.prompt_tokens > 0


def test_models(client: openai.OpenAI) -> None:
    assert "gpt-6-luna" in [model.id for model in client.models.list()]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_error_statuses(client: openai.OpenAI, up: Upstream, status: int, error: type[openai.APIStatusError]) -> None:
    up.fail_next(status, message="no luck")
    with pytest.raises(error, match="no luck"):
        client.chat.completions.create(model="m", messages=QUESTION)
    client.chat.completions.create(model="m", messages=QUESTION)


def test_the_sdk_retries_after_a_rate_limit(client: openai.OpenAI, up: Upstream) -> None:
    up.fail_next(429, headers={"retry-after": "0"}, times=2)
    answer = client.with_options(max_retries=2).chat.completions.create(model="m", messages=QUESTION)
    assert answer.choices[0].message.content == "Yes, the lift is working again."
    assert up.calls() == 3


def test_a_request_that_lacks_a_field_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="m", messages=[])


def test_a_cut_stream_ends_in_an_error(client: openai.OpenAI, up: Upstream) -> None:
    up.script([Fault(cut_after=4)])
    seen = []
    with pytest.raises(openai.APIConnectionError):
        seen.extend(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
    up.script([Fault(cut_after=0)])
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="m", messages=QUESTION)


def test_a_stream_that_stops_short_lacks_its_finish_reason(client: openai.OpenAI, up: Upstream) -> None:
    up.script([Fault(end_after=4)])
    chunks = list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
    assert len(chunks) == 4
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)


def test_an_error_inside_a_stream(client: openai.OpenAI, up: Upstream) -> None:
    up.script([Fault(error_after=2)])
    with pytest.raises(openai.APIError, match="server had an error"):
        list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))


def test_a_malformed_event(client: openai.OpenAI, up: Upstream) -> None:
    up.script([Fault(malformed_after=2)])
    with pytest.raises(json.JSONDecodeError):
        list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))


def test_a_stall_runs_into_the_clients_timeout(client: openai.OpenAI, up: Upstream) -> None:
    up.script([Fault(stall_s=5.0)])
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(model="m", messages=QUESTION)


def test_finish_reason_and_answer_can_be_set(client: openai.OpenAI, up: Upstream) -> None:
    up.script([Fault(finish="content_filter"), Fault(answer="Something else.")])
    filtered = client.chat.completions.create(model="m", messages=QUESTION)
    assert filtered.choices[0].finish_reason == "content_filter"
    other = client.chat.completions.create(model="m", messages=QUESTION)
    assert other.choices[0].message.content == "Something else."
