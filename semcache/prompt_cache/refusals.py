"""Whether a provider that will not have a marked prompt says that the marks are why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from semcache.prompt_cache.planner import Plan
from semcache.prompt_cache.rules import refusals

# Providers name the field: "system.0.cache_control: Extra inputs are not permitted" (Anthropic), "Unknown parameter:
# 'prompt_cache_options'." with ``param`` (OpenAI), "Unrecognized request argument supplied: prompt_cache_key" (Azure),
# "extraneous key [cachePoint] is not permitted" (Bedrock). Read in issues of projects that met them, 2026-11-21.
# A name that has a value is that of a body which the error repeats.
_NAMED: Final = re.compile(
    r"\b(cache_control|cachePoint|prompt_cache_breakpoint|prompt_cache_options|prompt_cache_key|cache_salt)\b"
    r"(?!\\*[\"']\s*:)"
)


def names_marks(said: str, plan: Plan, body: Mapping[str, Any]) -> bool:
    """Whether an error is about what ``plan`` has put into ``body``, which holds no mark of the caller's."""
    if any(phrase in said for phrase in refusals()):
        return True
    named = {match[1] for match in _NAMED.finditer(said)}
    if body.get("prompt_cache_key") != plan.key:  # the caller's own
        named.discard("prompt_cache_key")
    return bool(named)


def places(plan: Plan) -> set[tuple[str, ...]]:
    """Where a plan's marks stand, and for how long: what a provider takes or does not, whatever the prompt."""
    marks = {(point.ttl, *(step for step in point.boundary.path if isinstance(step, str))) for point in plan.points}
    return marks or {()}
