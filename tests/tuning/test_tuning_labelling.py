from __future__ import annotations

import json
from pathlib import Path

import pytest

from semcache.errors import InputError
from semcache.policy import Override, Policy
from semcache.tuning.labelling import LabelFile, Question, most_informative_first
from semcache.tuning.pairs import Pair, read_pairs

POLICY = Policy(threshold=0.8, namespaces={"strict": Override(threshold=0.95)})
A = Question(Pair("a?", "b?"), 0.81, False)
B = Question(Pair("c?", "d?", namespace="n"), 0.79, False)


def test_the_order_is_guards_silent_then_near_the_threshold() -> None:
    asked = "How do I reset my password?"
    pairs = [
        Pair(asked, "How can I reset my password?"),
        Pair(asked, "How do I never reset my password?"),
        Pair(asked, "How would I reset my password?"),
        Pair(asked, "How should I reset my password?", namespace="strict"),
        Pair(asked, "How do I reset the password?", True),
        Pair(asked, "How can I reset my password?"),
        Pair(asked, "Please, how do I reset my password?"),
    ]
    found = most_informative_first(pairs, [0.99, 0.8, 0.82, 0.94, 0.8, 0.99, None], POLICY, "e/1")
    assert [one.pair for one in found] == [pairs[3], pairs[2], pairs[0], pairs[1]]
    assert [one.vetoed for one in found] == [False, False, False, True]


def test_answers_are_on_the_disk_one_by_one_and_make_a_file_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    with LabelFile(path) as labels:
        labels.append(A, True)
        assert json.loads(path.read_text())["label"] == 1
        labels.append(B, None)
        labels.append(A, False)
        assert A.pair in labels
    assert [(pair.a, pair.b, pair.right) for pair in read_pairs([path])] == [("c?", "d?", None), ("a?", "b?", False)]
    with LabelFile(path) as labels:
        assert A.pair in labels
        assert B.pair in labels
        assert Pair("a?", "x?") not in labels
        labels.append(A, True)
        labels.append(B, True)
    assert {pair.a: pair.right for pair in read_pairs([path])} == {"a?": True, "c?": True}
    assert len(path.read_text().splitlines()) == 5


@pytest.mark.parametrize("torn", [b'{"a":"c?","b"', b'{"a', b'{"a":"c?","b":"d?","label":1}'])
def test_a_line_that_a_crash_tore_is_cut_off(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    with LabelFile(path) as labels:
        labels.append(A, True)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with LabelFile(path) as labels:
        assert B.pair not in labels
        assert path.read_bytes() == whole
        labels.append(B, False)
    assert [pair.right for pair in read_pairs([path])] == [True, False]


@pytest.mark.parametrize(
    "content",
    [
        b"something else",
        b"something else\n",
        b'{"text":"a log"}\n',
        b'{"b":"y","a":"x","label":1}\n',
        b'{"a":"x","b":"y"}\n',
        b'{"a":"x","b":3,"label":1}\n',
        b"[]\n",
        b'{"a":"x","b":"y","label":1}\n\xff',
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a line that label has written"), LabelFile(path):
        pass
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"), LabelFile(tmp_path / "no folder" / "labels.jsonl"):
        pass
