"""Wire formats: a provider's request to a :class:`~semcache.types.Request`, and its answers to and from streams."""

from __future__ import annotations

from semcache.wire.anthropic import AnthropicMessages
from semcache.wire.anthropic_hosted import AnthropicOnBedrock, AnthropicOnVertex
from semcache.wire.base import Codec, Recorder, Storable
from semcache.wire.bedrock import BedrockConverse
from semcache.wire.gemini import Gemini
from semcache.wire.openai_chat import OpenAIChat
from semcache.wire.openai_embeddings import OpenAIEmbeddings
from semcache.wire.openai_responses import OpenAIResponses

__all__ = ["CODECS", "Codec", "Recorder", "Storable", "find"]

CODECS: tuple[Codec, ...] = (
    OpenAIChat(),
    OpenAIResponses(),
    OpenAIEmbeddings(),
    AnthropicMessages(),
    AnthropicOnVertex(),
    AnthropicOnBedrock(),
    Gemini(),
    BedrockConverse(),
)


def find(method: str, path: str) -> Codec | None:
    """The codec of an HTTP request; ``path`` is the URL's path, percent-decoded and without its query."""
    return next((codec for codec in CODECS if codec.matches(method, path)), None)
