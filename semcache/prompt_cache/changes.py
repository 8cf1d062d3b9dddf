"""Why two requests that look like one application's do not share a prefix: what is different in their heads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

ALIKE: Final = 0.8
"""Least share of a text that two of them have in common, from both ends, to be versions of one."""

# Looked for in what differs and a little around it, since only the last digits of a time may differ.
_KINDS: Final = (
    ("an id", re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-|\b(?=[a-f]*\d)[0-9a-f]{16,}\b")),
    (
        "a date or time",
        re.compile(r"\d{1,2}:\d{2}|\d{4}-\d{2}(-\d{2})?|\d{1,2}[./]\d{1,2}[./]\d{2,4}|\b1[5-9]\d{8}(\d{3})?\b"),
    ),
    ("a number", re.compile(r"\d")),
)
_AROUND: Final = 12


def what_changed(before: Sequence[Any], after: Sequence[Any]) -> str:
    """What makes two heads of prompts differ, in words; empty if they are equal or have little in common.

    No text of a prompt is quoted: it may be private.

    Args:
        before: Tools and system blocks in the order of the prompt, as :func:`~.prefixes.head_of` gives them.
        after: The same of the later request.
    """
    if len(before) != len(after):
        return ""
    told = [_change(old, new, "") for old, new in zip(before, after, strict=True) if _text(old) != _text(new)]
    return told[0] if told and all(told) else ""


def _change(old: Any, new: Any, where: str) -> str:
    if isinstance(old, str) and isinstance(new, str):
        return _text_change(old, new, where)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _fields_change(old, new, where)
    if isinstance(old, list) and isinstance(new, list):
        return _list_change(old, new, where)
    return "" if old == new else f"{where or 'the head'} changed"


def _fields_change(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> str:
    where = _name(new) or where
    if old.keys() != new.keys():
        return f"{_in(where)}the field {min(old.keys() ^ new.keys())!r} came or went"
    for key, value in old.items():
        if said := _change(value, new[key], where or key):
            return said
    return f"the fields of {where or 'the head'} are in another order" if list(old) != list(new) else ""


def _list_change(old: list[Any], new: list[Any], where: str) -> str:
    tools = {_name(item) for item in new if _name(item).startswith("the tool")}
    if tools and 2 * len(tools.intersection(map(_name, old))) < max(len(old), len(new)):
        return ""  # those of another program
    what = "tools" if tools else where or "the parts"
    if len(old) != len(new):
        return f"{what}: {len(new)} instead of {len(old)}"
    before, after = list(map(_text, old)), list(map(_text, new))
    if before != after and sorted(before) == sorted(after):
        return f"{what} are in another order"
    return next((said for a, b in zip(old, new, strict=True) if (said := _change(a, b, where))), "")


def _name(item: Any) -> str:
    """What a part of a head is called; empty if it is nothing in particular."""
    if not isinstance(item, Mapping):
        return ""
    declared = item["function"] if isinstance(item.get("function"), Mapping) else item
    if isinstance(declared.get("name"), str):
        return f"the tool {declared['name']!r}"
    return "the system text" if item.get("type") == "text" or item.get("role") in ("system", "developer") else ""


def _text_change(old: str, new: str, where: str) -> str:
    if old == new:
        return ""
    start = _common(old, new)
    shorter = min(len(old), len(new))
    end = min(_common(old[::-1], new[::-1]), shorter - start)
    if start + end < ALIKE * shorter:
        return ""
    piece = new[max(0, start - _AROUND) : len(new) - end + _AROUND]
    kind = next((kind for kind, pattern in _KINDS if pattern.search(piece)), "text")
    return f"{_in(where)}{kind} at character {start:,} of {len(new):,} is another"


def _common(a: str, b: str) -> int:
    """Length of the common beginning, in a few comparisons of slices."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _in(where: str) -> str:
    return f"in {where}, " if where else ""


def _text(value: Any) -> str:
    return json.dumps(value, default=str)
