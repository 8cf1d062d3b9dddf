"""The contract of every codec, over calls that the real SDKs have just made to the local upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import httpx2
import openai
import pytest

from semcache.testing.codec_contract import CodecContract, Recorded, StreamingCodecContract
from semcache.testing.upstream import Upstream
from semcache.wire import CODECS, Codec

if find_spec("litellm"):
    pytest.skip("the SDKs are older ones, and not all of them, where LiteLLM is installed", allow_module_level=True)

import matrix_sdks

QUESTION: Final = "How do I reset my password?"
BY_NAME: Final = {codec.name: codec for codec in CODECS}
DRIVERS: Final = {
    "Chat": "openai_chat",
    "AzureChat": "openai_chat",
    "UnkeptResponses": "openai_responses",
    "Messages": "anthropic",
    "VertexMessages": "anthropic_vertex",
    "BedrockMessages": "anthropic_bedrock",
    "Invoke": "anthropic_bedrock",
    "Converse": "bedrock",
    "Gemini": "gemini",
}


class Asked(NamedTuple):
    """What is asked for, through which client."""

    driver: str
    content: Any

    def __str__(self) -> str:
        return f"{self.driver}-{self.content}"


ASKED: Final = [Asked(driver, content) for driver in DRIVERS for content in ("text", "tools", "structured")]


@pytest.fixture(scope="module")
def running_upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def calls() -> dict[tuple[Asked, bool], Recorded]:
    """Those that have been made, by what was asked and whether it was streamed: many tests look at each."""
    return {}


def recorded(up: Upstream, codec: Codec) -> Recorded:
    """The last request that an SDK has sent, and what the upstream says to it, byte for byte."""
    sent = up.requests()[-1]
    # As the edge does where it may: a stream without its usage is no complete record.
    body = codec.forward(sent.body, ask_usage=True) or sent.body
    query = "alt=sse" if sent.path.endswith(":streamGenerateContent") else ""
    with httpx2.Client(verify=False) as client:
        url = f"{up.url}{quote(unquote(sent.path), safe='/:')}?{query}"
        answer = client.post(url, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 200
    path = unquote(sent.path)
    return Recorded(path, body, answer.content, f"&{query}" if query else "", sent.headers)


@pytest.mark.parametrize("asked", ASKED, ids=str)
class TestOfSdks(StreamingCodecContract):
    @pytest.fixture
    def codec(self, asked: Asked) -> Codec:
        return BY_NAME[DRIVERS[asked.driver]]

    @pytest.fixture
    async def plain(self, asked: Asked, running_upstream: Upstream, codec: Codec, calls: Any) -> Recorded:
        return await _made(calls, asked, running_upstream, codec, stream=False)

    @pytest.fixture
    async def streamed(self, asked: Asked, running_upstream: Upstream, codec: Codec, calls: Any) -> Recorded:
        return await _made(calls, asked, running_upstream, codec, stream=True)


async def _made(calls: Any, asked: Asked, up: Upstream, codec: Codec, *, stream: bool) -> Recorded:
    call: Recorded | None = calls.get((asked, stream))
    if call is None:
        driver = getattr(matrix_sdks, asked.driver)(up, False)
        try:
            await driver.ask(driver.client(), QUESTION, asked.content, stream)
        finally:
            await driver.close()
        call = calls[asked, stream] = recorded(up, codec)
    return call


class TestOfEmbeddings(CodecContract):
    @pytest.fixture
    def codec(self) -> Codec:
        return BY_NAME["openai_embeddings"]

    @pytest.fixture
    def plain(self, running_upstream: Upstream, codec: Codec) -> Recorded:
        with openai.OpenAI(base_url=running_upstream.openai_url, api_key="key") as client:
            client.embeddings.create(model="text-embedding-3-small", input=QUESTION)
        return recorded(running_upstream, codec)
