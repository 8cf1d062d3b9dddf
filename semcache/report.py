"""What a run through the cache came to: the books, the wrong answers, the waiting."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from semcache.intervals import clopper_pearson
from semcache.money.ledger import Books
from semcache.types import Outcome

if TYPE_CHECKING:
    from decimal import Decimal

    from rich.console import Console


class Rate(NamedTuple):
    """A share of a count, with its exact (Clopper–Pearson) 95 % interval; all ``None`` of nothing."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, part: int, whole: int) -> Rate:
        if whole == 0:
            return cls(None, None, None)
        return cls(part / whole, *clopper_pearson(part, whole))


@dataclass(slots=True)
class RunReport:
    """Counts of one run. Feed it every finished call with :meth:`record`.

    Two error rates, always both: the *false-hit rate* is wrong hits per hit, the *unsafe-served rate* wrong hits
    per request. Both are over labelled requests only, and ``None`` where there are no labels.

    Args:
        books: Requests, hits, tokens and money, as the ledger counts them.
        labelled: Requests that it can be told of whether their answer is right.
        labelled_hits: Those of them that the cache answered.
        wrong_hits: Those of them that it answered wrongly.
    """

    books: Books = field(default_factory=Books)
    labelled: int = 0
    labelled_hits: int = 0
    wrong_hits: int = 0
    _seconds: dict[str, array[float]] = field(default_factory=dict, init=False, repr=False)

    def record(self, outcome: Outcome, wrong: bool | None, seconds: float) -> None:
        """Count one call.

        Args:
            wrong: Whether the answer that was given is wrong by the labels; ``None`` if there is no label. Counts
                only where the cache gave it: a wrong answer of the upstream is not the cache's.
            seconds: Wall time of the call, as its caller saw it.
        """
        self.enter(outcome, seconds)
        self.grade(outcome.status in ("hit", "stale"), wrong)

    def enter(self, outcome: Outcome, seconds: float) -> None:
        """Count one call, as :meth:`record`, but for whether it was answered rightly: :meth:`grade` tells that."""
        self.books.enter(outcome)
        self._seconds.setdefault(_latency_group(outcome), array("d")).append(seconds)

    def grade(self, served: bool, wrong: bool | None) -> None:
        """Count whether one call was answered rightly; ``served`` is whether by the cache."""
        if wrong is not None:
            self.labelled += 1
            self.labelled_hits += served
            self.wrong_hits += served and wrong

    @property
    def false_hit_rate(self) -> Rate:
        return Rate.of(self.wrong_hits, self.labelled_hits)

    @property
    def unsafe_served_rate(self) -> Rate:
        return Rate.of(self.wrong_hits, self.labelled)

    def latency_ms(self) -> dict[str, dict[str, float] | None]:
        """Percentiles of the wall time in milliseconds by kind of call; ``None`` where there was no such call."""
        kinds = {name: self._seconds.get(name, array("d")) for name in ("exact_hit", "semantic_hit", "miss")}
        kinds = {"hit": kinds["exact_hit"] + kinds["semantic_hit"], **kinds}
        return {name: _percentiles(sample) for name, sample in kinds.items()}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. The keys are stable; what is not known is ``None``."""
        false_hits, unsafe = self.false_hit_rate, self.unsafe_served_rate
        known = self.labelled > 0
        return {
            **self.books.to_dict(),
            "labelled": self.labelled,
            "labelled_hits": self.labelled_hits,
            "wrong_hits": self.wrong_hits if known else None,
            "false_hit_rate": false_hits.value,
            "false_hit_rate_ci95": [false_hits.low, false_hits.high] if self.labelled_hits else None,
            "unsafe_served_rate": unsafe.value,
            "unsafe_served_rate_ci95": [unsafe.low, unsafe.high] if known else None,
            "latency_ms": self.latency_ms(),
        }

    def render(self, console: Console) -> None:
        """Print the tables."""
        from rich.table import Table

        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim")
        for name, value, note in self._rows():
            table.add_row(name, value, note)
        console.print(table)

        waits = Table("latency, ms", "p50", "p99", box=None, pad_edge=False)
        for column in waits.columns[1:]:
            column.justify = "right"
        for kind, percentiles in self.latency_ms().items():
            if percentiles is not None:
                label = kind.replace("_", " ")
                waits.add_row(label, f"{percentiles['p50']:,.1f}", f"{percentiles['p99']:,.1f}")
        console.print()
        console.print(waits)

    def _rows(self) -> Sequence[tuple[str, str, str]]:
        books = self.books

        def share(count: int) -> str:
            return f"{count / books.requests:.1%} of requests" if books.requests else ""

        rows = [
            ("requests", f"{books.requests:,}", ""),
            ("exact hits", f"{books.exact_hits:,}", share(books.exact_hits)),
            ("semantic hits", f"{books.semantic_hits:,}", share(books.semantic_hits)),
            ("collapsed", f"{books.collapsed.calls:,}", "waited for an equal call in flight: no hit"),
            ("misses", f"{books.misses:,}", share(books.misses)),
        ]
        if books.bypasses:
            rows.append(("bypassed", f"{books.bypasses:,}", ", ".join(books.bypassed)))
        if books.stale.calls:
            rows.append(("stale", f"{books.stale.calls:,}", share(books.stale.calls)))
        if self.labelled:
            rows += [
                ("wrong hits", f"{self.wrong_hits:,}", "by the labels"),
                self._rate_row("false-hit rate", self.labelled_hits, "hits", self.false_hit_rate),
                self._rate_row("unsafe-served rate", self.labelled, "requests", self.unsafe_served_rate),
            ]
        else:
            rows.append(("wrong hits", "?", "no labels"))
        rows += [
            (
                "tokens saved",
                _count(books.saved.known_tokens),
                f"{_count(books.collapsed.known_tokens)} by collapsed calls",
            ),
            ("money saved", _dollars(books.saved.usd), f"spent {_dollars(books.spent.usd)}"),
        ]
        return rows

    def _rate_row(self, name: str, whole: int, of: str, rate: Rate) -> tuple[str, str, str]:
        if rate.value is None or rate.low is None or rate.high is None:
            return name, "?", f"no {of}"
        interval = f"95 % interval {rate.low:.1%}–{rate.high:.1%}"
        return name, f"{rate.value:.2%}", f"{self.wrong_hits} of {whole:,} {of}; {interval}"


def _latency_group(outcome: Outcome) -> str:
    if outcome.status == "hit":
        return f"{outcome.layer}_hit"
    return "collapsed" if outcome.collapsed else outcome.status


def _percentiles(sample: array[float]) -> dict[str, float] | None:
    if not sample:
        return None
    ordered = sorted(sample)

    def nearest_rank(share: float) -> float:
        return ordered[math.ceil(share * len(ordered)) - 1] * 1000

    return {"p50": nearest_rank(0.5), "p99": nearest_rank(0.99)}


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _dollars(amount: Decimal | None) -> str:
    return "?" if amount is None else f"${amount:,.4f}"
