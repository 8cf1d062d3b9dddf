"""Wire formats: a provider's request to a :class:`~semcache.types.Request`, and its answers to and from streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from semcache.wire.anthropic import AnthropicMessages
from semcache.wire.anthropic_hosted import AnthropicOnBedrock, AnthropicOnVertex
from semcache.wire.base import Codec, Recorder, Storable
from semcache.wire.bedrock import BedrockConverse
from semcache.wire.gemini import Gemini
from semcache.wire.openai_chat import OpenAIChat
from semcache.wire.openai_embeddings import OpenAIEmbeddings
from semcache.wire.openai_responses import OpenAIResponses

__all__ = ["CODECS", "Codec", "Recorder", "Storable", "find", "find_by_answer"]

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


# By which an answer is known among other JSON: fields with one value, and a field that has many. 2026-11-21.
_ANSWERS: Final[tuple[tuple[Codec, Mapping[str, str], str], ...]] = (
    (OpenAIChat(), {"object": "chat.completion"}, "choices"),
    (OpenAIResponses(), {"object": "response"}, "output"),
    (AnthropicMessages(), {"type": "message"}, "stop_reason"),
    (BedrockConverse(), {}, "stopReason"),
)


def find_by_answer(answer: Mapping[str, Any]) -> Codec | None:
    """The codec of an answer that came without its request; ``None`` if it looks like no provider's."""
    found = (codec for codec, fixed, field in _ANSWERS if field in answer and fixed.items() <= answer.items())
    return next(found, None)
