"""Which questions a text asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from semcache.guards.lexicon import Lexicon


class Ask(NamedTuple):
    """A question of a text: its kind (see ``asks.txt``, or ``yes-no``) and the tokens that ask it."""

    kind: str
    start: int
    end: int


def read_asks(folds: Sequence[str], starts: Sequence[bool], lexicon: Lexicon) -> Iterator[Ask]:
    """The questions of a text: at the start of a sentence, or after a word that leads to a question.

    A text that has none there but ends with a question word ("Austria's capital is what?") asks that.

    Args:
        folds: Tokens without case.
        starts: Whether each opens a sentence.
    """
    leads, openers = lexicon.grammar["lead"], lexicon.grammar["opener"]
    words = {found.start: found for found in lexicon.asks.find(folds, folds)}
    end, asked = 0, False
    last: Ask | None = None
    any_asked = False
    for at, fold in enumerate(folds):
        if at < end:
            continue
        opens = at == 0 or starts[at]
        asked = asked and not opens
        found = words.get(at)
        if found is None:
            if opens and fold in openers:
                yield Ask("yes-no", at, at)
                asked = any_asked = True
            continue
        end = found.end
        last = Ask(found.value[0], at, end)
        if opens or (not asked and folds[at - 1] in leads):
            yield last
            asked = any_asked = True
    if last is not None and not any_asked and last.end >= len(folds) - 1:
        yield last
