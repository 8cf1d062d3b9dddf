"""The examples of docs/savings.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from semcache.money.estimates import CJK, CODE, OTHER, PROSE
from semcache.money.prices import Prices
from semcache.types import Usage

PAGE = Path(__file__).parents[2] / "docs" / "savings.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_example_of_budgets(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(code, "savings.md", "exec"), {})
    assert capsys.readouterr().out == "None 5000000 0 False\nplayground 500000 0 False\n"


def test_the_example_of_a_price_file(page: str, tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    path = tmp_path / "prices.toml"
    path.write_text(text, encoding="utf-8")
    price = Prices(path).find("my-model-large")
    assert price is not None
    assert price.id == "prices.toml:my-model@2026-11-01"
    assert price.cost(Usage(1000, 100, 100, 200, 0, 100)) == 700 * 2 + 20 + 250 + 400 + 800


def test_the_ratios_are_those_in_use(page: str) -> None:
    for ratio in (PROSE, CODE, OTHER, CJK):
        assert f"÷ {ratio:g} " in page or f"÷ {ratio:g}," in page
