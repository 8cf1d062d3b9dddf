"""Paid + saved = what the same traffic costs without the cache, to the micro-dollar."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.money.ledger import Ledger
from semcache.money.prices import Prices
from semcache.stores import open_store
from semcache.stores.base import Store
from semcache.stores.memory import MemoryStore
from semcache.types import Outcome, Usage, WouldServe

# Prices that leave remainders: $ per million of input and output, multiples of reads and of short and long writes.
MODELS = {
    "marked": (Decimal("3.7"), Decimal("11.1"), Decimal("0.025"), Decimal("1.25"), Decimal(2)),
    "by-itself": (Decimal("0.15"), Decimal("0.61"), Decimal("0.1"), Decimal(1), Decimal(1)),
    "unpriced": None,
}
CACHES_FROM = 1024


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Prices:
    marked, by_itself = MODELS["marked"], MODELS["by-itself"]
    assert marked is not None
    assert by_itself is not None
    names = ("input", "output", "read", "write", "write_long")
    rows = {
        "marked": dict(zip(names, map(float, marked), strict=True)),
        "by-itself": dict(zip(names[:3], map(float, by_itself[:3]), strict=True)),
    }
    path = tmp_path_factory.mktemp("prices") / "prices.json"
    path.write_text(json.dumps({"models": rows}))
    return Prices(path)


def dollars(model: str, usage: Usage) -> int | None:
    """Micro-dollars of a usage, by another road than that of ``semcache.money.prices``."""
    rates = MODELS[model]
    if rates is None:
        return None
    plain, output, read, write, long = rates
    short = usage.cache_write_tokens - usage.cache_write_long_tokens
    ordinary = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    weighed = ordinary + usage.cache_read_tokens * read + short * write + usage.cache_write_long_tokens * long
    return int((weighed * plain + usage.output_tokens * output).quantize(Decimal(1), ROUND_HALF_EVEN))


def without(outcome: Outcome) -> int | None:
    """What a call costs where nothing is cached for it that was not there anyway."""
    usage = outcome.usage
    if usage is None or outcome.model is None or outcome.refused:
        return None
    plain = Usage(usage.input_tokens, usage.output_tokens)
    if outcome.status in ("miss", "bypass") and not outcome.collapsed:
        return dollars(outcome.model, plain)
    read = outcome.expected_read_tokens
    if read is None:
        read = usage.cache_read_tokens
        if not outcome.collapsed:
            read += usage.cache_write_tokens
            if outcome.model == "by-itself" and usage.input_tokens >= CACHES_FROM:
                read = usage.input_tokens
    return dollars(outcome.model, plain._replace(cache_read_tokens=min(read, usage.input_tokens)))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    plain, read, short, long, output = draw(st.tuples(*[st.integers(0, 3000)] * 5))
    return Usage(plain + read + short + long, output, read, short + long, 0, long, draw(st.booleans()))


outcomes = st.builds(
    Outcome,
    status=st.sampled_from(["hit", "hit", "miss", "bypass", "stale"]),
    layer=st.sampled_from(["exact", "semantic"]),
    collapsed=st.booleans(),
    refused=st.sampled_from([False] * 7 + [True]),
    reason=st.sampled_from(["", "no-store"]),
    namespace=st.sampled_from(["a", "b"]),
    model=st.sampled_from(list(MODELS)),
    usage=st.none() | usages(),
    expected_read_tokens=st.none() | st.integers(0, 9000),
)
audits = st.tuples(st.sampled_from(["embedding", "verifier", "audit"]), st.sampled_from(list(MODELS)), usages())


@settings(max_examples=150, deadline=None)
@given(st.lists(outcomes | audits, max_size=25))
def test_paid_and_saved_make_what_it_costs_without(prices: Prices, traffic: list[object]) -> None:
    ledger = Ledger(MemoryStore(), prices)
    expected = paid = unpriced = 0
    for one in traffic:
        if isinstance(one, Outcome):
            one = replace(one, collapsed=one.collapsed and one.status == "miss", refused=one.refused and not one.hit)
            ledger.record(one)
            expected += without(one) or 0
            if one.spent and one.usage is not None:
                paid += dollars(str(one.model), one.usage) or 0
            unpriced += one.usage is not None and one.model == "unpriced" and not one.refused
        else:
            kind, model, usage = one  # type: ignore[misc]
            ledger.record_overhead(kind, "a", model, usage)
            paid += dollars(model, usage) or 0
            unpriced += model == "unpriced"
    stats = ledger.report()
    totals = stats.totals
    assert totals.without_usd_micro == expected
    assert totals.paid_usd_micro == paid
    assert totals.paid_usd_micro + totals.net_usd_micro == totals.without_usd_micro
    lines = (totals.exact, totals.semantic, totals.stale, totals.collapsed, totals.reads, totals.writes)
    assert sum(line.usd_micro for line in lines) - totals.overhead.usd_micro == totals.net_usd_micro
    assert totals.writes.usd_micro <= 0 <= min(line.usd_micro for line in lines[:5])
    assert sum(line.calls for line in stats.unpriced().values()) == unpriced
    assert set(stats.unpriced()) <= {"unpriced"}


def random_traffic(seed: int, calls: int) -> list[Outcome]:
    chance = random.Random(seed)
    kinds = [("miss", None), ("hit", "exact"), ("hit", "semantic"), ("stale", "exact"), ("bypass", None)]
    made = []
    for _ in range(calls):
        status, layer = chance.choice(kinds)
        read, short, long = (chance.randrange(900) for _ in range(3))
        usage = Usage(read + short + long + chance.randrange(2000), chance.randrange(500), read, short + long, 0, long)
        shadow = WouldServe("semantic", 0.9, 1, usage=usage) if status == "miss" and chance.random() < 0.2 else None
        made.append(
            Outcome(
                status,  # type: ignore[arg-type]
                layer,  # type: ignore[arg-type]
                collapsed=status == "miss" and chance.random() < 0.3,
                namespace=chance.choice("ab"),
                model=chance.choice(["claude-opus-5-5", "gpt-5-mini", "gpt-6-sol", "nonesuch"]),
                usage=usage,
                would_serve=shadow,
            )
        )
    return made


CHILD = """
import sys
sys.path.insert(0, sys.argv[3])
from test_books_invariant import random_traffic
from semcache.money.ledger import Ledger
from semcache.stores import open_store
store = open_store(sys.argv[1])
ledger = Ledger(store)
for number, outcome in enumerate(random_traffic(int(sys.argv[2]), 300)):
    ledger.record(outcome)
    if number % 50 == 0:
        assert ledger.flush()
ledger.close()
store.close()
"""


def test_books_of_several_processes_add_up(lasting_url: str) -> None:
    store: Store = open_store(lasting_url)
    here = str(Path(__file__).parent)
    children = [subprocess.Popen([sys.executable, "-c", CHILD, lasting_url, str(seed), here]) for seed in range(3)]
    assert [child.wait(timeout=300) for child in children] == [0, 0, 0]
    alone = Ledger(MemoryStore())
    for seed in range(3):
        for outcome in random_traffic(seed, 300):
            alone.record(outcome)
    together = Ledger(store).report()
    assert together.totals == alone.report().totals
    assert [row.books for row in together.rows] == [row.books for row in alone.report().rows]
    totals = together.totals
    assert totals.requests == 900
    assert totals.paid_usd_micro + totals.net_usd_micro == totals.without_usd_micro > 0
    store.close()
