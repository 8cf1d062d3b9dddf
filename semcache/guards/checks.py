"""The guards, smallest first. Each is what it reads of a text and what it makes of two such readings."""

from __future__ import annotations

from typing import Final, NamedTuple

from semcache.guards.base import Guard, differ
from semcache.guards.lexicon import Pole, english, language_words
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


def _compare_quantities(query: tuple[Quantity, ...], cached: tuple[Quantity, ...]) -> str:
    if query == cached:
        return ""
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
    return ""


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


# Polarity: negation, and words at opposite ends.


class _Stand(NamedTuple):
    negations: int
    poles: dict[int, frozenset[int]]
    stems: frozenset[str]
    denied: dict[str, str]  # stem without its negative prefix -> the word


_PREFIXES: Final = ("un", "dis", "non", "in", "im", "ir", "il", "mis", "de")


def _read_stand(text: Text) -> _Stand:
    lexicon = english()
    sides: dict[int, set[int]] = {}
    for found in text.poles:
        for pole in found.value:
            sides.setdefault(pole.line, set()).add(pole.side)
    stems = frozenset(token.stem for token in text.tokens if token.kind == "word")
    denied = {
        word.stem[len(prefix) :]: word.fold
        for word in text.words
        if word.stem.startswith(_PREFIXES)
        for prefix in _PREFIXES
        if word.stem.startswith(prefix) and len(word.stem) - len(prefix) >= 4
    }
    for word in text.words:
        if word.fold.endswith("less") and len(word.fold) > 7:
            denied[word.fold[:-4]] = word.fold
    # "Whether or not" and "is it open or not" deny nothing.
    negations = sum(
        text.folds[found.start - 1 : found.start] != ("or",) for found in lexicon.negators.find(text.folds, text.stems)
    )
    return _Stand(negations, {line: frozenset(side) for line, side in sides.items()}, stems, denied)


def _compare_stands(query: _Stand, cached: _Stand) -> str:
    flips = _flips(query, cached)
    if (query.negations - cached.negations) % 2:
        # "Not open" is "closed": one flip and one negation cancel out.
        return "" if len(flips) == 1 else f"negations: {query.negations} / {cached.negations}"
    return ", ".join(flips)


def _flips(query: _Stand, cached: _Stand) -> list[str]:
    names = english().pole_names
    flips = []
    for line in query.poles.keys() & cached.poles.keys():
        ours, theirs = query.poles[line], cached.poles[line]
        if not ours & theirs:
            flips.append(f"{names[Pole(line, min(ours))]} / {names[Pole(line, min(theirs))]}")
    for mine, other in ((query, cached), (cached, query)):
        flips += [
            f"{word} / {rest}" for rest, word in mine.denied.items() if rest in other.stems and rest not in mine.stems
        ]
    return sorted(flips)


# Question: who, when and how many want different answers.

# Kinds that one answer may serve, and "how", "may" and "must" questions that are often put as statements.
_SAME_ANSWER: Final = (
    {"how to", "where to"}, {"how to", "may"}, {"how to", "how"}, {"where to", "where"}, {"where to", "may"},
    {"may", "yes-no"}, {"when", "time"}, {"when", "date"}, {"how big", "how much"},
    {"how old", "may"},
)  # fmt: skip


_POLAR: Final = frozenset({"yes-no", "may", "must"})


def _read_asks(text: Text) -> frozenset[str]:
    """The kinds of its questions; "what" asks for whatever its nouns name, "what is the deadline" for when."""
    kinds = frozenset(ask.kind for ask in text.asks)
    if "how long" in kinds and "tak" in text.stems:  # "how long does it take to arrive", "when does it arrive"
        kinds |= {"when"}
    if "what" not in kinds:
        return kinds
    return kinds | {kind for kind, nouns in english().asked.items() if not nouns.isdisjoint(text.stems)}


