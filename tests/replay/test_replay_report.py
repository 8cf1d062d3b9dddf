"""The command with all that it writes: JSON, tables, the HTML page and its plots."""

from __future__ import annotations

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from semcache.cli import main
from semcache.testing.upstream import Upstream
from semcache.tuning.logs import LogRecord

POLICY = "threshold = 0.9\nmin_probability = 0.0\nguards = []\n"
HOSTILE = "<script>alert('x')</script> & how do I reset my password?"


def run(*args: object, code: int = 0, **kwargs: Any) -> Result:
    result = CliRunner().invoke(main, ["replay", *map(str, args)], **kwargs)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def log(tmp_path: Path, log_records: list[LogRecord]) -> Path:
    rows = [{"text": r.messages[0]["content"], "cls": r.label, "ts": r.ts, "latency_s": 2} for r in log_records]
    rows += [{"text": HOSTILE, "cls": label, "ts": 1_800_000_000} for label in ("trap", "a wrong hit")]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


def test_json_has_it_all(log: Path, policy: Path) -> None:
    other = policy.with_name("exact.toml")
    other.write_text("semantic = false\n")
    args = ("--policy", policy, "--policy", other, "--sweep", "0.8:0.9:0.1", "--baselines", "--json")
    found = json.loads(run(log, *args).stdout)
    assert [one["name"] for one in found["policies"]] == [str(policy), str(other), "threshold 0.8", "threshold 0.9"]
    first, exact, lower, same = found["policies"]
    assert exact["semantic_hits"] == 0 < first["semantic_hits"] <= lower["semantic_hits"]
    assert {**same, "name": "", "latency_saved_s": 0} == {**first, "name": "", "latency_saved_s": 0}
    assert all(found[key] == first[key] for key in ("requests", "hits", "wrong_hits", "false_hit_rate"))
    assert sum(window["requests"] for window in found["over_time"]) == found["requests"] == 42
    assert found["headroom"]["answerable_rate"] > found["answerable_rate"] - 1e-9 > 0.5
    assert found["scopes"]["count"] == 1
    assert {one["family"] for one in found["baselines"]} >= {"static", "vcache, insert always"}
    assert found["span_seconds"] > 0


def test_records_are_played_in_the_order_of_time(log: Path, policy: Path) -> None:
    """The file is backwards: played so, other questions would be the first of their class."""
    found = json.loads(run(log, "--policy", policy, "--json").stdout)
    assert found["over_time"][0]["ts"] == 1_700_000_000
    assert json.loads(run(log, "--limit", 1, "--policy", policy, "--json").stdout)["over_time"][0]["ts"] == 1.7e9


