from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.errors import StoreError
from semcache.money.books import Books, Line
from semcache.money.flusher import flusher
from semcache.money.ledger import ROWS_A_DAY, Ledger
from semcache.money.prices import Prices
from semcache.money.rows import PREFIX
from semcache.stores.memory import MemoryStore
from semcache.stores.redis import RedisStore
from semcache.stores.sqlite import SqliteStore
from semcache.testing.servers import RedisServer
from semcache.types import Event, Outcome, Usage, WouldServe

DAY = date(2026, 11, 21)
NOON = (DAY - date(1970, 1, 1)).days * 86_400 + 43_200.0


class FailingStore(MemoryStore):
    """A memory store whose counters can be switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False

    def add_counters(self, deltas: Mapping[str, int], *, once: str | None = None) -> None:
        if self.down:
            raise StoreError("switched off")
        super().add_counters(deltas, once=once)


def at_noon(store: MemoryStore | None = None, **kwargs: object) -> Ledger:
    return Ledger(store, clock=lambda: NOON, **kwargs)  # type: ignore[arg-type]


def exact(**kwargs: object) -> Outcome:
    return Outcome("hit", "exact", **kwargs)  # type: ignore[arg-type]


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_books_by_hand() -> None:
    """A small day whose figures were worked out on paper, at gpt-5-mini's $0.25 in and $2 out."""
    ledger = at_noon(MemoryStore())
    model = "gpt-5-mini"
    usage = Usage(1000, 500)  # 250 + 1000 micro-dollars
    for outcome in [
        Outcome("miss", stored=True, model=model, usage=usage, upstream_latency_s=2.0),
        exact(model=model, usage=usage, upstream_latency_s=2.0, seconds={"total": 0.001}),
        Outcome("hit", "semantic", model=model, usage=usage, upstream_latency_s=2.0, seconds={"total": 0.006}),
        Outcome("stale", "exact", model=model, usage=usage, upstream_latency_s=0.5, seconds={"total": 0.5}),
        Outcome("miss", collapsed=True, model=model, usage=usage, upstream_latency_s=2.0),
        Outcome("bypass", reason="no-store", model=model, usage=Usage(8, 3)),
        Outcome("bypass", reason="n > 1", model=model, usage=None),
        Outcome("bypass", reason="no-store", model=model, usage=Usage(8, 3)),
        Outcome("miss", reason="truncated", model=model, usage=Usage(4, 1)),
    ]:
        ledger.record(outcome)
    totals = ledger.report().totals
    hit = Line(calls=1, tokens=1500, usd_micro=1250)
    assert totals == Books(
        misses=2,
        stored=1,
        latency_saved_ms=1999 + 1994 + 0,
        bypassed={"no-store": 2, "n > 1": 1},
        priced={"semcache:gpt-5-mini@2026-11-21": 8},
        exact=hit,
        semantic=hit,
        stale=hit,
        collapsed=hit,
        spent=Line(calls=5, tokens=1500 + 5 + 22, unmetered=1, usd_micro=1250 + 3 + 8 + 8, unpriced=1),
    )
    assert (totals.requests, totals.hits, totals.bypasses) == (9, 2, 3)
    assert (totals.exact_hits, totals.semantic_hits) == (1, 1)
    assert totals.hit_rate == 2 / 9
    assert totals.saved == Line(calls=3, tokens=4500, usd_micro=3750)
    assert totals.saved.usd == Decimal("0.00375")
    figures = totals.to_dict()
    counts = {name: value for name, value in figures.items() if not name.startswith(("usd_", "tokens_"))}
    assert counts == {
        "requests": 9,
        "hits": 2,
        "exact_hits": 1,
        "semantic_hits": 1,
        "stale": 1,
        "collapsed": 1,
        "misses": 2,
        "bypasses": 3,
        "bypassed": {"n > 1": 1, "no-store": 2},
        "refused": 0,
        "stored": 1,
        "shadow_exact_hits": 0,
        "shadow_semantic_hits": 0,
        "audit_calls": 0,
        "hit_rate": 2 / 9,
        "unpriced": 1,
        "estimated": 0,
        "priced_by": {"semcache:gpt-5-mini@2026-11-21": 8},
        "latency_saved_s": 3.993,
    }
    money = {name: value for name, value in figures.items() if name.startswith("usd_") and value}
    assert money == {
        "usd_exact": 0.00125,
        "usd_semantic": 0.00125,
        "usd_stale": 0.00125,
        "usd_collapsed": 0.00125,
        "usd_spent": 0.001269,
        "usd_saved": 0.00375,
        "usd_paid": 0.001269,
        "usd_net_saved": 0.005,
        "usd_without_cache": 0.006269,
    }
    tokens = {name: value for name, value in figures.items() if name.startswith("tokens_") and value}
    assert tokens == {
        **dict.fromkeys(("tokens_exact", "tokens_semantic", "tokens_stale", "tokens_collapsed"), 1500),
        "tokens_saved": 4500,
        "tokens_spent": 1527,
    }


