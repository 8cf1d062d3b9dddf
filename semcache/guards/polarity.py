"""Polarity: negation, restriction ("only"), and words at opposite ends."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

from semcache.guards.base import Guard, differ
from semcache.guards.lexicon import Pole, english, stem
from semcache.guards.particles import Phrasal, other_particles, read_phrasal
from semcache.guards.text import Text

_NEGATIVE: Final = ("un", "dis", "non", "in", "im", "ir", "il", "mis", "de")
_OPPOSED: Final = (
    ("macro", "micro"), ("hyper", "hypo"), ("inter", "intra"), ("pre", "post"), ("over", "under"), ("up", "down"),
    ("in", "out"), ("im", "em"), ("mono", "poly"), ("super", "sub"), ("homo", "hetero"), ("endo", "exo"),
)  # fmt: skip
"""Prefixes that make two opposites of one word ("hypertension", "hypotension")."""
_SIDES: Final = {prefix: (line, side) for line, pair in enumerate(_OPPOSED) for side, prefix in enumerate(pair)}
_ROOT: Final = 4
"""So many letters a prefix or suffix must leave."""
_REMEMBERED: Final = 16384
"""Words."""


class _Stand(NamedTuple):
    negations: int
    restricts: bool
    poles: dict[int, frozenset[int]]
    affixes: dict[tuple[int, str], tuple[int, str]]  # line of affixes and root -> side, and the word
    denied: dict[str, str]  # stem without its negative prefix -> the word
    phrasal: Mapping[str, Phrasal]
    text: Text


def _read(text: Text) -> _Stand:
    lexicon = english()
    sides: dict[int, set[int]] = {}
    for found in text.poles:
        for pole in found.value:
            sides.setdefault(pole.line, set()).add(pole.side)
    # "Whether or not" and "is it open or not" deny nothing.
    negations = sum(
        found.value[0] and text.folds[found.start - 1 : found.start] != ("or",)
        for found in lexicon.negators.find(text.folds, text.stems)
    )
    return _Stand(
        negations,
        not text.present.isdisjoint(lexicon.grammar["restrict"]),
        {line: frozenset(side) for line, side in sides.items()},
        dict(chain.from_iterable(_affixes(word.fold) for word in text.words)),
        dict(chain.from_iterable(_denied(word.fold) for word in text.words)),
        read_phrasal(text, lexicon),
        text,
    )


@lru_cache(maxsize=_REMEMBERED)
def _denied(word: str) -> tuple[tuple[str, str], ...]:
    """The roots that a word denies, as stems, with the word: "unknown" denies "know"."""
    roots = [word[len(prefix) :] for prefix in _NEGATIVE if word.startswith(prefix)]
    if word.endswith("less"):
        roots.append(word[:-4])
    return tuple((stem(root), word) for root in roots if len(root) >= _ROOT)


@lru_cache(maxsize=_REMEMBERED)
def _affixes(word: str) -> tuple[tuple[tuple[int, str], tuple[int, str]], ...]:
    """The affixes of a word that have an opposite, see :class:`_Stand`."""
    found = [
        ((line, word[len(prefix) :]), (side, word))
        for prefix, (line, side) in _SIDES.items()
        if word.startswith(prefix) and len(word) - len(prefix) >= _ROOT
    ]
    one = word.removesuffix("s")
    if one.endswith(("er", "or", "ee")) and len(one) >= _ROOT + 2:
        found.append(((-1, one[:-2]), (int(one.endswith("ee")), word)))
    return tuple(found)


def _compare(query: _Stand, cached: _Stand) -> str:
    flips = _flips(query, cached)
    if (query.negations - cached.negations) % 2:
        # "Not open" is "closed": one flip and one negation cancel out.
        return "" if len(flips) == 1 else f"negations: {query.negations} / {cached.negations}"
    if flips:
        return ", ".join(flips)
    if query.restricts != cached.restricts:
        return differ(*(["only"] if stand.restricts else [] for stand in (query, cached)))
    return other_particles(query.phrasal, cached.phrasal)


def _flips(query: _Stand, cached: _Stand) -> list[str]:
    names = english().pole_names
    flips = []
    for line in query.poles.keys() & cached.poles.keys():
        ours, theirs = query.poles[line], cached.poles[line]
        if not ours & theirs:
            flips.append(f"{names[Pole(line, min(ours))]} / {names[Pole(line, min(theirs))]}")
    if query.affixes and cached.affixes:
        for root in query.affixes.keys() & cached.affixes.keys():
            (side, word), (other, opposite) = query.affixes[root], cached.affixes[root]
            if side != other:
                flips.append(f"{word} / {opposite}")
    return sorted(flips + _denials(query, cached) + _denials(cached, query))


def _denials(ours: _Stand, theirs: _Stand) -> list[str]:
    """The words with a negative prefix whose roots the other text has without one."""
    if not ours.denied:
        return []
    roots = _word_stems(theirs.text) - _word_stems(ours.text)
    return [f"{word} / {root}" for root, word in ours.denied.items() if root in roots]


def _word_stems(text: Text) -> set[str]:
    return {token.stem for token in text.tokens if token.kind == "word"}


POLARITY: Final = Guard("polarity", _read, _compare)
