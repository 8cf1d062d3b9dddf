"""The plots of a report, by matplotlib (extra ``report``). No window system is touched."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal

from semcache.errors import MissingExtraError
from semcache.tuning.findings import over_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from semcache.tuning.analysis import Analysis
    from semcache.tuning.baselines import BaselineCount
    from semcache.tuning.compare import Compared

BLUE: Final = "#2f6db5"
LIGHT_BLUE: Final = "#a9c8ea"
RED: Final = "#c0392b"
GREEN: Final = "#3c8d5a"
ORANGE: Final = "#d9822b"
GREY: Final = "#7b8794"

_STYLE: Final = {
    "font.size": 10.0,
    "font.family": "sans-serif",
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": "#323f4b",
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "svg.hashsalt": "semcache",
}

Plot = Callable[["Figure", "Analysis"], None]


def render(analysis: Analysis, kind: Literal["svg", "png"]) -> Iterator[tuple[str, bytes]]:
    """Every plot that the analysis has data for: its name, and the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with _styled() as figure_of:
        for name, plot in _plots(analysis).items():
            figure = figure_of(figsize=(9.0, 4.2), layout="constrained")
            plot(figure, analysis)
            picture = io.BytesIO()
            when: dict[str, Any] = {"Date": None} if kind == "svg" else {}
            figure.savefig(picture, format=kind, dpi=150, metadata=when)
            yield name, picture.getvalue()


@contextmanager
def _styled() -> Iterator[type[Figure]]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield Figure


def _plots(analysis: Analysis) -> dict[str, Plot]:
    report = analysis.replay.report
    found: dict[str, Plot] = {"hits-over-time": _hits_over_time}
    if report.labelled:
        if len(analysis.policies) > 1 or analysis.baselines is not None:
            found["hit-rate-and-false-hits"] = _trade_off
        found["cumulative"] = _cumulative
    if analysis.baselines is not None and len(analysis.baselines.nearest):
        found["similarity"] = _nearest
    elif report.books.semantic_hits:
        found["similarity"] = _similarity_of_hits
    return found


def _trade_off(figure: Figure, analysis: Analysis) -> None:
    """Hit rate against false-hit rate, for all that was played."""
    axes = figure.subplots()
    baselines = () if analysis.baselines is None else analysis.baselines.counts
    families = list(dict.fromkeys(one.family for one in baselines))
    for family, colour, mark in zip(families, (GREY, ORANGE, GREEN), "o^v", strict=False):
        points = [one for one in baselines if one.family == family and one.count.hits]
        label = "one cosine for all, no guards" if family == "static" else family.replace("vcache", "vCache")
        _curve(axes, [_baseline_point(one) for one in points], label, colour, mark)
    first, *others = analysis.policies
    swept = [one for one in others if one.name.startswith(("threshold ", "probability "))]
    label = "the policy at other thresholds"
    for _, curve in groupby(sorted(swept, key=_probability), _probability):  # one curve for each least probability
        _curve(axes, [point for one in curve if (point := _point(one))], label, LIGHT_BLUE, "o")
        label = "_nolegend_"
    for one in others:
        if one not in swept and (point := _point(one)):
            axes.plot(*point, "D", color=BLUE, markersize=6)
            axes.annotate(one.name, point, xytext=(6, 4), textcoords="offset points", color=BLUE, fontsize=9)
    if point := _point(first):
        low, high = first.replay.report.false_hit_rate[1:]
        assert low is not None
        assert high is not None
        spread = [[point[1] - 100 * low], [100 * high - point[1]]]
        axes.errorbar(*point, yerr=spread, color=BLUE, capsize=3, linewidth=1.2, zorder=4)
        axes.plot(*point, "*", color=BLUE, markersize=15, label=f"{first.name} (95 % interval)", zorder=5)
    axes.set(xlabel="hit rate, % of requests", ylabel="wrong, % of hits", title="Hits and wrong hits")
    axes.set_xlim(left=0.0)
    axes.set_ylim(bottom=0.0)
    axes.legend(loc="upper left", fontsize=9)


def _probability(one: Compared) -> float:
    return one.policy.min_probability


def _curve(axes: Axes, points: Sequence[tuple[float, float]], label: str, colour: str, mark: str) -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, f"{mark}-", color=colour, markersize=4, linewidth=1.3, label=label)


