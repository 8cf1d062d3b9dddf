"""What a replay shows beyond its totals: hits over time, what each guard did, the worst of the wrong hits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from semcache.report import Rate

if TYPE_CHECKING:
    from semcache.tuning.replay import Played, Replay

WINDOWS: Final = 24
"""Into how many parts of equal length a log is cut to show how hits go over time."""


class Window(NamedTuple):
    """A part of a replay.

    Args:
        first: Place of its first request, from 0.
        ts: Unix seconds of its first request that has a time.
    """

    first: int
    ts: float | None
    requests: int
    exact_hits: int
    semantic_hits: int
    labelled_hits: int
    wrong_hits: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**self._asdict(), "hit_rate": (self.exact_hits + self.semantic_hits) / self.requests}


def over_time(played: Sequence[Played], windows: int = WINDOWS) -> list[Window]:
    """The replay in so many parts, each of about the same number of requests."""
    edges = [len(played) * step // windows for step in range(windows + 1)]
    return [_window(start, played[start:end]) for start, end in pairwise(edges) if end > start]


def _window(first: int, part: Sequence[Played]) -> Window:
    hits = [one for one in part if one.layer is not None]
    return Window(
        first=first,
        ts=next((one.record.ts for one in part if one.record.ts is not None), None),
        requests=len(part),
        exact_hits=sum(one.layer == "exact" for one in hits),
        semantic_hits=sum(one.layer == "semantic" for one in hits),
        labelled_hits=sum(one.wrong is not None for one in hits),
        wrong_hits=sum(one.wrong is True for one in hits),
    )


@dataclass(slots=True)
class GuardCount:
    """What one guard (or the score) did to stored questions that were near enough to answer.

    Args:
        vetoes: Misses where it objected to the nearest such question.
        alone: Those of them where no other guard did.
        wrong_spared: Vetoes of an answer of another class.
        right_lost: Vetoes of an answer of the right class.
    """

    vetoes: int = 0
    alone: int = 0
    wrong_spared: int = 0
    right_lost: int = 0

    def to_dict(self) -> dict[str, int]:
        """JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


def guard_counts(played: Sequence[Played]) -> dict[str, GuardCount]:
    """By guard, most vetoes first. One miss may be counted under several guards."""
    found: dict[str, GuardCount] = {}
    for one in played:
        vetoed = one.vetoed
        if vetoed is None:
            continue
        known = one.record.label is not None and vetoed.label is not None
        right = one.record.label == vetoed.label
        for guard in vetoed.guards:
            count = found.setdefault(guard, GuardCount())
            count.vetoes += 1
            count.alone += len(vetoed.guards) == 1
            count.wrong_spared += known and not right
            count.right_lost += known and right
    return dict(sorted(found.items(), key=lambda item: -item[1].vetoes))


def worst(played: Sequence[Played], most: int = 20) -> list[Played]:
    """Wrong hits, the most similar first: those that no threshold would have stopped. Each pair of texts once."""
    wrong = {(one.asked, one.stored): one for one in played if one.wrong and one.layer is not None}
    return sorted(wrong.values(), key=lambda one: -(one.similarity or 0.0))[:most]


def answerable(replay: Replay) -> Rate:
    """Share of the labelled requests whose right answer was in the cache when they came."""
    known = [one.answerable for one in replay.played if one.answerable is not None]
    return Rate.of(sum(known), len(known))


def regraded(replay: Replay, verdict: Callable[[Played], bool | None]) -> Replay:
    """The same replay, with requests graded of which the labels say nothing. What the upstream answers is right.

    Args:
        verdict: Whether a hit is right; ``None`` if it cannot say.
    """
    played = [one if one.wrong is not None else replace(one, wrong=_wrong(one, verdict)) for one in replay.played]
    report = copy(replay.report)
    report.labelled = report.labelled_hits = report.wrong_hits = 0
    for one in played:
        report.grade(one.layer is not None, one.wrong)
    return replace(replay, report=report, played=played)


def _wrong(one: Played, verdict: Callable[[Played], bool | None]) -> bool | None:
    right = True if one.layer is None else verdict(one)
    return None if right is None else not right


def findings(replay: Replay) -> dict[str, Any]:
    """All of them, JSON-ready."""
    rate = answerable(replay)
    return {
        "answerable_rate": rate.value,
        "over_time": [window.to_dict() for window in over_time(replay.played)],
        "guards": {name: count.to_dict() for name, count in guard_counts(replay.played).items()},
        "worst_wrong_hits": [
            {
                "asked": one.asked,
                "stored": one.stored,
                "similarity": one.similarity,
                "layer": one.layer,
                "class": one.record.label,
                "given": one.given,
            }
            for one in worst(replay.played)
        ],
    }