def test_prompt_caching_and_what_the_cache_pays_for_by_hand() -> None:
    """At claude-opus-5-5's $4 in, $20 out, reads at 0.05 and writes at 1.25 (for an hour at 2)."""
    ledger = at_noon(MemoryStore())
    model = "claude-opus-5-5"
    wrote = Usage(5000, 100, 0, 4000, 0, 1000)  # 1,000 plain, 3,000 for 5 min, 1,000 for 1 h
    read = Usage(5000, 100, 4000)
    for outcome in [
        Outcome("miss", model=model, usage=wrote),  # 4,000 + 15,000 + 8,000 + 2,000
        Outcome("bypass", model=model, usage=read, reason="no-store"),  # 4,000 + 800 + 2,000
        Outcome("miss", collapsed=True, model=model, usage=read),  # reads what its leader read: 6,800
        Outcome("miss", collapsed=True, model=model, usage=wrote),  # what its leader wrote it cannot read: 22,000
        exact(model=model, usage=wrote),  # may have been read by then: 6,800
        exact(model=model, usage=wrote, expected_read_tokens=0),  # known to be cold, no premium: 22,000
        Outcome("hit", "semantic", model=model, usage=read, expected_read_tokens=2000),  # 12,000 + 400 + 2,000
        exact(model="claude-opus-5-5-batch-of-one", usage=read),
    ]:
        ledger.record(outcome)
    ledger.record_overhead("embedding", "default", "text-embedding-3-small", Usage(500))
    ledger.record_overhead("verifier", "default", model, None, usd_micro=70)
    ledger.record_audit("default", model, Usage(100, 10))
    totals = ledger.report().totals
    assert totals.spent.usd_micro == 29_000 + 6_800
    assert totals.reads == Line(calls=1, tokens=4000, usd_micro=15_200)
    assert totals.writes == Line(calls=1, tokens=4000, usd_micro=-3_000 - 4_000)
    assert totals.collapsed.usd_micro == 6_800 + 22_000
    assert totals.exact.usd_micro == 6_800 + 22_000
    assert totals.semantic.usd_micro == 14_400
    assert (totals.embedding.usd_micro, totals.verifier.usd_micro, totals.audit.usd_micro) == (10, 70, 600)
    assert totals.paid_usd_micro == 35_800 + 680
    assert totals.net_usd_micro == 28_800 + 28_800 + 14_400 + 15_200 - 7_000 - 680
    # Both calls at list price, and what the spared ones would have cost.
    assert totals.without_usd_micro == 2 * 22_000 + 28_800 + 28_800 + 14_400
    assert ledger.report().unpriced() == {"claude-opus-5-5-batch-of-one": Line(calls=1, tokens=5100)}


def test_calls_without_a_price_get_one_afterwards(tmp_path: Path) -> None:
    ledger = at_noon(MemoryStore())
    for outcome in [
        Outcome("miss", model="house", usage=Usage(1000, 100, 200, 300)),
        Outcome("miss", model="house"),
        exact(model="house", usage=Usage(1000, 100, 200, 300)),
        exact(model="gpt-5-mini", usage=Usage(4)),
    ]:
        ledger.record(outcome)
    ledger.flush()
    path = tmp_path / "prices.toml"
    path.write_text("[models.house]\ninput = 2\noutput = 10\nread = 0.5\nwrite = 1.5")
    stats = ledger.report()
    assert stats.totals.spent == Line(
        calls=2,
        tokens=1100,
        unmetered=1,
        unpriced=2,
        owed_calls=1,
        owed_input=1000,
        owed_output=100,
        owed_read=200,
        owed_write=300,
    )
    assert stats.totals.spent.usd is None
    settled = stats.settled(Prices(path))
    assert settled.totals.spent == Line(
        calls=2, tokens=1100, unmetered=1, unpriced=1, usd_micro=1000 + 200 + 900 + 1000
    )
    assert (settled.totals.reads.usd_micro, settled.totals.writes.usd_micro) == (200, -300)
    assert settled.totals.exact == Line(calls=2, tokens=1104, usd_micro=1000 + 500 + 1000 + 1)
    assert settled.totals.without_usd_micro == 3000 + 2501
    assert (settled.unpriced(), settled.settled(Prices(path))) == ({}, settled)
    assert stats.totals.spent.usd is None, "the report that was settled is left as it was"


def test_a_price_that_comes_late_is_of_as_many_calls_as_one_in_time(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text("[models.house]\ninput = 2\noutput = 10")
    late, in_time = at_noon(MemoryStore()), at_noon(MemoryStore(), prices=Prices(path))
    for ledger in (late, in_time):
        withheld = WouldServe("semantic", 0.99, 1, usage=Usage(1000))
        ledger.record(Outcome("miss", model="house", usage=Usage(1000), would_serve=withheld))
        ledger.record(exact(model="house", usage=Usage(1000)))
        ledger.record_audit("default", "house", Usage(1000))
    assert late.report().settled(Prices(path)).totals == in_time.report().totals


def test_record_prices_the_outcome_once(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"models": {"m": {"input": 7, "output": 0}}}))
    ledger = at_noon(prices=Prices(path))
    outcome = exact(model="m", usage=Usage(3))
    ledger.record(outcome)
    assert outcome.usd_micro == 21
    already = exact(model="m", usage=Usage(3), usd_micro=5)
    ledger.record(already)
    assert already.usd_micro == 5
    assert ledger.report().totals.saved.usd_micro == 26


