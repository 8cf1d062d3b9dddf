"""One run of the demo: the log through the desks, every answer compared with its label."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from semcache.demo.desks import open_desks
from semcache.demo.providers import Provider
from semcache.demo.questions import Question
from semcache.report import RunReport
from semcache.served import last_outcome
from semcache.types import Judged, Outcome

if TYPE_CHECKING:
    from semcache.cache import SemanticCache
    from semcache.testing.upstream import Upstream

THREADS = 8
_EXPLAINED = 60


class Finished(NamedTuple):
    """One call that has come back."""

    question: Question
    outcome: Outcome
    wrong: bool
    seconds: float


class Example(NamedTuple):
    """A question, and the stored question that the cache did or did not let answer it."""

    question: Question
    neighbour: Judged
    threshold: float

    @property
    def served(self) -> bool:
        return self.neighbour.ok

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "asked": self.question.text,
            "stored": self.neighbour.candidate.text,
            "similarity": self.neighbour.candidate.similarity,
            "threshold": self.threshold,
            "served": self.served,
            "reasons": list(self.neighbour.reasons),
            "guards": {verdict.guard: verdict.reason for verdict in self.neighbour.verdicts},
        }


@dataclass(frozen=True)
class DemoRun:
    """What the demo did.

    Args:
        ways: Of calling a model, that were used: names of providers, and ``function``.
        semantic_hit: A right answer to a question put in other words.
        rejected_trap: A question that looks like a stored one, has another answer, and was not given that one.
    """

    report: RunReport
    calls: tuple[Finished, ...]
    ways: tuple[str, ...]
    seconds: float
    semantic_hit: Example | None
    rejected_trap: Example | None

    @property
    def wrong(self) -> list[Finished]:
        """Hits with an answer of another class."""
        return [call for call in self.calls if call.outcome.hit and call.wrong]


def run_demo(
    cache: SemanticCache,
    upstream: Upstream,
    questions: Sequence[Question],
    answers: Mapping[str, str],
    progress: Callable[[], None] = lambda: None,
    provider: Provider | None = None,
) -> DemoRun:
    """Send the questions through the cache, in order, with a few at a time in flight.

    Args:
        answers: The right answer by class; an answer that differs from it is wrong.
        progress: Called after each question.
        provider: Sends all questions to this one; by default each desk has its own way of calling a model.

    Raises:
        MissingExtraError: The SDK of ``provider`` is not installed.
    """
    report, calls = RunReport(), []
    with open_desks(cache, upstream, provider) as desks, ThreadPoolExecutor(THREADS) as pool:

        def ask(question: Question) -> Finished:
            started = time.perf_counter()
            answer = desks.by_api[question.api](question)
            seconds = time.perf_counter() - started
            outcome = last_outcome()
            assert outcome is not None
            return Finished(question, outcome, answer != answers[question.label], seconds)

        started = time.perf_counter()
        for call in pool.map(ask, questions):
            calls.append(call)
            report.record(call.outcome, call.wrong, call.seconds)
            progress()
        seconds = time.perf_counter() - started
    labels = {question.text: question.label for question in questions}
    return DemoRun(
        report, tuple(calls), desks.ways, seconds, _semantic_hit(cache, calls), _rejected_trap(cache, calls, labels)
    )


def _semantic_hit(cache: SemanticCache, calls: Sequence[Finished]) -> Example | None:
    """The right semantic hit with the least similarity: where cosine had most to decide."""
    right = [call for call in calls if call.outcome.layer == "semantic" and not call.wrong]
    for call in sorted(right, key=lambda call: call.outcome.similarity or 0.0):
        decision = cache.explain(call.outcome).decision
        for judged in decision.judged if decision is not None else ():
            if decision is not None and judged.candidate.entry_id == call.outcome.entry_id and judged.ok:
                return Example(call.question, judged, decision.threshold)
    return None


def _rejected_trap(cache: SemanticCache, calls: Sequence[Finished], labels: Mapping[str, str]) -> Example | None:
    """The most similar stored question of another class that may not answer; one that a guard refused, if any.

    Explained after the run, since a call by itself tells only of candidates near the threshold, and an exact hit
    of none.
    """
    asked = {call.question.text: call for call in reversed(calls) if call.outcome.layer != "semantic"}
    found: list[Example] = []
    for call in sorted(asked.values(), key=_nearest, reverse=True)[:_EXPLAINED]:
        decision = cache.explain(call.outcome).decision
        for judged in decision.judged if decision is not None else ():
            label = labels.get(judged.candidate.text)
            if decision is not None and judged.reasons and label not in (None, call.question.label):
                found.append(Example(call.question, judged, decision.threshold))

    def rank(example: Example) -> tuple[bool, float]:
        refused = any(not verdict.ok for verdict in example.neighbour.verdicts)
        return refused, example.neighbour.candidate.similarity

    return max(found, key=rank, default=None)


def _nearest(call: Finished) -> float:
    decision = call.outcome.decision
    return max((one.candidate.similarity for one in decision.judged), default=-1.0) if decision is not None else -1.0
