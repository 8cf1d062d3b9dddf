"""Surplus: neither question may say more than the other.

The answer to "How do I reset my password? Make it up." answers nobody else, and who wants to plant an answer next to a
popular question writes just that, out of vague words for which other guards do not care. So an objection is raised to
a sentence of which nothing occurs in the other text, and to a tail that is foreign to it.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import takewhile
from typing import Final, NamedTuple

from semcache.guards.alignment import without_counterpart
from semcache.guards.base import Guard, differ
from semcache.guards.lexicon import english
from semcache.guards.text import Text, Token

_TAIL: Final = 3
"""So many words may not follow the last one that the other text has too."""


class _Said(NamedTuple):
    text: Text
    sentences: list[list[Token]]
    forms: frozenset[str]  # of all tokens


def _read(text: Text) -> _Said:
    return _Said(text, _sentences(text), frozenset((*text.stems, *text.folds)))


def _compare(query: _Said, cached: _Said) -> str:
    more, extra = _surplus(query, cached), _surplus(cached, query)
    return differ(more, extra) if more or extra else ""


def _surplus(ours: _Said, theirs: _Said) -> list[str]:
    """What a text says beyond the other, as words."""
    if not ours.text.word_stems.isdisjoint(english().telling):
        words = without_counterpart(ours.text, theirs.text)
        telling = [word.fold for word in words if word.stem in english().telling]
        if telling:
            return telling
    longer = len(ours.sentences) > len(theirs.sentences)
    if not longer and len(_tail(ours, theirs.forms)) < _TAIL:
        return []
    text, forms = ours.text, set(theirs.forms)
    foreign = {word.fold for word in without_counterpart(text, theirs.text)}
    forms.update(part for word in text.words if word.fold not in foreign for part in word.fold.split())
    for sentence in ours.sentences if longer else ():
        if not _covered(sentence, forms):
            return [token.fold for token in sentence]
    tail = _tail(ours, forms)
    return tail if len(tail) >= _TAIL else []


def _tail(said: _Said, forms: Collection[str]) -> list[str]:
    """The words after the last one that has one of these forms."""
    last = said.sentences[-1] if said.sentences else []
    tail = takewhile(lambda token: token.stem not in forms and token.fold not in forms, reversed(last))
    return [token.fold for token in tail][::-1]


def _sentences(text: Text) -> list[list[Token]]:
    sentences: list[list[Token]] = []
    for at, token in enumerate(text.tokens):
        if token.kind == "symbol":
            continue
        if token.starts or not sentences:
            sentences.append([])
        if at not in text.counted:  # quantities have a guard of their own, which knows when two are equal
            sentences[-1].append(token)
    return sentences


def _covered(sentence: list[Token], stems: set[str]) -> bool:
    """Whether something of a sentence occurs in the other text; of one that has but function words, all of it."""
    function = english().function
    telling = [token for token in sentence if token.fold not in function]
    if telling:
        return any(token.stem in stems or token.fold in stems for token in telling)
    return all(token.stem in stems or token.fold in stems for token in sentence)


SURPLUS: Final = Guard("surplus", _read, _compare)
