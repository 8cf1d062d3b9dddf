"""The shared record: several processes on one store, trouble, bounds, switching off and on."""

from __future__ import annotations

import math
import threading

import pytest
from bank import eventually
from click.testing import CliRunner

from semcache import Policy
from semcache.cli import main
from semcache.errors import StoreError
from semcache.live import evidence as module
from semcache.live.evidence import Evidence
from semcache.live.record import OTHERS, PREFIX, Standing, Verdicts, decode
from semcache.stores import MemoryStore, open_store
from semcache.stores.redis import RedisStore

BUDGET = Policy(audit_rate=1.0, max_false_hit_rate=0.1)
CLEAN = 29


class FailingStore(MemoryStore):
    down = False

    def add_counters(self, deltas, *, once=None):
        if self.down:
            raise StoreError("down")
        super().add_counters(deltas, once=once)

    def counters(self, prefix=""):
        if self.down:
            raise StoreError("down")
        return super().counters(prefix)


@pytest.fixture
def store():
    return FailingStore()


@pytest.fixture
def events():
    return []


@pytest.fixture
def evidence(store, events):
    return Evidence(store, BUDGET, events.append)


def other_on(store, events=None):
    return Evidence(store, BUDGET, (lambda event: None) if events is None else events.append)


def audit(evidence, *verdicts, namespace="n"):
    for id, right in enumerate(verdicts):
        evidence.audited(namespace, id, right, judged=True)


def test_what_one_process_learns_the_other_knows(lasting_url):
    store, same = open_store(lasting_url), open_store(lasting_url)
    one, two = other_on(store), other_on(same)
    audit(one, True, False, None)
    audit(two, True)
    two.reported("n", 7, right=True)
    two.reported("n", 7, right=False)
    one.failed("n")
    expected = Standing(audited=3, wrong=1, unknown=1, failed=1, reported_right=1, reported_wrong=1)
    assert one.standings() == two.standings() == {"n": expected}
    store.close()
    same.close()


def test_records_are_made_anew_only_when_something_has_changed(store, evidence, monkeypatch):
    made = []
    monkeypatch.setattr(module, "STALE_S", 0.0)
    monkeypatch.setattr(module, "decode", lambda counters: made.append(1) or decode(counters))
    audit(evidence, True, False)
    for _ in range(5):
        evidence.refresh()
    assert len(made) == 1
    audit(other_on(store), False)
    evidence.refresh()
    assert len(made) == 2
    assert evidence.standings()["n"].wrong == 2


class ForgetfulStore(RedisStore):
    """A real server whose answer to a write is lost every other time."""

    sent = 0

    def add_counters(self, deltas, *, once=None):
        super().add_counters(deltas, once=once)
        self.sent += 1
        if self.sent % 2:
            raise StoreError("the connection was lost before the answer")


def test_a_verdict_whose_writing_was_not_confirmed_counts_once(redis_server, tmp_path):
    store = ForgetfulStore(redis_server.url, prefix=tmp_path.name, budget_s=5)
    evidence = other_on(store)
    audit(evidence, True, False, True)
    try:
        found = evidence.standings()
    except StoreError:
        found = evidence.standings()
    assert found == other_on(store).standings() == {"n": Standing(audited=3, wrong=1)}
    store.close()


def test_a_broken_budget_switches_the_namespace_off_for_all_and_says_so(store, evidence, events):
    heard = []
    other = other_on(store, heard)
    audit(evidence, *[True] * 10, *[False] * 10)
    assert evidence.off("n").startswith("semantic tier off: ")
    assert evidence.off("another") == ""
    assert [event.kind for event in events] == ["semantic_off"]
    other.refresh()
    assert other.off("n") == evidence.off("n")
    assert [event.kind for event in heard] == ["semantic_off"]


def test_within_a_second_others_are_not_asked(store, evidence, monkeypatch):
    reads = []
    monkeypatch.setattr(store, "counters", lambda prefix: reads.append(prefix) or {})
    for _ in range(100):
        evidence.refresh()
    assert reads == [PREFIX]


def test_what_is_older_is_read_beside_the_caller(store, evidence, monkeypatch):
    read, readers = store.counters, []
    monkeypatch.setattr(store, "counters", lambda prefix: readers.append(threading.current_thread()) or read(prefix))
    monkeypatch.setattr(module, "REFRESH_S", 0.0)
    monkeypatch.setattr(module, "STALE_S", math.inf)
    evidence.refresh()
    assert readers == [threading.current_thread()], "of a store that was never read the caller reads"
    audit(other_on(store), *[True] * 10, *[False] * 10)
    evidence.refresh()
    eventually(lambda: evidence.off("n"))
    assert [thread.name for thread in readers[1:]] == ["semcache-flusher"]


