"""Prompt-cache planner: for each miss, where the provider's cache points go and whether they pay.

Pure: no clock, no I/O. On a miss::

    rules = find_rules(api, upstream, model)
    sketch = outline(api, body, partition=tenant)
    if sketch is not None:
        history.see(seen(sketch), now)
    decided = plan(sketch, rules, history, now)
    sent = annotate(body, decided)
    note(decided, history, now)
"""

from __future__ import annotations

from semcache.prompt_cache.history import History, Sightings, advance, decode, encode, merge
from semcache.prompt_cache.marks import annotate
from semcache.prompt_cache.planner import Plan, Point, break_even, note, plan, seen
from semcache.prompt_cache.prefixes import Boundary, Outline, head_of, outline, thread_of
from semcache.prompt_cache.refusals import names_marks, places
from semcache.prompt_cache.rules import Rules, find_rules

__all__ = [
    "Boundary",
    "History",
    "Outline",
    "Plan",
    "Point",
    "Rules",
    "Sightings",
    "advance",
    "annotate",
    "break_even",
    "decode",
    "encode",
    "find_rules",
    "head_of",
    "merge",
    "names_marks",
    "note",
    "outline",
    "places",
    "plan",
    "seen",
    "thread_of",
]
