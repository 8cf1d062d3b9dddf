from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import semcache.money.budgets
from semcache import AsyncSemanticCache, Budget, BudgetExceeded, BudgetState, Policy, SemanticCache, last_outcome
from semcache.errors import ConfigurationError, StoreError
from semcache.money.budgets import NAMESPACES, PREFIX, Budgets, standing
from semcache.money.ledger import Ledger
from semcache.stores import open_store
from semcache.stores.memory import MemoryStore
from semcache.stores.redis import RedisStore
from semcache.stores.sqlite import SqliteStore
from semcache.testing.servers import RedisServer
from semcache.types import Event, Reply, Request, Usage

DAY = date(2026, 11, 21)
NOON = (DAY - date(1970, 1, 1)).days * 86_400 + 43_200.0
ONE_CALL = Usage(1_000, 0)
"""Costs 2,000 micro-dollars with gpt-6-sol."""


def budgets(store: Any, *given: Budget, clock: Any = lambda: NOON) -> tuple[Budgets, list[Event]]:
    events: list[Event] = []
    return Budgets(given, store, events.append, clock=clock), events


def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call reads what others paid, instead of one after some seconds."""
    monkeypatch.setattr(semcache.money.budgets, "LOOK_S", 0.0)


@pytest.mark.parametrize("usd", [0, -1, "much", float("nan"), float("inf"), True, "0.0000001"])
def test_a_budget_without_an_amount_is_refused(usd: Any) -> None:
    with pytest.raises(ConfigurationError, match="usd_per_day"):
        Budget(usd)


def test_a_budget_says_what_comes_of_going_over_it() -> None:
    with pytest.raises(ConfigurationError, match="on_exceed"):
        Budget(1, on_exceed="ignore")  # type: ignore[arg-type]
    assert Budget(Decimal("0.1")).usd_micro == Budget(0.1).usd_micro == Budget("0.1").usd_micro == 100_000


def test_what_was_paid_counts_once_also_where_only_the_answer_was_lost(redis_server: RedisServer) -> None:
    class ForgetfulStore(RedisStore):
        lost = 2

        def add_counters(self, deltas: Mapping[str, int], *, once: str | None = None) -> None:
            super().add_counters(deltas, once=once)
            self.lost -= 1
            if self.lost >= 0:
                raise StoreError("the connection was lost before the answer")

    with closing(ForgetfulStore(redis_server.url, prefix="paid-once", budget_s=5)) as store:
        mine, _ = budgets(store, Budget(1))
        for usd_micro in (100, 20, 3):
            mine.paid("a", usd_micro)
            mine.flush()
        mine.flush()
        other, _ = budgets(store, Budget(1))
        assert [one.states()[0].spent_usd_micro for one in (mine, other)] == [123, 123]


async def test_an_event_loop_does_not_wait_for_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks_at_once(monkeypatch)
    loops_own: list[bool] = []

    class Watched(SqliteStore):
        def add_counters(self, deltas: Mapping[str, int], *, once: str | None = None) -> None:
            loops_own.append(threading.current_thread() is threading.main_thread())
            super().add_counters(deltas, once=once)

    store = Watched(tmp_path / "cache.sqlite", budget_s=5)
    async with AsyncSemanticCache(store, policy=Policy(semantic=False), budgets=Budget(1)) as cache:

        async def answer(prompt: str) -> str:
            return "answer"

        ask = cache.wrap(answer)
        for prompt in "abc":
            cache.engine.budgets.paid("default", 1)
            await ask(prompt)
    assert loops_own
    assert not any(loops_own)


def test_alerts_come_once_and_begin_anew_with_the_day() -> None:
    now = [NOON]
    one, events = budgets(MemoryStore(), Budget(1), Budget(2, namespace="b"), clock=lambda: now[0])
    told = []
    for usd_micro in (499_999, 1, 290_000, 10_000, 100_000, 99_999, 1, 500_000):
        before = len(events)
        one.paid("a", usd_micro)
        told.append([event.message[:4].strip() for event in events[before:]])
    assert told == [[], ["50 %"], [], ["80 %"], [], [], ["100"], []]
    assert all(event.kind == "budget" for event in events)
    assert events[0].message == (
        "50 % reached: $0.5000 of the $1.00 that all namespaces may cost on 2026-11-21 (UTC) are spent"
    )
    one.paid("b", 1_000_000)
    assert "namespace 'b'" in events[-1].message
    now[0] += 43_199
    assert one.exceeded("a")
    now[0] += 1
    assert not one.exceeded("a")
    one.admit("a")
    one.paid("a", 2_000_000)
    assert events[-1].message.startswith("100 %")
    assert "2026-11-22" in events[-1].message


def test_a_jump_over_all_levels_is_one_alert() -> None:
    one, events = budgets(MemoryStore(), Budget(1))
    one.paid("a", 5_000_000)
    assert [event.message[:5] for event in events] == ["100 %"]


def test_a_namespace_is_held_to_its_own_budget_and_that_of_all() -> None:
    one, _ = budgets(MemoryStore(), Budget(10), Budget(1, namespace="small"))
    one.paid("small", 1_000_000)
    one.admit("large")
    with pytest.raises(BudgetExceeded, match="namespace 'small'"):
        one.admit("small")
    one.paid("large", 9_000_000)
    with pytest.raises(BudgetExceeded, match="all namespaces"):
        one.admit("large")


def test_calls_without_a_price_are_told_of_once() -> None:
    one, events = budgets(MemoryStore(), Budget(1, namespace="a"))
    for namespace in ("b", "a", "a"):
        one.paid(namespace, None)
    assert [event.message for event in events] == ["calls in namespace 'a' have no known price and are not counted"]
    assert one.states()[0].spent_usd_micro == 0


def test_a_callable_decides_by_the_state() -> None:
    seen: list[BudgetState] = []

    def up_to_double(state: BudgetState) -> bool:
        seen.append(state)
        return state.share < 2

    one, _ = budgets(MemoryStore(), Budget(1, on_exceed=up_to_double))
    one.admit("a")
    assert seen == []
    one.paid("a", 1_500_000)
    one.admit("a")
    assert seen == [BudgetState(1_000_000, None, DAY, 1_500_000)]
    one.paid("a", 500_000)
    with pytest.raises(BudgetExceeded):
        one.admit("a")


def test_a_callable_that_raises_changes_nothing() -> None:
    one, events = budgets(MemoryStore(), Budget(1, on_exceed=lambda state: bool(1 // 0)))
    one.paid("a", 1_000_000)
    one.admit("a")
    assert [event.kind for event in events] == ["budget", "hook_error"]


def test_processes_on_one_store_share_a_budget(lasting_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks_at_once(monkeypatch)
    with closing(open_store(lasting_url)) as store, closing(open_store(lasting_url)) as other_store:
        one, _ = budgets(store, Budget(1), Budget(3, namespace="a|b*"))
        other, events = budgets(other_store, Budget(1))
        for _ in range(3):
            one.paid("a|b*", 200_000)
            one.flush()
            one.flush()
        other.paid("default", 100_000)
        assert other.states() == (BudgetState(1_000_000, None, DAY, 700_000),)
        assert [event.message[:4] for event in events] == ["50 %"]
        other.admit("default")
        one.paid("*", 300_000)
        one.flush()
        with pytest.raises(BudgetExceeded):
            other.admit("default")
        late, _ = budgets(store, Budget(2))
        assert late.states()[0].spent_usd_micro == 1_000_000
        assert standing(store, lambda: NOON) == [
            BudgetState(1_000_000, None, DAY, 1_000_000),
            BudgetState(2_000_000, None, DAY, 1_000_000),
            BudgetState(3_000_000, "a|b*", DAY, 600_000),
        ]


def test_another_process_is_heard(lasting_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks_at_once(monkeypatch)
    code = """
