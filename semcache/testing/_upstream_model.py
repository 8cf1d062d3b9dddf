"""What the local provider "thinks": answers, tokens, schema instances, embeddings, timing. All seeded."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Json = dict[str, Any]

_PIECE = re.compile(r"\s?\w{1,6}|\s?[^\w\s]|\s")
_TRANSPORT_FIELDS = frozenset({"stream", "stream_options"})
_FORMATS = {"date": "2026-03-01", "date-time": "2026-03-01T09:30:00Z", "email": "someone@example.org"}
_SENTENCES = (
    "The short version is that the setting you describe is applied at the next full cycle.",
    "Two conditions have to be met first, and both are listed on the account page.",
    "If that does not help, repeat the step once and note the message that appears.",
    "Nothing else changes, and the previous state can be restored at any time.",
    "Most people are done within a few minutes.",
    "Keep the confirmation that you receive, since it names the exact date.",
)


def pieces(text: str) -> list[str]:
    """Cut a text into token-like pieces that join to it again; about 1.3 a word, as with real tokenizers."""
    return _PIECE.findall(text)


def input_tokens(messages: Sequence[Any], text: str, tools: Json) -> int:
    """Tokens of a request: its whole text, the frame of each message, and the tools' definitions."""
    return 3 + 4 * len(messages) + len(pieces(text)) + (len(pieces(json.dumps(tools))) if tools else 0)


def digest(path: str, body: Json) -> str:
    """Hex identity of a request: equal for a stream and a plain call, different for any other difference."""
    kept = {name: value for name, value in body.items() if name not in _TRANSPORT_FIELDS}
    data = json.dumps([path, kept], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(data.encode()).hexdigest()


def content_text(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list of blocks."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") or part.get("content") for part in content if isinstance(part, dict))
        return "\n".join(content_text(part) for part in parts if part)
    return ""


def answer(question: str, identity: str, answers: Mapping[str, str]) -> str:
    """The prepared answer to the question, or one that no request of another ``identity`` gets."""
    if question in answers:
        return answers[question]
    rng = random.Random(identity)
    sentences = " ".join(rng.sample(_SENTENCES, rng.randint(1, 4)))
    return f"{sentences} Reference {identity[:24]}."


def instance(schema: Json, text: str, identity: str) -> Any:
    """A value that satisfies a JSON schema of the kinds that providers take. Its first string is ``text``."""
    number = int(identity[:16], 16)
    texts = itertools.chain([text], (f"{identity[:8]}-{i}" for i in itertools.count(1)))

    def build(part: Json) -> Any:
        if "$ref" in part:
            return build(_resolve(schema, part["$ref"]))
        union = part.get("anyOf") or part.get("oneOf") or part.get("allOf")
        if union:
            return build(union[0])
        if "const" in part:
            return part["const"]
        if "enum" in part:
            return part["enum"][number % len(part["enum"])]
        kind = part.get("type", "object" if "properties" in part else "string")
        match kind if isinstance(kind, str) else kind[0]:
            case "object":
                return {name: build(value) for name, value in part.get("properties", {}).items()}
            case "array":
                return [build(part.get("items", {})) for _ in range(part.get("minItems", 1))]
            case "integer" | "number":
                low = math.ceil(part.get("minimum", 1))
                return low + number % (math.floor(part.get("maximum", low + 99)) - low + 1)
            case "boolean":
                return number % 2 == 0
            case "null":
                return None
            case _:
                return _FORMATS.get(part.get("format", "")) or next(texts)

    return build(schema)


def _resolve(schema: Json, reference: str) -> Any:
    target: Any = schema
    for name in reference.removeprefix("#/").split("/"):
        target = target[name]
    return target


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one call; fields combine. Counts are in server-sent events already sent.

    Args:
        status: Answer with this error status and the provider's error body.
        headers: Headers of that answer, like ``{"retry-after": "0"}``.
        message: Message of that answer.
        stall_s: Seconds of silence before the first byte.
        delay_s: Seconds before each event (or before the whole body): a slow stream.
        cut_after: Close the connection after so many events; a plain answer loses its second half.
        end_after: End the body properly after so many events, as if the answer were complete.
        error_after: Send the provider's error event after so many events, with status 200.
        malformed_after: Break the JSON of the event after so many (or of the whole body).
        finish: Report this finish or stop reason.
        answer: Answer with this text.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str | None = None
    stall_s: float = 0.0
    delay_s: float = 0.0
    cut_after: int | None = None
    end_after: int | None = None
    error_after: int | None = None
    malformed_after: int | None = None
    finish: str | None = None
    answer: str | None = None


