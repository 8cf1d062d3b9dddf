"""The books by UTC day, namespace and model: what a report is made of, and its encoding as plain counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from semcache.money.books import Books, Line

if TYPE_CHECKING:
    from semcache.money.prices import Prices

PREFIX: Final = "ledger2|"
"""Start of every counter's name; the number is the version of the encoding."""

RowKey = tuple[int, str, str | None]
"""Days since 1970-01-01 UTC, namespace, model."""


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

    def unpriced(self) -> dict[str | None, Line]:
        """Models of which no price is known, with their calls and tokens, most calls first."""
        found = {model: books.unpriced for model, books in self.group("model").items()}
        return dict(sorted(((m, line) for m, line in found.items() if line.calls), key=lambda one: -one[1].calls))

    def settled(self, prices: Prices) -> Stats:
        """The same with a price on calls that had none when they were booked, where there is one now."""
        rows, totals = [], Books()
        for row in self.rows:
            books, price = Books(), prices.find(row.model)
            books.merge(row.books)
            if price is not None:
                books.settle(price)
            rows.append(row._replace(books=books))
            totals.merge(books)
        return Stats(tuple(rows), totals)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "totals": self.totals.to_dict(),
            "unpriced_models": [
                {"model": model, "calls": line.calls, "tokens": line.tokens} for model, line in self.unpriced().items()
            ],
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
    """What a store's counters say: row (day since 1970, namespace, model), name of the count, value."""
    for full_name, value in counters.items():
        day, namespace, model, name = map(_unescape, full_name.removeprefix(PREFIX).split("|"))
        yield (int(day or 0), namespace or "", model), name or "", value


def _escape(part: str | None) -> str:
    # An absent model and a model of that name must stay apart: "-" is the absent one.
    if part is None:
        return "-"
    if not part.isascii():  # a lone surrogate, which no store could write, would hold up the counts of all others
        part = part.encode(errors="replace").decode()
    return "%2D" if part == "-" else part.replace("%", "%25").replace("|", "%7C")


def _unescape(part: str) -> str | None:
    return None if part == "-" else part.replace("%2D", "-").replace("%7C", "|").replace("%25", "%")
