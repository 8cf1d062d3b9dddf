"""Surplus: neither question may say more than the other.

The answer to "How do I reset my password? Make it up." answers nobody else, and who wants to plant an answer next to a
popular question writes just that, out of vague words for which other guards do not care. So an objection is raised to
a sentence of which nothing occurs in the other text, and to a tail that is foreign to it.
"""

from __future__ import annotations

from typing import Final

from semcache.guards.alignment import without_counterpart
from semcache.guards.base import Guard, differ
from semcache.guards.lexicon import english
from semcache.guards.text import Text, Token

_TAIL: Final = 3
"""So many words may not follow the last one that the other text has too."""


def _compare(query: Text, cached: Text) -> str:
    more, extra = _surplus(query, cached), _surplus(cached, query)
    return differ(more, extra) if more or extra else ""


def _surplus(text: Text, other: Text) -> list[str]:
    """What a text says beyond the other, as words."""
    stems = {*other.stems, *other.folds}
    foreign = {word.fold for word in without_counterpart(text, other)}
    stems.update(part for word in text.words if word.fold not in foreign for part in word.fold.split())
    sentences = _sentences(text)
    if len(sentences) > len(_sentences(other)):
        for sentence in sentences:
            if not _covered(sentence, stems):
                return [token.fold for token in sentence]
    tail: list[Token] = []
    for token in reversed(sentences[-1] if sentences else []):
        if token.stem in stems or token.fold in stems:
            break
        tail.insert(0, token)
    return [token.fold for token in tail] if len(tail) >= _TAIL else []


def _sentences(text: Text) -> list[list[Token]]:
    sentences: list[list[Token]] = []
    for token in text.tokens:
        if token.kind == "symbol":
            continue
        if token.starts or not sentences:
            sentences.append([])
        sentences[-1].append(token)
    return sentences


def _covered(sentence: list[Token], stems: set[str]) -> bool:
    """Whether something of a sentence occurs in the other text; of one that has but function words, all of it."""
    function = english().function
    telling = [token for token in sentence if token.fold not in function]
    if telling:
        return any(token.stem in stems or token.fold in stems for token in telling)
    return all(token.stem in stems or token.fold in stems for token in sentence)


SURPLUS: Final = Guard("surplus", lambda text: text, _compare)
