"""The text of an answer, and whether two answers are the same one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

Judge = Callable[[str, str, str, str], bool | None]
"""``judge(question, stored_question, stored_answer, fresh_answer)``: whether the stored answer serves the question.

Questions are given as they were decided upon: with ``context="rewrite"`` as they stand alone, in a window with the user
turns before them, one a line. Both answers are texts, as :func:`answer_text` gives them; the fresh one is what the
upstream has just said to ``question``. ``None`` means "cannot tell". It is called on a thread of the cache, never on a
caller's, and may be slow.
"""


def answer_text(body: bytes) -> str:
    """What the reader of an answer reads.

    The text of an OpenAI (Chat Completions, Responses), Anthropic, Gemini or Bedrock (Converse) answer, the joined
    chunks of a generator of strings, a plain string as it is; anything else (tool calls, several choices, other JSON)
    as JSON with sorted keys, without what differs from call to call.

    Args:
        body: JSON bytes, as entries keep them.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(chunk, str) for chunk in value):
        return "".join(value)
    if (text := text_of(value)) is not None:
        return text
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if key not in _OF_THE_CALL}
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def text_of(answer: Any) -> str | None:
    """The text of a provider's parsed answer; ``None`` if it is none, or not all text (tool calls, several choices)."""
    if not isinstance(answer, dict):
        return None
    try:
        return next((text for read in _READERS if (text := read(answer)) is not None), None)
    except (AttributeError, KeyError, TypeError):
        return None  # a function's own answer that has the field names of a provider's


def same_answer(question: str, stored_question: str, stored_answer: str, fresh_answer: str) -> bool | None:
    """The judge of a cache that was given none: equal answers are right, and of others it cannot tell.

    JSON is equal by value, other text whatever its case, spacing and closing punctuation. A model words one answer in
    many ways, so a difference proves nothing.
    """
    return True if folded(stored_answer) == folded(fresh_answer) else None


def folded(answer: str) -> str:
    """One form of all answers that :func:`same_answer` takes for one."""
    try:
        return orjson.dumps(orjson.loads(answer), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        return " ".join(answer.casefold().split()).rstrip(".!")


def answer_id(body: bytes) -> int:
    """63 bits that stand for an answer among wrong pairs; answers that :func:`same_answer` takes for one have one."""
    return int(xxh3_64_intdigest(folded(answer_text(body)).encode(errors="surrogatepass")) >> 1)


_OF_THE_CALL = frozenset({"id", "created", "usage", "model", "system_fingerprint", "service_tier"})


def _openai_text(body: dict[str, Any]) -> str | None:
    choices = body.get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and len(choices) == 1 else None
    if not isinstance(message, dict) or message.get("tool_calls"):
        return None
    content = message.get("content")
    return content if isinstance(content, str) else None


def _anthropic_text(body: dict[str, Any]) -> str | None:
    blocks = body.get("content")
    if body.get("type") != "message" or not isinstance(blocks, list):
        return None
    said = [block for block in blocks if block.get("type") not in ("thinking", "redacted_thinking")]
    return "".join(str(block["text"]) for block in said) if all(block.get("type") == "text" for block in said) else None


def _responses_text(body: dict[str, Any]) -> str | None:
    if body.get("object") != "response" or not isinstance(body.get("output"), list):
        return None
    items = [item for item in body["output"] if item.get("type") != "reasoning"]
    if any(item.get("type") != "message" for item in items):
        return None
    return "".join(str(part.get("text", "")) for item in items for part in item.get("content") or ())


def _gemini_text(body: dict[str, Any]) -> str | None:
    candidates = body.get("candidates")
    if not isinstance(candidates, list) or len(candidates) != 1:
        return None
    parts = (candidates[0].get("content") or {}).get("parts") or []
    said = [part for part in parts if not part.get("thought")]
    return "".join(str(part["text"]) for part in said) if all("text" in part for part in said) else None


def _converse_text(body: dict[str, Any]) -> str | None:
    output = body.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    if not isinstance(message, dict):
        return None
    said = [block for block in message.get("content") or [] if "reasoningContent" not in block]
    return "".join(str(block["text"]) for block in said) if all("text" in block for block in said) else None


_READERS = (_openai_text, _responses_text, _anthropic_text, _gemini_text, _converse_text)
