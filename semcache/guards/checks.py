"""The guards, smallest first. Each is what it reads of a text and what it makes of two such readings."""

from __future__ import annotations

from typing import Final, NamedTuple

from semcache.guards.base import Guard, differ
from semcache.guards.lexicon import english, language_words
from semcache.guards.quantities import Quantity
from semcache.guards.text import Text

# Language: an answer in another language is the wrong answer, however close the meaning.


def _read_language(text: Text) -> str:
    """The language, if the text shows it: "iPhone 13" counts as English only for want of other evidence."""
    if text.language == "en" and text.present.isdisjoint(language_words()["en"]):
        return ""
    return text.language


def _compare_languages(query: str, cached: str) -> str:
    return differ([query], [cached]) if query and cached and query != cached else ""


# Code: what stands between backticks is data, and data is the same or it is not.


def _compare_blocks(query: tuple[str, ...], cached: tuple[str, ...]) -> str:
    return "" if query == cached else "code blocks differ"


# Numbers: each one that counts needs an equal one in the other text.


_OPERATORS: Final = frozenset("+-=<>^")


class _Numbers(NamedTuple):
    quantities: tuple[Quantity, ...]
    operators: tuple[str, ...]  # of a formula


def _read_numbers(text: Text) -> _Numbers:
    return _Numbers(text.quantities, tuple(fold for fold in text.folds if fold in _OPERATORS))


def _compare_numbers(query: _Numbers, cached: _Numbers) -> str:
    if query == cached:
        return ""
    if query.operators and cached.operators and query.operators != cached.operators:
        return differ([" ".join(query.operators)], [" ".join(cached.operators)])
    return _compare_quantities(query.quantities, cached.quantities)


def _compare_quantities(query: tuple[Quantity, ...], cached: tuple[Quantity, ...]) -> str:
    missing, extra = _unmatched(query, cached), _unmatched(cached, query)
    if missing or extra:
        return differ(missing, extra)
    return _reordered(query, cached)


def _reordered(query: tuple[Quantity, ...], cached: tuple[Quantity, ...]) -> str:
    """Equal quantities of one unit in another order: "from 5 to 20 GB" is not "from 20 to 5 GB"."""
    for unit in {quantity.unit for quantity in query if quantity.needed}:
        ours = [quantity for quantity in query if quantity.unit == unit and quantity.needed]
        theirs = [quantity for quantity in cached if quantity.unit == unit and quantity.needed]
        if len(ours) == len(theirs) and [one.value for one in ours] != [one.value for one in theirs]:
            return differ([" … ".join(one.text for one in ours)], [" … ".join(one.text for one in theirs)])
    return _recounted(query, cached)


def _recounted(query: tuple[Quantity, ...], cached: tuple[Quantity, ...]) -> str:
    """Equal numbers of other things: "two people, one account" is not "one person, two accounts"."""
    counted = {quantity.of: quantity for quantity in cached if quantity.of}
    other = [(one, counted[one.of]) for one in query if one.of in counted and not one.agrees(counted[one.of])]
    if len(other) < 2:  # "five stars out of 6", "five out of 6 stars"
        return ""
    return differ(*([f"{pair[side].text} {pair[side].of}" for pair in other] for side in (0, 1)))


def _unmatched(ours: tuple[Quantity, ...], theirs: tuple[Quantity, ...]) -> list[str]:
    free = list(theirs)
    missing = []
    # Those that must match choose first, so that an optional "one" takes no partner from them.
    for quantity in sorted(ours, key=lambda quantity: not quantity.needed):
        partner = next((other for other in free if quantity.agrees(other)), None)
        if partner is not None:
            free.remove(partner)
        elif quantity.needed:
            missing.append(quantity.text)
    return missing


# Question: who, when and how many want different answers.

# Kinds that one answer may serve, and "how", "may" and "must" questions that are often put as statements.
_SAME_ANSWER: Final = (
    {"how to", "where to"}, {"how to", "may"}, {"how to", "how"}, {"where to", "where"}, {"where to", "may"},
    {"may", "yes-no"}, {"when", "time"}, {"when", "date"}, {"how big", "how much"},
    {"how old", "may"},
)  # fmt: skip


_MEASURES: Final = frozenset({"how big", "date", "where"})
"""Kinds of which each wording asks for something else: "how tall", "how wide"; "what year", "what month"."""


class _Asked(NamedTuple):
    kinds: frozenset[str]
    measures: frozenset[str | int]  # the last words of these, and their concepts


