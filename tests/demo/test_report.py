from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from semcache.report import RunReport
from semcache.types import Outcome, Usage

STABLE_KEYS = {
    "requests", "hits", "exact_hits", "semantic_hits", "collapsed", "hit_rate", "wrong_hits",
    "false_hit_rate", "unsafe_served_rate", "tokens_saved", "usd_saved", "latency_ms",
}  # fmt: skip

EXACT = Outcome("hit", layer="exact", usage=Usage(100, 20), usd_micro=70)
SEMANTIC = Outcome("hit", layer="semantic", usage=Usage(50, 10), usd_micro=40)
MISS = Outcome("miss", usage=Usage(100, 20), usd_micro=70)
COLLAPSED = Outcome("miss", collapsed=True, usage=Usage(100, 20), usd_micro=70)
BYPASS = Outcome("bypass", reason="asked for by the caller")


def run(*calls: tuple[Outcome, bool | None, float]) -> RunReport:
    report = RunReport()
    for outcome, wrong, seconds in calls:
        report.record(outcome, wrong, seconds)
    return report


def printed(report: RunReport) -> str:
    console = Console(file=io.StringIO(), width=120)
    report.render(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_labelled_run() -> None:
    report = run(
        (MISS, False, 1.0),
        (EXACT, False, 0.001),
        (SEMANTIC, True, 0.005),
        (SEMANTIC, False, 0.004),
        (COLLAPSED, False, 0.7),
        (BYPASS, False, 1.2),
    )
    made = report.to_dict()
    assert made["requests"] == 6
    assert (made["exact_hits"], made["semantic_hits"], made["hits"]) == (1, 2, 3)
    assert (made["collapsed"], made["misses"], made["bypasses"]) == (1, 1, 1)
    assert made["hit_rate"] == 0.5
    assert made["wrong_hits"] == 1
    assert made["false_hit_rate"] == pytest.approx(1 / 3)
    assert made["unsafe_served_rate"] == pytest.approx(1 / 6)
    low, high = made["false_hit_rate_ci95"]
    assert (low, high) == (pytest.approx(0.008404, rel=1e-3), pytest.approx(0.905701, rel=1e-3))
    assert made["tokens_saved"] == 240
    assert made["usd_saved"] == pytest.approx(150e-6)
    assert made["latency_ms"]["hit"] == {"p50": pytest.approx(4.0), "p99": pytest.approx(5.0)}
    assert made["latency_ms"]["exact_hit"]["p50"] == pytest.approx(1.0)
    assert made["latency_ms"]["miss"]["p99"] == pytest.approx(1000.0)
    assert made.keys() >= STABLE_KEYS
    text = printed(report)
    assert "1 of 3 hits" in text
    assert "1 of 6 requests" in text
    assert "$0.0002" in text


def test_what_is_not_known_is_null() -> None:
    made = run((MISS, None, 1.0), (Outcome("hit", layer="exact"), None, 0.1)).to_dict()
    assert made["wrong_hits"] is None
    assert made["false_hit_rate"] is None
    assert made["unsafe_served_rate"] is None
    assert made["usd_saved"] is None
    assert made["latency_ms"]["semantic_hit"] is None
    assert "no labels" in printed(run((MISS, None, 1.0)))


def test_labels_count_only_where_they_are() -> None:
    made = run((EXACT, True, 0.1), (EXACT, None, 0.1), (MISS, None, 1.0)).to_dict()
    assert made["false_hit_rate"] == 1.0
    assert made["unsafe_served_rate"] == 1.0
    assert made["labelled"] == made["labelled_hits"] == 1


def test_a_wrong_answer_of_the_upstream_is_not_the_caches() -> None:
    assert run((MISS, True, 1.0), (COLLAPSED, True, 1.0)).to_dict()["wrong_hits"] == 0


def test_an_empty_run() -> None:
    made = RunReport().to_dict()
    assert made["requests"] == 0
    assert made["hit_rate"] is None
    assert "requests" in printed(RunReport())
    assert json.loads(json.dumps(made)) == made


CALLS = st.tuples(
    st.sampled_from([EXACT, SEMANTIC, MISS, COLLAPSED, BYPASS]), st.none() | st.booleans(), st.floats(0, 10)
)


@given(st.lists(CALLS, max_size=40))
@settings(deadline=None)
def test_the_figures_agree_with_each_other(calls: list[tuple[Outcome, bool | None, float]]) -> None:
    made = run(*calls).to_dict()
    assert made["requests"] == len(calls)
    assert made["requests"] == made["hits"] + made["collapsed"] + made["misses"] + made["bypasses"]
    for rate in ("false_hit_rate", "unsafe_served_rate"):
        if made[rate] is not None:
            low, high = made[f"{rate}_ci95"]
            assert low <= made[rate] <= high
    json.dumps(made, allow_nan=False)
