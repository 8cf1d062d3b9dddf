"""``semcache stats``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import click

from semcache.cli._common import console, json_option, opened, print_json, safe, store_option

if TYPE_CHECKING:
    from datetime import date

    from rich.table import Table

    from semcache.ledger import Books, Stats

BAR_WIDTH: Final = 40


@click.command()
@store_option
@click.option("--namespace", help="Only this namespace.")
@click.option("--days", default=14, show_default=True, type=click.IntRange(min=1), help="How many days back, UTC.")
@json_option
def stats(store_url: str, namespace: str | None, days: int, as_json: bool) -> None:
    """Show hits, misses, tokens and money, by namespace, model and day."""
    from semcache.ledger import Ledger

    since = datetime.now(timezone.utc).date() - timedelta(days=days - 1)
    with opened(store_url) as store:
        books = Ledger(store).report(namespace=namespace, since=since)
        size = store.stats()
    if as_json:
        print_json({"since": since.isoformat(), "store": size._asdict(), **books.to_dict()})
        return
    out = console()
    held = "" if size.bytes is None else f", {size.bytes / 2**20:.1f} MiB"
    out.print(f"{size.kind} store {size.location}: {size.entries:,} entries{held}")
    if not books.rows:
        out.print(f"No calls are booked since {since}.")
        return
    out.print(_table(books))
    collapsed = books.totals.collapsed
    if collapsed.calls:
        out.print(f"\nCollapsed calls spared {collapsed.tokens:,} more tokens, {_usd(collapsed.usd)}.")
    if unpriced := books.totals.to_dict()["unpriced"]:
        out.print(f"\n{unpriced:,} calls are not in the money: their tokens or the price of their model is unknown.")
    out.print("\nRequests by day: exact hits █, semantic hits ▓, the rest ░")
    for line in bars(books.group("day")):
        out.print(line)


def _table(books: Stats) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("day", "total")
    table.add_column("namespace", overflow="fold")
    table.add_column("model", overflow="fold")
    totals = _cells(books.totals)
    for (title, _), total in zip(_COLUMNS, totals, strict=True):
        table.add_column(title, total, justify="right")
    for row in books.rows:
        table.add_row(str(row.day), safe(row.namespace), safe(row.model), *_cells(row.books))
    return table


def _cells(books: Books) -> list[str]:
    return [cell(books) for _, cell in _COLUMNS]


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _usd(value: Decimal | None) -> str:
    return "–" if value is None else f"${value:,.4f}" if value < 1 else f"${value:,.2f}"


_COLUMNS: Final[tuple[tuple[str, Callable[[Books], str]], ...]] = (
    ("requests", lambda b: f"{b.requests:,}"),
    ("exact", lambda b: f"{b.exact_hits:,}"),
    ("semantic", lambda b: f"{b.semantic_hits:,}"),
    ("collapsed", lambda b: f"{b.collapsed.calls:,}"),
    ("miss", lambda b: f"{b.misses:,}"),
    ("bypass", lambda b: f"{b.bypasses:,}"),
    ("hit rate", lambda b: "–" if b.hit_rate is None else f"{b.hit_rate:.1%}"),
    ("tokens saved", lambda b: _count(b.saved.known_tokens)),
    ("saved", lambda b: _usd(b.saved.usd)),
    ("spent", lambda b: _usd(b.spent.usd)),
    ("time saved", lambda b: f"{b.latency_saved_ms / 1000:,.0f} s"),
)


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
