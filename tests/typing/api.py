"""Only type-checked: what the public API promises to a type checker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anthropic
import openai
from typing_extensions import assert_type

import semcache

cache = semcache.SemanticCache(store="memory://", tenant="t")
opened = semcache.SemanticCache.open("sqlite:///x", namespace="n")
assert_type(opened, semcache.SemanticCache)


@cache.wrap
def ask(prompt: str, *, model: str = "m") -> str:
    return prompt


@cache.wrap
async def aask(messages: list[dict[str, str]]) -> str:
    return ""


@cache.wrap
def stream(prompt: str) -> Iterator[str]:
    yield prompt


@cache.wrap
async def astream(prompt: str) -> AsyncIterator[str]:
    yield prompt


assert_type(ask("hi", model="m"), str)
assert_type(stream("hi"), Iterator[str])
assert_type(astream("hi"), AsyncIterator[str])
assert_type(cache.wrap(openai.OpenAI()), openai.OpenAI)
assert_type(cache.wrap(openai.AsyncOpenAI()), openai.AsyncOpenAI)
assert_type(cache.wrap(anthropic.Anthropic()), anthropic.Anthropic)
assert_type(cache.lookup("hi").outcome, semcache.Outcome)
assert_type(cache.explain("hi"), semcache.Explanation)
assert_type(semcache.last_outcome(), semcache.Outcome | None)

with cache.options(namespace="n", ttl=60, tags=["a"], min_similarity=0.97):
    ask("hi")


async def use() -> None:
    async with semcache.AsyncSemanticCache(store="memory://") as other:
        assert_type(await other.lookup("hi"), semcache.Lookup)
        assert_type(await aask([{"role": "user", "content": "hi"}]), str)
