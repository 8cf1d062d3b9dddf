"""The books: counts, tokens and money of a set of calls, and their encoding as plain counters.

Every call is in the books once, under one of six headings: exact hit, semantic hit, stale, collapsed, miss,
bypass. Its tokens and money are in one of three lines:

- *saved*: answered from the cache (exact, semantic, stale);
- *collapsed*: answered by another caller's call in flight: no hit, though it spared the provider too;
- *spent*: the provider was called (miss, bypass).

Two more lines stand beside the calls and count none of them: *shadow* is what hits that were found and withheld would
have saved (their calls are booked as the misses they were), *audit* what background calls cost that checked answers
which had been served.

A call is priced as it was made: tokens that the provider read from its own prompt cache count at that price,
and a hit saves what that call did cost, not its list price. A call whose usage or price is unknown counts as
*unpriced* in its line, and money of a line that holds nothing else is ``None``, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from semcache.types import Outcome, Usage, WouldServe

PREFIX: Final = "ledger1|"
"""Start of every counter's name; the number is the version of the encoding."""

RowKey = tuple[int, str, str | None]
"""Days since 1970-01-01 UTC, namespace, model."""

_COUNTS: Final = (
    "exact_hits",
    "semantic_hits",
    "stale",
    "misses",
    "stored",
    "latency_saved_ms",
    "shadow_exact_hits",
    "shadow_semantic_hits",
)
_LINES: Final = ("saved", "collapsed", "spent", "shadow", "audit")
_REASONS_KEPT: Final = 64


@dataclass(slots=True)
class Line:
    """Calls with their tokens and money.

    Args:
        calls: How many calls.
        tokens: Input and output tokens of the calls whose usage is known.
        unmetered: How many of ``calls`` are not in ``tokens``.
        usd_micro: Millionths of a dollar of the calls whose price is known.
        unpriced: How many of ``calls`` are not in ``usd_micro``.
    """

    calls: int = 0
    tokens: int = 0
    unmetered: int = 0
    usd_micro: int = 0
    unpriced: int = 0

    def enter(self, usage: Usage | None, usd_micro: int | None) -> None:
        """Add one call; ``None`` is what is not known of it."""
        self.calls += 1
        if usage is None:
            self.unmetered += 1
        else:
            self.tokens += usage.total
        if usd_micro is None:
            self.unpriced += 1
        else:
            self.usd_micro += usd_micro

    @property
    def known_tokens(self) -> int | None:
        """Tokens, or ``None`` if there are calls and the usage of none is known."""
        return None if self.calls and self.unmetered >= self.calls else self.tokens

    @property
    def usd(self) -> Decimal | None:
        """Dollars, or ``None`` if there are calls and the price of none is known."""
        return None if self.calls and self.unpriced >= self.calls else Decimal(self.usd_micro).scaleb(-6)


