"""The header, read back by the grammar of RFC 8941."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.types import Outcome
from semcache.wire.cache_status import cache_status

VALUE = r'(?:"(?:[ !#-\[\]-~]|\\["\\])*"|-?\d{1,12}\.\d{1,3}|-?\d{1,15}|[A-Za-z*][!#$%&\'*+.^_`|~0-9A-Za-z:/-]*)'
MEMBER = re.compile(rf"semcache(?:; [a-z*][a-z0-9_\-.*]*(?:={VALUE})?)*")
EXACT = Outcome("hit", layer="exact", similarity=1.0, entry_id=7)


@pytest.mark.parametrize(
    ("outcome", "header"),
    [
        (EXACT, 'semcache; hit; key="7"; detail=exact'),
        (replace(EXACT, ttl_s=59.9), 'semcache; hit; key="7"; ttl=59; detail=exact'),
        (
            replace(EXACT, layer="semantic", similarity=0.97346),
            'semcache; hit; key="7"; detail=semantic; similarity=0.973',
        ),
        (Outcome("miss", stored=True, entry_id=8), 'semcache; fwd=uri-miss; stored; key="8"'),
        (Outcome("miss", reason="no candidate"), 'semcache; fwd=uri-miss; detail="no candidate"'),
        (Outcome("miss", collapsed=True), "semcache; fwd=uri-miss; collapsed"),
        (Outcome("bypass", reason="n>1"), 'semcache; fwd=bypass; detail="n>1"'),
        (Outcome("stale"), "semcache; fwd=stale"),
    ],
)
def test_header(outcome: Outcome, header: str) -> None:
    assert cache_status(outcome) == header
    assert MEMBER.fullmatch(header)


def test_a_fresh_answer_that_was_asked_for() -> None:
    assert cache_status(Outcome("miss"), refresh=True) == "semcache; fwd=request"


@given(st.text(), st.floats(-1, 1))
def test_any_reason_makes_a_legal_header(reason: str, similarity: float) -> None:
    assert MEMBER.fullmatch(cache_status(Outcome("bypass", reason=reason)))
    assert MEMBER.fullmatch(cache_status(replace(EXACT, layer="semantic", similarity=similarity)))
