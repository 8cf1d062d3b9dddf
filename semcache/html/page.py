"""One HTML file: tables, plots as SVG inside it, no script, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from semcache.html.plots import render
from semcache.tuning.analysis import FALSE_HIT_RATES
from semcache.tuning.baselines import best_within
from semcache.tuning.findings import answerable, guard_counts, worst

if TYPE_CHECKING:
    from semcache.report import Rate
    from semcache.tuning.analysis import Analysis

_CSS: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #f5f7fa; margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p.note, td.note, figcaption { color: #616e7c; }
p { margin: .4rem 0; max-width: 48rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(12.5rem, 1fr)); gap: .8rem; margin: 1.4rem 0; }
.card { background: #fff; border: 1px solid #e4e7eb; border-radius: 8px; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.card span { color: #616e7c; font-size: .85rem; }
.card i { display: block; color: #616e7c; font-size: .8rem; font-style: normal; }
figure { background: #fff; border: 1px solid #e4e7eb; border-radius: 8px; margin: 1rem 0; padding: .8rem; }
figure img { width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; background: #fff; border: 1px solid #e4e7eb; width: 100%; font-size: .92rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #e4e7eb; text-align: left; vertical-align: top; }
th { background: #f0f4f8; font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td { overflow-wrap: anywhere; }
"""

_FIGURES: Final = {
    "hits-over-time": "Each bar is a part of the log with equally many requests.",
    "hit-rate-and-false-hits": "To the right is more use, down is fewer wrong answers.",
    "cumulative": "A cache that fills hits more often with time; what it gets wrong should not grow with it.",
    "similarity": "Where red lies under green, no threshold can part right from wrong.",
}


