"""Person: whose it is, and who does it to whom."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from semcache.guards.base import Guard
from semcache.guards.lexicon import english
from semcache.guards.text import Text

_OWNERS: Final = {
    "my": "1", "our": "1", "your": "2", "his": "he", "her": "she", "their": "they", "its": "it",
}  # fmt: skip
_IN_GENERAL: Final = frozenset({("what", "is", "a"), ("what", "is", "an")})
_OF_ANYBODY: Final = frozenset({"how to", "must"})
_OF_ANYBODY_ABLE: Final = frozenset({"where", "how many", "how much", "how long", "how often", "how old", "how far"})
_ASKED_FOR_OR_OFFERED: Final = frozenset({("1",), ("1", "2")})
"""Persons of "call me", which "can you call me" comes to, and of "can I call you"."""
_CLASSES: Final = (("speaker", "1"), ("listener", "2"), ("he", "he"), ("she", "she"), ("they", "they"))


class _Persons(NamedTuple):
    owners: dict[str, str]  # stem of what is owned -> person
    defined: str  # stem of what is asked about in general ("what is a router")
    turns: tuple[str, ...]  # the persons in order
    generic: bool  # "how do you" and "you have to" are said of anybody
    does: str  # stem of what "who" does, as the subject
    gets: frozenset[str]  # stems of the text, if "who" is an object
    asked: str  # what is asked of a person by "who": whether it "does" it, or "gets" it; empty if it is not asked
    done: str  # stem of the word before the last person, if that is an object: "call me", "I call you"

    @property
    def all(self) -> frozenset[str]:
        return frozenset(self.turns)


def _read(text: Text) -> _Persons:
    owners = {text.stems[at + 1]: _OWNERS[fold] for at, fold in enumerate(text.folds[:-1]) if fold in _OWNERS}
    defined = text.stems[3] if len(text.folds) > 3 and text.folds[:3] in _IN_GENERAL else ""
    pronouns = _pronouns()
    said = [
        (at, pronouns[fold]) for at, fold in enumerate(text.folds) if fold in pronouns and text.tokens[at].raw != "US"
    ]
    turns = [person for _, person in said]
    if len(turns) == 2 and text.folds[said[-1][0] - 1] == "by":
        turns.reverse()  # "was I asked by you"
    line = " ".join(text.folds)
    kinds = {ask.kind for ask in text.asks}
    generic = not kinds.isdisjoint(_OF_ANYBODY) or "you have to" in line
    generic = generic or ("can you" in line and not kinds.isdisjoint(_OF_ANYBODY_ABLE))
    last = said[-1][0] if said else 0
    done = text.stems[last - 1] if last and text.folds[last] in ("me", "us", "you") else ""
    return _Persons(owners, defined, tuple(turns), generic, *_who(text), _part(text, said), done)


@lru_cache(maxsize=1)
def _pronouns() -> dict[str, str]:
    return {word: person for kind, person in _CLASSES for word in english().grammar[kind]}


def _who(text: Text) -> tuple[str, frozenset[str]]:
    """``does`` and ``gets`` of the persons: "who sold it", "to whom did they sell it"."""
    at = next((at for at, fold in enumerate(text.folds[:3]) if fold in ("who", "whom")), None)
    if at is None or text.folds[at - 1 : at] == ("by",):
        return "", frozenset()
    after = text.folds[at + 1] if at + 1 < len(text.folds) else ""
    if text.folds[at] == "whom" or after in ("did", "do", "does"):
        return "", frozenset(text.stems)
    return (text.stems[at + 1] if after and after not in english().function else ""), frozenset()


def _part(text: Text, said: list[tuple[int, str]]) -> str:
    """Of a question of the kind "who": whether the first person in it does what is asked about, or gets it."""
    if not said or not any(ask.kind == "who" for ask in text.asks):
        return ""
    at = said[0][0]
    grammar = english().grammar
    if text.folds[at] in grammar["subject"]:
        return "does"
    if text.folds[at] != "you" or not at:
        return "gets" if text.folds[at] in grammar["object"] else ""
    before = text.folds[at - 1]
    if before in grammar["opener"]:
        return "does"
    return "gets" if before in grammar["clause"] or before not in english().function else ""


def _compare(query: _Persons, cached: _Persons) -> str:
    for thing in query.owners.keys() & cached.owners.keys():
        if query.owners[thing] != cached.owners[thing]:
            return f"whose {thing}: person {query.owners[thing]} / {cached.owners[thing]}"
    if query.does in cached.gets or cached.does in query.gets:
        return "who does it / who gets it"
    if query.defined in cached.owners or cached.defined in query.owners:
        return f"whose {query.defined or cached.defined}: anybody's / somebody's"
    if not query.turns or not cached.turns:
        return ""
    if len(query.all) == len(query.turns) == 2 and query.turns == cached.turns[::-1]:
        return "who does it to whom"
    if query.done and query.done == cached.done and {query.turns, cached.turns} == _ASKED_FOR_OR_OFFERED:
        return "who does it to whom"
    if query.asked and cached.asked and query.asked != cached.asked and query.all == cached.all:
        return f"who {query.asked} it / who {cached.asked} it"
    return _others(query, cached)


def _others(query: _Persons, cached: _Persons) -> str:
    """Texts about other people. "They" may be anybody, and so may "you" where it is asked how one does something."""
    ours, theirs = query.all - {"they"}, cached.all - {"they"}
    third = (ours ^ theirs) & {"he", "she"}
    if not ours or not theirs or (not third and (query.generic or cached.generic)):
        return ""
    disjoint = not ours & theirs
    return f"person {' '.join(sorted(ours))} / {' '.join(sorted(theirs))}" if disjoint else ""


PERSON: Final = Guard("person", _read, _compare)
