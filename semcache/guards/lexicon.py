"""The word lists, loaded once on first use.

Entries are found by the stem of a word, so that one entry serves all its inflections; an entry that is itself an
irregular form (``used``, ``left``) is found only as written, since its stem would make it another word.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from itertools import chain
from typing import Final, Generic, NamedTuple, TypeVar

V = TypeVar("V")

_SHORT: Final = re.compile("[^aeiou]*[aeiouy][^aeiouwxy]")
"""One syllable that ends in a single consonant."""


class Found(NamedTuple, Generic[V]):
    """An entry in a text: token positions ``start`` to ``end`` (exclusive)."""

    start: int
    end: int
    value: V


class _Node(Generic[V]):
    """What may follow the words so far, and what they stand for if they are an entry."""

    __slots__ = ("next", "values")

    def __init__(self) -> None:
        self.next: dict[str, _Node[V]] = {}
        self.values: tuple[V, ...] | None = None


class Phrases(Generic[V]):
    """Words and phrases with what they stand for; a phrase that occurs in several places has several values."""

    def __init__(self, entries: Mapping[tuple[str, ...], tuple[V, ...]]) -> None:
        self._root = _Node[V]()
        for keys, values in entries.items():
            node = self._root
            for key in keys:
                node = node.next.setdefault(key, _Node())
            node.values = values

    def longest_at(self, at: int, folds: Sequence[str], stems: Sequence[str]) -> tuple[int, tuple[V, ...]] | None:
        """Length and values of the longest entry that begins at a token, if any.

        Of entries of one length, that of the word as written ("used") wins over that of its stem ("use").
        """
        hit = _longest(self._root, at, folds, stems)
        return None if hit is None else (hit[0] - at, hit[1])

    def find(self, folds: Sequence[str], stems: Sequence[str]) -> list[Found[tuple[V, ...]]]:
        """All entries in a text, from the left, longest first, without overlap."""
        found: list[Found[tuple[V, ...]]] = []
        first = self._root.next
        if first.keys().isdisjoint(folds) and (stems is folds or first.keys().isdisjoint(stems)):
            return found
        end = 0
        for at, fold in enumerate(folds):
            if at >= end and (fold in first or stems[at] in first):
                hit = _longest(self._root, at, folds, stems)
                if hit is not None:
                    end = hit[0]
                    found.append(Found(at, *hit))
        return found


def _longest(node: _Node[V], at: int, folds: Sequence[str], stems: Sequence[str]) -> tuple[int, tuple[V, ...]] | None:
    """Where the longest entry ends that goes on from a node with a token, and its values."""
    best: tuple[int, tuple[V, ...]] | None = None
    if at == len(folds):
        return best
    fold, stem = folds[at], stems[at]
    for key in (fold, stem) if fold != stem else (fold,):  # a loop, since this runs for most words of every text
        after = node.next.get(key)
        if after is not None:
            hit = _longest(after, at + 1, folds, stems) if after.next else None
            if hit is None and after.values is not None:
                hit = at + 1, after.values
            if hit is not None and (best is None or hit[0] > best[0]):
                best = hit
    return best


class Pole(NamedTuple):
    """One side of a line of opposites."""

    line: int
    side: int


class Unit(NamedTuple):
    base: str
    factor: Fraction


class NumberWords(NamedTuple):
    """Words with the numbers that they stand for; of a decade its first year in the century."""

    cardinals: Mapping[str, int]
    ordinals: Mapping[str, int]
    decades: Mapping[str, int]
    times: Mapping[str, int]
    romans: Mapping[str, int]


@dataclass(frozen=True)
class Lexicon:
    """All lists of one language."""

    function: frozenset[str]
    light: frozenset[str]
    weak: frozenset[str]
    apart: frozenset[frozenset[str]]
    fillers: Phrases[bool]
    concepts: Phrases[int]
    poles: Phrases[Pole]
    pole_names: Mapping[Pole, str]
    negators: Phrases[bool]
    asks: Phrases[str]
    asked: Mapping[str, frozenset[str]]
    shapes: Phrases[str]
    units: Mapping[str, Unit]
    bounds: Mapping[str, Mapping[tuple[str, ...], str]]  # place ("before", "after") -> words -> side
    numbers: NumberWords
    grammar: Mapping[str, frozenset[str]]
    verbs: frozenset[str]
    telling: frozenset[str]
    mutual: frozenset[str]
    phrasal: frozenset[tuple[str, str]]
    months: Mapping[str, int]
    known: frozenset[str]


def _lines(name: str) -> list[str]:
    text = files("semcache").joinpath("data", "lexicons", *name.split("/")).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _entries(line: str) -> list[str]:
    return [entry.strip() for entry in line.split(",") if entry.strip()]


def _list(name: str) -> list[str]:
    return [entry for line in _lines(name) for entry in _entries(line)]


def _labelled(name: str) -> list[tuple[str, list[str]]]:
    pairs = [line.split(":", 1) for line in _lines(name)]
    return [(label.strip(), _entries(rest)) for label, rest in pairs]


@lru_cache(maxsize=1)
def irregular() -> dict[str, str]:
    """Irregular form -> base form."""
    return {form: base for base, forms in _labelled("en/irregular.txt") for form in forms}


@lru_cache(maxsize=1)
def language_words() -> dict[str, frozenset[str]]:
    """Language code -> its function words."""
    return {code: frozenset(rest.split()) for code, rest in (line.split(":", 1) for line in _lines("languages.txt"))}


@lru_cache(maxsize=1)
def foreign_words() -> frozenset[str]:
    """The function words of all languages but English."""
    return frozenset().union(*(words for code, words in language_words().items() if code != "en"))


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """A light English stem: one form for the inflections of a word, not a dictionary form.

    Derived words (``activation``) keep their own stem; ``alignment.derived`` brings them together.
    """
    word = irregular().get(word, word)
    if len(word) <= 3 or not word.isascii():
        return word
    word = _singular(word)
    if word.endswith("ing") and len(word) > 5 and _has_vowel(word[:-3]):
        word = with_e(word[:-3])
    elif word.endswith("ed") and not word.endswith("eed") and len(word) > 4 and _has_vowel(word[:-2]):
        word = with_e(word[:-2])
    elif word.endswith("ly") and len(word) > 5:
        word = word[:-2]
    if len(word) > 3 and word[-1] == "e" and with_e(word[:-1]) != word:
        word = word[:-1]
    if len(word) > 2 and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 3 and word[-1] == "y" else word


def _singular(word: str) -> str:
    """Without the ending of a plural, or of a verb in "y"."""
    if word.endswith(("ies", "ied")):
        return word[:-3] + "y"
    if word.endswith(("sses", "ches", "shes", "xes", "zes")):
        return with_e(word[:-2])
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is", "ics", "news")) else word


def with_e(root: str) -> str:
    """What is left of a form, with the "e" that it takes if it is short: "planed" is of "plane", "planned" of "plan".

    The rules 1b and 5a of Porter 1980, "An algorithm for suffix stripping".
    """
    return root + "e" if _SHORT.fullmatch(root) else root


def unstemmed(stemmed: str) -> tuple[str, ...]:
    """The words that may have a stem, those that do not exist among them."""
    last = stemmed[-1:]
    words = (stemmed, stemmed + "e", stemmed + last, stemmed + last + "e")
    return (*words, stemmed[:-1] + "y") if last == "i" else words


def _has_vowel(text: str) -> bool:
    return any(letter in "aeiouy" for letter in text)


def _key(entry: str) -> tuple[str, ...]:
    return tuple(word if word in irregular() else stem(word) for word in entry.split())


def _phrases(items: Iterator[tuple[str, V]], *, exact: bool = False) -> Phrases[V]:
    entries: dict[tuple[str, ...], tuple[V, ...]] = {}
    for entry, value in items:
        key = tuple(entry.split()) if exact else _key(entry)
        known = entries.get(key, ())
        entries[key] = known if value in known else (*known, value)
    return Phrases(entries)


def _labels(name: str) -> Phrases[str]:
    """Entries with their labels, found only as written."""
    return _phrases(((entry, label) for label, entries in _labelled(name) for entry in entries), exact=True)


@lru_cache(maxsize=1)
def time_words() -> Phrases[str]:
    """Phrases by which a question asks for what holds now, as written, with the languages that they belong to."""
    return _labels("time_bound.txt")


def _phrasal(entries: Iterable[str], particles: Container[str]) -> Iterator[tuple[str, str]]:
    """The entries of a verb and a particle, the verb as its stem."""
    for entry in entries:
        verb, _, particle = entry.partition(" ")
        if particle in particles:
            yield stem(verb), particle


def _poles(lines: Iterable[Iterable[Iterable[str]]]) -> Iterator[tuple[str, Pole]]:
    for n, line in enumerate(lines):
        for side, entries in enumerate(line):
            yield from ((entry, Pole(n, side)) for entry in entries)


def _numbers() -> NumberWords:
    lines = _labelled("en/numbers.txt")
    ends = ("st", "nd", "rd", "th")
    return NumberWords(
        cardinals={word: int(label) for label, words in lines if label.isdigit() for word in words},
        ordinals={word: int(label[:-2]) for label, words in lines if label.endswith(ends) for word in words},
        decades={word: int(label[:-1]) for label, words in lines if label.endswith("0s") for word in words},
        times={word: int(label[6:]) for label, words in lines if label.startswith("times") for word in words},
        romans={word: int(label[6:]) for label, words in lines if label.startswith("roman") for word in words},
    )


def _bounds() -> dict[str, dict[tuple[str, ...], str]]:
    bounds: dict[str, dict[tuple[str, ...], str]] = {"before": {}, "after": {}}
    for label, entries in _labelled("en/bounds.txt"):
        side, place = label.split()
        bounds[place].update((tuple(entry.split()), side) for entry in entries)
    return bounds


def _units() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for label, names in _labelled("en/units.txt"):
        base, factor = label.split()
        units.update(dict.fromkeys(names, Unit(base, Fraction(factor))))
    return units


def _apart() -> frozenset[frozenset[str]]:
    return frozenset(
        frozenset((stem(word), stem(other))) for word, others in _labelled("en/apart.txt") for other in others
    )


def _negators(bounds: Iterable[tuple[str, ...]]) -> Phrases[bool]:
    denying = ((entry, True) for entry in _list("en/negators.txt"))
    bounding = ((" ".join(words), False) for words in bounds)  # "no more than" denies nothing
    return _phrases(chain(denying, bounding), exact=True)  # "hard" is not "hardly"


@lru_cache(maxsize=1)
def lookalikes() -> frozenset[str]:
    """Words that one slip of the fingers makes of one another. Takes 10 ms once, if ever a slip is in question."""
    return frozenset(" ".join(_lines("en/lookalikes.txt")).split())


@lru_cache(maxsize=1)
def english() -> Lexicon:
    """The English lists. Takes about 10 ms once."""
    synonyms = [_entries(line) for line in _lines("en/synonyms.txt")]
    opposites = [[_entries(pole) for pole in line.split("|")] for line in _lines("en/opposites.txt")]
    # Names of one unit are synonyms ("dollars", "USD"). Those of two words are left to the reader of quantities.
    named = [[name for name in names if " " not in name] for _, names in _labelled("en/units.txt")]
    function = frozenset(_list("en/function_words.txt"))
    light = _list("en/light.txt")
    weak = _list("en/weak.txt")
    common = _list("en/common.txt")
    fillers = _list("en/fillers.txt")
    units = _units()
    poles = list(_poles(opposites))
    bounds = _bounds()
    grammar = {kind: frozenset(words) for kind, words in _labelled("en/grammar.txt")}
    month_line = next(line for line in opposites if line[0][0] == "january")
    listed = (*chain(*synonyms), *(entry for entry, _ in poles), *common, *light, *weak, *function, *units, *fillers)
    known = {word for entry in listed for word in entry.split()}
    return Lexicon(
        function=function,
        light=frozenset(stem(word) for word in light if " " not in word),
        weak=frozenset(" ".join(map(stem, words.split())) for words in weak),
        apart=_apart(),
        fillers=_phrases(((entry, True) for entry in fillers), exact=True),
        concepts=_phrases((entry, n) for n, line in enumerate((*synonyms, *named)) for entry in line),
        poles=_phrases(iter(poles)),
        pole_names={pole: entry for entry, pole in reversed(poles)},
        negators=_negators(bounds["before"]),
        asks=_labels("en/asks.txt"),
        asked={kind: frozenset(map(stem, nouns)) for kind, nouns in _labelled("en/asked.txt")},
        shapes=_labels("en/shapes.txt"),
        units=units,
        bounds=bounds,
        numbers=_numbers(),
        grammar=grammar,
        verbs=frozenset(map(stem, grammar["verb"])),
        mutual=frozenset(map(stem, grammar["mutual"])),
        telling=frozenset(map(stem, _list("en/telling.txt"))),
        phrasal=frozenset(_phrasal((*chain(*synonyms), *(entry for entry, _ in poles)), grammar["particle"])),
        months={name: n + 1 for n, pole in enumerate(month_line) for name in pole},
        known=frozenset(stem(word) for word in known) | known,
    )
