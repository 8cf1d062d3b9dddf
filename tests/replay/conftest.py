from __future__ import annotations

import pytest

from semcache.embedders import resolve
from semcache.tuning.logs import LogRecord
from semcache.tuning.remembered import Remembered

TASKS = (
    "reset my password",
    "close my account",
    "order a replacement card",
    "transfer money abroad",
    "change my postal address",
    "dispute a card payment",
    "raise my credit limit",
    "freeze a stolen card",
)
WORDINGS = ("How do I {}?", "How can I {}?", "I want to {}, what now?", "Hi, how do I {}?", "Please {}!")


@pytest.fixture(scope="session")
def embedder() -> Remembered:
    """The installed embedder, real, with one memory for all tests of a process."""
    return Remembered(resolve())


@pytest.fixture
def log_records() -> list[LogRecord]:
    """Eight questions in five wordings each, the wordings one after the other, one minute apart."""
    asked = [(wording.format(task), task) for wording in WORDINGS for task in TASKS]
    return [
        LogRecord(({"role": "user", "content": text},), label, 1_700_000_000.0 + 60 * place)
        for place, (text, label) in enumerate(asked)
    ]
