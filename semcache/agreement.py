"""Whether the stored questions around one that is asked agree on its answer.

Where answers come from a limited set (labels, routes, canned replies, extracted fields), equal bytes are evidence that
no wording holds: when the upstream gave one answer to every near question, it will hardly give another to this one;
when it gave several, the nearest one proves little. This is a nearest-neighbour vote (Cover and Hart 1967, "Nearest
neighbor pattern classification") weighted by similarity, with a reject option. Of answers in free wording no two are
alike, and there is nothing to count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from semcache.guards import GUARDS, fold, verdicts
from semcache.guards.alignment import without_counterpart
from semcache.guards.text import read
from semcache.scoring import WEIGHED
from semcache.types import Candidate

REACH: Final = 10
"""How many of the nearest questions have a vote."""
FROM: Final = 0.5
"""Least cosine of a question that has one."""
CONTESTED: Final = 0.5
"""Below this share an answer is not served, however near its question is."""

_WIDTH: Final = 0.1  # a question this much farther in cosine weighs 1/e as much
_DOUBT: Final = 0.05  # the weight of the answer that nobody has been given yet
_FEW: Final = 2
_MANY: Final = 4


def shares(candidates: Iterable[Candidate]) -> dict[str, float]:
    """What share of the votes each answer has, 0 to 1; nothing where no answer is known.

    An answer that was reported wrong for the very question asked has none.
    """
    near = [one for one in candidates if one.answer is not None and one.similarity >= FROM]
    wrong = {one.answer for one in near if one.wrong_before}
    weights: dict[str, float] = {}
    for one in near:
        if one.answer is not None and _votes(one):
            weights[one.answer] = weights.get(one.answer, 0.0) + math.exp((one.similarity - 1.0) / _WIDTH)
    total = _DOUBT + sum(weights.values())
    return {answer: 0.0 if answer in wrong else weight / total for answer, weight in weights.items()}


def vouched(
    text: str,
    candidates: Sequence[Candidate],
    shares: Mapping[str, float],
    *,
    at_least: float,
    guards: Sequence[str],
) -> Candidate | None:
    """The nearest question whose answer the others vouch for.

    Four that agree, each in its own words, outweigh ``wording`` and ``question``. Two or three do so only where every
    content word of the question occurs in one of theirs, and one of them asks for the same kind of thing. No number of
    them outweighs another guard.

    Args:
        candidates: Most similar first.
        shares: What :func:`shares` made of them.
        at_least: The share that an answer needs.
        guards: Names of the guards that are switched on.
    """
    answer = max(shares, key=shares.__getitem__, default=None)
    if answer is None or not shares[answer] or shares[answer] < at_least:
        return None
    agreeing = [one for one in candidates if one.answer == answer and one.similarity >= FROM and _votes(one)]
    voices = len({fold(one.text) for one in agreeing})
    if voices < _FEW or (voices < _MANY and not _covered(text, agreeing)):
        return None
    firm = [name for name in guards if name not in WEIGHED]
    return next((one for one in agreeing if all(said.ok for said in verdicts(firm, text, one.text))), None)


def _votes(one: Candidate) -> bool:
    """What an answer is too old, doubted or given in another conversation for, no others make up for."""
    return not one.barred and not one.history and not one.too_old


def _covered(text: str, agreeing: Sequence[Candidate]) -> bool:
    query = read(text)
    others = [read(one.text) for one in agreeing]
    missing = [{word.fold for word in without_counterpart(query, other)} for other in others]
    return not set.intersection(*missing) and any(not GUARDS["question"].judge(query, other) for other in others)
