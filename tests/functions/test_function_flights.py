"""Equal calls of a wrapped function at the same time, and a fork."""

import asyncio
import threading
import time

from counting import Upstream


def test_fifty_threads_on_a_new_key_make_one_call(cache):
    calls, gate, answers = [], threading.Barrier(50), []

    def ask(prompt):
        calls.append(1)
        time.sleep(0.2)
        return "x"

    wrapped = cache.wrap(ask)

    def one():
        gate.wait()
        answers.append(wrapped("hi"))

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert answers == ["x"] * 50
    totals = cache.stats().ledger.totals
    assert totals.collapsed.calls + totals.hits == 49
    assert totals.collapsed.calls > 0
    assert totals.misses == 1


async def test_fifty_tasks_on_a_new_key_make_one_call(cache):
    calls = []

    async def ask(prompt):
        calls.append(1)
        await asyncio.sleep(0.1)
        return "x"

    wrapped = cache.wrap(ask)
    assert await asyncio.gather(*(wrapped("hi") for _ in range(50))) == ["x"] * 50
    assert len(calls) == 1
    assert cache.stats().ledger.totals.collapsed.calls == 49


async def test_a_cancelled_leader_does_not_cancel_its_followers(cache):
    calls, asked, never = [], asyncio.Event(), asyncio.Event()

    async def ask(prompt):
        calls.append(1)
        asked.set()
        if len(calls) == 1:
            await never.wait()
        return len(calls)

    wrapped = cache.wrap(ask)
    leader = asyncio.create_task(wrapped("hi"))
    await asked.wait()
    followers = [asyncio.create_task(wrapped("hi")) for _ in range(10)]
    await asyncio.sleep(0.02)
    leader.cancel()
    assert await asyncio.gather(*followers) == [2] * 10
    assert leader.cancelled()
    assert len(calls) == 2


async def test_a_failing_upstream_is_asked_by_everyone_in_the_end(cache):
    calls = []

    async def ask(prompt):
        calls.append(1)
        await asyncio.sleep(0.01)
        raise KeyError(len(calls))

    wrapped = cache.wrap(ask)
    results = await asyncio.gather(*(wrapped("hi") for _ in range(10)), return_exceptions=True)
    assert all(isinstance(r, KeyError) for r in results)
    assert len(calls) == 10
    assert len({id(r) for r in results}) == 10


# A fork ---------------------------------------------------------------------------------------------------------------


def test_usable_in_a_forked_child(cache):
    import os

    ask = cache.wrap(Upstream().ask)
    ask("hi")
    pid = os.fork()
    if pid == 0:
        ok = False
        try:
            ok = ask("hi") == "answer 1 to hi" and ask("child") == "answer 2 to child"
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