def test_money_that_nobody_knows_is_none_and_not_zero() -> None:
    ledger = at_noon()
    ledger.record(exact(model="nonesuch", usage=Usage(10, 5)))
    ledger.record(exact(model="gpt-5-mini", usage=None))
    totals = ledger.report().totals
    assert totals.saved == Line(calls=2, tokens=15, unmetered=1, unpriced=2, owed_calls=1, owed_input=10, owed_output=5)
    assert totals.saved.usd is None
    assert totals.spent.usd == 0
    assert totals.to_dict()["usd_saved"] is None
    assert totals.to_dict()["tokens_saved"] == 15
    ledger.record(exact(model="gpt-5-mini", usage=Usage(4)))
    assert ledger.report().totals.saved.usd == Decimal("0.000001")


def test_tokens_that_nobody_counted_are_none_and_not_zero() -> None:
    ledger = at_noon()
    ledger.record(exact(model="gpt-5-mini", usage=None))
    figures = ledger.report().totals.to_dict()
    assert figures["tokens_saved"] is None
    assert figures["tokens_spent"] == 0


def test_a_look_up_slower_than_the_call_it_spared_loses_time() -> None:
    ledger = at_noon()
    ledger.record(exact(upstream_latency_s=0.001, seconds={"total": 0.5}))
    assert ledger.report().totals.latency_saved_ms == -499


def test_days_are_utc_and_rows_are_sorted() -> None:
    clock = [NOON]
    ledger = Ledger(MemoryStore(), clock=lambda: clock[0])
    ledger.record(exact(namespace="b", model="y"))
    ledger.record(exact(namespace="a", model=None))
    clock[0] += 43_199.9
    ledger.record(exact(namespace="a", model="x"))
    clock[0] += 0.2
    ledger.record(exact(namespace="a", model="x"))
    stats = ledger.report()
    tomorrow = DAY + timedelta(days=1)
    assert [row[:3] for row in stats.rows] == [
        (DAY, "a", None),
        (DAY, "a", "x"),
        (DAY, "b", "y"),
        (tomorrow, "a", "x"),
    ]
    assert {day: books.requests for day, books in stats.group("day").items()} == {DAY: 3, tomorrow: 1}
    assert {name: books.requests for name, books in stats.group("namespace").items()} == {"a": 3, "b": 1}
    assert [row.day for row in ledger.report(since=tomorrow).rows] == [tomorrow]
    assert ledger.report(since=tomorrow).totals.requests == 1
    assert ledger.report(namespace="b").totals.requests == 1
    assert json.loads(json.dumps(stats.to_dict()))["rows"][3]["day"] == "2026-11-22"


def test_two_ledgers_on_one_store_keep_common_books() -> None:
    store = MemoryStore()
    one, other = at_noon(store), at_noon(store)
    one.record(exact())
    other.record(exact())
    assert one.report().totals.exact_hits == 1
    assert other.flush()
    assert one.report().totals.exact_hits == 2
    assert one.flush()
    assert other.report().totals.exact_hits == 2


def test_counters_of_others_and_of_later_versions_are_left_alone() -> None:
    store = MemoryStore()
    ledger = at_noon(store)
    ledger.record(exact())
    ledger.flush()
    store.add_counters({"ledger3|x": 3, f"{PREFIX}20000|default|-|hits_of_another_kind": 4})
    assert ledger.report().totals.requests == 1


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


def test_reasons_do_not_multiply_the_counters() -> None:
    store = MemoryStore()
    ledger = at_noon(store)
    for n in range(1000):
        ledger.record(Outcome("bypass", reason=f"no canonical form: <{n}>"))
        ledger.record(Outcome("bypass", reason=f"odd reason {n}"))
    ledger.flush()
    books = ledger.report().totals
    assert books.bypasses == 2000
    assert books.bypassed["no canonical form"] == 1000
    assert len(books.bypassed) <= 65


def test_invented_models_do_not_multiply_the_counters() -> None:
    clock = [NOON]
    store = MemoryStore()
    ledger = Ledger(store, clock=lambda: clock[0])
    for n in range(ROWS_A_DAY + 50):
        ledger.record(exact(model=f"m{n}"))
    ledger.record(exact(model="m0"))
    ledger.flush()
    rows = {row.model: row.books.exact_hits for row in ledger.report().rows}
    assert len(rows) == ROWS_A_DAY + 1
    assert (rows["(other)"], rows["m0"]) == (50, 2)
    clock[0] += 86_400
    ledger.record(exact(model="a new day"))
    assert ledger.report().rows[-1].model == "a new day"


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


def test_books_show_what_they_hold_and_no_zeros():
    books = Books(misses=2, bypassed={"audio": 1}, spent=Line(calls=2, unpriced=2))
    assert repr(books) == "Books(misses=2, bypassed={'audio': 1}, spent=Line(calls=2, unpriced=2))"
    assert repr(Books()) == "Books()"
