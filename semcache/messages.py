"""Plain ``[{"role": …, "content": …}]`` lists, as functions and the manual API take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

FUZZY: Final = {"$fuzzy": True}
"""Stands in the scope where the fuzzy text was taken out, so that its place is still part of the key."""


class Split(NamedTuple):
    """Messages with the last user text taken out. ``exact_only`` says why there is none to take out."""

    messages: list[Any]
    text: str | None
    exact_only: str


def is_messages(value: Any) -> bool:
    """Whether a value looks like a list of chat messages."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and bool(value)
        and all(isinstance(m, Mapping) and "role" in m for m in value)
    )


def split_last_user_text(messages: Sequence[Mapping[str, Any]]) -> Split:
    """Take the last text out of the last message, if that message is the user's.

    Everything else, earlier turns and other content parts included, stays as it is and must match exactly.
    """
    whole = list(messages)
    if not whole or whole[-1].get("role") != "user":
        return Split(whole, None, "the last message is not the user's")
    last = dict(whole[-1])
    content = last.get("content")
    if isinstance(content, str):
        last["content"] = FUZZY
        return Split([*whole[:-1], last], content, "")
    if isinstance(content, Sequence):
        parts = list(content)
        for i in range(len(parts) - 1, -1, -1):
            part = parts[i]
            if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
                parts[i] = {**part, "text": FUZZY}
                # One plain text part and a plain string are the same request.
                last["content"] = FUZZY if len(parts) == 1 and part.keys() == {"type", "text"} else parts
                return Split([*whole[:-1], last], part["text"], "")
    return Split(whole, None, "the last message has no text")
