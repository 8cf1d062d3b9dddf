"""What is attached to a question, through the real SDKs: what the cache answers, and what the provider is asked."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sdk_clients import SDKS, Sdk, close_clients

from semcache import SemanticCache, last_outcome
from semcache.testing.upstream import Upstream

EVERY_SDK = pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
OF_OPENAI = pytest.mark.parametrize("sdk", SDKS[:2], ids=lambda sdk: sdk.name)


@pytest.fixture(autouse=True)
async def closing() -> AsyncIterator[None]:
    yield
    await close_clients()


async def status(sdk: Sdk, client: Any, part: dict[str, Any]) -> str:
    content = [part, {"type": "text", "text": "What is it?"}]
    await sdk.create(client, messages=[{"role": "user", "content": content}])
    outcome = last_outcome()
    assert outcome is not None
    return outcome.status


def recording(content: bytes) -> dict[str, Any]:
    data = base64.b64encode(content).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


@OF_OPENAI
async def test_a_recording_is_known_by_its_content(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    heard = [await status(sdk, client, recording(content)) for content in (b"one", b"one", b"other")]
    assert heard == ["miss", "hit", "miss"]
    assert len(up.requests()) == 2


@EVERY_SDK
async def test_a_picture_at_a_url_is_looked_at_anew(sdk: Sdk, up: Upstream, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(sdk.client(up))
    url = "https://example.org/webcam.png"
    picture: dict[str, Any] = {"type": "image", "source": {"type": "url", "url": url}}
    if sdk.is_openai:
        picture = {"type": "image_url", "image_url": {"url": url}}
    assert [await status(sdk, client, picture) for _ in range(2)] == ["bypass", "bypass"]
    assert len(up.requests()) == 2