def _compare_asks(query: frozenset[str], cached: frozenset[str]) -> str:
    if not query or not cached or query & cached:
        return ""
    if any({a, b} in _SAME_ANSWER for a in query for b in cached):
        return ""
    return differ(sorted(query), sorted(cached))


# Shape: the form in which the answer is wanted.


def _read_shape(text: Text) -> frozenset[str]:
    wanted = set()
    leads, skips = english().grammar["shape_lead"], english().grammar["shape_skip"]
    for found in english().shapes.find(text.folds, text.folds):
        before = found.start - 1
        while before >= 0 and text.folds[before] in skips:
            before -= 1
        led = before >= 0 and text.folds[before] in leads
        if led or found.value[0] in ("length", "manner"):
            wanted.add(" ".join(text.stems[found.start : found.end]))
    return frozenset(wanted)


def _compare_shapes(query: frozenset[str], cached: frozenset[str]) -> str:
    return "" if query == cached else differ(sorted(query - cached), sorted(cached - query))


# Person: whose it is.

_OWNERS: Final = {
    "my": "1", "our": "1", "your": "2", "his": "he", "her": "she", "their": "they", "its": "it",
}  # fmt: skip


class _Persons(NamedTuple):
    owners: dict[str, str]  # stem of what is owned -> person
    only: str  # "1" or "2" if the text has only that person
    turns: str  # both persons in the order in which they change, "12" or "21" if each comes once
    generic: bool  # "how do you" and "you have to" are said of anybody
    gender: str  # "he" or "she" if the text speaks of that one only


def _read_persons(text: Text) -> _Persons:
    owners = {text.stems[at + 1]: _OWNERS[fold] for at, fold in enumerate(text.folds[:-1]) if fold in _OWNERS}
    speakers, listeners = english().grammar["speaker"], english().grammar["listener"]
    turns = "".join(
        "1" if token.fold in speakers else "2"
        for token in text.tokens
        if token.fold in listeners or (token.fold in speakers and token.raw != "US")
    )
    only = turns[:1] if len(set(turns)) == 1 else ""
    generic = any(ask.kind in ("how to", "must") for ask in text.asks) or "you have to" in " ".join(text.folds)
    gender = {kind for kind in ("he", "she") if not text.present.isdisjoint(english().grammar[kind])}
    return _Persons(owners, only, turns, generic, gender.pop() if len(gender) == 1 else "")


def _compare_persons(query: _Persons, cached: _Persons) -> str:
    for thing in query.owners.keys() & cached.owners.keys():
        if query.owners[thing] != cached.owners[thing]:
            return f"whose {thing}: person {query.owners[thing]} / {cached.owners[thing]}"
    if {query.only, cached.only} == {"1", "2"} and not (query.generic or cached.generic):
        return f"person {query.only} / {cached.only}"
    if {query.turns, cached.turns} == {"12", "21"}:
        return "who does it to whom"
    return differ([query.gender], [cached.gender]) if {query.gender, cached.gender} == {"he", "she"} else ""


# Tense: who won is known, who will win is not.


def _read_tense(text: Text) -> str:
    grammar = english().grammar
    future, past = (not text.present.isdisjoint(grammar[tense]) for tense in ("future", "past"))
    return "" if future == past else "future" if future else "past"


def _compare_tenses(query: str, cached: str) -> str:
    return differ([query], [cached]) if query and cached and query != cached else ""


LANGUAGE: Final = Guard("language", _read_language, _compare_languages, None)
CODE: Final = Guard("code", lambda text: text.blocks, _compare_blocks, None)
NUMBERS: Final = Guard("numbers", lambda text: text.quantities, _compare_quantities)
POLARITY: Final = Guard("polarity", _read_stand, _compare_stands)
QUESTION: Final = Guard("question", _read_asks, _compare_asks)
SHAPE: Final = Guard("shape", _read_shape, _compare_shapes)
PERSON: Final = Guard("person", _read_persons, _compare_persons)
TENSE: Final = Guard("tense", _read_tense, _compare_tenses)
