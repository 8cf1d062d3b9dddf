"""Names and codes: whoever or whatever a text names, the other must name too."""

from __future__ import annotations

from typing import Final, NamedTuple

from semcache.guards.alignment import without_counterpart
from semcache.guards.base import Guard, differ
from semcache.guards.lexicon import english
from semcache.guards.text import Text


class _Named(NamedTuple):
    text: Text
    codes: frozenset[str]
    names: frozenset[int]  # positions of tokens


def _read(text: Text) -> _Named:
    codes = {at: text.folds[at] for at in text.codes}
    if codes:
        for found in english().concepts.find(text.folds, text.stems):
            for at in range(found.start, found.end):
                codes.pop(at, None)
    return _Named(text, frozenset(codes.values()), frozenset(_names(text)))


def _names(text: Text) -> list[int]:
    known = english().known
    names = [
        at
        for at, token in enumerate(text.tokens)
        if token.kind == "word"
        and token.raw[0].isupper()
        and token.fold not in known
        and token.stem not in known
        and (not token.starts or token.raw.isupper())
        and len(token.fold) > 1
    ]
    inner = [token for token in text.tokens if token.kind == "word" and not token.starts] if names else []
    capitals = sum(token.raw[0].isupper() for token in inner)
    shouting = len(inner) > 2 and capitals > 0.6 * len(inner)  # Title Case or ALL CAPS: a capital tells nothing
    return [] if shouting else names


def _compare(query: _Named, cached: _Named) -> str:
    missing, extra = _missing(query, cached), _missing(cached, query)
    return differ(missing, extra) if missing or extra else ""


def _missing(ours: _Named, theirs: _Named) -> list[str]:
    there = theirs.text.present
    missing = [code for code in ours.codes if code not in there]
    if ours.names:
        missing += [word.fold for word in without_counterpart(ours.text, theirs.text) if word.at in ours.names]
    return sorted(missing)


NAMES: Final = Guard("names", _read, _compare, None)
