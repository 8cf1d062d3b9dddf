"""The demo's log keeps what its README says."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from importlib import resources

from semcache.demo.questions import Question, load_answers, load_questions
from semcache.tuning.logs import read_logs

FOLDER = resources.files("semcache") / "data" / "demo"
QUESTIONS = load_questions()


def subject(question: Question) -> str:
    return question.label.partition(":")[0]


def test_answers_and_classes_match_one_to_one() -> None:
    answers = load_answers()
    assert answers.keys() == {question.label for question in QUESTIONS}
    assert len(set(answers.values())) == len(answers) >= 100


def test_a_text_has_one_class_and_a_class_one_desk() -> None:
    for key, value in ((lambda q: q.text, lambda q: q.label), (lambda q: q.label, lambda q: q.api)):
        pairs = {(key(question), value(question)) for question in QUESTIONS}
        assert len(pairs) == len({key(question) for question in QUESTIONS})


def test_it_is_in_order_of_time_with_bursts_of_equal_questions() -> None:
    assert all(a.ts <= b.ts for a, b in itertools.pairwise(QUESTIONS))
    pairs = itertools.pairwise(QUESTIONS)
    in_burst = sum(a.text == b.text and b.ts - a.ts < 0.5 for a, b in pairs)
    assert in_burst >= 24


def test_the_readme_gives_the_mix_as_it_is() -> None:
    texts: set[str] = set()
    classes: set[str] = set()
    subjects: set[str] = set()
    kinds: Counter[str] = Counter()
    for question in QUESTIONS:
        if question.text in texts:
            kinds["asked before in the same words"] += 1
        elif question.label in classes:
            kinds["asked before in other words"] += 1
        else:
            kinds["new, and a near miss" if subject(question) in subjects else "new"] += 1
        texts.add(question.text)
        classes.add(question.label)
        subjects.add(subject(question))
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    counted = (
        f"{len(QUESTIONS)} questions, {len(texts)} distinct texts, {len(classes)} classes of {len(subjects)} subjects"
    )
    assert counted in readme
    shares = re.findall(r"^\| (.+) \| (\d+) % \|$", readme, re.MULTILINE)
    assert len(shares) == len(kinds)
    for row, share in shares:
        kind = max((kind for kind in kinds if row.startswith(kind)), key=len)
        assert round(100 * kinds[kind] / len(QUESTIONS)) == int(share), row


def test_replay_can_read_it() -> None:
    records = list(read_logs([str(FOLDER / "support_log.jsonl")]))
    assert [record.label for record in records] == [question.label for question in QUESTIONS]
    assert all(record.ts is not None for record in records)
