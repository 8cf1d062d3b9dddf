"""The specification of the guards: tables of pairs, and what must hold for any pair."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.guards import GUARDS, covered, fold, verdicts
from semcache.guards.text import read

CASES = Path(__file__).parent / "cases"


def table(name: str) -> dict[str, list[tuple[str, str]]]:
    """``accept`` and ``veto`` pairs of a guard."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    section: list[tuple[str, str]] = []
    for line in (CASES / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if " || " in line:
            query, _, cached = line.replace("\\n", "\n").partition(" || ")
            section.append((query, cached))
        else:
            section = pairs.setdefault(line, [])
    return pairs


TABLES = {name: table(name) for name in GUARDS}


def cases(verdict: str) -> list[object]:
    return [
        pytest.param(name, *pair, id=f"{name}-{n}")
        for name, pairs in TABLES.items()
        for n, pair in enumerate(pairs[verdict], 1)
    ]


@pytest.mark.parametrize(("name", "query", "cached"), cases("accept"))
def test_a_guard_has_no_objection(name, query, cached):
    assert GUARDS[name](query, cached) == ""
    assert GUARDS[name](cached, query) == ""


@pytest.mark.parametrize(("name", "query", "cached"), cases("veto"))
def test_a_guard_objects_both_ways_round(name, query, cached):
    assert GUARDS[name](query, cached)
    assert GUARDS[name](cached, query)


def test_each_table_has_twenty_pairs_on_each_side():
    assert set(TABLES) == {path.stem for path in CASES.glob("*.txt")}
    assert all(len(pairs[side]) >= 20 for pairs in TABLES.values() for side in ("accept", "veto"))


QUESTIONS = sorted({text for pairs in TABLES.values() for side in pairs.values() for pair in side for text in pair})
QUESTION = st.one_of(
    st.sampled_from(QUESTIONS),
    st.lists(st.sampled_from([word for text in QUESTIONS for word in text.split()]), min_size=1, max_size=20).map(
        " ".join
    ),
    st.text(max_size=60),
)


@settings(max_examples=150, deadline=None)
@given(QUESTION)
def test_no_guard_objects_to_the_same_text(text):
    assert all(verdict.ok for verdict in verdicts(GUARDS, text, text))


@settings(max_examples=150, deadline=None)
@given(
    QUESTION,
    st.sampled_from([str.upper, str.lower, str.title, str.swapcase]),
    st.sampled_from(["", "?", "!!", " ...", " \n"]),
)
def test_no_guard_objects_to_other_case_white_space_and_final_punctuation(text, case, ending):
    other = "  " + "  ".join(case(text).split(" ")) + ending
    if fold(text) == fold(other):  # a few letters, like the final sigma, do not come back from another case
        assert all(verdict.ok for verdict in verdicts(GUARDS, text, other))


@settings(max_examples=150, deadline=None)
@given(QUESTION, QUESTION)
def test_every_guard_says_the_same_of_a_pair_either_way_round(one, other):
    forward, backward = verdicts(GUARDS, one, other), verdicts(GUARDS, other, one)
    assert [verdict.ok for verdict in forward] == [verdict.ok for verdict in backward]


def test_case_folding_covers_ascii_questions():
    assert all(fold(text.upper()) == fold(text) for text in QUESTIONS if text.isascii())


def test_a_reason_names_what_differs():
    assert GUARDS["numbers"]("Set an alarm for 7 am", "Set an alarm for 8 am") == "7 am / 8 am"
    assert GUARDS["polarity"]("Is it open?", "Is it closed?") == "open / close"
    assert GUARDS["wording"]("An Italian place", "A Thai place") == "italian / thai"
    assert "person" not in GUARDS["names"]("Is Leeds far?", "Is Wigan far?")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I reset my password?", "en"),
        ("reset password", "en"),
        ("Wie kann ich mein Passwort ändern?", "de"),
        ("¿Dónde está la estación?", "es"),
        ("Où est la gare ?", "fr"),
        ("如何重置密码？", "zh"),
        ("パスワードを変更するには", "ja"),
        ("비밀번호를 어떻게 바꾸나요?", "ko"),
        ("Как мне сбросить пароль?", "ru"),
        ("žluťoučký kůň", ""),
    ],
)
def test_language(text, language):
    assert read(text).language == language


def test_a_guard_says_when_it_has_no_word_lists_for_the_language():
    korean = "비밀번호를 어떻게 바꾸나요?"
    assert not GUARDS["polarity"].covers(korean)
    assert GUARDS["code"].covers(korean)
    assert covered(("code", "language"), korean)
    assert not covered(GUARDS, korean)
    assert covered(GUARDS, "How do I reset my password?")


def test_without_word_lists_one_more_word_is_an_objection():
    assert GUARDS["wording"]("Я не знал, что вы канадцы.", "Я не знал, что вы не канадцы.")


def test_what_changes_places_is_named_as_it_is_written():
    reason = GUARDS["order"]("picture but no sound on the box", "sound but no picture on the box")
    assert reason == "picture but sound box / the other way round"