import sys
from semcache import Budget, Policy, SemanticCache
from semcache.types import Reply, Request, Usage
with SemanticCache(sys.argv[1], policy=Policy(semantic=False), budgets=Budget(1)) as cache:
    request = Request("test", {}, "Is it up?", model="gpt-6-sol")
    cache.engine.run(request, lambda: Reply(1, b"{}", Usage(300_000, 0)))
"""
    subprocess.run([sys.executable, "-c", code, lasting_url], check=True, timeout=300)
    with SemanticCache(lasting_url, policy=Policy(semantic=False), budgets=Budget("1.2")) as cache:
        assert cache.stats().budgets[0].spent_usd_micro == 1_200_000
        with pytest.raises(BudgetExceeded):
            cache.engine.run(asked("Is it down?"), lambda: Reply(1, b"{}", ONE_CALL))
        assert cache.engine.run(asked("Is it up?"), lambda: pytest.fail("not a hit")).outcome.hit


def test_counters_of_past_days_go(monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = MemoryStore(), [NOON]
    one, _ = budgets(store, Budget(1), clock=lambda: now[0])
    for _ in range(5):
        one.paid("a", 7)
        one.flush()
        now[0] += 86_400
    days = {name.split("|")[1] for name in store.counters(PREFIX)}
    assert len(days) == 2


def test_invented_namespaces_do_not_multiply_the_counters() -> None:
    store = MemoryStore()
    one, _ = budgets(store, Budget(1))
    for n in range(NAMESPACES + 50):
        one.paid(f"n{n}", 1)
    one.flush()
    assert len(store.counters(PREFIX)) == NAMESPACES + 2
    assert one.states()[0].spent_usd_micro == NAMESPACES + 50


def test_a_hook_may_ask_how_the_budgets_stand_from_another_thread() -> None:
    asked: list[bool] = []

    def hook(event: Event) -> None:
        thread = threading.Thread(target=lambda: asked.append(one.exceeded("a")))
        thread.start()
        thread.join(timeout=20)

    one = Budgets([Budget(1)], MemoryStore(), hook, clock=lambda: NOON)
    one.paid("a", 1_000_000)
    assert asked == [True]


class BrokenStore(MemoryStore):
    def counters(self, prefix: str = "") -> dict[str, int]:
        raise StoreError("switched off")


def test_trouble_in_the_store_blocks_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    looks_at_once(monkeypatch)
    one, events = budgets(BrokenStore(), Budget(1))
    one.admit("a")
    one.paid("a", 999_999)
    one.admit("a")
    assert {event.kind for event in events} == {"budget", "ledger_error"}
    one.paid("a", 1)
    with pytest.raises(BudgetExceeded):
        one.admit("a")


def test_threads_lose_nothing() -> None:
    store = MemoryStore()
    one, _ = budgets(store, Budget(1000))

    def pay() -> None:
        for _ in range(500):
            one.paid("a", 3)
            one.flush()

    threads = [threading.Thread(target=pay) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.flush()
    assert one.states()[0].spent_usd_micro == 9_000
    assert standing(store, lambda: NOON)[0].spent_usd_micro == 9_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_what_it_paid_itself(tmp_path: Any) -> None:
    code = """
