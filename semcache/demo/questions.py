"""The support log that the demo replays; ``semcache/data/demo/README.md`` says how it was made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Literal

Api = Literal["openai", "anthropic", "function"]

_FOLDER = resources.files("semcache") / "data" / "demo"


@dataclass(frozen=True, slots=True)
class Question:
    """One line of the log.

    Args:
        ts: Unix seconds.
        label: Answer class: two questions share an answer if and only if they share it.
        api: Which desk the customer came to, hence how the model is called.
        stream: Whether the desk asks for a stream.
    """

    ts: float
    text: str
    label: str
    api: Api
    stream: bool = False


def load_questions(limit: int | None = None) -> list[Question]:
    """The first ``limit`` lines of the log, in order of time."""
    lines = (_FOLDER / "support_log.jsonl").read_text(encoding="utf-8").splitlines()[:limit]
    rows = map(json.loads, lines)
    return [Question(row["ts"], row["text"], row["cls"], row["api"], row.get("stream", False)) for row in rows]


def load_answers() -> dict[str, str]:
    """The right answer of every class."""
    answers: dict[str, str] = json.loads((_FOLDER / "answers.json").read_text(encoding="utf-8"))
    return answers