def _point(one: Compared) -> tuple[float, float] | None:
    report = one.replay.report
    if not report.labelled_hits:
        return None
    return 100 * (report.books.hit_rate or 0.0), 100 * report.wrong_hits / report.labelled_hits


def _baseline_point(one: BaselineCount) -> tuple[float, float]:
    return 100 * one.count.hits / one.count.requests, 100 * one.count.wrong / one.count.hits


def _hits_over_time(figure: Figure, analysis: Analysis) -> None:
    """Hit rate by layer, part by part of the log."""
    axes = figure.subplots()
    windows = over_time(analysis.replay.played)
    x = [window.first + window.requests / 2 for window in windows]
    width = [window.requests * 0.9 for window in windows]
    exact = [100 * window.exact_hits / window.requests for window in windows]
    semantic = [100 * window.semantic_hits / window.requests for window in windows]
    axes.bar(x, exact, width, color=BLUE, label="exact")
    axes.bar(x, semantic, width, bottom=exact, color=LIGHT_BLUE, label="semantic")
    axes.set(ylabel="hits, %", title="Hits by layer, from a cold start")
    _count_requests(axes, len(analysis.replay.played))
    axes.set_ylim(bottom=0.0)
    axes.legend(loc="upper left", ncols=2, fontsize=9)


def _count_requests(axes: Axes, count: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("requests")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(0, count)


def _cumulative(figure: Figure, analysis: Analysis) -> None:
    """Hits and what could have been one, and wrong hits, from the start up to each request."""
    import numpy as np

    left, right = figure.subplots(1, 2)
    played = analysis.replay.played
    x = np.arange(1, len(played) + 1)
    for axes, title in ((left, "Hits up to here"), (right, "Wrong hits up to here")):
        axes.set_title(title)
        _count_requests(axes, len(played))
    could = np.cumsum([one.answerable is True for one in played])
    if could[-1]:
        left.plot(x, 100 * could / x, color=GREY, linewidth=1.3, linestyle="--", label="the right answer was there")
    hits = np.cumsum([one.layer is not None for one in played])
    left.plot(x, 100 * hits / x, color=BLUE, linewidth=1.8, label="hits")
    left.set(ylabel="% of requests", ylim=(0, 100))
    left.legend(loc="best", fontsize=9)
    graded = np.cumsum([one.layer is not None and one.wrong is not None for one in played])
    wrong = np.cumsum([one.wrong is True for one in played])
    right.plot(x, 100 * wrong / np.maximum(graded, 1), color=RED, linewidth=1.8, label="% of hits")
    right.plot(x, 100 * wrong / x, color=RED, linewidth=1.2, linestyle=":", label="% of requests")
    right.set_ylabel("%")
    right.set_ylim(0.0, max(1.0, 150 * wrong[-1] / max(graded[-1], 1)))
    right.legend(loc="upper left", fontsize=9)


def _nearest(figure: Figure, analysis: Analysis) -> None:
    assert analysis.baselines is not None
    cosines, right = analysis.baselines.nearest, analysis.baselines.right
    axes = figure.subplots()
    _histogram(axes, cosines[right].tolist(), cosines[~right].tolist())
    axes.set(xlabel="cosine of the nearest earlier question", title="What cosine can and cannot tell")


def _similarity_of_hits(figure: Figure, analysis: Analysis) -> None:
    hits = [one for one in analysis.replay.played if one.layer == "semantic" and one.similarity is not None]
    axes = figure.subplots()
    _histogram(
        axes,
        [one.similarity or 0.0 for one in hits if one.wrong is False],
        [one.similarity or 0.0 for one in hits if one.wrong],
        [one.similarity or 0.0 for one in hits if one.wrong is None],
    )
    axes.set(xlabel="cosine", title="Semantic hits by cosine")


def _histogram(axes: Axes, right: Sequence[float], wrong: Sequence[float], unknown: Sequence[float] = ()) -> None:
    everything = (*right, *wrong, *unknown)
    edges = [min(everything) + (1.0 - min(everything)) * step / 50 for step in range(51)]
    for values, colour, label in ((right, GREEN, "right"), (wrong, RED, "wrong"), (unknown, GREY, "no label")):
        if values:
            axes.hist(values, edges, color=colour, alpha=0.6, label=f"{label}: {len(values):,}")
    axes.set_ylabel("requests")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend(loc="upper left", fontsize=9)