class Page(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_but_itself_and_runs_nothing(tmp_path: Path, log: Path, policy: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "report.html"
    run(log, "--policy", policy, "--sweep", "0.8:0.9:0.05", "--baselines", "--html", out)
    source = out.read_text(encoding="utf-8")
    page = Page(source)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")]
    images = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4
    for image in images:
        assert ElementTree.fromstring(base64.b64decode(image.partition("base64,")[2])).tag.endswith("svg")
    assert not re.search(r"(?:src|href)=.(?!data:)", source)
    assert HOSTILE in page.text
    for word in ("unsafe-served rate", "vcache", "Headroom", "threshold 0.85", "log.jsonl"):
        assert word in page.text


def test_a_log_without_labels_has_a_page_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    log = tmp_path / "log"
    log.write_text('{"text": "a"}\n{"text": "a"}\n')
    out = tmp_path / "report.html"
    run(log, "--html", out)
    page = Page(out.read_text())
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert "no labelled hits" in page.text


def test_the_plots_are_pictures(tmp_path: Path, log: Path, policy: Path) -> None:
    pytest.importorskip("matplotlib")
    run(log, "--policy", policy, "--png", tmp_path / "plots")
    pictures = sorted(tmp_path.glob("plots/*.png"))
    assert [picture.stem for picture in pictures] == ["cumulative", "hits-over-time", "similarity"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_probabilities_and_closed_answers_are_compared_too(log: Path) -> None:
    args = ("--sweep", "0.8:0.9:0.1", "--sweep-probability", "0.5:0.9:0.4", "--answers", "closed", "--baselines")
    args = (*args, "--limit", "40")  # without the trap, which every policy falls into
    found = json.loads(run(log, *args, "--json").stdout)
    names = ["default policy", "answers closed"]
    names += [f"threshold {t}, probability {p}" for t in (0.8, 0.9) for p in (0.5, 0.9)]
    assert [one["name"] for one in found["policies"]] == names
    assert [one["answers"] for one in found["policies"][:3]] == ["free", "closed", "free"]
    hits = {one["name"]: one["hits"] for one in found["policies"]}
    assert hits["threshold 0.8, probability 0.5"] >= hits["threshold 0.8, probability 0.9"]
    assert [one["max_false_hit_rate"] for one in found["best"]] == [0.01, 0.02, 0.05]
    assert all(one["policy"] in names for one in found["best"])
    shown = run(log, *args).stdout
    assert "most hits at false hits of at most" in shown
    assert shown.count("unsafe-served rate") >= 2


def test_the_tables(log: Path, policy: Path) -> None:
    shown = run(log, "--policy", policy, "--sweep", "0.8:0.9:0.1", "--baselines").stdout
    for words in (
        "best baseline at 2% false hits",
        "threshold 0.8",
        "The right answer was in the cache for",
        "s of waiting",
    ):
        assert words in shown


def test_an_interrupted_run_goes_on_from_its_vectors(tmp_path: Path, log: Path, policy: Path) -> None:
    args = (log, "--policy", policy, "--checkpoint", tmp_path / "vectors", "--json")
    run(*args[:3], "--limit", 20, *args[3:])
    size = (tmp_path / "vectors").stat().st_size
    whole = json.loads(run(*args).stdout)
    assert (tmp_path / "vectors").stat().st_size > size
    again, fresh = (json.loads(run(*some).stdout) for some in (args, (log, "--policy", policy, "--json")))
    for key in ("hits", "wrong_hits", "over_time", "worst_wrong_hits"):
        assert whole[key] == again[key] == fresh[key]


# Judges ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    path = tmp_path / "unlabelled"
    path.write_text('{"text": "How do I reset my password?"}\n{"text": "How can I reset my password?"}\n')
    return path


def test_a_function_judges(unlabelled: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judges = "def never(asked, stored):\n    return 0.1\n\ndef broken(asked, stored):\n    raise OSError('no line')\n"
    (tmp_path / "my_judges_of_replay.py").write_text(judges)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    args = (unlabelled, "--policy", policy, "--judge", "my_judges_of_replay:never", "--json")
    assert "about 1 pair of texts, price unknown" in run(*args, code=2).stderr
    found = json.loads(run(*args, "--yes").stdout)
    assert (found["hits"], found["wrong_hits"], found["false_hit_rate"]) == (1, 1, 1.0)
    assert found["unsafe_served_rate"] == 0.5
    broken = run(unlabelled, "--policy", policy, "--judge", "my_judges_of_replay:broken", "--yes", code=1)
    assert "the judge failed: OSError: no line" in broken.stderr


def test_a_file_judges_without_being_paid(unlabelled: Path, policy: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    row = {"a": "How can I reset my password?", "b": "How do I reset my password?", "label": 1}
    labels.write_text(json.dumps(row) + "\n")
    found = json.loads(run(unlabelled, "--policy", policy, "--judge-file", labels, "--json").stdout)
    assert (found["hits"], found["wrong_hits"]) == (1, 0)


def test_a_model_judges_and_is_paid_once(unlabelled: Path, policy: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from semcache.verifiers.llm import prompt_for

    prompt = prompt_for("How can I reset my password?", "How do I reset my password?")
    with Upstream(answers={prompt: "No"}) as upstream:
        env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": upstream.openai_url, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        args = (unlabelled, "--policy", policy, "--judge-model", "gpt-5-mini", "--json")
        refused = run(*args, code=2, env=env)
        assert re.search(r"1 pair of texts, about \d+ tokens, about \$0\.000\d", refused.stderr)
        assert upstream.calls() == 0
        for _ in range(2):
            assert json.loads(run(*args, "--yes", env=env).stdout)["wrong_hits"] == 1
        assert upstream.calls() == 1


@pytest.mark.parametrize(
    "args",
    [
        ("--sweep", "0.8"),
        ("--judge", "json:loads", "--judge-model", "m"),
        ("--judge", "nothing"),
        ("--store", "memory://", "--sweep", "0.8:0.9:0.1"),
        ("--store", "memory://", "--max-entries", "3"),
        ("--store", "memory://", "--answers", "closed"),
        ("--sweep-probability", "0.5:1.5:0.1"),
        ("--html", "/no/such/folder/report.html"),
        ("--png", "/proc/no/such/folder"),
        ("--checkpoint", "/no/such/folder/vectors"),
        ("--policy", "/no/such/policy.toml"),
        ("--latency-field", "took"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_done(unlabelled: Path, args: tuple[str, ...]) -> None:
    assert run(unlabelled, *args, code=2).stdout == ""


def test_a_store_that_does_not_answer_is_no_cache_that_never_hits(unlabelled: Path) -> None:
    failed = run(unlabelled, "--store", "redis://127.0.0.1:1", code=1)
    assert failed.stdout == ""
    assert "Error: redis://127.0.0.1:1: " in failed.stderr
