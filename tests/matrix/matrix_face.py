"""The face of every driver, and what two answers are compared by."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import pydantic
from matrix_cells import Content

from semcache.testing.upstream import Upstream

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Lift(pydantic.BaseModel):
    """What structured answers are to be."""

    working: bool
    since: str


LIFT_SCHEMA = {**Lift.model_json_schema(), "additionalProperties": False}


class Driver:
    """One kind of client against the local upstream, without retries."""

    wanted: ClassVar[dict[Content, dict[str, Any]]]
    """The arguments by which each kind of content is asked for."""

    def __init__(self, up: Upstream, is_async: bool) -> None:
        self.up, self.is_async = up, is_async
        self._open: list[Any] = []

    def client(self) -> Any:
        """A bare client."""
        raise NotImplementedError

    async def ask(self, client: Any, text: str, content: Content, stream: bool) -> Any:
        """The whole answer, as its user has it; of a stream, the message that the SDK puts together where it does."""
        raise NotImplementedError

    async def collected(self, stream: Any) -> list[Any]:
        return [event async for event in await stream] if self.is_async else list(stream)

    def closing(self, client: Any) -> Any:
        self._open.append(client)
        return client

    async def close(self) -> None:
        while self._open:
            client = self._open.pop()
            await settled((client.aclose if hasattr(client, "aclose") else client.close)())


async def settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def final(manager: Any, name: str) -> Any:
    """The message that an SDK puts together from a stream."""
    if hasattr(manager, "__aenter__"):
        async with manager as stream:
            return await getattr(stream, name)()
    with manager as stream:
        return getattr(stream, name)()


def shown(answer: Any) -> Any:
    """An answer as plain data, with the names of the types in it."""
    if isinstance(answer, pydantic.BaseModel):
        fields = {name: shown(value) for name, value in answer if name != "sdk_http_response"}
        return {"type of object": type(answer).__qualname__, **fields}
    if isinstance(answer, dict):
        return {name: shown(value) for name, value in answer.items() if name != "ResponseMetadata"}
    if isinstance(answer, list):
        return [shown(value) for value in answer]
    return answer


_OF_ONE_ANSWER = frozenset(
    {"id", "call_id", "created", "created_at", "completed_at", "toolUseId", "response_id", "responseId", "latencyMs"}
)


def said(answer: Any) -> Any:
    """What :func:`shown` shows, without what is another in each answer to the same question."""
    if isinstance(answer, dict):
        return {name: said(value) for name, value in answer.items() if name not in _OF_ONE_ANSWER}
    return [said(value) for value in answer] if isinstance(answer, list) else answer
