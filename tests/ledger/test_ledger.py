"""What the books say, by hand-worked cases."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from ledgers import DAY, NOON, at_noon, exact

from semcache.money.books import Books, Line
from semcache.money.ledger import ROWS_A_DAY, Ledger
from semcache.money.prices import Prices
from semcache.money.rows import PREFIX
from semcache.stores.memory import MemoryStore
from semcache.types import Outcome, Usage, WouldServe


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


def test_books_show_what_they_hold_and_no_zeros():
    books = Books(misses=2, bypassed={"audio": 1}, spent=Line(calls=2, unpriced=2))
    assert repr(books) == "Books(misses=2, bypassed={'audio': 1}, spent=Line(calls=2, unpriced=2))"
    assert repr(Books()) == "Books()"
