"""Generators before the cache, of both kinds."""

import asyncio
import inspect

import pytest

from semcache import last_outcome


def test_a_generator_is_recorded_and_replayed(cache):
    calls = []

    def stream(prompt):
        calls.append(1)
        yield from ["a", {"b": 1}, None]

    wrapped = cache.wrap(stream)
    assert inspect.isgeneratorfunction(wrapped)
    assert list(wrapped("hi")) == list(wrapped("hi")) == ["a", {"b": 1}, None]
    assert len(calls) == 1
    assert last_outcome().hit


@pytest.mark.parametrize("end", ["close", "raise"])
def test_a_stream_that_is_not_read_to_its_end_is_not_kept(cache, end):
    closed = []

    def stream(prompt):
        try:
            yield 1
            if end == "raise" and not closed:
                raise KeyError("cut")
            yield 2
        finally:
            closed.append(1)

    wrapped = cache.wrap(stream)
    if end == "close":
        chunks = wrapped("hi")
        assert next(chunks) == 1
        chunks.close()
    else:
        with pytest.raises(KeyError, match="cut"):
            list(wrapped("hi"))
    assert closed == [1]
    assert list(wrapped("hi")) == [1, 2]
    assert not last_outcome().hit
    assert len(cache.engine.performer.flights) == 0


def test_what_the_caller_does_to_a_chunk_is_not_recorded(cache):
    def stream(prompt):
        yield {"delta": ["a"]}
        yield {"delta": ["b"]}

    wrapped = cache.wrap(stream)
    for chunk in wrapped("hi"):
        chunk["delta"].clear()
    assert list(wrapped("hi")) == [{"delta": ["a"]}, {"delta": ["b"]}]


async def test_an_async_generator_is_recorded_and_replayed(cache):
    calls = []

    async def stream(prompt):
        calls.append(1)
        for i in range(3):
            yield i

    wrapped = cache.wrap(stream)
    assert [c async for c in wrapped("hi")] == [0, 1, 2]
    assert [c async for c in wrapped("hi")] == [0, 1, 2]
    assert len(calls) == 1
    assert inspect.isasyncgenfunction(wrapped)


async def test_a_cancelled_async_stream_is_not_kept(cache):
    async def stream(prompt):
        yield 1
        await asyncio.sleep(10)
        yield 2

    wrapped = cache.wrap(stream)

    async def read():
        async for _ in wrapped("hi"):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(cache.engine.performer.flights) == 0
    assert not cache.lookup(wrapped.request("hi")).outcome.hit


def test_asking_the_same_inside_a_stream_does_not_hang(cache):
    def stream(prompt):
        yield 1
        yield 2

    wrapped = cache.wrap(stream)
    assert [list(wrapped("hi")) for _ in wrapped("hi")] == [[1, 2], [1, 2]]
