"""What a replay shows beyond its totals, as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from semcache.tuning.baselines import best_within
from semcache.tuning.findings import answerable, guard_counts, worst

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from semcache.report import Rate
    from semcache.tuning.analysis import Analysis

_WORST_SHOWN: Final = 5
_FALSE_HIT_RATE: Final = 0.02
_RATES: Final = ("false-hit rate", "unsafe-served rate")


def render_findings(analysis: Analysis, out: Console, safe: Callable[[str | None], str]) -> None:
    """Print the tables that there is data for.

    Args:
        safe: Makes a text of the log harmless to a terminal.
    """
    out.print(_headroom(analysis))
    for table in (
        _policies(analysis),
        _baselines(analysis),
        _best(analysis),
        _guards(analysis),
        _worst(analysis, safe),
    ):
        if table is not None:
            out.print()
            out.print(table)


def _headroom(analysis: Analysis) -> str:
    there, headroom, scopes = answerable(analysis.replay), analysis.headroom.to_dict(), analysis.scopes
    parts = [f"Exact repeats: {_percent(headroom['exact_repeat_rate'])} of requests."]
    if there.value is not None:
        parts.append(f"The right answer was in the cache for {_percent(there.value)} of labelled requests.")
    waiting = analysis.replay.latency_saved_s
    if waiting is not None and analysis.replay.report.books.hits:
        parts.append(f"Hits spared {round(waiting):,} s of waiting, by the log's own times.")
    life = analysis.policies[0].policy.time_bound_ttl
    if analysis.headroom.about_now and life < math.inf:
        share = _percent(headroom["about_now_rate"])
        parts.append(f"{share} of requests are about now; their answers live {life:,.0f} s (time_bound_ttl).")
    if scopes.count > 1:
        parts.append(f"{scopes.count:,} scopes, {scopes.alone:,} of one request, which can never hit.")
        least = next(iter(scopes.without.items()), None)
        if least is not None and least[1] < scopes.count:
            parts.append(f"Without {least[0]} there would be {least[1]:,}.")
    return "\n".join(parts)


def _policies(analysis: Analysis) -> Table | None:
    if len(analysis.policies) < 2:
        return None
    table = _table("policy", "threshold", "probability", "hit rate", "wrong", *_RATES)
    for one in analysis.policies:
        report = one.replay.report
        table.add_row(
            one.name,
            f"{one.policy.threshold:g}",
            f"{one.policy.min_probability:g}",
            _percent(report.books.hit_rate),
            f"{report.wrong_hits:,}" if report.labelled else "?",
            _rate(report.false_hit_rate),
            _rate(report.unsafe_served_rate),
        )
    return table


def _baselines(analysis: Analysis) -> Table | None:
    if analysis.baselines is None:
        return None
    counts = analysis.baselines.counts
    table = _table(f"best baseline at {_FALSE_HIT_RATE:.0%} false hits", "parameter", "hit rate", "wrong", *_RATES)
    for family in dict.fromkeys(one.family for one in counts):
        best = best_within([one for one in counts if one.family == family], _FALSE_HIT_RATE)
        if best is None:
            table.add_row(family, "–", "none keeps it", "–", "–", "–")
        else:
            requests, hits, wrong = best.count
            rates = _rate(best.false_hit_rate), _rate(best.unsafe_served_rate)
            table.add_row(family, f"{best.parameter:g}", _percent(hits / requests), f"{wrong:,}", *rates)
    return table


def _best(analysis: Analysis) -> Table | None:
    found = [one for one in analysis.best if one.policy is not None or one.cosine is not None]
    if not found:
        return None
    table = _table("most hits at false hits of at most", "policy", "hit rate", "plain cosine", "hit rate", "ratio")
    for one in found:
        cosine = one.cosine
        table.add_row(
            f"{one.false_hit_rate:.0%}",
            "none keeps it" if one.policy is None else one.policy.name,
            "–" if one.hit_rate is None else _percent(one.hit_rate),
            "–" if cosine is None else f"{cosine.parameter:g}",
            "–" if cosine is None else _percent(cosine.count.hits / cosine.count.requests),
            "–" if one.ratio is None else f"{one.ratio:.2f}",
        )
    return table


def _guards(analysis: Analysis) -> Table | None:
    counts = guard_counts(analysis.replay.played)
    if not counts:
        return None
    table = _table("guard", "vetoes", "alone", "wrong spared", "right lost")
    for name, one in counts.items():
        table.add_row(name, f"{one.vetoes:,}", f"{one.alone:,}", f"{one.wrong_spared:,}", f"{one.right_lost:,}")
    return table


def _worst(analysis: Analysis, safe: Callable[[str | None], str]) -> Table | None:
    from rich.table import Table

    found = worst(analysis.replay.played, _WORST_SHOWN)
    if not found:
        return None
    table = Table("cosine", "asked", "answered as", title="Wrong hits, most similar first", box=None, pad_edge=False)
    for one in found:
        table.add_row(f"{one.similarity or 0.0:.3f}", safe(one.asked), safe(one.stored))
    return table


def _table(first: str, *numbers: str) -> Table:
    from rich.table import Table

    table = Table(first, box=None, pad_edge=False)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{share:.1%}"


def _rate(rate: Rate) -> str:
    if rate.value is None or rate.low is None or rate.high is None:
        return "?"
    return f"{rate.value:.2%} ({rate.low:.2%}–{rate.high:.2%})"