import os, sys
from semcache.money.budgets import Budget, Budgets, standing
from semcache.stores import open_store
store = open_store(sys.argv[1])
one = Budgets([Budget(1)], store, print)
one.paid("a", 10)
with one._lock, one._talking:
    child = os.fork()
if child == 0:
    one.paid("a", 1)
    one.flush()
    os._exit(0)
_, status = os.waitpid(child, 0)
one.flush()
assert os.waitstatus_to_exitcode(status) == 0, status
assert standing(store)[0].spent_usd_micro == 11, standing(store)
"""
    url = f"sqlite:///{tmp_path}/s.db?budget_s=5"
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, url], check=True, timeout=300)


# Through the cache ----------------------------------------------------------------------------------------------------


def asked(text: str) -> Request:
    return Request("test", {}, text, model="gpt-6-sol")


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    with SemanticCache("memory://", policy=Policy(semantic=False), budgets=Budget("0.003")) as cache:
        yield cache


def test_over_budget_hits_are_served_and_misses_raise(cache: SemanticCache) -> None:
    calls = []

    def call() -> Reply:
        calls.append(1)
        return Reply("fresh", b'"kept"', ONE_CALL)

    for text in ("one", "two"):
        assert cache.engine.run(asked(text), call).value == "fresh"
    with pytest.raises(BudgetExceeded, match=r"\$0\.0040 of the \$0\.00") as caught:
        cache.engine.run(asked("three"), call)
    assert not caught.value.cache_only
    outcome = last_outcome()
    assert outcome is not None
    assert (outcome.status, outcome.refused, outcome.reason) == ("miss", True, "over budget")
    assert cache.engine.run(asked("one"), call).outcome.hit
    with cache.options(bypass=True), pytest.raises(BudgetExceeded):
        cache.engine.run(asked("one"), call)
    totals = cache.stats().ledger.totals
    assert (totals.requests, totals.misses, totals.refused, totals.spent.calls, totals.exact_hits) == (5, 2, 2, 2, 1)
    assert len(calls) == 2
    assert cache.stats().budgets[0].share == 4 / 3


@pytest.mark.parametrize("on_exceed", ["raise", "cache-only"])
def test_an_expired_answer_is_served_where_callers_are_left_to_the_cache(on_exceed: Any) -> None:
    policy, budget = Policy(semantic=False, stale_if_error=3600), Budget("0.001", on_exceed=on_exceed)
    with SemanticCache("memory://", policy=policy, budgets=budget) as cache:
        with cache.options(ttl=0.01):
            cache.engine.run(asked("one"), lambda: Reply("fresh", b'"kept"', ONE_CALL))
        time.sleep(0.02)
        if on_exceed == "raise":
            with pytest.raises(BudgetExceeded):
                cache.engine.run(asked("one"), lambda: pytest.fail("went upstream"))
        else:
            served = cache.engine.run(asked("one"), lambda: pytest.fail("went upstream"))
            assert (served.body, served.outcome.status, served.outcome.refused) == (b'"kept"', "stale", False)
            with pytest.raises(BudgetExceeded) as caught:
                cache.engine.run(asked("two"), lambda: pytest.fail("went upstream"))
            assert caught.value.cache_only


def test_a_ledger_forgets_the_budgets_of_a_closed_cache() -> None:
    ledger = Ledger()
    for _ in range(2):
        with SemanticCache("memory://", policy=Policy(semantic=False), ledger=ledger, budgets=Budget(1)) as cache:
            assert len(ledger.on_paid) == 1
            cache.close()
    assert ledger.on_paid == []


def test_no_audits_are_made_over_budget() -> None:
    policy = Policy(threshold=0.9, guards=(), audit_rate=1.0)
    with SemanticCache("memory://", embedder=_one_vector_for_all, policy=policy, budgets=Budget("0.01")) as cache:

        def call() -> Reply:
            return Reply("fresh", b'"kept"', ONE_CALL)

        def ask(text: str) -> Any:
            served = cache.engine.run(asked(text), call, later=lambda: call)
            assert cache.engine.auditor is not None
            assert cache.engine.auditor.wait(20)
            return served.outcome.layer

        assert [ask(text) for text in ("one", "two")] == [None, "semantic"]
        assert cache.stats().ledger.totals.audit.calls == 1
        assert cache.stats().budgets[0].spent_usd_micro == 4_000, "an audit is paid for like any other call"
        cache.engine.budgets.paid("default", 10_000)
        assert ask("three") == "semantic"
        assert cache.stats().ledger.totals.audit.calls == 1


def _one_vector_for_all(texts: Sequence[str]) -> list[list[float]]:
    return [[1.0, 0.0] for _ in texts]


def test_followers_of_a_refused_call_are_refused_too(cache: SemanticCache) -> None:
    cache.engine.budgets.paid("default", 3_000)
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            cache.engine.run(asked("same"), lambda: pytest.fail("went upstream"))
        except BudgetExceeded as error:
            raised.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(raised) == 4


async def test_an_event_loop_is_held_to_it_too(lasting_url: str) -> None:
    async def call() -> Reply:
        await asyncio.sleep(0)
        return Reply("fresh", b'"kept"', ONE_CALL)

    async with AsyncSemanticCache(lasting_url, policy=Policy(semantic=False), budgets=[Budget("0.002")]) as cache:
        assert (await cache.engine.arun(asked("one"), call)).value == "fresh"
        with pytest.raises(BudgetExceeded):
            await cache.engine.arun(asked("two"), call)
        assert (await cache.engine.arun(asked("one"), call)).outcome.hit


def test_a_wrapped_function_raises_it_as_it_is(cache: SemanticCache) -> None:
    @cache.wrap
    def ask(prompt: str) -> str:
        return prompt.upper()

    cache.engine.budgets.paid("default", 2_999)
    assert ask("one") == "ONE"
    cache.engine.budgets.paid("default", 1)
    assert ask("one") == "ONE"
    with pytest.raises(BudgetExceeded):
        ask("two")
