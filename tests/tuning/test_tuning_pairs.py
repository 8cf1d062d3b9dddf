from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.errors import InputError
from semcache.guards import fold
from semcache.tuning.pairs import Pair, PairFields, grouped_split, has_pairs, read_pairs


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_pairs_of_json_lines_csv_and_gzip_are_alike(tmp_path: Path) -> None:
    lines = write(tmp_path / "p.jsonl", {"a": "x?", "b": "y?", "label": 1}, {"a": "x?", "b": "z?", "label": 0})
    table = tmp_path / "p.csv"
    table.write_text("a,b,label\nx?,y?,1\nx?,z?,0\n")
    packed = tmp_path / "p.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    expected = [("x?", "y?", True), ("x?", "z?", False)]
    for path in (lines, table, packed):
        assert [(pair.a, pair.b, pair.right) for pair in read_pairs([path])] == expected
    assert len(read_pairs([lines, table])) == 4


def test_fields_have_the_names_that_are_given(tmp_path: Path) -> None:
    row = {"q1": "x?", "q2": "y?", "same": True, "comp": 7, "category": "cards", "a": "other", "b": "other"}
    fields = PairFields("q1", "q2", "same", "comp", "category")
    assert read_pairs([write(tmp_path / "p", row)], fields) == [Pair("x?", "y?", True, 1, "cards", "7")]


@pytest.mark.parametrize(
    ("value", "right"), [(1, True), (0, False), (True, True), (False, False), ("1", True), ("0", False), (None, None)]
)
def test_labels(value: object, right: bool | None, tmp_path: Path) -> None:
    assert read_pairs([write(tmp_path / "p", {"a": "x", "b": "y", "label": value})])[0].right is right


def test_pairs_without_labels_are_read_unless_the_field_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "p", {"a": "x", "b": "y"})
    assert read_pairs([path])[0].right is None
    with pytest.raises(InputError, match=r"p:1: no field 'label'"):
        read_pairs([path], PairFields(label="label"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"a": "x", "b": 3, "label": 1}, "'b' must be a text, not 3"),
        ({"a": " ", "b": "y"}, "'a' must be a text"),
        ({"b": "y"}, "no field 'a'; the line has b"),
        ({"a": "x", "b": "y", "label": 2}, "'label' must be 0 or 1, not 2"),
        ({"a": "x", "b": "y", "label": 0.5}, "'label' must be 0 or 1, not 0.5"),
        ({"a": "x", "b": "y", "replaces": 3}, "'replaces' must be the number of an earlier line"),
        ({"a": "x", "b": "y", "namespace": [3]}, "'namespace' must be a string or a number, got a list"),
    ],
)
def test_a_bad_line_is_named(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "p", {"a": "x", "b": "y", "namespace": "n"}, row)
    with pytest.raises(InputError) as caught:
        read_pairs([path], PairFields(namespace="namespace"))
    assert str(caught.value).startswith(f"{path}:2: {says}")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no pairs"):
        read_pairs([write(tmp_path / "p")])


def test_a_line_that_replaces_another_leaves_one_pair(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p",
        {"a": "x", "b": "y", "label": 1},
        {"a": "u", "b": "v", "label": 1},
        {"a": "x", "b": "y", "label": 0, "replaces": 1},
        {"a": "x", "b": "y", "label": None, "replaces": 3},
    )
    assert [(pair.line, pair.right) for pair in read_pairs([path])] == [(2, True), (4, None)]


def test_not_every_line_has_a_namespace_or_a_category(tmp_path: Path) -> None:
    path = write(tmp_path / "p", {"a": "x", "b": "y", "team": "n"}, {"a": "x", "b": "y", "about": {"topic": 7}})
    found = read_pairs([path], PairFields(namespace="team", category="about.topic"))
    assert [(pair.namespace, pair.category) for pair in found] == [("n", None), ("default", "7")]


def test_a_log_holds_no_pairs(tmp_path: Path) -> None:
    assert has_pairs(write(tmp_path / "p", {"a": "x", "b": "y"}), PairFields())
    assert not has_pairs(write(tmp_path / "l", {"text": "x", "cls": "y"}), PairFields())
    assert not has_pairs(write(tmp_path / "e"), PairFields())


texts = st.sampled_from(["who?", "Who", "where?", "when?", "why?", "how?", "what?", "which one?"])
pairs = st.lists(st.builds(Pair, texts, texts, st.booleans()), max_size=40)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_no_text_is_on_both_sides_and_no_pair_is_lost(given: list[Pair]) -> None:
    fit, later = grouped_split(given)
    assert sorted(map(id, (*fit, *later))) == sorted(map(id, given))
    here, there = ({fold(text) for pair in side for text in (pair.a, pair.b)} for side in (fit, later))
    assert not here & there
    assert len(fit) <= len(given) / 2
    assert grouped_split(given) == (fit, later)


@given(st.lists(st.sampled_from("abcdef"), max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_group_is_kept_together_and_texts_no_longer_count(groups: list[str]) -> None:
    fit, later = grouped_split([Pair("x", "y", group=group) for group in groups])
    assert not {pair.group for pair in fit} & {pair.group for pair in later}


def test_a_split_of_many_small_groups_is_even_and_does_not_follow_the_order() -> None:
    given = [Pair(f"question {i}", f"other {i}", i < 500) for i in range(1000)]
    fit, later = grouped_split(given)
    assert len(fit) == len(later) == 500
    assert 200 < sum(bool(pair.right) for pair in fit) < 300
