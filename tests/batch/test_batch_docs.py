"""The examples of ``docs/batch.md`` run as they stand."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from semcache.cli import main
from semcache.testing.upstream import Upstream

TEXT = (Path(__file__).parents[2] / "docs" / "batch.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)


def row(custom_id: str, text: str) -> dict[str, object]:
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def send(folder: Path, rest: str = "rest.jsonl") -> None:
    """Make the results of what is to be sent: an output file and an error file, as the provider does."""
    import openai

    with Upstream() as up, openai.OpenAI(base_url=up.openai_url, api_key="k") as client:
        done = []
        for line in (folder / rest).read_text(encoding="utf-8").splitlines():
            asked = json.loads(line)
            answer = client.chat.completions.create(**asked["body"]).model_dump(mode="json")
            response = {"status_code": 200, "request_id": "r", "body": answer}
            done.append({"id": "b", "custom_id": asked["custom_id"], "response": response, "error": None})
    (folder / "output.jsonl").write_text("".join(json.dumps(result) + "\n" for result in done), encoding="utf-8")
    (folder / "errors.jsonl").write_text("", encoding="utf-8")


def run_example(number: int, folder: Path) -> str:
    environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", EXAMPLES[number]],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_python_examples(tmp_path: Path) -> None:
    rows = [row("a", "Is it up?"), row("b", "Is it up?"), row("c", "Where is it?")]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")
    assert run_example(0, tmp_path) == "3 0 1 2"
    send(tmp_path)
    assert run_example(1, tmp_path) == "0 2 1 0 []"
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize(("block", "rest"), [(0, "out.rest.jsonl"), (1, "rest.jsonl")])
def test_the_commands_are_those_that_there_are(block: int, rest: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(row("a", "Is it up?")) + "\n", encoding="utf-8")
    store = ["--store", f"sqlite://{tmp_path}/semcache.db"]
    first, _, second = SHELL[block].splitlines()
    for command in (first, second):
        name, *arguments = shlex.split(command)
        assert name == "semcache"
        inside = [str(tmp_path / word) if word.endswith(".jsonl") else word for word in arguments]
        result = CliRunner().invoke(main, [*inside, *store])
        assert result.exit_code == 0, result.output
        if command is first:
            send(tmp_path, rest)
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 1
