"""Reads labelled pairs of texts, and splits them so that no text is on both sides.

One object a line, JSON Lines or CSV, plain or gzip-compressed (:mod:`semcache.tuning.logs`): ``a``, the question asked;
``b``, the question stored; ``label``, 1 if one answer serves both and 0 if not. A missing or null label means that
nobody has said. ``replaces`` takes back an earlier line of the file by its number; ``semcache label`` writes it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any, Final, NamedTuple

from semcache.errors import InputError
from semcache.guards import fold
from semcache.tuning.logs import optional, read_rows

DEFAULT_NAMESPACE: Final = "default"
"""The namespace of rows that do not name one: that of a cache that was given none."""

_LABELS: Final = {"0": False, "1": True, "false": False, "true": True}


class PairFields(NamedTuple):
    """Names of the fields to read. ``label=None`` reads ``label`` where there is one; a name given must be there.

    Namespace and category need not be on every line.
    """

    a: str = "a"
    b: str = "b"
    label: str | None = None
    group: str | None = None
    namespace: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether the answer to ``b`` serves ``a``.

    Args:
        right: ``None`` where nobody has said.
        line: 1-based line of the file.
        group: Pairs of one group are kept together; ``None`` groups by equal texts.
    """

    a: str
    b: str
    right: bool | None = None
    line: int = 0
    namespace: str = DEFAULT_NAMESPACE
    group: str | None = None
    category: str | None = None


def has_pairs(path: str | PathLike[str], fields: PairFields) -> bool:
    """Whether the first row of a file holds a pair of texts, so that it is no log.

    Raises:
        InputError: The file cannot be read, or its first line is no row.
    """
    row = next((row for _, row in read_rows(fspath(path))), {})
    return fields.a in row and fields.b in row


def read_pairs(paths: Iterable[str | PathLike[str]], fields: PairFields = PairFields()) -> list[Pair]:  # noqa: B008
    """All pairs of some files.

    Raises:
        InputError: A file cannot be read or holds no pair, or a line cannot be used.
    """
    found: list[Pair] = []
    for path in paths:
        path = fspath(path)
        pairs: dict[int, Pair] = {}
        for number, row in read_rows(path):
            try:
                pairs[number] = _pair(row, fields, number)
                if row.get("replaces") is not None:
                    pairs.pop(_replaced(row["replaces"], pairs, number))
            except ValueError as error:
                raise InputError(str(error), path=path, line=number) from error
        if not pairs:
            raise InputError(f"there are no pairs; expected {fields.a!r} and {fields.b!r} on each line", path=path)
        found += pairs.values()
    return found


def grouped_split(pairs: Sequence[Pair], fit_share: float = 0.5, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Two parts of about ``fit_share`` and the rest, with every group of pairs whole on one side.

    Groups are the pairs' own, or else whatever hangs together by texts that are equal but for case, white space and
    punctuation at the ends. They are dealt at random, the same way each time: files are often sorted by label.
    """
    groups: dict[object, list[Pair]] = defaultdict(list)
    for pair, root in zip(pairs, _components(pairs), strict=True):
        groups[root].append(pair)
    dealt = list(groups.values())
    random.Random(seed).shuffle(dealt)
    fit: list[Pair] = []
    later: list[Pair] = []
    for group in dealt:
        (fit if len(fit) + len(group) <= fit_share * len(pairs) else later).extend(group)
    return fit, later


def _components(pairs: Sequence[Pair]) -> list[object]:
    """For each pair a name of the component that it is in (union-find with path halving)."""
    parent: dict[object, object] = {}

    def root(node: object) -> object:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    nodes: list[tuple[object, object]] = [
        (("group", pair.group),) * 2 if pair.group is not None else (fold(pair.a), fold(pair.b)) for pair in pairs
    ]
    for a, b in nodes:
        parent[root(a)] = root(b)
    return [root(a) for a, _ in nodes]


def _pair(row: Mapping[str, Any], fields: PairFields, number: int) -> Pair:
    a, b = _text(row, fields.a), _text(row, fields.b)
    group = None if fields.group is None else str(_field(row, fields.group))
    namespace = optional(row, fields.namespace) or DEFAULT_NAMESPACE
    return Pair(a, b, _label(row, fields.label), number, namespace, group, optional(row, fields.category))


def _label(row: Mapping[str, Any], name: str | None) -> bool | None:
    value = row.get("label") if name is None else _field(row, name)
    if value is None:
        return None
    right = _LABELS.get(str(value).lower())
    if right is None:
        raise ValueError(f"{name or 'label'!r} must be 0 or 1, not {value!r}")
    return right


def _text(row: Mapping[str, Any], name: str) -> str:
    value = _field(row, name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name!r} must be a text, not {value!r}")
    return value


def _field(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise ValueError(f"no field {name!r}; the line has {', '.join(row) or 'none'}")
    return row[name]


def _replaced(value: object, pairs: Mapping[int, Pair], number: int) -> int:
    if not isinstance(value, int) or value not in pairs or value == number:
        raise ValueError(f"'replaces' must be the number of an earlier line, not {value!r}")
    return value
