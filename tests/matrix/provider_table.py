"""The table of ``docs/providers.md``, made of the cells that ``test_matrix.py`` holds.

``python tests/matrix/provider_table.py --write docs/providers.md``; without ``--write`` it is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from matrix_cells import ROWS, Content, Row, cells

BEGIN, END = "<!-- begin: made by `make provider-table` -->", "<!-- end -->"


def table() -> str:
    """The table as Markdown, with the number of cells that it stands for."""
    lines = [
        f"{len(list(cells())):,} cells: each call sync, async, plain, streamed; repeated, reworded, new, failing.",
        "",
        "| client | codec | plain | streamed | async | text | tool calls | JSON schema |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(_line, ROWS)])


def _line(row: Row) -> str:
    tiers = [_tiers(row, content) for content in get_args(Content)]
    fields = [row.client, f"`{row.codec}`", *row.calls, "yes" if row.is_async else "refused", *tiers]
    return f"| {' | '.join(fields)} |"


def _tiers(row: Row, content: Content) -> str:
    found = {cell.tier for cell in cells((row,)) if cell.content == content}
    return ", ".join(tier for tier in ("exact", "semantic") if tier in found)


def inserted(page: str) -> str:
    """A page with the table between its marks."""
    head, mark, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert mark, f"the page has no {BEGIN}"
    assert end, f"the page has no {END}"
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    page: Path | None = parser.parse_args().write
    if page is None:
        print(table())
    else:
        page.write_text(inserted(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
