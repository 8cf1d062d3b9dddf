"""Wording: every word that carries content needs a counterpart in the other text.

Two questions that differ in one content word ("a table at the Italian place", "at the Thai place") are nearly always
two questions, and an embedder sees least of exactly that. So a word without a counterpart is an objection unless it is
weak, and weak words are one as well when both texts have some.
"""

from __future__ import annotations

from typing import Final

from semcache.guards.alignment import align
from semcache.guards.base import ENGLISH, Guard, differ
from semcache.guards.lexicon import english
from semcache.guards.text import Text, Word


def _compare(query: Text, cached: Text) -> str:
    if {query.language, cached.language} != ENGLISH:
        # No list tells which words of these languages matter, or how they inflect: all do, as often as they occur.
        return "" if sorted(query.folds) == sorted(cached.folds) else "other words, in a language without lists"
    if not query.words and not cached.words:
        return _compare_stems(query, cached)
    ours, theirs = align(query, cached)
    if not (ours and theirs) and not _strong(ours) and not _strong(theirs):
        return ""
    return differ((word.fold for word in ours), (word.fold for word in theirs))


def _strong(words: list[Word]) -> bool:
    weak = english().weak
    return any(word.stem not in weak for word in words)


def _compare_stems(query: Text, cached: Text) -> str:
    """Texts of vague words only: these then have to be the same."""
    function = english().function
    ours = {token.stem for token in query.tokens if token.fold not in function}
    theirs = {token.stem for token in cached.tokens if token.fold not in function}
    return "" if ours == theirs else differ(sorted(ours - theirs), sorted(theirs - ours))


WORDING: Final = Guard("wording", lambda text: text, _compare)