@dataclass(slots=True)
class Books:
    """The counts of some set of calls.

    ``latency_saved_ms`` is how much sooner saved answers came than the calls that made them; it falls when
    the look-up takes longer than the call.
    """

    exact_hits: int = 0
    semantic_hits: int = 0
    stale: int = 0
    misses: int = 0
    stored: int = 0
    latency_saved_ms: int = 0
    shadow_exact_hits: int = 0
    shadow_semantic_hits: int = 0
    bypassed: dict[str, int] = field(default_factory=dict)
    saved: Line = field(default_factory=Line)
    collapsed: Line = field(default_factory=Line)
    spent: Line = field(default_factory=Line)
    shadow: Line = field(default_factory=Line)
    audit: Line = field(default_factory=Line)

    @property
    def hits(self) -> int:
        return self.exact_hits + self.semantic_hits

    @property
    def bypasses(self) -> int:
        return sum(self.bypassed.values())

    @property
    def requests(self) -> int:
        return self.hits + self.stale + self.collapsed.calls + self.misses + self.bypasses

    @property
    def hit_rate(self) -> float | None:
        """Hits per request, or ``None`` without requests."""
        return self.hits / self.requests if self.requests else None

    def enter(self, outcome: Outcome) -> None:
        """Book one call."""
        status = outcome.status
        if outcome.collapsed:
            line = self.collapsed
        elif status == "hit":
            line = self.saved
            if outcome.layer == "semantic":
                self.semantic_hits += 1
            else:
                self.exact_hits += 1
        elif status == "stale":
            line = self.saved
            self.stale += 1
        else:
            line = self.spent
            if status == "bypass":
                # What follows the colon may quote the request: what callers send must not multiply the counters.
                reason = outcome.reason.partition(":")[0]
                if reason not in self.bypassed and len(self.bypassed) >= _REASONS_KEPT:
                    reason = "other"
                self.bypassed[reason] = self.bypassed.get(reason, 0) + 1
            else:
                self.misses += 1
        if line is self.saved and outcome.upstream_latency_s is not None:
            took = outcome.seconds.get("total", 0.0)
            self.latency_saved_ms += round((outcome.upstream_latency_s - took) * 1000)
        self.stored += outcome.stored
        line.enter(outcome.usage, outcome.usd_micro)
        if outcome.would_serve is not None:
            self._withheld(outcome.would_serve)

    def _withheld(self, would: WouldServe) -> None:
        if would.layer == "semantic":
            self.shadow_semantic_hits += 1
        else:
            self.shadow_exact_hits += 1
        self.shadow.enter(would.usage, would.usd_micro)

    def counters(self) -> Iterator[tuple[str, int]]:
        """Name and value of all that is not zero."""
        for name in _COUNTS:
            if value := getattr(self, name):
                yield name, value
        for name in _LINES:
            line: Line = getattr(self, name)
            for part in Line.__slots__:
                if value := getattr(line, part):
                    yield f"{name}.{part}", value
        for reason, value in self.bypassed.items():
            yield f"bypass.{reason}", value

    def add(self, name: str, value: int) -> None:
        """Add to one counter; a name of a later version is left alone."""
        head, _, tail = name.partition(".")
        if head == "bypass":
            self.bypassed[tail] = self.bypassed.get(tail, 0) + value
        elif head in _LINES and tail in Line.__slots__:
            line = getattr(self, head)
            setattr(line, tail, getattr(line, tail) + value)
        elif name in _COUNTS:
            setattr(self, name, getattr(self, name) + value)

    def merge(self, other: Books) -> None:
        """Add all that another one counts."""
        for name, value in other.counters():
            self.add(name, value)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; tokens and dollars are ``None`` where they are not known."""
        lines: dict[str, Line] = {name: getattr(self, name) for name in _LINES}
        return {
            "requests": self.requests,
            "hits": self.hits,
            "exact_hits": self.exact_hits,
            "semantic_hits": self.semantic_hits,
            "stale": self.stale,
            "collapsed": self.collapsed.calls,
            "misses": self.misses,
            "bypasses": self.bypasses,
            "bypassed": dict(sorted(self.bypassed.items())),
            "stored": self.stored,
            "shadow_exact_hits": self.shadow_exact_hits,
            "shadow_semantic_hits": self.shadow_semantic_hits,
            "audit_calls": self.audit.calls,
            "hit_rate": self.hit_rate,
            **{f"tokens_{name}": line.known_tokens for name, line in lines.items()},
            **{f"usd_{name}": None if line.usd is None else float(line.usd) for name, line in lines.items()},
            "unpriced": sum(line.unpriced for name, line in lines.items() if name != "shadow"),
            "latency_saved_s": self.latency_saved_ms / 1000,
        }


class Row(NamedTuple):
    """The books of one UTC day, namespace and model."""

    day: date
    namespace: str
    model: str | None
    books: Books


@dataclass(frozen=True, slots=True)
class Stats:
    """A report: rows by day, namespace and model, and their sum."""

    rows: tuple[Row, ...]
    totals: Books

    def group(self, by: Literal["day", "namespace", "model"]) -> dict[Any, Books]:
        """Sums over the rows that share a day, namespace or model, in the order of the rows."""
        groups: dict[Any, Books] = {}
        for row in self.rows:
            groups.setdefault(getattr(row, by), Books()).merge(row.books)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "totals": self.totals.to_dict(),
            "rows": [
                {
                    "day": row.day.isoformat(),
                    "namespace": row.namespace,
                    "model": row.model,
                    **row.books.to_dict(),
                }
                for row in self.rows
            ],
        }


def encode(rows: Mapping[RowKey, Books]) -> dict[str, int]:
    """One flat counter per number: ``ledger1|day|namespace|model|name``, each part percent-escaped."""
    return {
        f"{PREFIX}{day}|{_escape(namespace)}|{_escape(model)}|{_escape(name)}": value
        for (day, namespace, model), books in rows.items()
        for name, value in books.counters()
    }


def decode(counters: Mapping[str, int]) -> Iterator[tuple[RowKey, str, int]]:
    for full_name, value in counters.items():
        day, namespace, model, name = map(_unescape, full_name.removeprefix(PREFIX).split("|"))
        yield (int(day or 0), namespace or "", model), name or "", value


def _escape(part: str | None) -> str:
    # An absent model and a model of that name must stay apart: "-" is the absent one.
    if part is None:
        return "-"
    return "%2D" if part == "-" else part.replace("%", "%25").replace("|", "%7C")


def _unescape(part: str) -> str | None:
    return None if part == "-" else part.replace("%2D", "-").replace("%7C", "|").replace("%25", "%")
