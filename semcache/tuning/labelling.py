"""Which pairs a person should look at first, and a file that keeps what was said of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from semcache.errors import InputError
from semcache.tuning.appended import Appended
from semcache.tuning.scoring import rules_for
from semcache.tuning.settings import NEVER, Levels, Rule
from semcache.types import Candidate

if TYPE_CHECKING:
    from semcache.policy import Policy
    from semcache.tuning.pairs import Pair

_Texts = tuple[str, str]


class Question(NamedTuple):
    """A pair to be looked at.

    Args:
        vetoed: Whether a guard objects, so that no threshold makes it a hit.
    """

    pair: Pair
    similarity: float
    vetoed: bool


def most_informative_first(
    pairs: Sequence[Pair], similarities: Sequence[float | None], policy: Policy, fingerprint: str
) -> list[Question]:
    """Unlabelled pairs, each once, ordered by what a label would tell.

    Those that the guards let through come first, since only they can become hits; among them those nearest to the
    threshold, on which it turns whether it may stand lower or must stand higher. Pairs that the embedder does not take
    whole are left out.

    Args:
        fingerprint: Of the embedder that the similarities come from.
    """
    questions: dict[_Texts, Question] = {}
    judges = Levels(policy, fingerprint, [Rule.of(policy)])
    for pair, similarity in zip(pairs, similarities, strict=True):
        if pair.right is None and similarity is not None:
            ((_, level, _),) = judges.of(pair.a, [Candidate(0, pair.b, similarity)], pair.namespace, pair.category)
            questions.setdefault((pair.a, pair.b), Question(pair, similarity, level == NEVER))
    return sorted(
        questions.values(),
        key=lambda one: (one.vetoed, abs(one.similarity - _threshold(policy, one.pair))),
    )


def _threshold(policy: Policy, pair: Pair) -> float:
    return rules_for(policy, pair.a, pair.namespace, pair.category).threshold


class LabelFile(Appended):
    """An append-only file of labels that is itself a file of pairs.

    Each answer is one line, on the disk before the next question is asked. A skipped pair has a null label. An answer
    that was taken back stays; the line that replaces it says so. A last line that a crash tore is cut off.

    Raises:
        InputError: The file cannot be written, or holds something else.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__(path)
        self._lines: dict[_Texts, int] = {}
        self._last = 0

    def __contains__(self, pair: Pair) -> bool:
        return (pair.a, pair.b) in self._lines

    def append(self, question: Question, right: bool | None) -> None:
        """Write an answer, in place of an earlier one to the same pair; return when it is on the disk."""
        pair, texts = question.pair, (question.pair.a, question.pair.b)
        line: dict[str, Any] = {
            "a": pair.a,
            "b": pair.b,
            "label": None if right is None else int(right),
            "namespace": pair.namespace,
            **({} if pair.category is None else {"category": pair.category}),
            "similarity": round(question.similarity, 4),
        }
        if texts in self._lines:
            line["replaces"] = self._lines[texts]
        self._file.write(orjson.dumps(line) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._last += 1
        self._lines[texts] = self._last

    def _resume(self) -> None:
        content = self._file.read()
        *lines, rest = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            self._lines[_texts(line, self._path, number)] = number
        self._last = len(lines)
        if rest:
            if not rest.startswith(_START[: len(rest)]):
                raise InputError(_NOT_OURS, path=self._path, line=len(lines) + 1)
            self._file.truncate(len(content) - len(rest))


_START: Final = b'{"a":'
_NOT_OURS: Final = "not a line that label has written; give another file"


def _texts(line: bytes, path: str, number: int) -> _Texts:
    try:
        row = orjson.loads(line)
        a, b, _ = row["a"], row["b"], row["label"]
    except (ValueError, KeyError, TypeError):
        a = b = None
    if not (line.startswith(_START) and isinstance(a, str) and isinstance(b, str)):
        raise InputError(_NOT_OURS, path=path, line=number)
    return a, b
