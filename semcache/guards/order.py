"""Order: the same words with their parts exchanged ask for something else ("from A to B", "X or Y better")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from semcache.guards.base import Guard
from semcache.guards.lexicon import Pole, english
from semcache.guards.text import Text

_ASKED: Final = frozenset({"who", "whom", "what", "which"})
_PERSONS: Final = {
    "i": "i", "me": "i", "my": "i", "we": "we", "us": "we", "our": "we", "you": "you", "he": "he", "him": "he",
    "she": "she", "they": "they", "them": "they", "someone": "someone", "somebody": "someone",
    "anyone": "anyone", "anybody": "anyone",
}  # fmt: skip
_NO_OWNERS: Final = {word: person for word, person in _PERSONS.items() if word not in ("my", "our")}
_TRADED: Final = frozenset(
    frozenset(pair)
    for pair in (
        *(("from", "with"), ("from", "about"), ("from", "by"), ("about", "to"), ("about", "by"), ("about", "with")),
        *(("by", "to"), ("by", "for"), ("with", "against"), ("for", "against"), ("into", "of")),
    )
)
"""Prepositions that no two wordings of one question have for one another. Most others vary freely."""
_AGENT: Final = {"includ": "in", "contain": "in"}
"""What stands before the agent of a passive, where it is not "by": "included in the price"."""


@dataclass(eq=False)
class _Parts:
    source: frozenset[str]
    target: frozenset[str]
    origin: tuple[int, frozenset[str]]  # how often "from" is said, and what stands behind it
    goal: tuple[int, frozenset[str]]  # the same of "to"
    around: dict[str, tuple[frozenset[str], frozenset[str]]]  # pivot -> what stands before it, and after
    alone: dict[str, tuple[str, frozenset[str]]]  # verb of which one side is asked for -> which side is told, and what
    joined: dict[frozenset[str], str]  # two neighbours -> "and" or "or"
    poles: dict[int, tuple[int, ...]]  # line of opposites -> poles in order
    links: tuple[str, ...]  # prepositions, sorted
    text: Text

    @cached_property
    def sequences(self) -> tuple[tuple[str, ...], ...]:
        """Words and persons, with those who own something and without. Few pairs are so alike that it matters."""
        # Sentences change places freely, and so do those who do a thing with one another.
        if True in self.text.starts[1:] or not english().mutual.isdisjoint(self.text.stems):
            return ()
        return _sequence(self.text, _PERSONS), _sequence(self.text, _NO_OWNERS)

    @property
    def written(self) -> dict[str, str]:
        """Stem -> word, in order."""
        return dict(zip(self.text.stems, self.text.folds, strict=True))

    def name(self, stems: frozenset[str]) -> str:
        return " ".join(word for stem, word in self.written.items() if stem in stems or _PERSONS.get(word) in stems)


def _read(text: Text) -> _Parts:
    content = {word.at for word in text.words}.union(text.codes)
    around, alone = _sides(text, content)
    origin, goal = (_behind(text, content, english().grammar[kind]) for kind in ("source", "target"))
    source = origin[1] if origin[0] else _behind(text, content, english().grammar["target"], -1)[1]
    joined, poles = _joined(text, content), _first_sides(text)
    prepositions = english().grammar["clause"]
    links = tuple(sorted(fold for fold in text.folds if fold in prepositions))
    return _Parts(source, goal[1], origin, goal, around, alone, joined, poles, links, text)


def _sequence(text: Text, persons: Mapping[str, str]) -> tuple[str, ...]:
    """The words that are none of grammar as stems, and the persons, in order."""
    function = english().function
    said = zip(text.folds, text.stems, strict=True)
    return tuple(persons.get(fold, stem) for fold, stem in said if fold not in function or fold in persons)


def _behind(text: Text, content: set[int], words: frozenset[str], step: int = 1) -> tuple[int, frozenset[str]]:
    """How often any of these words occurs, and the content words after it; before it for a step of -1."""
    if text.present.isdisjoint(words):
        return 0, frozenset()
    places = [at for at, fold in enumerate(text.folds) if fold in words]
    beside = (text.folds[at + step] for at in places if 0 <= at + step < len(text.folds))
    persons = {_PERSONS[fold] for fold in beside if fold in _PERSONS}
    return len(places), frozenset(persons).union(*(_phrase(text, content, at + step, step) for at in places))


def _sides(
    text: Text, content: set[int]
) -> tuple[dict[str, tuple[frozenset[str], frozenset[str]]], dict[str, tuple[str, frozenset[str]]]]:
    """``around`` and ``alone`` of the parts."""
    grammar, verbs = english().grammar, english().verbs
    contrast, from_words, between = (grammar[kind] for kind in ("contrast", "source", "between"))
    around: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    alone: dict[str, tuple[str, frozenset[str]]] = {}
    asks = not text.present.isdisjoint(_ASKED)
    for at, (word, stem) in enumerate(zip(text.folds, text.stems, strict=True)):
        if word in contrast:
            before = frozenset(other.stem for other in text.words if other.at < at)
            around[word] = (before, frozenset(other.stem for other in text.words if other.at > at))
        elif word in from_words or word in between or stem in verbs:
            before, after = _phrase(text, content, at - 1, -1), _phrase(text, content, at + 1, 1)
            if word == "with" and not before.isdisjoint(english().mutual):
                continue  # who plays with me, I play with
            passive = stem in verbs and text.folds[at + 1 : at + 2] == (_AGENT.get(stem, "by"),)
            around[stem] = (after, before) if passive else (before, after)
            if asks and stem in verbs and bool(before) != bool(after) and (before or passive or _direct(text, at)):
                agent, patient = around[stem]
                alone[stem] = ("by", agent) if agent else ("of", patient)
    return around, alone


def _joined(text: Text, content: set[int]) -> dict[frozenset[str], str]:
    """Neighbours that "and" or "or" joins."""
    joined: dict[frozenset[str], str] = {}
    for at, fold in enumerate(text.folds):
        if fold in ("and", "or"):
            before, after = _phrase(text, content, at - 1, -1), _phrase(text, content, at + 1, 1)
            if before and after:
                joined[before | after] = fold
    return joined


def _direct(text: Text, verb: int) -> bool:
    """Whether what follows a verb is its object, and not the object of a preposition ("included in the plan")."""
    grammar = english().grammar
    links = grammar["between"] | grammar["source"] | grammar["target"]
    return text.folds[verb + 1 : verb + 2] != () and text.folds[verb + 1] not in links


def _first_sides(text: Text) -> dict[int, tuple[int, ...]]:
    """For lines of opposites of which a text has several poles: in which order. "Pros and cons" have none."""
    sides: dict[int, list[int]] = {}
    end = 0
    for found in text.poles:
        paired = found.start == end + 1 and text.folds[end] in english().grammar["pairing"]
        for pole in found.value:
            order = sides.setdefault(pole.line, [])
            if pole.side not in order and not (order and paired):
                order.append(pole.side)
        end = found.end
    return {line: tuple(order) for line, order in sides.items() if len(order) > 1}


def _phrase(text: Text, content: set[int], at: int, step: int) -> frozenset[str]:
    """The content words next to a position, function words skipped before the first."""
    found: set[str] = set()
    skipped = 0
    while 0 <= at < len(text.stems):
        if at in content:
            found.add(text.stems[at])
        elif found or skipped == 2:
            break
        else:
            skipped += 1
        at += step
    return frozenset(found)


def _compare(query: _Parts, cached: _Parts) -> str:
    if _swapped((query.source, query.target), (cached.source, cached.target)):
        return f"from {query.name(query.source)} to {query.name(query.target)} / the other way round"
    moved = _moved(query, cached) or _moved(cached, query)
    if moved:
        return f"from {query.name(moved)} / to {query.name(moved)}"
    for pair in query.joined.keys() & cached.joined.keys():
        if query.joined[pair] != cached.joined[pair]:
            return f"{query.name(pair)}: {query.joined[pair]} / {cached.joined[pair]}"
    for pivot in query.around.keys() & cached.around.keys():
        if _swapped(query.around[pivot], cached.around[pivot]):
            before, after = query.around[pivot]
            return f"{query.name(before)} {query.written.get(pivot, pivot)} {query.name(after)} / the other way round"
    for verb in query.alone.keys() & cached.alone.keys():
        (side, told), (other, also) = query.alone[verb], cached.alone[verb]
        if side != other and told & also:
            return f"{query.written.get(verb, verb)} {side} / {other} {query.name(told)}"
    for line in query.poles.keys() & cached.poles.keys():
        if query.poles[line] == cached.poles[line][::-1]:
            first, second = (english().pole_names[Pole(line, side)] for side in query.poles[line][:2])
            return f"{first} … {second} / the other way round"
    return _traded(query.text, cached.text) or _exchanged(query, cached)


def _moved(ours: _Parts, theirs: _Parts) -> frozenset[str]:
    """What one text has behind a "from", and the other behind a "to" in its place."""
    if ours.origin[0] > theirs.origin[0] and ours.goal[0] < theirs.goal[0]:
        return (ours.origin[1] - ours.goal[1]) & (theirs.goal[1] - theirs.origin[1])
    return frozenset()


def _traded(ours: Text, theirs: Text) -> str:
    """What differs between texts of one build: a preposition for one that means something else, or two words that
    have changed places ("is a square a rectangle"). Those that "and" or "or" joins may.
    """
    if len(ours.folds) != len(theirs.folds):
        return ""
    traded = [at for at, (a, b) in enumerate(zip(ours.stems, theirs.stems, strict=True)) if a != b]
    if len(traded) == 1:
        pair = ours.folds[traded[0]], theirs.folds[traded[0]]
        return " / ".join(pair) if frozenset(pair) in _TRADED else ""
    if len(traded) != 2:
        return ""
    first, second = traded
    function = english().function
    if second - first == 1 or ours.folds[first] in function or ours.folds[second] in function:
        return ""
    if (ours.stems[first], ours.stems[second]) != (theirs.stems[second], theirs.stems[first]):
        return ""
    between = set(ours.folds[first + 1 : second])
    joined = not between.isdisjoint(english().grammar["pairing"]) or not english().mutual.isdisjoint(ours.stems)
    return "" if joined else f"{ours.folds[first]}, {ours.folds[second]} exchanged"


def _exchanged(ours: _Parts, theirs: _Parts) -> str:
    """The two words that have changed places around another one, all else being equal ("can I hear him").

    Words in another order are no objection, and neither is a compound ("price of a ticket for students", "student
    ticket price"), which has other prepositions.
    """
    if ours.links != theirs.links:
        return ""
    pairs = zip(ours.sequences, theirs.sequences, strict=False)  # of several sentences there are none
    return next(filter(None, (_two_exchanged(a, b) for a, b in pairs)), "")


def _two_exchanged(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    if len(ours) != len(theirs) or ours == theirs:
        return ""
    moved = [(a, b, at) for at, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    if len(moved) != 2:
        return ""
    (a, b, first), (c, d, second) = moved
    return f"{a}, {c} exchanged" if (a, c) == (d, b) and second - first > 1 else ""


def _swapped(a: tuple[frozenset[str], frozenset[str]], b: tuple[frozenset[str], frozenset[str]]) -> bool:
    stayed = (a[0] & b[0]) | (a[1] & b[1])  # "convert X to Y": the verb stays, and tells nothing
    return bool((a[0] & b[1]) - stayed) and bool((a[1] & b[0]) - stayed)


ORDER: Final = Guard("order", _read, _compare)
