"""The examples of ``docs/replay.md`` do what they say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from semcache.cli import main
from semcache.testing.upstream import Upstream
from semcache.verifiers.llm import prompt_for

DOCS = Path(__file__).parents[2] / "docs" / "replay.md"
ROWS = [{"text": "How do I reset my password?"}, {"text": "How can I reset my password?"}]

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="runs from a source tree")


@pytest.fixture
def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_a_cache_that_keeps_a_log(examples: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    names: dict[str, Any] = {}
    exec(compile(examples[0], str(DOCS), "exec"), names)
    with names["cache"] as cache:
        cache.wrap(lambda prompt: "Press 'forgot password'.", name="ask")(ROWS[0]["text"])
    shown = CliRunner().invoke(main, ["replay", "questions.jsonl", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["requests"] == 1


def test_the_judge(examples: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anthropic")
    (tmp_path / "my_judge.py").write_text(examples[1])
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "policy.toml").write_text("guards = []\nmin_probability = 0.0\n")
    prompt = prompt_for(ROWS[1]["text"], ROWS[0]["text"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with Upstream(answers={prompt: "no"}) as upstream:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", upstream.anthropic_url)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        args = ["replay", str(tmp_path / "log.jsonl"), "--judge", "my_judge:judge", "--yes", "--json"]
        shown = CliRunner().invoke(main, [*args, "--policy", str(tmp_path / "policy.toml")])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["wrong_hits"] == 1
    assert re.search(r"tokens, about \$0\.\d+", shown.stderr)


def test_from_python(
    examples: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("requests.jsonl").write_text("".join(json.dumps({**ROWS[0], "cls": "reset"}) + "\n" for _ in range(4)))
    exec(compile(examples[2], str(DOCS), "exec"), {})
    shown = capsys.readouterr().out
    assert "Rate(value=0.0" in shown
    assert shown.split()[-1] == "0.75"


def test_every_option_that_the_docs_name_exists() -> None:
    known = CliRunner().invoke(main, ["replay", "--help"]).stdout
    for option in set(re.findall(r"--[a-z][a-z-]+", DOCS.read_text(encoding="utf-8"))):
        assert option in known, option
