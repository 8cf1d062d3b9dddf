"""The README's examples run as they stand, against the local upstream."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from semcache.testing.upstream import Upstream

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def upstream():
    with Upstream() as upstream:
        yield upstream


@pytest.mark.parametrize(("number", "printed"), [(0, "hit exact"), (1, "miss None\nhit semantic"), (2, "miss 1")])
def test_an_example_runs_and_prints_what_it_should(number, printed, upstream, tmp_path):
    environment = {
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": upstream.openai_url,
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_BASE_URL": upstream.anthropic_url,
        "PYTHONPATH": ":".join(sys.path),
    }
    example = tmp_path / "example.py"
    example.write_text(EXAMPLES[number], encoding="utf-8")
    run = subprocess.run([sys.executable, example], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == printed
    assert run.stderr == ""


def test_the_readme_has_an_example_for_each_client():
    assert len(EXAMPLES) == 3
    assert all(len([line for line in example.splitlines() if line.strip()]) <= 10 for example in EXAMPLES)


def test_every_link_leads_somewhere():
    for link in re.findall(r"\]\((?!http)([^)#]+)", README.read_text(encoding="utf-8")):
        assert (README.parent / link).exists(), link
