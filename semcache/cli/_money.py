"""Where the money of a report came from and went to, as lines and a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from semcache.cli._common import safe
from semcache.money.prices import dollars

if TYPE_CHECKING:
    from rich.table import Table

    from semcache.money.books import Books, Line
    from semcache.money.budgets import BudgetState
    from semcache.money.rows import Stats

_MODELS_SHOWN: Final = 8


def sources(totals: Books) -> Table:
    """What was saved by each source, and what the cache itself paid for; sources without a call are left out."""
    from rich.table import Table

    table = Table("source", box=None, pad_edge=False)
    for title in ("calls", "tokens", "saved"):
        table.add_column(title, justify="right", no_wrap=True)
    for title, line, sign in _sources(totals):
        if line.calls:
            amount = None if line.usd is None else sign * line.usd
            table.add_row(title, f"{line.calls:,}", count(line.known_tokens), usd(amount))
    return table


def _sources(totals: Books) -> Iterator[tuple[str, Line, int]]:
    yield "exact hits", totals.exact, 1
    yield "semantic hits", totals.semantic, 1
    yield "stale answers", totals.stale, 1
    yield "collapsed calls", totals.collapsed, 1
    yield "provider's cache, reads", totals.reads, 1
    yield "provider's cache, writes", totals.writes, 1
    yield "embedding", totals.embedding, -1
    yield "verifier", totals.verifier, -1
    yield "audits", totals.audit, -1


def summary(books: Stats) -> Iterator[str]:
    """What the calls would have cost, what they did, and which of them are not in that."""
    totals = books.totals
    figures = totals.to_dict()
    if figures["usd_net_saved"] is not None:
        without, paid, net = (dollars(totals.without_usd_micro), dollars(totals.paid_usd_micro), totals.net_usd_micro)
        share = f" ({net / totals.without_usd_micro:.1%})" if totals.without_usd_micro > 0 else ""
        yield f"Without any cache: {without}. Paid: {paid}. Saved: {dollars(net)}{share}."
    sooner = round(totals.latency_saved_ms / 1000, 1) + 0.0  # not "-0.0"
    yield f"Hits came {sooner:,} s sooner."
    if totals.shadow.calls:
        shadow, hits = totals.shadow, f"{totals.shadow_exact_hits:,} exact and {totals.shadow_semantic_hits:,} semantic"
        yield f"Withheld: {hits} hits, which would have saved {count(shadow.known_tokens)} tokens, {usd(shadow.usd)}."
    if totals.refused:
        yield f"Refused by a budget: {totals.refused:,} calls."
    if figures["estimated"]:
        yield f"The tokens of {figures['estimated']:,} calls are estimates, ±30 %."
    yield from _not_in_the_money(books, figures["unpriced"])


def _not_in_the_money(books: Stats, unpriced: int) -> Iterator[str]:
    models = books.unpriced()
    if unmetered := unpriced - sum(line.calls for line in models.values()):
        yield f"Not in the money: {unmetered:,} calls whose tokens nobody counted (failed calls among them)."
    if models:
        shown = [f"{safe(model)} ({line.calls:,})" for model, line in list(models.items())[:_MODELS_SHOWN]]
        more = [f"{len(models) - _MODELS_SHOWN:,} more"] if len(models) > _MODELS_SHOWN else []
        yield f"Not in the money, as no price is known (--prices FILE sets one): calls of {', '.join(shown + more)}."


def outside(state: BudgetState, books: Stats) -> int:
    """Micro-dollars that the books have more than a budget counts: what caches without one paid on the same store."""
    rows = (row for row in books.rows if row.day == state.day and state.namespace in (None, row.namespace))
    return max(sum(row.books.paid_usd_micro for row in rows) - state.spent_usd_micro, 0)


def budget_lines(states: Iterable[BudgetState], books: Stats) -> Iterator[str]:
    """How the budgets stand today."""
    for state in states:
        whose = "all namespaces" if state.namespace is None else safe(state.namespace)
        spent, whole = dollars(state.spent_usd_micro), dollars(state.usd_micro)
        more = outside(state, books)
        rest = f" Caches without a budget paid {dollars(more)} more." if more else ""
        yield f"Budget of {whose} today (UTC): {spent} of {whole}, {state.share:.0%}.{rest}"


def count(value: int | None) -> str:
    """A number, or a dash for what is not known."""
    return "–" if value is None else f"{value:,}"


def usd(value: Decimal | None) -> str:
    """Dollars; a dash for what is not known."""
    return "$ –" if value is None else dollars(int(value.scaleb(6)))
