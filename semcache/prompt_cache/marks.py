"""Writes a plan into a request body. The body given is never changed, and nothing but marks differs in the copy.

A mark needs a block to stand on, so a string that is marked becomes the one text block that providers take it for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from semcache.prompt_cache.planner import Plan, Point
from semcache.prompt_cache.prefixes import Path, has_marks

_Mark = Callable[[Point, Any], list[Any]]


def annotate(body: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """A copy of ``body`` with the plan's marks; field order stays, new fields come last.

    Fields that the caller has set stay as they are, and a body that has marks already stays as it is as a whole.
    """
    marked: dict[str, Any] = dict(body)
    if has_marks(body):
        return marked
    mark = _STYLES.get(plan.style)
    if mark is not None:
        # From the end: an inserted block moves those behind it.
        for point in reversed(plan.points):
            marked = _edit(marked, point.boundary.path, partial(mark, point))
    if plan.style == "breakpoints":
        # Without this the provider adds, and charges for, a point at the end of the varying message.
        marked.setdefault("prompt_cache_options", {"mode": "explicit"})
    if plan.key is not None and plan.style in ("breakpoints", "key"):
        marked.setdefault("prompt_cache_key", plan.key)
    if plan.salt is not None:
        marked.setdefault("cache_salt", plan.salt)
    return marked


def _cache_control(point: Point, leaf: Any) -> list[Any]:
    mark = {"type": "ephemeral"} if point.ttl == "5m" else {"type": "ephemeral", "ttl": point.ttl}
    return [{**_block(leaf, point), "cache_control": mark}]


def _breakpoint(point: Point, leaf: Any) -> list[Any]:
    mark = {"mode": "explicit"} if point.ttl == "30m" else {"mode": "explicit", "ttl": point.ttl}
    return [{**_block(leaf, point), "prompt_cache_breakpoint": mark}]


def _cache_point(point: Point, leaf: Any) -> list[Any]:
    mark = {"type": "default"} if point.ttl == "5m" else {"type": "default", "ttl": point.ttl}
    return [leaf, {"cachePoint": mark}]


_STYLES: Mapping[str, _Mark] = {
    "cache_control": _cache_control,
    "breakpoints": _breakpoint,
    "cache_point": _cache_point,
}


def _block(leaf: Any, point: Point) -> dict[str, Any]:
    return {"type": point.boundary.wrap, "text": leaf} if isinstance(leaf, str) else leaf


def _edit(node: Any, path: Path, change: Callable[[Any], list[Any]]) -> Any:
    """A copy of ``node`` with the item at ``path`` replaced by what ``change`` makes of it."""
    step, rest = path[0], path[1:]
    item = node[step]
    if rest:
        new = [_edit(item, rest, change)]
    else:
        new = change(item)
        if isinstance(item, str):
            new = [new]
    if isinstance(node, list):
        assert isinstance(step, int)
        return [*node[:step], *new, *node[step + 1 :]]
    return {**node, step: new[0]}