def _read_asks(text: Text) -> _Asked:
    """The kinds of its questions; "what" asks for whatever its nouns name, "what is the deadline" for when."""
    kinds = frozenset(ask.kind for ask in text.asks)
    measures = frozenset(
        measure for ask in text.asks if ask.kind in _MEASURES for measure in _measure(text, ask.end - 1)
    )
    if "how long" in kinds and "take" in text.stems:  # "how long does it take to arrive", "when does it arrive"
        kinds |= {"when"}
    if "what" in kinds:
        kinds |= {kind for kind, nouns in english().asked.items() if not nouns.isdisjoint(text.stems)}
    return _Asked(kinds, measures)


def _measure(text: Text, at: int) -> tuple[str | int, ...]:
    if text.folds[at] in english().function:
        return ()
    concepts = english().concepts.longest_at(at, text.folds, text.stems)
    return (text.stems[at], *(concepts[1] if concepts is not None else ()))


def _compare_asks(query: _Asked, cached: _Asked) -> str:
    ours, theirs = query.kinds, cached.kinds
    if not ours or not theirs:
        return ""
    if query.measures and cached.measures and query.measures.isdisjoint(cached.measures):
        return differ(
            *(sorted(str(word) for word in side.measures if isinstance(word, str)) for side in (query, cached))
        )
    if ours & theirs or any({a, b} in _SAME_ANSWER for a in ours for b in theirs):
        return ""
    return differ(sorted(ours), sorted(theirs))


# Shape: the form in which the answer is wanted.

_UNLED: Final = frozenset({"length", "manner"})
"""Kinds that tell the form wherever they stand."""
_NOUNS: Final = frozenset({"format", "genre"})
"""Kinds that may be what a text is about: "from a list", "in a list"."""


class _Shape(NamedTuple):
    wanted: frozenset[tuple[str, str]]  # kind and form
    text: Text


def _read_shape(text: Text) -> _Shape:
    wanted = set()
    leads, skips = english().grammar["shape_lead"], english().grammar["shape_skip"]
    for found in english().shapes.find(text.folds, text.folds):
        before = found.start - 1
        while before >= 0 and text.folds[before] in skips:
            before -= 1
        kind, _, meaning = found.value[0].partition(" ")
        if meaning:
            wanted.add((kind, meaning))
        elif kind in _UNLED or (before >= 0 and text.folds[before] in leads):
            wanted.add((kind, " ".join(text.stems[found.start : found.end])))
    return _Shape(frozenset(wanted), text)


def _compare_shapes(query: _Shape, cached: _Shape) -> str:
    if query.wanted == cached.wanted:
        return ""
    missing, extra = _demanded(query, cached), _demanded(cached, query)
    return differ(missing, extra) if missing or extra else ""


def _demanded(ours: _Shape, theirs: _Shape) -> list[str]:
    """The forms that a text wants alone. "Give me a recipe for bread" wants no more than "recipe for bread"."""
    return sorted(
        form
        for kind, form in ours.wanted - theirs.wanted
        if theirs.wanted or kind not in _NOUNS or form not in theirs.text.stems
    )


# Tense: who won is known, who will win is not; and whether it hurts, or when the exam is, depends on when one asks.


class _Tense(NamedTuple):
    time: str  # "past" or "future", if the text has words of only that one
    verb: str  # the same of the first verb where the answer turns on it, "present" among them


def _read_tense(text: Text) -> _Tense:
    grammar = english().grammar
    future, past = (not text.present.isdisjoint(grammar[tense]) for tense in ("future", "past"))
    time = "" if future == past else "future" if future else "past"
    ask = text.asks[0] if text.asks else None
    verb = ""
    if ask is not None and ask.kind == "yes-no":
        verb = text.folds[ask.start]
    elif ask is not None and ask.kind in ("when", "time", "date") and text.folds[ask.end : ask.end + 1] != ("did",):
        verb = text.folds[ask.end] if ask.end < len(text.folds) else ""
    tenses = (tense for tense in ("past", "present") if verb in grammar[tense])
    return _Tense(time, next(tenses, ""))


def _compare_tenses(query: _Tense, cached: _Tense) -> str:
    if query.time and cached.time and query.time != cached.time:
        return differ([query.time], [cached.time])
    return differ([query.verb], [cached.verb]) if {query.verb, cached.verb} == {"past", "present"} else ""


LANGUAGE: Final = Guard("language", _read_language, _compare_languages, None)
CODE: Final = Guard("code", lambda text: text.blocks, _compare_blocks, None)
NUMBERS: Final = Guard("numbers", _read_numbers, _compare_numbers)
QUESTION: Final = Guard("question", _read_asks, _compare_asks)
SHAPE: Final = Guard("shape", _read_shape, _compare_shapes)
TENSE: Final = Guard("tense", _read_tense, _compare_tenses)
