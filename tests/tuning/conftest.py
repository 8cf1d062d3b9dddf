from __future__ import annotations

import pytest
from tuning_rows import TASKS, WORDINGS, Rows

from semcache.embedders import resolve
from semcache.tuning.remembered import Remembered


@pytest.fixture(scope="session")
def embedder() -> Remembered:
    """The installed embedder, real, with one memory for all tests of a process."""
    return Remembered(resolve())


@pytest.fixture
def log_rows() -> Rows:
    """Ten questions in four wordings each, the wordings one after the other, as a log with time stamps."""
    rows = [{"text": wording.format(task), "cls": cls} for wording in WORDINGS for task, cls in TASKS.items()]
    return [{"ts": 1_700_000_000 + 60 * place, **row} for place, row in enumerate(rows)]


@pytest.fixture
def pair_rows() -> Rows:
    """Forty pairs: each question against its other wording (right) and against its opposite or a neighbour (wrong)."""
    rows: Rows = []
    for task, cls in TASKS.items():
        rows += [
            {"a": f"How do I {task}?", "b": f"How can I {task}?", "label": 1, "category": cls},
            {"a": f"Hi, how do I {task}?", "b": f"How do I {task} please?", "label": 1, "category": cls},
            {"a": f"How do I {task}?", "b": f"How do I not {task}?", "label": 0, "category": cls},
            {"a": f"How do I {task}?", "b": f"What does it cost to {task} 3 times?", "label": 0, "category": cls},
        ]
    return rows