class Ask(NamedTuple):
    """A chat request, read without regard to the wire format.

    Args:
        tools: Parameter schema by tool name.
        tool_choice: ``"auto"``, ``"none"``, ``"any"``, or the name of the tool to call.
        schema: JSON schema of the answer, if one was asked for.
        limit: Most output tokens; ``None`` for no limit.
    """

    question: str
    identity: str
    input_tokens: int
    tools: Mapping[str, Json]
    tool_choice: str = "auto"
    parallel_tools: bool = True
    schema: Json | None = None
    limit: int | None = None


class Cached(NamedTuple):
    """Tokens of a prompt: read from the provider's cache, and written to it by lifetime."""

    read: int = 0
    written: tuple[tuple[str, int], ...] = ()

    @property
    def write(self) -> int:
        return sum(tokens for _, tokens in self.written)


class Turn(NamedTuple):
    """The assistant's turn: text and tool calls as (name, JSON arguments).

    ``finish`` is ``"stop"``, ``"tools"`` or ``"length"``.
    """

    text: str
    calls: tuple[tuple[str, str], ...]
    finish: str
    input_tokens: int
    output_tokens: int
    cached: Cached = Cached()


def respond(ask: Ask, answers: Mapping[str, str]) -> Turn:
    """Answer a request: by tool calls if it asks for them, else by the prepared or a derived text."""
    called = _tools_called(ask)
    if called:
        arguments = [json.dumps(instance(ask.tools[name], ask.question, ask.identity)) for name in called]
        spent = sum(8 + len(pieces(text)) for text in arguments)
        return Turn("", tuple(zip(called, arguments, strict=True)), "tools", ask.input_tokens, spent)
    text = answer(ask.question, ask.identity, answers)
    if ask.schema is not None:
        text = json.dumps(instance(ask.schema, text, ask.identity))
    tokens = pieces(text)
    cut = ask.limit is not None and len(tokens) > ask.limit
    tokens = tokens[: ask.limit] if cut else tokens
    return Turn("".join(tokens), (), "length" if cut else "stop", ask.input_tokens, len(tokens))


def _tools_called(ask: Ask) -> list[str]:
    if not ask.tools or ask.tool_choice == "none":
        return []
    if ask.tool_choice in ask.tools:
        return [ask.tool_choice]
    # Left to itself, this model calls the tools that have a word of their name in the question.
    asked = set(re.findall(r"[a-z]{4,}", ask.question.lower()))
    called = [name for name in ask.tools if asked.intersection(re.findall(r"[a-z]{4,}", name.lower()))]
    if not called and ask.tool_choice == "any":
        called = list(ask.tools)
    return called if ask.parallel_tools else called[:1]


def embedding(text: str, dimensions: int) -> list[float]:
    """A unit vector, the sum of one seeded Gaussian vector a word: texts that share words are close."""
    total = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [text]:
        gauss = random.Random(word).gauss
        total = [value + gauss(0.0, 1.0) for value in total]
    norm = math.sqrt(sum(value * value for value in total))
    return [value / norm for value in total]


class Pace(NamedTuple):
    """How long one answer takes: seconds to the first token, seconds for each further one."""

    first_token_s: float
    token_s: float


def paces(scale: float, seed: int) -> Iterator[Pace]:
    """Endless paces: log-normal time to the first token (median 0.45 s, p99 1.3 s), 8–17 ms a token.

    In the range of small hosted chat models. ``scale`` multiplies both; 0 means no waiting at all.
    """
    rng = random.Random(seed)
    while True:
        first, token = rng.lognormvariate(math.log(0.45), 0.45), rng.uniform(0.008, 0.017)
        yield Pace(scale * first, scale * token)
