"""What a guard is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from semcache.guards.text import Text, made_of, read

F = TypeVar("F")

ENGLISH: Final = frozenset({"en"})


@dataclass(frozen=True)
class Guard(Generic[F]):
    """A deterministic veto: a named pure function of two texts.

    ``guard(query, cached)`` is the reason why the answer to ``cached`` must not be given to ``query``; empty when the
    guard has no objection. Texts that are equal but for case, white space and punctuation at the ends never get one.

    Args:
        name: As policies and reports call it.
        read: What the guard needs to know of one text; called once per text.
        compare: The judgement over two texts' features, query first.
        languages: ISO 639-1 codes of the languages it has word lists for; ``None`` if it needs none.
    """

    name: str
    read: Callable[[Text], F]
    compare: Callable[[F, F], str]
    languages: frozenset[str] | None = ENGLISH

    def __call__(self, query: str, cached: str) -> str:
        return self.judge(read(query), read(cached))

    def judge(self, query: Text, cached: Text) -> str:
        """The same for texts that have been read."""
        if query.folded == cached.folded:
            return ""
        return self.compare(self._features(query), self._features(cached))

    def covers(self, text: str) -> bool:
        """Whether the guard knows the language of a text. One that does not may miss what it is there for."""
        return self.languages is None or read(text).language in self.languages

    def _features(self, text: Text) -> F:
        known: dict[str, F] = made_of(text)
        try:
            return known[self.name]
        except KeyError:
            return known.setdefault(self.name, self.read(text))


def differ(query: Iterable[str], cached: Iterable[str]) -> str:
    """A reason: what the query has and the cached text lacks, and the reverse."""
    return f"{', '.join(query) or 'none'} / {', '.join(cached) or 'none'}"
