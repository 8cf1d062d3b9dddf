"""What every client gets from the cache, call by call: held by ``test_matrix.py``, shown in ``docs/providers.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, get_args

Content = Literal["text", "tools", "structured"]
Situation = Literal["exact", "semantic", "miss", "error"]
"""A repeated question, a reworded one, a new one, and one that the provider answers with an error."""


class Row(NamedTuple):
    """One kind of client.

    Args:
        codec: Name of the wire format.
        driver: Name of its class in ``matrix_sdks.py``, or in ``matrix_litellm.py``.
        client: What is wrapped.
        calls: Plain calls, and streamed ones.
        is_async: Whether there is an async client of the kind.
        by_meaning: Whether a text may be answered by the answer to a reworded one.
    """

    codec: str
    driver: str
    client: str
    calls: tuple[str, str]
    is_async: bool = True
    by_meaning: bool = True

    @property
    def own_environment(self) -> bool:
        """Whether its SDK cannot be installed beside the others."""
        return self.codec == "litellm"


_CHAT = ("`chat.completions.create`, `.parse`", "`.stream`")
_RESPONSES = ("`responses.create`, `.parse`", "`.stream`")
_MESSAGES = ("`messages.create`, `.parse`", "`.stream`")
_GEMINI = ("`models.generate_content`", "`.generate_content_stream`")

ROWS: Final = (
    Row("openai_chat", "Chat", "`openai.OpenAI`", _CHAT),
    Row("openai_chat", "AzureChat", "`openai.AzureOpenAI`", _CHAT),
    Row("openai_responses", "UnkeptResponses", "`openai.OpenAI`, with `store=False`", _RESPONSES),
    Row("openai_responses", "Responses", "`openai.OpenAI`, without it", _RESPONSES, by_meaning=False),
    Row("anthropic", "Messages", "`anthropic.Anthropic`", _MESSAGES),
    Row("anthropic_bedrock", "BedrockMessages", "`anthropic.AnthropicBedrock`", _MESSAGES),
    Row("anthropic_vertex", "VertexMessages", "`anthropic.AnthropicVertex`", _MESSAGES),
    Row("anthropic_bedrock", "Invoke", "boto3", ("`invoke_model`", "`invoke_model_with_response_stream`"), False),
    Row("bedrock", "Converse", "boto3", ("`converse`", "`converse_stream`"), False),
    Row("gemini", "Gemini", "`google.genai.Client`", _GEMINI),
    Row("litellm", "LiteLLM", "`litellm.completion`, `.acompletion`", ("as they are", "`stream=True`")),
    Row("litellm", "Router", "`litellm.Router`", ("`completion`, `acompletion`", "`stream=True`")),
)


class Cell(NamedTuple):
    """One call: through which client, what it asks for, and when."""

    row: Row
    is_async: bool
    stream: bool
    content: Content
    situation: Situation

    def __str__(self) -> str:
        way = f"{'async' if self.is_async else 'sync'}-{'stream' if self.stream else 'plain'}"
        return f"{self.row.driver}-{way}-{self.content}-{self.situation}"

    @property
    def tier(self) -> Literal["exact", "semantic"] | None:
        """Which tier answers; ``None`` if the provider is called.

        What an answer with tool calls is to be answered with belongs to its own question.
        """
        if self.situation == "exact":
            return "exact"
        if self.situation == "semantic" and self.row.by_meaning and self.content != "tools":
            return "semantic"
        return None


def cells(rows: tuple[Row, ...] = ROWS) -> Iterator[Cell]:
    """Every cell of some rows."""
    for row in rows:
        for is_async in (False, True)[: 1 + row.is_async]:
            for stream in (False, True):
                for content in get_args(Content):
                    for situation in get_args(Situation):
                        yield Cell(row, is_async, stream, content, situation)
