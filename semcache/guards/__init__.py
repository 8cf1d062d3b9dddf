"""Deterministic vetoes: reasons why the answer to one question must not be given to another, however near they are.

A guard is a pure function of two texts, ``guard(query, cached) -> reason``. All guards share one reading of each text
(:mod:`semcache.guards.text`), which a bounded memo keeps, so a comparison costs microseconds. A guard whose word lists
do not know the language of a text says so (``covers``), and the policy then asks for a higher similarity.

A new guard is a reader of one text and a judge of two readings, and one line in ``GUARDS``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from semcache.guards.base import Guard
from semcache.guards.checks import CODE, LANGUAGE, NUMBERS, QUESTION, SHAPE, TENSE
from semcache.guards.names import NAMES
from semcache.guards.order import ORDER
from semcache.guards.person import PERSON
from semcache.guards.polarity import POLARITY
from semcache.guards.surplus import SURPLUS
from semcache.guards.text import fold, read
from semcache.guards.wording import WORDING
from semcache.types import GuardVerdict

__all__ = ["GUARDS", "Guard", "covered", "fold", "language", "verdicts"]

GUARDS: Final[dict[str, Guard[Any]]] = {
    guard.name: guard
    for guard in (LANGUAGE, CODE, NUMBERS, POLARITY, QUESTION, TENSE, SHAPE, PERSON, NAMES, ORDER, SURPLUS, WORDING)
}
"""All guards by name, in the order in which they are asked."""

_NO_OBJECTION: Final = {name: GuardVerdict(name, "") for name in GUARDS}


def verdicts(names: Iterable[str], query: str, cached: str) -> tuple[GuardVerdict, ...]:
    """What the named guards say of a pair, in order.

    Raises:
        KeyError: No guard has that name.
    """
    ours, theirs = read(query), read(cached)
    said = []
    for name in names:
        reason = GUARDS[name].judge(ours, theirs)
        said.append(GuardVerdict(name, reason) if reason else _NO_OBJECTION[name])
    return tuple(said)


def language(text: str) -> str:
    """ISO 639-1 code of the language of a text; empty if it cannot be told."""
    return read(text).language


def covered(names: Iterable[str], text: str) -> bool:
    """Whether every named guard knows the language of a text."""
    return all(GUARDS[name].covers(text) for name in names)
