"""Small labelled data for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

TASKS = {
    "reset my password": "password",
    "close my account": "closing",
    "order a replacement card": "card",
    "transfer money abroad": "transfer",
    "change my postal address": "address",
    "dispute a card payment": "dispute",
    "raise my credit limit": "limit",
    "freeze a stolen card": "freeze",
    "download my bank statements": "statements",
    "find the nearest cash machine": "cash",
}
WORDINGS = ("How do I {}?", "How can I {}?", "How do I {} please?", "Hi, how do I {}?")


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
