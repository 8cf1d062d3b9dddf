"""instructor over wrapped SDK clients, over real HTTP: retries are other requests, refused answers are not kept.

Runs beside LiteLLM's tests: ``make test-litellm``.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import instructor
import litellm
import openai
import pydantic
import pytest
from instructor.core import InstructorRetryException

from semcache import SemanticCache
from semcache.errors import ConfigurationError
from semcache.testing.upstream import Fault, Upstream

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

MESSAGES = [{"role": "user", "content": "On which floor is it?"}]
BAD, GOOD = '{"floor": "-1"}', '{"floor": "7"}'


class Place(pydantic.BaseModel):
    floor: str

    @pydantic.field_validator("floor")
    @classmethod
    def exists(cls, value: str) -> str:
        assert not value.startswith("-"), "there is no floor below the ground"
        return value


class Kind:
    """One kind of SDK client, and how instructor is built over it."""

    def __init__(self, name: str, up: Upstream) -> None:
        self._up = up
        self._name = name
        self._open: list[Any] = []

    def client(self) -> Any:
        sdk, url = (openai, self._up.openai_url) if "OpenAI" in self._name else (anthropic, self._up.anthropic_url)
        client = getattr(sdk, self._name)(base_url=url, api_key="key", max_retries=0)
        self._open.append(client)
        return client

    async def close(self) -> None:
        for client in self._open:
            closing = client.close()
            if inspect.isawaitable(closing):
                await closing

    def over(self, client: Any) -> Any:
        if "OpenAI" in self._name:
            return instructor.from_openai(client, mode=instructor.Mode.JSON)
        return instructor.from_anthropic(client, mode=instructor.Mode.JSON)

    async def ask(self, client: Any, **extra: Any) -> str:
        """The floor, as the response model has accepted it."""
        bound = {"model": "gpt-4o-mini"} if "OpenAI" in self._name else {"model": "claude-haiku-4-5", "max_tokens": 200}
        answer = client.create(response_model=Place, messages=MESSAGES, **bound, **extra)
        return (await answer if inspect.isawaitable(answer) else answer).floor


@pytest.fixture(params=["OpenAI", "AsyncOpenAI", "Anthropic", "AsyncAnthropic"])
async def kind(request: pytest.FixtureRequest, up: Upstream) -> AsyncIterator[Kind]:
    kind = Kind(request.param, up)
    yield kind
    await kind.close()


@pytest.mark.parametrize("inside", [True, False], ids=["around the SDK's client", "around instructor's client"])
async def test_a_repeated_question_is_answered_from_the_cache(
    kind: Kind, inside: bool, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = kind.over(exact_cache.wrap(kind.client())) if inside else exact_cache.wrap(kind.over(kind.client()))
    up.script([Fault(answer=GOOD)])
    answers = [await kind.ask(client) for _ in range(3)]
    assert answers == ["7"] * 3
    assert up.calls() == 1


async def test_asking_again_with_the_error_is_another_request(
    kind: Kind, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = kind.over(exact_cache.wrap(kind.client()))
    up.script([Fault(answer=BAD), Fault(answer=GOOD)])
    answers = [await kind.ask(client, max_retries=1) for _ in range(3)]
    assert answers == ["7"] * 3
    assert up.calls() == 2, "both the refused answer and the one that mended it are replayed"


async def test_a_refused_answer_is_not_served_again(kind: Kind, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(kind.over(kind.client()))
    up.script([Fault(answer=BAD)])
    with pytest.raises(InstructorRetryException):
        await kind.ask(client, max_retries=0)
    up.script([Fault(answer=GOOD)])
    for _ in range(2):
        assert await kind.ask(client, max_retries=0) == "7"
    assert up.calls() == 2


async def test_without_that_the_refused_answer_would_stay(kind: Kind, up: Upstream, exact_cache: SemanticCache) -> None:
    client = kind.over(exact_cache.wrap(kind.client()))
    up.script([Fault(answer=BAD)])
    for _ in range(2):
        with pytest.raises(InstructorRetryException):
            await kind.ask(client, max_retries=0)
    assert up.calls() == 1


async def test_hooks_and_settings_are_kept_and_the_original_is_not_changed(
    kind: Kind, up: Upstream, exact_cache: SemanticCache
) -> None:
    original = kind.over(kind.client())
    seen: list[Any] = []
    original.on("completion:response", seen.append)
    wrapped = exact_cache.wrap(original)
    assert type(wrapped) is type(original)
    assert wrapped.mode == original.mode
    up.script([Fault(answer=GOOD)] * 3)
    await kind.ask(wrapped)
    await kind.ask(wrapped)
    assert (len(seen), up.calls()) == (2, 1)
    for _ in range(2):
        await kind.ask(original)
    assert up.calls() == 3


def test_other_instructor_clients_are_refused_with_the_way_to_do_it(exact_cache: SemanticCache) -> None:
    client = instructor.from_litellm(litellm.completion)
    with pytest.raises(ConfigurationError, match=r"instructor\.from_openai\(cache\.wrap\(client\)\)"):
        exact_cache.wrap(client)


async def test_instructor_over_litellm(up: Upstream, exact_cache: SemanticCache) -> None:
    client = instructor.from_litellm(exact_cache.wrap(litellm.completion), mode=instructor.Mode.JSON)
    up.script([Fault(answer=GOOD)])
    for _ in range(2):
        place = client.create(
            response_model=Place,
            messages=MESSAGES,
            model="openai/gpt-4o-mini",
            api_base=up.openai_url,
            api_key="key",
        )
        assert place.floor == "7"
    assert up.calls() == 1