def test_no_look_up_goes_by_what_is_older_than_three_seconds(store, evidence):
    evidence.refresh()
    audit(other_on(store), *[True] * 10, *[False] * 10)
    evidence._read_at -= module.STALE_S
    evidence.refresh()
    assert evidence.off("n")


def test_an_audit_that_cannot_say_wrong_makes_no_rate(evidence):
    for _ in range(50):
        evidence.audited("n", 1, True, judged=False)
    assert evidence.standings() == {"n": Standing(agreed=50)}
    assert evidence.weigh("n", 1).slack > 0


def test_it_comes_back_after_so_many_clean_audits_in_a_row_and_starts_afresh(evidence, events):
    audit(evidence, *[False] * 8)
    frozen = evidence.standings()["n"]
    audit(evidence, *[True] * (CLEAN - 1), False, *[True] * (CLEAN - 1))
    off = evidence.standings()["n"]
    assert (off.off, off.clean, off.audited, off.wrong) == (True, CLEAN - 1, frozen.audited, frozen.wrong)
    audit(evidence, True)
    assert evidence.standings()["n"] == Standing()
    assert [event.kind for event in events] == ["semantic_off", "semantic_on"]


def test_a_command_brings_it_back_for_all(lasting_url):
    store = open_store(lasting_url)
    evidence = other_on(store)
    audit(evidence, *[False] * 8)
    shown = CliRunner().invoke(main, ["stats", "--store", lasting_url]).stdout
    assert "semantic tier off" in shown
    assert "semcache resume n" in shown
    resume = ["resume", "n", "--store", lasting_url]
    assert "serves again" in CliRunner().invoke(main, resume).stdout
    assert "was not off" in CliRunner().invoke(main, resume).stdout
    assert evidence.standings()["n"].off is False
    assert evidence.off("n") == ""
    store.close()


def test_without_a_budget_nothing_is_switched_off(store):
    evidence = Evidence(store, Policy(audit_rate=1.0), lambda event: None)
    audit(evidence, *[False] * 100)
    assert evidence.off("n") == ""


def test_a_failing_store_loses_nothing(store, evidence, events):
    audit(evidence, True)
    store.down = True
    audit(evidence, *[False] * 8)
    assert evidence.off("n")
    assert {event.kind for event in events} == {"store_error", "semantic_off"}
    with pytest.raises(StoreError):
        evidence.standings()
    with pytest.raises(StoreError):
        evidence.resume("n")
    store.down = False
    evidence.close()
    assert other_on(store).standings()["n"].off


def test_what_was_dropped_is_written_with_the_next_thing(store, evidence):
    evidence.dropped("n")
    assert store.counters() == {}
    audit(evidence, True)
    assert evidence.standings()["n"] == Standing(audited=1, dropped=1)


def test_namespaces_are_bounded_and_those_beyond_share_one_record(store, evidence, monkeypatch):
    monkeypatch.setattr(module, "MAX_NAMESPACES", 3)
    for n in range(3):
        audit(evidence, True, namespace=f"own {n}")
    for n in range(50):
        evidence.audited(f"late {n}", n, False, judged=True)
    assert evidence.standings().keys() == {"own 0", "own 1", "own 2", OTHERS}
    assert evidence.off("late 7")
    assert evidence.off("never seen")
    assert evidence.off("own 1") == ""
    other = other_on(store)
    other.refresh()
    assert other.off("late 7") == evidence.off("late 7")
    assert evidence.resume("late 7")
    assert evidence.off("late 30") == ""


def test_a_report_taken_back_is_not_counted(evidence):
    evidence.reported("n", 1, right=True)
    evidence.corrected("n", 1, right=False)
    assert evidence.standings() == {"n": Standing(reported_wrong=1)}


def test_records_of_entries_are_bounded_and_the_worst_are_kept(store, evidence, monkeypatch):
    monkeypatch.setattr(module, "MAX_ENTRIES", 20)
    for _ in range(2):
        evidence.reported("n", 1, right=False)
    for id in range(100, 200):
        evidence.reported("n", id, right=True)
    (record,) = module.decode(store.counters(PREFIX)).values()
    assert len(record.entries) <= 20
    assert record.entries[1] == Verdicts(0, 2)
    assert 199 in record.entries
    assert evidence.weigh("n", 1).barred
    assert evidence.weigh("n", 100) is None
