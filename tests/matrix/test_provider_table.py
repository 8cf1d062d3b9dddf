"""``docs/providers.md`` says what the matrix says."""

from __future__ import annotations

from pathlib import Path

from matrix_cells import ROWS, cells
from provider_table import inserted, table

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"


def test_the_page_has_the_table_of_the_matrix() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert inserted(page) == page, "run `make provider-table`"


def test_the_table_has_every_row_and_only_what_a_cell_says() -> None:
    lines = table().splitlines()[4:]
    assert len(lines) == len(ROWS)
    for row, line in zip(ROWS, lines, strict=True):
        served = {(cell.content, cell.tier) for cell in cells((row,)) if cell.tier}
        assert line.count("exact") == 3
        assert line.count("semantic") == sum(tier == "semantic" for _, tier in served)
