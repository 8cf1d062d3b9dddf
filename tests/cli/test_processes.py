"""The command line as a process of its own: what it imports, how it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "semcache")
HEAVY = {
    "numpy",
    "faiss",
    "onnxruntime",
    "tokenizers",
    "redis",
    "rich",
    "openai",
    "anthropic",
    "genai_prices",
    "orjson",
}


def run(*args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=timeout, check=False)


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from semcache.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"assert not {HEAVY!r} & sys.modules.keys(), sys.modules.keys()\n"
        "assert not [name for name in sys.modules if name.startswith('semcache.cli.')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert "Commands:" in done.stdout


def test_the_installed_entry_point_is_the_same_command() -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("semcache, version ")


@pytest.mark.parametrize("line", ["{", "3", '{"text": 3}'])
def test_a_bad_log_line_is_one_line_on_stderr_and_exit_code_2(tmp_path: Path, line: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(f'{{"text": "fine"}}\n{line}\n')
    done = run("replay", str(log), "--store", f"sqlite://{tmp_path}/new.db")
    assert (done.returncode, done.stdout) == (2, "")
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"Error: {log}:2: ")
    assert not (tmp_path / "new.db").exists()


def test_a_reader_that_goes_away_causes_no_traceback(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"text": f"question {n}"}) + "\n" for n in range(20)))
    process = subprocess.Popen(
        [*COMMAND, "replay", str(log), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=300) == 1
    assert said == ""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_full_disk_is_one_line_on_stderr(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with full.open("w") as out:
        command = [*COMMAND, "stats", "--json", "--store", "memory://"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 1
    (message,) = done.stderr.splitlines()
    assert message.startswith("Error: ")


def test_ctrl_c_in_the_middle_ends_without_a_traceback(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"text": f"What is question number {n} about?"}) + "\n" for n in range(10_000)))
    store = tmp_path / "replay.db"
    process = subprocess.Popen(
        [*COMMAND, "replay", str(log), "--store", f"sqlite://{store}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who starts the tests in the background of a shell has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not store.exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        out, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 1
    assert out == ""
    assert said.split() == ["Aborted!"]
