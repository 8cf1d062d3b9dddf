"""The examples of ``docs/live.md`` run as they stand, and its figures are those of the code."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from semcache import Policy
from semcache.guards import time_bound
from semcache.live import audit, evidence, record

DOCS = Path(__file__).parents[2] / "docs" / "live.md"
TEXT = DOCS.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("number", "printed"),
    [(0, "miss semantic True\n1"), (1, "1 0 False"), (2, "miss\n1 1")],
    ids=["shadow", "audit", "feedback"],
)
def test_an_example_prints_what_it_should(number, printed, tmp_path):
    example = tmp_path / "example.py"
    example.write_text(EXAMPLES[number], encoding="utf-8")
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run([sys.executable, example], env=environment, capture_output=True, text=True, timeout=300)
    assert (run.stdout.strip(), run.returncode) == (printed, 0), run.stderr


def test_there_is_no_other_example():
    assert len(EXAMPLES) == 3


def test_the_policy_file_is_one(tmp_path):
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
    path = tmp_path / "policy.toml"
    path.write_text(toml, encoding="utf-8")
    policy = Policy.load(path)
    assert (policy.time_bound_ttl, policy.rules("handbook").time_bound_ttl) == (900.0, math.inf)
    assert Policy().time_bound_ttl == 60.0  # "a minute"


@pytest.mark.parametrize(
    "figure",
    [
        f"a queue of {audit.QUEUE_LENGTH}",
        f"Above {record.BAR:.0%}".replace("%", " %"),
        f"by at most {record.MAX_SLACK}",
        f"for {evidence.MAX_ENTRIES:,} entries",
        f"The first {evidence.MAX_NAMESPACES} namespaces",
        f"more than {time_bound._LONGEST} characters",
    ],
)
def test_a_figure_is_the_codes_own(figure):
    assert figure in " ".join(TEXT.split())
