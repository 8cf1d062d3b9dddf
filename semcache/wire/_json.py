"""JSON as it goes over the wire. The standard library's: it keeps integers of any size, and field order."""

from __future__ import annotations

import json
from typing import Any


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # JSON may escape half a surrogate pair; UTF-8 cannot hold it.
        return json.dumps(value, separators=(",", ":")).encode()


def loads_object(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object in ``text``; ``None`` for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
