"""Many flows at once, for the sake of the embedder: a text in a batch of many costs a fraction of one by itself."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from semcache.errors import EmbedderError
from semcache.steps import Embed

if TYPE_CHECKING:
    from semcache.engine import Engine
    from semcache.steps import Step

T = TypeVar("T")

STRETCH: Final = 1024
"""Flows that go together; fewer than the texts that the embedding queue remembers."""


def perform_together(engine: Engine, flows: Iterable[Generator[Step, Any, T]]) -> Iterator[T]:
    """What flows that never call upstream return, in their order.

    A stretch of them goes as far as each one's embedding. The texts are embedded together; the queue remembers the
    vectors, and each flow finds its own there when it goes on.
    """
    rest = iter(flows)
    while stretch := list(islice(rest, STRETCH)):
        begun = [_begin(engine, flow) for flow in stretch]
        _embed(engine, [one.wants.text for one in begun if one.wants is not None])
        for flow, one in zip(stretch, begun, strict=True):
            yield one.result if one.wants is None else engine.perform(_resumed(flow, one.wants))


class _Begun(NamedTuple):
    """A flow that ``wants`` an embedding, or else its end."""

    wants: Embed | None
    result: Any = None


def _begin(engine: Engine, flow: Generator[Step, Any, Any]) -> _Begun:
    answer: Any = None
    try:
        while True:
            step = flow.send(answer)
            if type(step) is Embed:
                return _Begun(step)
            answer = engine.performer.step(step)
    except StopIteration as stop:
        return _Begun(None, stop.value)


def _resumed(flow: Generator[Step, Any, T], step: Step) -> Generator[Step, Any, T]:
    """The rest of a flow that was left at a step."""
    while True:
        answer = yield step
        try:
            step = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result


def _embed(engine: Engine, texts: list[str]) -> None:
    if engine.semantic is not None:
        queue = engine.semantic.queue
        with suppress(EmbedderError):  # each flow meets it again, and has a way of dealing with it
            queue.embed_many([text for text in texts if queue.fits(text)])
