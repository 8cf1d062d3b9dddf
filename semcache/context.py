"""Several turns: what of a conversation must match exactly, and what may match by meaning.

By default every earlier turn is part of the scope. ``Policy.context`` can take the turns out of it: they stay in the
key, so the exact tier serves whole conversations only, and what is matched by meaning becomes

- ``"rewrite"``: the last question as a callable of the user's makes it stand alone, or
- ``"window"``: the last user turns, embedded together. Turn by turn the history has to be the same: what the user
  said by the guards, what the assistant said word for word (a cache in front of it repeats itself).

System and developer messages stay in the scope, and so does a history with anything but plain text in it (tool calls,
images): no guard could read that. Modes never share entries, since the mode is part of the scope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

from semcache.guards import fold, verdicts
from semcache.privacy import hides
from semcache.types import Request

Context = Literal["exact", "rewrite", "window"]
MODES: Final[tuple[Context, ...]] = ("exact", "rewrite", "window")

Turns = Sequence[Mapping[str, Any]]
Rewrite = Callable[[Turns, str], str]
"""``rewrite(history, text)`` is ``text``, the last user message, so that it can be understood without ``history``."""

_INSTRUCTIONS: Final = ("system", "developer")


class Fuzzy(NamedTuple):
    """What is matched by meaning: the text that is embedded, and the one that guards compare."""

    embedded: str
    compared: str


def loosen(request: Request, mode: Context, window: int) -> Request:
    """``request`` with its earlier turns moved from the scope to the history, where the mode wants that and can."""
    if mode == "exact" or request.text is None or request.exact_only or request.bypass:
        return request
    messages, rebuild = _messages(request.scope)
    history = [message for message in messages[:-1] if message.get("role") not in _INSTRUCTIONS]
    if rebuild is None or not all(_text(message) is not None for message in history):
        return request
    kept = [message for message in messages[:-1] if message.get("role") in _INSTRUCTIONS]
    label = mode if mode == "rewrite" else f"{mode} {window}"
    return replace(request, scope={**rebuild([*kept, messages[-1]]), "context": label}, history=history)


def alone(text: str) -> Fuzzy:
    """A text without history."""
    return Fuzzy(text, text)


def windowed(history: Turns, text: str, window: int) -> Fuzzy:
    """The last ``window`` user turns to embed, the last one to compare."""
    asked = [_text(message) or "" for message in history if message["role"] == "user"]
    return Fuzzy("\n".join([*asked, text][-window:]), text)


def in_context(mode: Context, window: int, history: Turns, text: str) -> str:
    """A question as it was decided upon: in a window with the user turns before it."""
    return windowed(history, text, window).embedded if mode == "window" and history else text


def user_turns(request: Request) -> Iterator[str]:
    """The texts of the user in a request, as far as they are in a list of messages; the last one last."""
    messages, _ = _messages(request.scope)
    for message in (*messages, *request.history):
        if message.get("role") == "user" and (text := _text(message)):
            yield text
    if request.text is not None:
        yield request.text


def turns_differ(guards: Iterable[str], ours: Turns, theirs: Turns) -> str:
    """Why two histories do not lead to the same question; empty if nothing tells them apart."""
    if [message["role"] for message in ours] != [message["role"] for message in theirs]:
        return "other turns"
    for number, (our, their) in enumerate(zip(ours, theirs, strict=True), 1):
        asked, stored = _text(our) or "", _text(their) or ""
        if fold(asked) == fold(stored):
            continue
        if our["role"] != "user":
            return f"turn {number}: another answer"
        if hidden := hides(asked) or hides(stored):
            return f"turn {number}: {hidden}"
        for verdict in verdicts(guards, asked, stored):
            if not verdict.ok:
                return f"turn {number}: {verdict.guard}: {verdict.reason}"
    return ""


def _messages(scope: Mapping[str, Any]) -> tuple[list[Any], Callable[[list[Any]], dict[str, Any]] | None]:
    """The messages of a request and how to put others in their place: of a function, or in the body of a call."""
    body = scope.get("body")
    where = body if isinstance(body, Mapping) else scope
    messages = where.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return [], None

    def rebuild(others: list[Any]) -> dict[str, Any]:
        inner = {**where, "messages": others}
        return {**scope, "body": inner} if where is body else inner

    return messages, rebuild


def _text(message: Mapping[str, Any]) -> str | None:
    """The text of a message that holds nothing else."""
    content = message.get("content")
    if message.keys() != {"role", "content"} or message["role"] not in ("user", "assistant"):
        return None
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.keys() == {"type", "text"}]
    plain = len(parts) == len(content) and all(isinstance(part, str) for part in parts)
    return "\n".join(str(part) for part in parts) if plain else None
