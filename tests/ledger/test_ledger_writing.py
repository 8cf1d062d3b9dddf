"""What a ledger has counted reaches its store once, whatever fails meanwhile."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import DAY, FailingStore, at_noon, eventually, exact

from semcache.errors import StoreError
from semcache.money.books import Books, Line
from semcache.money.flusher import flusher
from semcache.money.ledger import Ledger
from semcache.money.rows import PREFIX
from semcache.stores.memory import MemoryStore
from semcache.stores.redis import RedisStore
from semcache.stores.sqlite import SqliteStore
from semcache.testing.servers import RedisServer
from semcache.types import Event, Outcome, Usage


def test_a_failing_store_keeps_the_counts_and_says_so_once() -> None:
    store = FailingStore()
    events: list[Event] = []
    ledger = at_noon(store, on_event=[events.append])
    store.down = True
    for _ in range(3):
        ledger.record(exact(model="gpt-5-mini", usage=Usage(4)))
        assert not ledger.flush()
    assert [event.kind for event in events] == ["ledger_error"]
    assert isinstance(events[0].error, StoreError)
    store.down = False
    assert ledger.report().totals.exact_hits == 3
    assert ledger.flush()
    assert store.counters(PREFIX)
    assert at_noon(store).report().totals.saved == Line(calls=3, tokens=12, usd_micro=3)
    store.down = True
    ledger.record(exact())
    ledger.close()
    assert [event.kind for event in events] == ["ledger_error"] * 3


class ForgetfulStore(RedisStore):
    """A real server whose answer is lost every other time."""

    sent = 0

    def add_counters(self, deltas: Mapping[str, int], *, once: str | None = None) -> None:
        super().add_counters(deltas, once=once)
        self.sent += 1
        if self.sent % 2:
            raise StoreError("the connection was lost before the answer")


def test_what_was_counted_when_the_answer_was_lost_is_counted_once(redis_server: RedisServer, tmp_path: Path) -> None:
    store = ForgetfulStore(redis_server.url, prefix=tmp_path.name, budget_s=5)
    events: list[Event] = []
    ledger = at_noon(store, on_event=[events.append])
    for _ in range(8):
        ledger.record(exact(model="gpt-5-mini", usage=Usage(4)))
        ledger.flush()
    while not ledger.flush():
        pass
    assert store.sent >= 9
    assert {event.kind for event in events} == {"ledger_error"}
    assert at_noon(store).report().totals.exact == Line(calls=8, tokens=32, usd_micro=8)
    ledger.close()
    store.close()


def test_it_is_written_within_seconds_without_being_asked_and_after_a_failure_too() -> None:
    store = FailingStore()
    ledger = at_noon(store)
    ledger.record(exact())
    eventually(lambda: bool(store.counters(PREFIX)))
    store.down = True
    ledger.record(exact())
    eventually(lambda: ledger._failing)
    store.down = False
    eventually(lambda: at_noon(store).report().totals.exact_hits == 2)


def test_a_ledger_that_was_dropped_unclosed_is_still_written() -> None:
    store = MemoryStore()
    ledger = at_noon(store)
    ledger.record(exact())
    gone = weakref.ref(ledger)
    del ledger
    eventually(lambda: at_noon(store).report().totals.exact_hits == 1)
    eventually(lambda: gc.collect() >= 0 and gone() is None)


def test_one_that_raises_keeps_no_other_from_being_written() -> None:
    class Raises:
        def flush(self) -> None:
            raise ValueError("a store that breaks its promise")

    store = MemoryStore()
    ledger = at_noon(store)
    for _ in range(2):
        flusher.wake(Raises())
        ledger.record(exact())
        eventually(lambda: not ledger._pending)
    assert at_noon(store).report().totals.exact.calls == 2


def test_what_comes_after_closing_is_not_tried_for_ever() -> None:
    store = FailingStore()
    told: list[str] = []  # an event's error would hold on to the ledger
    ledger = at_noon(store, on_event=[lambda event: told.append(event.kind)])
    ledger.close()
    store.down = True
    ledger.record(exact())
    gone = weakref.ref(ledger)
    del ledger
    eventually(lambda: told == ["ledger_error"])
    eventually(lambda: gc.collect() >= 0 and gone() is None)


def test_a_name_that_no_store_can_write_holds_up_no_other(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "cache.sqlite", budget_s=5)) as store:
        ledger = at_noon(store)
        ledger.record(exact(model="gpt\ud800"))
        ledger.record(exact(model="ä|%"))
        assert ledger.flush()
        assert {row.model for row in ledger.report().rows} == {"gpt?", "ä|%"}


def test_attach_gives_a_store_to_a_ledger_without_one() -> None:
    first, second = MemoryStore(), MemoryStore()
    ledger = at_noon()
    ledger.record(exact())
    ledger.attach(first)
    ledger.attach(second)
    ledger.flush()
    assert first.counters(PREFIX)
    assert not second.counters(PREFIX)


def test_threads_lose_nothing() -> None:
    store = MemoryStore()
    ledger = at_noon(store)
    stop = threading.Event()

    def flush() -> None:
        while not stop.is_set():
            ledger.flush()

    def record(model: str) -> None:
        for _ in range(2000):
            ledger.record(exact(model=model, usage=Usage(1, 1)))

    flusher = threading.Thread(target=flush)
    recorders = [threading.Thread(target=record, args=(f"m{n % 3}",)) for n in range(8)]
    for thread in (flusher, *recorders):
        thread.start()
    for thread in recorders:
        thread.join()
    stop.set()
    flusher.join()
    ledger.close()
    assert at_noon(store).report().totals.saved == Line(
        calls=16_000, tokens=32_000, unpriced=16_000, owed_calls=16_000, owed_input=16_000, owed_output=16_000
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_repeats_the_parent_nor_hangs() -> None:
    code = """
