"""``semcache stats``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import click

from semcache.cli._common import console, counted, json_option, opened, print_json, safe, store_option
from semcache.cli._money import budget_lines, outside, sources, summary, usd

if TYPE_CHECKING:
    from datetime import date

    from rich.table import Table

    from semcache.live.record import Standing
    from semcache.money.books import Books
    from semcache.money.budgets import BudgetState
    from semcache.money.rows import Stats
    from semcache.prompt_cache.predictions import Predicted
    from semcache.stores.base import StoreStats

BAR_WIDTH: Final = 40


@click.command()
@store_option
@click.option("--namespace", help="Only this namespace.")
@click.option("--days", default=14, show_default=True, type=click.IntRange(min=1), help="How many days back, UTC.")
@click.option(
    "--prices",
    "price_file",
    type=click.Path(exists=True, dir_okay=False),
    help="Put the prices of this file on calls that had none when they were made.",
)
@json_option
def stats(store_url: str, namespace: str | None, days: int, price_file: str | None, as_json: bool) -> None:
    """Show hits, misses, tokens and money, by source, namespace, model and day."""
    found = _read(store_url, namespace, days, price_file)
    if as_json:
        print_json(found.to_dict())
    else:
        _show(found)


@dataclass(frozen=True)
class _Found:
    """``booked``: the books without the prices of a file that is given now."""

    since: date
    size: StoreStats
    books: Stats
    booked: Stats
    live: dict[str, Standing]
    budgets: list[BudgetState]
    predicted: list[Predicted]

    def to_dict(self) -> dict[str, Any]:
        return {
            "since": self.since.isoformat(),
            "store": self.size._asdict(),
            **self.books.to_dict(),
            "live": {name: standing.to_dict() for name, standing in self.live.items()},
            "budgets": [
                {**state.to_dict(), "usd_outside": outside(state, self.booked) / 1e6} for state in self.budgets
            ],
            "prompt_cache": [row.to_dict() for row in self.predicted],
        }


def _read(store_url: str, namespace: str | None, days: int, price_file: str | None) -> _Found:
    from semcache.live.record import PREFIX, decode
    from semcache.money.budgets import standing as budgets_standing
    from semcache.money.ledger import Ledger
    from semcache.money.prices import Prices
    from semcache.prompt_cache import predictions

    since = datetime.now(timezone.utc).date() - timedelta(days=days - 1)
    prices = Prices(price_file)
    with opened(store_url) as store:
        books = booked = Ledger(store, prices).report(namespace=namespace, since=since)
        budgets = [state for state in budgets_standing(store) if namespace in (None, state.namespace)]
        size = store.stats()
        records = decode(store.counters(PREFIX))
        predicted = predictions.decode(store.counters(predictions.PREFIX))
    if price_file is not None:
        books = books.settled(prices)
    live = {name: record.standing for name, record in sorted(records.items()) if namespace in (None, name)}
    return _Found(since, size, books, booked, live, budgets, predicted)


def _show(found: _Found) -> None:
    from semcache.prompt_cache import predictions

    out, size, books = console(), found.size, found.books
    held = "" if size.bytes is None else f", {size.bytes / 1024:,.0f} KiB"
    out.print(f"{size.kind} store {size.location}: {counted(size.entries)}{held}")
    for name, standing in found.live.items():
        for line in _standing(name, standing):
            out.print(line)
    for line in (*map(safe, predictions.lines(found.predicted)), *budget_lines(found.budgets, found.booked)):
        out.print(line)
    if not books.rows:
        out.print(f"No calls are booked since {found.since}.")
        return
    out.print(_table(books))
    for part in (
        "",
        sources(books.totals),
        "",
        *summary(books),
        "",
        "By day: exact hits █, semantic hits ▓, the rest ░",
    ):
        out.print(part)
    for line in bars(books.group("day")):
        out.print(line)


def _table(books: Stats) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("day", "total", no_wrap=True)
    table.add_column("namespace", overflow="fold")
    table.add_column("model", overflow="fold")
    columns = [(title, cell) for title, cell in _COLUMNS if title not in _RARE or cell(books.totals) != "0"]
    for title, cell in columns:
        table.add_column(title, cell(books.totals), justify="right", no_wrap=True)
    for row in books.rows:
        cells = (cell(row.books) for _, cell in columns)
        table.add_row(str(row.day), safe(row.namespace), safe(row.model), *cells)
    return table


def _standing(namespace: str, standing: Standing) -> Iterator[str]:
    """What audits and reports say of a namespace."""
    name = safe(namespace)
    if standing.off:
        yield f"{name}: {standing.reason}. To switch it on again: semcache resume {shlex.quote(name)}"
    bounds = standing.interval()
    if bounds is not None:
        low, high = bounds
        yield (
            f"{name}: {standing.wrong:,} of {standing.audited:,} audited hits wrong, {standing.false_hit_rate:.1%}; "
            f"between {low:.1%} and {high:.1%} at 95 %, however often one looks."
        )
    others = [
        (standing.agreed, "agreed with a fresh answer"),
        (standing.unknown, "could not be judged"),
        (standing.failed, "failed"),
        (standing.dropped, "dropped"),
    ]
    if told := ", ".join(f"{count:,} {what}" for count, what in others if count):
        yield f"{name}: of the other audits {told}."
    if standing.reported_right or standing.reported_wrong:
        yield f"{name}: {standing.reported_right:,} hits reported right, {standing.reported_wrong:,} wrong."


_COLUMNS: Final[tuple[tuple[str, Callable[[Books], str]], ...]] = (
    ("calls", lambda b: f"{b.requests:,}"),
    ("exact", lambda b: f"{b.exact_hits:,}"),
    ("semantic", lambda b: f"{b.semantic_hits:,}"),
    ("stale", lambda b: f"{b.stale.calls:,}"),
    ("collapsed", lambda b: f"{b.collapsed.calls:,}"),
    ("miss", lambda b: f"{b.misses:,}"),
    ("bypass", lambda b: f"{b.bypasses:,}"),
    ("hits", lambda b: "–" if b.hit_rate is None else f"{b.hit_rate:.1%}"),
    ("saved", lambda b: usd(b.saved.usd)),
    ("spent", lambda b: usd(b.spent.usd)),
)
_RARE: Final = {"stale", "collapsed", "bypass"}
"""Columns that are left out while they hold nothing."""


def bars(days: dict[date, Books]) -> list[str]:
    """One line a day, as long as its requests: exact hits, semantic hits, and all others."""
    most = max((books.requests for books in days.values()), default=0)
    lines = []
    for day, books in days.items():
        upto = (books.exact_hits, books.hits, books.requests)
        exact, hits, all_ = (round(BAR_WIDTH * n / most) if most else 0 for n in upto)
        bar = "█" * exact + "▓" * (hits - exact) + "░" * (all_ - hits)
        rate = "" if books.hit_rate is None else f" ({books.hit_rate:.0%})"
        lines.append(f"{day} {bar:<{BAR_WIDTH}} {books.hits:,} of {books.requests:,}{rate}")
    return lines
