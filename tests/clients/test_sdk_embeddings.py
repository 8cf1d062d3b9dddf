"""The Embeddings endpoint of the real OpenAI SDK through the cache, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from sdk_clients import Sdk, close_clients, settled

from semcache import SemanticCache, last_outcome
from semcache.testing.upstream import Fault, Upstream

EACH = pytest.mark.parametrize("sdk", [Sdk(openai, False), Sdk(openai, True)], ids=lambda sdk: sdk.name)
ASKED: Any = {"model": "text-embedding-3-small", "input": ["Is it up?", "Is it down?"], "dimensions": 64}


@pytest.fixture(autouse=True)
async def no_open_client() -> AsyncIterator[None]:
    yield
    await close_clients()


@EACH
@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
async def test_the_same_vectors_come_back(sdk: Sdk, encoding: Any, up: Upstream, exact_cache: SemanticCache) -> None:
    bare, client = sdk.client(up), exact_cache.wrap(sdk.client(up))
    direct = await settled(bare.embeddings.create(**ASKED, **encoding))
    first, second = [await settled(client.embeddings.create(**ASKED, **encoding)) for _ in range(2)]
    vectors = [[item.embedding for item in answer.data] for answer in (direct, first, second)]
    assert vectors[0] == vectors[1] == vectors[2]
    assert isinstance(vectors[0][0], str if encoding.get("encoding_format") == "base64" else list)
    assert second.usage == first.usage == direct.usage
    assert up.calls() == 2
    outcome = last_outcome()
    assert outcome is not None
    assert (outcome.status, outcome.layer) == ("hit", "exact")
    assert outcome.usage is not None
    assert outcome.usage.input_tokens == direct.usage.prompt_tokens > 0


@EACH
async def test_another_text_is_another_request(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    for text in ("Is it up?", "is it up?", "Is it up", ["Is it up?"]):
        await settled(client.embeddings.create(**{**ASKED, "input": text}))
    assert up.calls() == 4


@EACH
@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=429, headers={"retry-after": "0"})])
async def test_errors_are_the_sdks_and_are_not_stored(
    sdk: Sdk, fault: Fault, up: Upstream, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(sdk.client(up))
    up.script([fault])
    with pytest.raises(openai.APIStatusError) as caught:
        await settled(client.embeddings.create(**ASKED))
    assert caught.value.status_code == fault.status
    assert (await settled(client.embeddings.create(**ASKED))).data
    assert up.calls() == 2
