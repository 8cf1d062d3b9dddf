"""The commands, with the installed embedder, on small files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tuning_rows import TASKS, Rows, write

from semcache.cli import main
from semcache.policy import Evidence, Policy
from semcache.tuning.logs import LogRecord
from semcache.tuning.pairs import read_pairs
from semcache.tuning.prepare import Space, of_log
from semcache.tuning.remembered import Remembered
from semcache.tuning.settings import SOFT


def run(*args: str, code: int = 0, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(main, args, input=stdin)
    assert result.exit_code == code, result.output
    return result


def run_json(*args: str, code: int = 0) -> Any:
    return json.loads(run(*args, "--json", code=code).stdout)


# score ---------------------------------------------------------------------------------------------------------------


def test_score_counts_what_the_policy_accepts(pair_rows: Rows, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", pair_rows)
    found = run_json("score", path)
    assert len(found["pairs"]) == found["total"] == 40
    served = [pair for pair in found["pairs"] if pair["decision"] == "serve"]
    assert found["accepted"] == len(served) == found["right"] + found["wrong"]
    assert found["recall"] == found["right"] / 20
    assert found["false_accept_rate"] == found["wrong"] / 20
    assert found["wrong"] == 0 < found["right"]
    assert all(pair["reasons"] for pair in found["pairs"] if pair["decision"] == "reject")
    assert all(pair["probability"] >= 0.85 for pair in served)
    low, high = found["false_accept_rate_ci95"]
    assert low == 0 < high < 0.2


def test_score_judges_by_the_policy_and_fields_that_are_given(pair_rows: Rows, tmp_path: Path) -> None:
    rows = [{"q": row["a"], "stored": row["b"], "same": str(row["label"])} for row in pair_rows]
    path = write(tmp_path / "pairs.jsonl", rows)
    policy = tmp_path / "p.toml"
    policy.write_text("threshold = 0.5\nmin_probability = 0.0\nguards = []\n")
    names = ("--a-field", "q", "--b-field", "stored", "--label-field", "same")
    assert run_json("score", path, *names, "--policy", str(policy))["accepted"] == 40
    policy.write_text("semantic = false\n")
    assert run_json("score", path, *names, "--policy", str(policy))["accepted"] == 0


def test_score_prints_a_table_and_the_wrong_ones(pair_rows: Rows, tmp_path: Path) -> None:
    rows = [{**row, "label": 0, "b": row["b"] + "\x1b[31m"} for row in pair_rows[:2]]
    policy = tmp_path / "p.toml"
    policy.write_text("threshold = 0.5\nmin_probability = 0.0\nguards = []\n")
    shown = run("score", write(tmp_path / "pairs.jsonl", rows), "--policy", str(policy)).stdout
    assert "false-accept rate" in shown
    assert "100.00%" in shown
    assert "How can I reset my password?" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("command", [("score",), ("tune", "--max-false-hit-rate", "0.1", "-o", "p.toml")])
def test_a_bad_line_costs_one_line_and_exit_code_2(command: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [{"a": "x?", "b": "y?", "label": 1}, {"a": "x?", "label": 1}])
    result = run(*command, path, code=2)
    assert result.stderr == f"Error: {path}:2: no field 'b'; the line has a, label\n"
    assert result.stdout == ""


def test_a_policy_for_another_embedder_is_refused(pair_rows: Rows, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", pair_rows)
    policy = str(tmp_path / "p.toml")
    Policy(evidence=Evidence("another", max_false_hit_rate=0.1, confidence=0.9)).save(policy)
    for command in (("score", path, "--policy", policy), ("certify", policy, path)):
        assert "made for the embedder 'another'" in run(*command, code=2).stderr


# tune and certify ----------------------------------------------------------------------------------------------------


def test_tune_on_pairs_and_certify(pair_rows: Rows, embedder: Remembered, tmp_path: Path) -> None:
    path, policy = write(tmp_path / "pairs.jsonl", pair_rows), str(tmp_path / "p.toml")
    found = run_json("tune", path, "--max-false-hit-rate", "0.3", "--confidence", "0.9", "-o", policy)
    assert found["semantic"] is True
    assert found["wrong"] == 0
    assert found["hits"] >= 7  # the fewest that show 30 % at 90 %
    tuned = Policy.load(policy)
    assert tuned.threshold == found["slices"][0]["threshold"]
    evidence = tuned.evidence
    assert evidence is not None
    assert (evidence.fingerprint, evidence.data) == (embedder.fingerprint, ("pairs.jsonl",))
    assert (evidence.max_false_hit_rate, evidence.confidence) == (0.3, 0.9)
    assert (evidence.requests, evidence.hits, evidence.wrong_hits) == (20, found["hits"], 0)

    certified = run_json("certify", policy, path)
    assert (certified["verdict"], certified["requests"]) == ("holds", 40)
    assert certified["upper_bound"] <= 0.3
    assert run_json("certify", policy, path, "--max-false-hit-rate", "0.01", code=1)["verdict"] == "not shown"
    assert run_json("certify", policy, path, "--confidence", "0.9999", code=1)["verdict"] == "not shown"

    turned = write(tmp_path / "turned.jsonl", [{**row, "label": 1 - row["label"]} for row in pair_rows])
    result = run("certify", policy, turned, code=1)
    assert result.stdout.startswith("Broken: at most 30 % of hits are wrong, at 90 % confidence.")
    assert result.stderr == ""


def test_tune_on_a_log_and_certify(log_rows: Rows, tmp_path: Path) -> None:
    """The later half comes last in time, whatever the order of the lines."""
    path, policy = write(tmp_path / "log.jsonl", log_rows[::-1]), str(tmp_path / "p.toml")
    options = ("--max-false-hit-rate", "0.3", "--confidence", "0.9")
    found = run_json("tune", path, *options, "-o", policy)
    assert found["semantic"] is True
    assert found["slices"][0]["requests"] == 20
    assert all(one["passed"] for one in found["slices"][0]["tested"][:-1])
    assert run_json("certify", policy, path)["verdict"] == "holds"

    broken = write(tmp_path / "broken.jsonl", [{**row, "cls": str(place)} for place, row in enumerate(log_rows)])
    shown = run_json("certify", policy, broken, code=1)
    assert (shown["verdict"], shown["wrong"]) == ("broken", shown["hits"])

    off = run("tune", broken, *options, "-o", policy)
    assert off.stdout.startswith("No threshold passes: semantic tier off.")
    assert "Not shown: at most 30 % of hits wrong. The policy keeps the semantic tier off." in off.stdout
    assert not Policy.load(policy).any_semantic
    assert run("certify", policy, path, "--max-false-hit-rate", "0.3").stdout.startswith("Holds: the semantic tier")


def test_tune_keeps_the_rest_of_a_policy(pair_rows: Rows, tmp_path: Path) -> None:
    path, base, policy = write(tmp_path / "p.jsonl", pair_rows), tmp_path / "base.toml", str(tmp_path / "p.toml")
    base.write_text('ttl = 60.0\nguards = ["polarity", "numbers"]\n')
    shown = run("tune", path, "--max-unsafe-rate", "0.3", "--policy", str(base), "-o", policy).stdout
    assert "Shown: at most 30 % of requests wrong, at 95 % confidence." in shown
    tuned = Policy.load(policy)
    assert (tuned.ttl, tuned.guards) == (60.0, ("polarity", "numbers"))
    assert tuned.evidence is not None
    assert tuned.evidence.max_unsafe_rate == 0.3


def test_answers_are_compared_where_they_are_said_to_be_closed(
    log_rows: Rows, pair_rows: Rows, embedder: Remembered, tmp_path: Path
) -> None:
    log = [LogRecord(({"role": "user", "content": row["text"]},), row["cls"]) for row in log_rows]
    for policy, closed, compared in (
        (Policy(), None, False),
        (Policy(), True, True),
        (Policy(answers="closed"), None, True),
        (Policy(answers="closed"), False, False),
    ):
        fit = of_log(log, policy, embedder, space=Space(closed)).parts["default"].fit
        assert any(rule.min_agreement for rule in fit) is compared
        assert any(rule.min_agreement is None for rule in fit)
    options = ("--max-false-hit-rate", "0.3", "--confidence", "0.9", "--answers", "closed", "-o", str(tmp_path / "p"))
    assert run_json("tune", write(tmp_path / "log.jsonl", log_rows), *options)["semantic"] is True
    assert "needs a log" in run("tune", write(tmp_path / "pairs.jsonl", pair_rows), *options, code=2).stderr


def test_slices_become_namespaces(log_rows: Rows, tmp_path: Path) -> None:
    rows = [{**row, "namespace": name, "text": row["text"]} for row in log_rows for name in ("one", "two")]
    rows = [{**row, "cls": str(place)} if row["namespace"] == "two" else row for place, row in enumerate(rows)]
    path, policy = write(tmp_path / "log.jsonl", rows), str(tmp_path / "p.toml")
    options = ("--max-false-hit-rate", "0.4", "--confidence", "0.8", "--slice-by", "namespace")
    found = run_json("tune", path, *options, "-o", policy)
    assert {one["slice"]: one["threshold"] is not None for one in found["slices"]} == {"one": True, "two": False}
    tuned = Policy.load(policy)
    assert [tuned.rules(name).semantic for name in ("one", "two", "three")] == [True, False, False]
    assert tuned.namespaces["one"].threshold == found["slices"][0]["threshold"]
    certified = run("certify", policy, path, "--namespace-field", "namespace")
    assert certified.stdout.startswith("Holds")
    assert certified.stderr == ""
    assert "only --namespace-field reads" in run("certify", policy, path, code=1).stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("-o", "{tmp}/p.toml"), "give a budget"),
        (("-o", "{tmp}/p.toml", "--max-false-hit-rate", "0.1", "--max-unsafe-rate", "0.1"), "not both"),
        (("-o", "{tmp}/p.toml", "--max-false-hit-rate", "1"), "0.0<=x<1.0"),
        (("-o", "{tmp}/p.toml", "--max-false-hit-rate", "0"), "no number of right hits shows that none is ever wrong"),
        (("-o", "{tmp}/p.toml", "--max-unsafe-rate", "0.1", "--start", "cold"), "no pair has a label"),
        (("-o", "{tmp}/none/p.toml", "--max-false-hit-rate", "0.1"), "there is no folder"),
        (("-o", "{tmp}/p.toml", "--max-false-hit-rate", "0.1"), "no pair has a label"),
    ],
)
def test_what_tune_refuses(args: tuple[str, ...], says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [{"a": "x?", "b": "y?"}])
    assert says in run("tune", path, *(arg.format(tmp=tmp_path) for arg in args), code=2).stderr
    assert not (tmp_path / "p.toml").exists()


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = run("label", str(tmp_path / "pipe"), "-o", str(tmp_path / "labels.jsonl"), code=2)
    assert "is a pipe" in result.stderr


def test_categories_get_rules_of_their_own_in_one_cache(log_rows: Rows, tmp_path: Path) -> None:
    """Half of the questions are of a category whose answers are all their own, so that any hit is wrong."""
    noisy = set(list(TASKS.values())[:5])
    rows = [
        {**row, "topic": "noisy", "cls": str(place)} if row["cls"] in noisy else {**row, "topic": "calm"}
        for place, row in enumerate(log_rows)
    ]
    path, policy = write(tmp_path / "log.jsonl", rows), str(tmp_path / "p.toml")
    options = ("--max-false-hit-rate", "0.6", "--confidence", "0.6", "--category-field", "topic")
    found = run_json("tune", path, *options, "--slice-by", "category", "-o", policy)
    assert (found["table"], found["rest_off"]) == ("categories", True)
    assert [(one["slice"], one["threshold"] is not None) for one in found["slices"]] == [("calm", True)]
    tuned = Policy.load(policy)
    assert [tuned.rules("default", category).semantic for category in ("calm", "noisy", None)] == [True, False, False]
    (calm,) = found["slices"]
    certified = run_json("certify", policy, path, "--category-field", "topic")
    assert certified["wrong"] == 0 < calm["hits"] < certified["hits"]
    played = run_json("replay", path, "--policy", policy, "--category-field", "topic")
    assert played["semantic_hits"] == certified["hits"]
    assert "only --category-field reads" in run("certify", policy, path, code=1).stderr
    assert "no record has a field 'colour'" in run("certify", policy, path, "--category-field", "colour", code=2).stderr


def test_languages_are_told_by_the_text(pair_rows: Rows, tmp_path: Path) -> None:
    german = [
        {"a": f"Wie kann ich mein {n}. Passwort ändern?", "b": f"Wie ist das Wetter am {n}. Mai?", "label": 0}
        for n in range(40)
    ]
    path, policy = write(tmp_path / "pairs.jsonl", [*pair_rows, *german]), str(tmp_path / "p.toml")
    options = ("--max-false-hit-rate", "0.4", "--confidence", "0.8", "--slice-by", "language", "-o", policy)
    found = run_json("tune", path, *options)
    assert {one["slice"]: one["threshold"] is not None for one in found["slices"]} == {"en": True, None: False}
    tuned = Policy.load(policy)
    assert [tuned.rules("default", None, name).semantic for name in ("en", "de", None)] == [True, False, False]


def test_certify_tells_how_full_the_cache_was(log_rows: Rows, tmp_path: Path) -> None:
    old, new = (write(tmp_path / name, rows) for name, rows in (("old", log_rows[:20]), ("new", log_rows[20:])))
    policy = str(tmp_path / "p.toml")
    Policy(threshold=0.9).save(policy)
    options = ("--max-false-hit-rate", "0.5", "--confidence", "0.6")
    cold, warm = run_json("certify", policy, new, *options), run_json("certify", policy, new, *options, "--after", old)
    assert (cold["filled_by"], warm["filled_by"]) == (0, 20)
    assert cold["halves"][0]["hits"] == 0 < warm["halves"][0]["hits"]
    assert [sum(half["hits"] for half in one["halves"]) for one in (cold, warm)] == [cold["hits"], warm["hits"]]
    assert "The cache began empty, as after a first start" in run("certify", policy, new, *options).stdout
    shown = run("certify", policy, new, *options, "--after", old).stdout
    assert "20 earlier requests had filled the cache. Wrong in the first half: 0 of " in shown


def test_a_cold_start_is_tested_on_an_empty_cache(log_rows: Rows, tmp_path: Path) -> None:
    path, policy = write(tmp_path / "log.jsonl", log_rows), str(tmp_path / "p.toml")
    options = ("--max-false-hit-rate", "0.3", "--confidence", "0.8", "-o", policy, "--switch-off", "none")
    warm = run_json("tune", path, *options)
    evidence = Policy.load(policy).evidence
    assert evidence is not None
    assert evidence.note.endswith("Tested on a cache that 20 earlier requests had filled.")
    cold = run("tune", path, *options, "--start", "cold").stdout
    assert "Tested on a cache that was empty at first." in cold
    assert run_json("tune", path, *options, "--start", "cold")["hits"] < warm["hits"]


def test_guards_are_switched_off_only_where_they_may_be(log_rows: Rows, tmp_path: Path) -> None:
    """Every wording of a question is one class, so that what soft guards object to here is right."""
    more = [
        {"ts": 1_800_000_000 + place, "text": f"What must I do to {task}?", "cls": cls}
        for place, (task, cls) in enumerate(TASKS.items())
    ]
    path, policy = write(tmp_path / "log.jsonl", [*more, *log_rows]), str(tmp_path / "p.toml")
    options = ("--max-false-hit-rate", "0.3", "--confidence", "0.8", "-o", policy)
    found = {}
    for may in ("none", "soft", "all"):
        found[may] = run_json("tune", path, *options, "--switch-off", may)
        off = set(Policy().guards) - set(Policy.load(policy).guards)
        assert off == set(found[may]["slices"][0]["without"])
        assert off <= {"none": set(), "soft": set(SOFT), "all": set(Policy().guards)}[may]
    assert found["none"]["hits"] <= found["soft"]["hits"]


def test_certify_needs_labels_and_a_budget(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", [{"text": "How do I reset my password?"}])
    policy = str(tmp_path / "p.toml")
    Policy().save(policy)
    assert "names no budget" in run("certify", policy, log, code=2).stderr
    assert "nothing is labelled" in run("certify", policy, log, "--max-unsafe-rate", "0.1", code=2).stderr
    assert "no record has an answer class" in run("tune", log, "--max-unsafe-rate", "0.1", "-o", policy, code=2).stderr


# label ---------------------------------------------------------------------------------------------------------------


def unlabelled(rows: Rows) -> Rows:
    return [{"a": row["a"], "b": row["b"]} for row in rows]


def test_label_asks_writes_and_goes_on_later(pair_rows: Rows, tmp_path: Path) -> None:
    path, labels = write(tmp_path / "pairs.jsonl", unlabelled(pair_rows[:8])), str(tmp_path / "labels.jsonl")
    shown = run("label", path, "-o", labels, stdin="y\nwhat\nn\ns\nb\nb\nYES\nq\n").stdout
    assert "8 pairs to label" in shown
    assert "2 answered, 6 left" in shown
    assert shown.count("[2/8]") == 2
    found = read_pairs([labels])
    assert [pair.right for pair in found] == [True, None, True]
    lines = [json.loads(line) for line in Path(labels).read_text().splitlines()]
    assert [line.get("replaces") for line in lines] == [None, None, None, 2]

    shown = run("label", path, "-o", labels, stdin="n\n" * 20).stdout
    assert "5 pairs to label" in shown
    assert "5 answered, 0 left" in shown
    assert len(read_pairs([labels])) == 8
    assert run("label", path, "-o", labels, stdin="").stdout == "No pair is left to label.\n"


def test_labels_of_a_log_can_be_scored(log_rows: Rows, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", [{"text": row["text"]} for row in log_rows[:20]])
    labels = str(tmp_path / "labels.jsonl")
    assert "0 left" in run("label", log, "-o", labels, stdin="y\n" * 50).stdout
    found = run_json("score", labels)
    assert found["positives"] == found["total"] >= 10


def test_label_never_writes_to_its_input(pair_rows: Rows, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", unlabelled(pair_rows[:2]))
    before = Path(path).read_bytes()
    assert "a file of their own" in run("label", path, "-o", path, code=2).stderr
    other = write(tmp_path / "other.jsonl", [{"text": "not labels"}])
    assert "not a line that label has written" in run("label", path, "-o", other, code=2).stderr
    assert Path(path).read_bytes() == before


def test_what_was_answered_survives_a_kill(pair_rows: Rows, tmp_path: Path) -> None:
    path, labels = write(tmp_path / "pairs.jsonl", unlabelled(pair_rows)), tmp_path / "labels.jsonl"
    command = [sys.executable, "-m", "semcache", "label", path, "-o", str(labels)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("y\nn\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith("[3/"):
                break
        os.kill(process.pid, signal.SIGKILL)
    assert [pair.right for pair in read_pairs([labels])] == [True, False]
