"""The examples of ``docs/prompt-caching.md`` and ``docs/serving.md`` run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("prompt-caching.md", r"1 point, \d{4} tokens read\nanthropic/claude-sonnet-5: 3 of 3 misses marked"),
        ("serving.md", r"Lift 3 runs until ten\.\nstale - upstream raised TimeoutError"),
    ],
)
def test_the_example_prints_what_it_should(page: str, printed: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    example = tmp_path / "example.py"
    example.write_text(code, encoding="utf-8")
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(
        [sys.executable, example], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert re.search(printed, run.stdout.strip()), (run.stdout, run.stderr)
    assert run.returncode == 0
