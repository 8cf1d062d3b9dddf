"""Particles: "turn the lights off" is "turn off the lights", and neither is "turn on the lights"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from semcache.guards.lexicon import Lexicon
    from semcache.guards.text import Text, Token

_MOST_BETWEEN: Final = 4
"""Words that may stand between a verb and its particle."""
_STRANDED: Final = frozenset({"in", "on"})
"""Behind a verb these two are prepositions, which vary: "what is it built on", "what is it built in"."""


def closed_up(tokens: list[Token], lexicon: Lexicon) -> list[Token]:
    """The tokens with each particle moved to its verb, where the two are a known pair and an object stands between."""
    particles = lexicon.grammar["particle"]
    for at in range(2, len(tokens)):
        if tokens[at].fold in particles and _closes(tokens, at, lexicon):
            verb = _verb_of(tokens, at, lexicon)
            if verb is not None:
                between = tokens[verb + 1 : at]
                tokens = [*tokens[: verb + 1], tokens[at], *between, *tokens[at + 1 :]]
    return tokens


def _closes(tokens: Sequence[Token], at: int, lexicon: Lexicon) -> bool:
    """Whether a particle ends its phrase: "on" before "my phone" is a preposition."""
    if at + 1 == len(tokens):
        return True
    after = tokens[at + 1]
    return after.starts or after.kind == "symbol" or after.fold in lexicon.grammar["clause"]


def _verb_of(tokens: Sequence[Token], at: int, lexicon: Lexicon) -> int | None:
    """Where the verb of a particle stands, if an object of a few words separates the two."""
    for verb in range(at - 1, max(at - _MOST_BETWEEN - 2, -1), -1):
        if (tokens[verb].stem, tokens[at].fold) in lexicon.phrasal:
            return verb if verb < at - 1 else None
        if tokens[verb].starts or tokens[verb].kind != "word" or tokens[verb].fold in lexicon.grammar["clause"]:
            return None
    return None


class Phrasal(NamedTuple):
    """The particle that a verb has, and the concepts of the two together."""

    particle: str
    concepts: frozenset[int]


def read_phrasal(text: Text, lexicon: Lexicon) -> Mapping[str, Phrasal]:
    """Particles by the stem of the word before. Those that are prepositions as well count only where they close."""
    found: dict[str, Phrasal] = {}
    particles, prepositions = lexicon.grammar["particle"], lexicon.grammar["between"]
    if text.present.isdisjoint(particles):
        return found
    for at in range(1, len(text.tokens)):
        particle = text.folds[at]
        if particle not in particles:
            continue
        word = text.tokens[at - 1 if at == 1 or text.folds[at - 1] not in lexicon.grammar["held"] else at - 2]
        if word.kind != "word" or word.fold in lexicon.function:
            continue
        if particle in prepositions and not _closes(text.tokens, at, lexicon):
            continue
        after = text.folds[at + 1] if at + 1 < len(text.folds) else ""
        if after == "of" or (particle == "back" and after in particles):
            continue  # "made out of", "log back in"
        phrase = lexicon.concepts.longest_at(at - 1, text.folds, text.stems)
        found[word.stem] = Phrasal(particle, frozenset(phrase[1] if phrase is not None and phrase[0] > 1 else ()))
    return found


def other_particles(ours: Mapping[str, Phrasal], theirs: Mapping[str, Phrasal]) -> str:
    """A reason: a verb that has one particle here and another there ("turn up / turn down")."""
    for verb in ours.keys() & theirs.keys():
        (particle, concepts), (other, others) = ours[verb], theirs[verb]
        if particle != other and {particle, other} != _STRANDED and concepts.isdisjoint(others):
            return f"{verb} {particle} / {verb} {other}"
    return ""
