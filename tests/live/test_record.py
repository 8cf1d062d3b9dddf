"""What counters mean: namespaces, epochs, entries, and what an entry's own record does to its next hit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache import Policy
from semcache.judging import judge
from semcache.live.anytime import interval
from semcache.live.record import (
    BAR,
    CONFIRMED,
    MAX_SLACK,
    Record,
    Standing,
    Verdicts,
    counter,
    decode,
    entry_counters,
    weigh,
)
from semcache.policy import Evidence
from semcache.types import Candidate

FIRST = 0.02
"""What is expected of an entry in a namespace of which nothing is known."""


@given(st.dictionaries(st.text(max_size=8), st.dictionaries(st.integers(0, 2**63 - 1), st.integers(0, 9)), max_size=4))
def test_namespaces_of_any_name_and_entries_come_back(found):
    counters = {
        counter(namespace, f"e|{id:x}|wrong"): wrong for namespace, ids in found.items() for id, wrong in ids.items()
    }
    records = decode(counters)
    assert {name: {id: v.wrong for id, v in record.entries.items()} for name, record in records.items()} == {
        namespace: ids for namespace, ids in found.items() if ids
    }
    for namespace, ids in found.items():
        assert set(entry_counters(namespace, ids)) >= {n for n in counters if n.startswith(counter(namespace, ""))}


def test_an_epoch_ends_once_however_many_processes_end_it():
    record = Record()
    for name, value in (("audited.0", 40), ("wrong.0", 9), ("off.0", 2), ("clean.0", 3), ("unknown", 5)):
        record.add(name, value)
    assert record.standing == Standing(audited=40, wrong=9, off=True, clean=3, unknown=5)
    assert record.standing.reason == "semantic tier off: 9 of 40 audited hits were wrong"
    record.add("resumed.0", 2)
    assert record.standing == Standing(unknown=5)
    assert record.standing.reason == ""
    record.add("audited.1", 1)
    assert (record.epoch, record.standing.audited) == (1, 1)


def test_a_standing_tells_its_rate_and_bounds():
    assert Standing().false_hit_rate is None
    assert Standing().interval() is None
    told = Standing(audited=50, wrong=1).to_dict()
    assert told["false_hit_rate"] == 0.02
    assert told["false_hit_rate_cs95"] == list(interval(50, 1))


@pytest.mark.parametrize(
    ("verdicts", "expected", "barred"),
    [
        (Verdicts(0, 1), FIRST, False),
        (Verdicts(0, 2), FIRST, True),
        (Verdicts(20, 2), FIRST, False),
        (Verdicts(0, 1), 0.3, True),  # in a namespace that is often wrong, one is enough
        (Verdicts(0, 0), 0.9, False),  # and yet nobody is barred for the others
    ],
)
def test_a_bad_record_bars_an_entry_and_no_other(verdicts, expected, barred):
    assert weigh(verdicts, expected).barred is barred
    assert BAR < 0.3


def test_a_much_confirmed_entry_gets_some_slack_and_one_wrong_hit_takes_it():
    assert weigh(Verdicts(CONFIRMED - 1), FIRST).slack == 0.0
    some, more = weigh(Verdicts(CONFIRMED), FIRST).slack, weigh(Verdicts(200), FIRST).slack
    assert 0.01 < some < more < MAX_SLACK
    assert weigh(Verdicts(CONFIRMED, 1), FIRST).slack == 0.0


@given(st.integers(0, 5_000), st.integers(0, 50), st.floats(0.001, 0.99))
def test_slack_is_bounded_and_a_wrong_verdict_never_helps(right, wrong, expected):
    now, worse = weigh(Verdicts(right, wrong), expected), weigh(Verdicts(right, wrong + 1), expected)
    assert 0.0 <= worse.slack <= now.slack <= MAX_SLACK
    assert worse.barred >= now.barred
    assert not (now.barred and now.slack)


def test_a_report_taken_back_after_its_record_was_forgotten_gives_nothing():
    assert weigh(Verdicts(CONFIRMED, -1), FIRST) == weigh(Verdicts(CONFIRMED, 0), FIRST)
    assert weigh(Verdicts(-1, 0), FIRST) == weigh(Verdicts(0, 0), FIRST)


def test_the_namespace_is_known_by_its_entries():
    record = Record()
    assert record.expected_wrong == FIRST
    for id in range(40):
        record.add(f"e|{id:x}|right", 1)
        record.add(f"e|{id:x}|wrong", 1)
    assert record.expected_wrong == 41 / 130


QUESTION, STORED = "How do I reset my password?", "how do I reset my password please"


def decide(candidate, policy, question=QUESTION, **more):
    return judge(policy, question, [candidate], rules=policy.rules("default"), **more).verdict


def test_slack_serves_a_little_below_the_threshold_and_never_past_the_guards():
    policy = Policy(threshold=0.9)
    below, confirmed = Candidate(1, STORED, 0.885), Candidate(1, STORED, 0.885, slack=0.02)
    assert decide(below, policy) == "reject"
    assert decide(confirmed, policy) == "serve"
    assert decide(confirmed._replace(similarity=0.87), policy) == "reject"
    assert decide(confirmed, policy, min_similarity=0.89) == "reject"
    assert decide(confirmed, policy, "How do I not reset my password?") == "reject"


def test_a_threshold_that_was_measured_is_kept_to():
    policy = Policy(threshold=0.9, evidence=Evidence("fp"))
    assert decide(Candidate(1, STORED, 0.885, slack=0.02), policy) == "reject"


def test_a_barred_entry_says_why():
    decision = judge(Policy(), QUESTION, [Candidate(1, STORED, 0.99, barred=True)], rules=Policy().rules("default"))
    assert decision.reason == "too many of its hits were wrong"