import os, sys
from semcache.money.ledger import Ledger
from semcache.stores.memory import MemoryStore
from semcache.types import Outcome
store = MemoryStore()
ledger = Ledger(store)
ledger.record(Outcome("hit", "exact"))
with ledger._lock, ledger._writing:
    child = os.fork()
if child == 0:
    ledger.record(Outcome("miss"))
    ledger.flush()
    totals = ledger.report().totals
    os._exit(0 if (totals.exact_hits, totals.misses) == (0, 1) else 3)
_, status = os.waitpid(child, 0)
ledger.close()
assert os.waitstatus_to_exitcode(status) == 0, status
assert ledger.report().totals.exact_hits == 1
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, timeout=300)


def test_the_exit_of_the_interpreter_writes_what_is_pending(tmp_path: Path) -> None:
    code = """
import sys
from semcache.money.ledger import Ledger
from semcache.stores.sqlite import SqliteStore
from semcache.types import Outcome
ledger = Ledger(SqliteStore(sys.argv[1]))
ledger.record(Outcome("hit", "exact"))
"""
    path = tmp_path / "s.sqlite"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=300)
    from semcache.stores.sqlite import SqliteStore

    store = SqliteStore(path)
    assert Ledger(store).report().totals.exact_hits == 1
    store.close()


names = st.one_of(st.text(max_size=8), st.sampled_from(["-", "|", "%", "%2D", "%7C", "a|b", "%25"]))
outcomes = st.builds(
    Outcome,
    status=st.sampled_from(["hit", "miss", "bypass", "stale"]),
    layer=st.sampled_from(["exact", "semantic"]),
    collapsed=st.booleans(),
    stored=st.booleans(),
    reason=names,
    namespace=names,
    model=st.none() | names | st.just("gpt-5-mini"),
    usage=st.none() | st.builds(Usage, st.integers(0, 10**6), st.integers(0, 10**5)),
    upstream_latency_s=st.none() | st.floats(0, 60),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(outcomes, st.sampled_from(["", "flush", "fail", "report"])), max_size=30))
def test_rows_add_up_and_no_flush_at_any_moment_loses_anything(script: list[tuple[Outcome, str]]) -> None:
    store = FailingStore()
    ledger = at_noon(store)
    expected: Counter[tuple[str, str | None]] = Counter()
    tokens = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flusher, "wake", flusher.forget)  # it writes at moments of its own, also before the store is down
        for outcome, action in script:
            ledger.record(outcome)
            expected[outcome.namespace, outcome.model] += 1
            tokens += outcome.usage.total if outcome.usage else 0
            store.down = action == "fail"
            if action in ("flush", "fail"):
                assert ledger.flush() is (action == "flush")
            elif action == "report":
                assert ledger.report().totals.requests == sum(expected.values())
    stats = ledger.report()
    assert {(row.namespace, row.model): row.books.requests for row in stats.rows} == expected
    assert all(row.day == DAY for row in stats.rows)
    summed = Books()
    for row in stats.rows:
        summed.merge(row.books)
    assert summed == stats.totals
    totals = stats.totals
    lines = (totals.saved, totals.collapsed, totals.spent)
    assert sum(line.calls for line in lines) == totals.requests
    assert sum(line.tokens for line in lines) == tokens
    assert totals.requests == len(script)
    store.down = False
    ledger.close()
    assert at_noon(store).report() == stats