def page(analysis: Analysis, title: str = "Replay of a query log") -> str:
    """The report as one HTML document.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    sections = (
        _cards(analysis),
        *_figures(analysis),
        _policies(analysis),
        _baselines(analysis),
        _best(analysis),
        _guards(analysis),
        _worst(analysis),
        _scopes(analysis),
        _method(analysis),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body><main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="note">{escape(", ".join(analysis.logs))}</p>\n'
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )


def _cards(analysis: Analysis) -> str:
    replay = analysis.replay
    report, books = replay.report, replay.report.books
    there = answerable(replay)
    saved, latency = books.saved.usd, replay.latency_saved_s
    cards = [
        ("requests", f"{books.requests:,}", f"{books.misses:,} misses, {books.bypasses:,} bypassed"),
        ("hit rate", _percent(books.hit_rate), f"{books.exact_hits:,} exact, {books.semantic_hits:,} semantic"),
        ("false-hit rate", _percent(report.false_hit_rate.value, 2), _interval(report.false_hit_rate, "hits")),
        ("unsafe-served rate", _percent(report.unsafe_served_rate.value, 2), _interval(report.unsafe_served_rate)),
        ("answerable", _percent(there.value), "the right answer was in the cache"),
        ("money saved", "?" if saved is None else f"${saved:,.2f}", _spent(analysis)),
        ("scopes", f"{analysis.scopes.count:,}", f"{analysis.scopes.alone:,} of one request, which can never hit"),
        ("time saved", "?" if latency is None else _duration(latency), "of waiting, by the log's own times"),
    ]
    body = "".join(
        f'<div class="card"><span>{escape(name)}</span><b>{escape(value)}</b><i>{escape(note)}</i></div>'
        for name, value, note in cards
    )
    return f'<div class="cards">{body}</div>'


def _spent(analysis: Analysis) -> str:
    spent = analysis.replay.report.books.spent.usd
    return "no prices or no usage in the log" if spent is None else f"${spent:,.2f} spent"


def _figures(analysis: Analysis) -> Iterable[str]:
    for name, picture in render(analysis, "svg"):
        data = base64.b64encode(picture).decode("ascii")
        yield (
            f'<figure><img alt="{escape(name.replace("-", " "))}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{escape(_FIGURES[name])}</figcaption></figure>"
        )


def _policies(analysis: Analysis) -> str:
    if len(analysis.policies) < 2:
        return ""
    rows = []
    for one in analysis.policies:
        report = one.replay.report
        rows.append(
            (
                one.name,
                f"{one.policy.threshold:g}",
                f"{one.policy.min_probability:g}",
                _percent(report.books.hit_rate),
                f"{report.wrong_hits:,}" if report.labelled else "?",
                _with_interval(report.false_hit_rate),
                _with_interval(report.unsafe_served_rate),
            )
        )
    header = ("policy", "threshold", "probability", "hit rate", "wrong", "false hits", "unsafe served")
    return _section("Policies", _table(header, rows, 1))


def _best(analysis: Analysis) -> str:
    rows = [
        (
            f"≤ {_percent(one.false_hit_rate, 0)}",
            "none keeps it" if one.policy is None else one.policy.name,
            "–" if one.hit_rate is None else _percent(one.hit_rate),
            "–" if one.cosine is None else f"{one.cosine.parameter:g}",
            "–" if one.cosine is None else _percent(one.cosine.count.hits / one.cosine.count.requests),
            "–" if one.ratio is None else f"{one.ratio:.2f}",
        )
        for one in analysis.best
    ]
    text = "Of all that was replayed, as observed: the best for this very log, which nobody knows beforehand."
    header = ("false hits", "policy", "hit rate", "plain cosine", "hit rate", "ratio")
    return _section("Most hits", _table(header, rows, 2), text) if rows else ""


def _baselines(analysis: Analysis) -> str:
    if analysis.baselines is None:
        return ""
    counts = analysis.baselines.counts
    rows = []
    for family in dict.fromkeys(one.family for one in counts):
        for rate in FALSE_HIT_RATES:
            best = best_within([one for one in counts if one.family == family], rate)
            if best is None:
                rows.append((family, _percent(rate, 0), "–", "none keeps it", "–", "–", "–"))
            else:
                requests, hits, wrong = best.count
                rates = _with_interval(best.false_hit_rate), _with_interval(best.unsafe_served_rate)
                figures = (_percent(hits / requests), f"{wrong:,}", *rates)
                rows.append((family, _percent(rate, 0), f"{best.parameter:g}", *figures))
    text = (
        "What simpler caches do on the same log: one cosine for all questions, and vCache's threshold for each entry "
        "(its parameter bounds wrong answers per request, not per hit). The parameter is the best for this very log, "
        "chosen by its labels, which nobody has beforehand."
    )
    header = ("baseline", "false hits ≤", "parameter", "hit rate", "wrong", "false hits", "unsafe served")
    return _section("Baselines", _table(header, rows, 1), text)


def _guards(analysis: Analysis) -> str:
    counts = guard_counts(analysis.replay.played)
    if not counts:
        return ""
    rows = [
        (name, f"{one.vetoes:,}", f"{one.alone:,}", f"{one.wrong_spared:,}", f"{one.right_lost:,}")
        for name, one in counts.items()
    ]
    text = (
        "Misses where a stored question was near enough and a guard, or the probability of being right, stood against "
        "it. A miss may count for several; alone means that nothing else did."
    )
    header = ("guard", "vetoes", "alone", "wrong answers spared", "right answers lost")
    return _section("Guards", _table(header, rows, 1), text)


def _worst(analysis: Analysis) -> str:
    found = worst(analysis.replay.played)
    if not found:
        return ""
    rows = [
        (f"{one.similarity or 0.0:.3f}", one.asked or "", one.stored or "", one.record.label or "", one.given or "")
        for one in found
    ]
    table = _table(("cosine", "asked", "answered as", "class asked", "class served"), rows, 0, texts=True)
    return _section("Wrong hits, most similar first", table)


def _scopes(analysis: Analysis) -> str:
    scopes, headroom = analysis.scopes, analysis.headroom.to_dict()
    rows = [
        ("exact repeats", _percent(headroom["exact_repeat_rate"]), "the exact tier's part"),
        ("answerable by an earlier request", _percent(headroom["answerable_rate"]), "same class, same scope"),
        ("the same, were there no scopes", _percent(headroom["answerable_without_scopes_rate"]), "same class"),
        ("requests about now", _percent(headroom["about_now_rate"]), "their answers live for time_bound_ttl"),
        ("scopes", f"{scopes.count:,}", f"the largest has {_percent(scopes.largest / max(1, scopes.requests))}"),
        ("requests alone in their scope", f"{scopes.alone:,}", "they can never hit"),
    ]
    rows += [(f"scopes without {name}", f"{count:,}", "") for name, count in scopes.without.items()]
    text = "Everything but the last user text must match exactly: it is the scope. Scopes share no answers."
    return _section("Headroom and scopes", _table(("", "", ""), rows, 1, notes=True), text)


def _method(analysis: Analysis) -> str:
    replay, first = analysis.replay, analysis.policies[0]
    speed = replay.report.books.requests / replay.lookup_s if replay.lookup_s else 0.0
    text = (
        f"Replayed in the order of the log through the cache itself, from empty, under {first.name} (threshold "
        f"{first.policy.threshold:g}). {replay.embedded:,} texts were embedded in {_duration(replay.embedding_s)}; "
        f"look-ups ran at {speed:,.0f} a second. Intervals are exact (Clopper–Pearson), at 95 %. The false-hit rate is "
        "wrong hits per hit, the unsafe-served rate wrong hits per request, both of labelled requests."
    )
    return _section("Method", "", text)


def _section(heading: str, body: str, text: str = "") -> str:
    note = f'<p class="note">{escape(text)}</p>' if text else ""
    return f'<h2>{escape(heading)}</h2>{note}<div class="wide">{body}</div>'


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int, *, texts: bool = False, notes: bool = False
) -> str:
    """A table; cells from column ``numbers_from`` on are numbers, unless they are ``texts`` or the last is a note."""

    def kind(column: int) -> str:
        if texts:
            return ' class="n"' if column == 0 else ""
        if notes and column == len(header) - 1:
            return ' class="note"'
        return ' class="n"' if column >= numbers_from else ""

    head = "".join(f"<th{kind(column)}>{escape(name)}</th>" for column, name in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f"<td{kind(column)}>{escape(cell)}</td>" for column, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if any(header) else ''}<tbody>{body}</tbody></table>"


def _percent(share: float | None, digits: int = 1) -> str:
    return "?" if share is None else f"{100 * share:.{digits}f} %"


def _interval(rate: Rate, of: str = "requests") -> str:
    if rate.low is None or rate.high is None:
        return f"no labelled {of}"
    return f"95 % interval {_percent(rate.low, 2)} – {_percent(rate.high, 2)}"


def _with_interval(rate: Rate) -> str:
    if rate.low is None or rate.high is None:
        return "?"
    return f"{_percent(rate.value, 2)} ({100 * rate.low:.2f}–{100 * rate.high:.2f})"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{round(seconds, 1) + 0.0:,.1f} s"  # not "-0.0"
