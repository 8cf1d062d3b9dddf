"""Policies that audit every hit, their judge, and how a namespace stands afterwards."""

from __future__ import annotations

from semcache import Policy
from semcache.live.record import Standing

ALL = Policy(audit_rate=1.0)
BUDGET = Policy(audit_rate=1.0, max_false_hit_rate=0.05)


def equal(question, stored_question, stored_answer, fresh_answer):
    """The stored answers of these tests are right exactly if they are still given."""
    return stored_answer == fresh_answer


def settled(cache):
    """How the default namespace stands once nothing is under way."""
    assert cache.engine.auditor.wait(60)
    return cache.stats().live.get("default", Standing())
