"""The queue: batches, memory, budgets, and what happens when the embedder stalls, fails or comes back."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from embedding_server import vectors

from semcache.breaker import Breaker
from semcache.embedders import CallableEmbedder, EmbeddingQueue, OnnxEmbedder
from semcache.embedders import queue as queue_module
from semcache.errors import ConfigurationError, EmbedderError
from semcache.testing.embedder_contract import in_forked_child
from semcache.types import Event

PATIENT_S = 8.0
"""Less than the worker's idle time, after which it would find by itself what nobody told it of."""


class Letters:
    """Real vectors from a function that can be held up, made to fail, and asked what it was called with."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.threads: list[str] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.error: BaseException | None = None

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.calls.append(texts)
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.open.wait(PATIENT_S)
        if self.error is not None:
            raise self.error
        return vectors(texts)


@pytest.fixture
def letters() -> Letters:
    return Letters()


@contextmanager
def queue_of(letters: Letters, *, inline: bool = False, **options: object) -> Iterator[EmbeddingQueue]:
    embedder = CallableEmbedder(letters, fingerprint="letters/1", dim=vectors([""]).shape[1], inline=inline)
    queue = EmbeddingQueue(embedder, **({"budget_s": PATIENT_S, "load_budget_s": PATIENT_S} | options))
    try:
        yield queue
    finally:
        letters.open.set()
        queue.close()


@contextmanager
def held(letters: Letters, queue: EmbeddingQueue, pool: ThreadPoolExecutor) -> Iterator[None]:
    """While one batch is stuck in the embedder."""
    letters.open.clear()
    letters.entered.clear()
    first = pool.submit(queue.embed, "first")
    assert letters.entered.wait(PATIENT_S)
    yield
    letters.open.set()
    first.result(PATIENT_S)


def unit(text: str) -> np.ndarray:
    row = vectors([text])[0]
    return row / np.linalg.norm(row)


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


@pytest.mark.parametrize("inline", [False, True])
def test_a_text_is_embedded_once_and_remembered(letters: Letters, inline: bool) -> None:
    with queue_of(letters, inline=inline) as queue:
        first = queue.embed("hello")
        np.testing.assert_allclose(first, unit("hello"), atol=1e-6)
        assert first.dtype == np.float32
        assert queue.embed("hello") is first
        assert letters.calls == [["hello"]]
        with pytest.raises(ValueError, match="read-only"):
            first[0] = 1


def test_the_memo_forgets_what_was_used_longest_ago(letters: Letters) -> None:
    with queue_of(letters, inline=True, memo=2) as queue:
        for text in ("a", "b", "a", "c", "a", "b"):
            queue.embed(text)
        assert letters.calls == [["a"], ["b"], ["c"], ["b"]]


def test_a_memo_of_none_remembers_nothing(letters: Letters) -> None:
    with queue_of(letters, inline=True, memo=0) as queue:
        queue.embed("a")
        queue.embed("a")
        assert len(letters.calls) == 2


def test_a_solitary_caller_runs_an_inline_embedder_itself(letters: Letters) -> None:
    with queue_of(letters, inline=True) as queue:
        queue.embed("a")
        assert letters.threads == [threading.current_thread().name]


def test_an_embedder_that_may_stall_runs_in_the_worker(letters: Letters) -> None:
    with queue_of(letters) as queue:
        queue.embed("a")
        assert letters.threads == ["semcache-embed"]


@pytest.mark.parametrize("inline", [False, True])
def test_those_who_wait_make_one_batch(letters: Letters, inline: bool) -> None:
    with queue_of(letters, inline=inline, max_batch=32) as queue, ThreadPoolExecutor(48) as pool:
        with held(letters, queue, pool):
            texts = [f"text {number}" for number in range(40)]
            waiting = [pool.submit(queue.embed, text) for text in texts]
            until(lambda: len(queue._waiting) == 40)
        for text, future in zip(texts, waiting, strict=True):
            np.testing.assert_allclose(future.result(PATIENT_S), unit(text), atol=1e-6)
        assert [len(call) for call in letters.calls] == [1, 32, 8]


@pytest.mark.parametrize("inline", [False, True])
def test_callers_with_one_text_share_one_slot(letters: Letters, inline: bool) -> None:
    with queue_of(letters, inline=inline) as queue, ThreadPoolExecutor(16) as pool:
        with held(letters, queue, pool):
            running = [pool.submit(queue.embed, "first") for _ in range(4)]
            waiting = [pool.submit(queue.embed, "second") for _ in range(4)]
            until(lambda: len(queue._running["first"].wakers) >= 4 and "second" in queue._waiting)
            until(lambda: len(queue._waiting["second"].wakers) == 4)
        assert len({id(future.result(PATIENT_S)) for future in running}) == 1
        assert len({id(future.result(PATIENT_S)) for future in waiting}) == 1
        assert letters.calls == [["first"], ["second"]]


def test_many_threads_each_get_their_own_vector(letters: Letters) -> None:
    with queue_of(letters, inline=True, memo=16) as queue, ThreadPoolExecutor(16) as pool:
        texts = [f"question {number % 60}" for number in range(2000)]
        for text, vector in zip(texts, pool.map(queue.embed, texts), strict=True):
            np.testing.assert_allclose(vector, unit(text), atol=1e-6)


def test_a_stall_costs_the_budget_once_and_then_nothing(letters: Letters) -> None:
    events: list[Event] = []
    with queue_of(letters, on_event=events.append) as queue, ThreadPoolExecutor(1) as pool:
        queue.embed("warm")
        with held(letters, queue, pool):
            queue._budget_s = 0.2
            with pytest.raises(EmbedderError, match=r"no vector within 0\.2 s"):
                queue.embed("a")
            for number in range(1000):
                with pytest.raises(EmbedderError, match="stalled"):
                    queue.embed(f"b {number}")
            assert [event.kind for event in events] == ["embedder_error"]
            assert letters.calls == [["warm"], ["first"]]
        queue._budget_s = PATIENT_S
        np.testing.assert_allclose(queue.embed("c"), unit("c"), atol=1e-6)


def test_a_remembered_text_is_served_during_a_stall(letters: Letters) -> None:
    with queue_of(letters, budget_s=0.05) as queue:
        vector = queue.embed("warm")
        letters.open.clear()
        with pytest.raises(EmbedderError):
            queue.embed("a")
        assert queue.embed("warm") is vector


def test_loading_has_an_allowance_of_its_own(letters: Letters) -> None:
    with queue_of(letters, budget_s=0.05) as queue:
        letters.open.clear()
        threading.Timer(0.5, letters.open.set).start()
        queue.embed("a")
        letters.open.clear()
        with pytest.raises(EmbedderError, match=r"within 0\.05 s"):
            queue.embed("b")


def test_a_full_queue_is_no_stall_and_late_texts_are_not_embedded(letters: Letters) -> None:
    events: list[Event] = []
    with (
        queue_of(letters, budget_s=3.0, max_batch=1, on_event=events.append) as queue,
        ThreadPoolExecutor(40) as pool,
    ):
        queue.embed("warm")
        embed = letters.__call__

        def slow(texts: list[str]) -> np.ndarray:
            time.sleep(0.15)
            return embed(texts)

        queue._embedder._function = slow  # type: ignore[attr-defined]
        futures = [pool.submit(queue.embed, f"text {number}") for number in range(40)]
        failed = [future for future in futures if future.exception(PATIENT_S) is not None]
        assert 0 < len(failed) < 40
        assert not queue._stalled
        assert events == []
        until(lambda: not queue._waiting and queue._began is None)
        assert len(letters.calls) < 41


def test_failures_are_left_alone_for_a_while_and_tried_again(letters: Letters) -> None:
    now = [0.0]
    events: list[Event] = []
    with queue_of(letters, on_event=events.append) as queue:
        queue._breaker = Breaker(clock=lambda: now[0])
        letters.error = ConnectionError("refused")
        with pytest.raises(EmbedderError, match="refused"):
            queue.embed("a")
        with pytest.raises(EmbedderError, match="failed lately"):
            queue.embed("a")
        now[0] += 1.5
        with pytest.raises(EmbedderError, match="refused"):
            queue.embed("a")
        now[0] += 1.5
        with pytest.raises(EmbedderError, match="failed lately"):
            queue.embed("a")
        assert len(letters.calls) == 2
        assert [event.kind for event in events] == ["embedder_error"]
        letters.error = None
        now[0] += 1.0
        np.testing.assert_allclose(queue.embed("a"), unit("a"), atol=1e-6)


@pytest.mark.parametrize("inline", [False, True])
def test_every_caller_of_a_failed_batch_gets_an_error_of_its_own(letters: Letters, inline: bool) -> None:
    with queue_of(letters, inline=inline) as queue, ThreadPoolExecutor(8) as pool:
        with held(letters, queue, pool):
            waiting = [pool.submit(queue.embed, "same") for _ in range(4)]
            until(lambda: "same" in queue._waiting and len(queue._waiting["same"].wakers) == 4)
            broken = CallableEmbedder(lambda texts: [[0.0]], fingerprint="f")
            queue._embedder = broken
        errors = [future.exception(PATIENT_S) for future in waiting]
        assert all(isinstance(error, EmbedderError) for error in errors)
        assert len({id(error) for error in errors}) == 4


def test_a_text_that_is_not_unicode_harms_no_other(letters: Letters) -> None:
    with queue_of(letters) as queue:
        with pytest.raises(EmbedderError, match="surrogate"):
            queue.embed("\ud800")
        queue.embed("fine")
        assert letters.calls == [["fine"]]


def test_an_interrupt_passes_through_and_leaves_the_queue_usable(letters: Letters) -> None:
    with queue_of(letters, inline=True) as queue:
        letters.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            queue.embed("a")
        letters.error = None
        queue.embed("a")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_function_that_ends_its_thread_leaves_the_queue_usable(letters: Letters) -> None:
    with queue_of(letters) as queue:
        letters.error = SystemExit()
        with pytest.raises(EmbedderError, match="interrupted"):
            queue.embed("a")
        until(lambda: queue._worker is not None and not queue._worker.is_alive())
        letters.error = None
        np.testing.assert_allclose(queue.embed("a"), unit("a"), atol=1e-6)


def test_an_event_hook_that_raises_changes_nothing(letters: Letters) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("hook")

    with queue_of(letters, on_event=broken) as queue:
        queue._breaker = Breaker(cooldown_s=0.0)
        letters.error = ValueError("no")
        for _ in range(2):
            with pytest.raises(EmbedderError, match="no"):
                queue.embed("a")
        letters.error = None
        queue.embed("a")


def test_a_closed_queue_refuses_and_frees_those_who_wait(letters: Letters) -> None:
    with queue_of(letters) as queue, ThreadPoolExecutor(2) as pool:
        with held(letters, queue, pool):
            waiting = pool.submit(queue.embed, "second")
            until(lambda: "second" in queue._waiting)
            queue.close()
            with pytest.raises(EmbedderError, match="closed"):
                waiting.result(PATIENT_S)
        with pytest.raises(EmbedderError, match="closed"):
            queue.embed("third")


def test_an_idle_worker_ends_and_is_started_again(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "IDLE_S", 0.01)
    with queue_of(letters) as queue:
        for text in ("a", "b"):
            queue.embed(text)
            until(lambda: queue._worker is None)
        assert letters.calls == [["a"], ["b"]]


async def test_tasks_are_batched_off_the_event_loop(letters: Letters) -> None:
    with queue_of(letters, inline=True) as queue:
        letters.open.clear()
        first = asyncio.ensure_future(queue.aembed("first"))
        await asyncio.to_thread(letters.entered.wait, PATIENT_S)  # the loop turns while the embedder is held
        texts = [f"text {number}" for number in range(20)]
        rest = [asyncio.ensure_future(queue.aembed(text)) for text in texts]
        await asyncio.sleep(0.01)
        letters.open.set()
        np.testing.assert_allclose(await first, unit("first"), atol=1e-6)
        for text, vector in zip(texts, await asyncio.gather(*rest), strict=True):
            np.testing.assert_allclose(vector, unit(text), atol=1e-6)
        assert [len(call) for call in letters.calls] == [1, 20]
        assert set(letters.threads) == {"semcache-embed"}


async def test_a_remembered_text_makes_no_hop(letters: Letters) -> None:
    with queue_of(letters) as queue:
        vector = await queue.aembed("a")
        step = queue.aembed("a")
        with pytest.raises(StopIteration) as answered:
            step.send(None)
        assert answered.value.value is vector


@pytest.mark.parametrize("held_text", ["first", "second"])
async def test_a_cancelled_task_disturbs_no_other(letters: Letters, held_text: str) -> None:
    with queue_of(letters) as queue:
        letters.open.clear()
        running = asyncio.ensure_future(queue.aembed("first"))
        await asyncio.to_thread(letters.entered.wait, PATIENT_S)
        cancelled = asyncio.ensure_future(queue.aembed(held_text))
        other = asyncio.ensure_future(queue.aembed(held_text))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        letters.open.set()
        np.testing.assert_allclose(await other, unit(held_text), atol=1e-6)
        np.testing.assert_allclose(await running, unit("first"), atol=1e-6)


async def test_a_stall_costs_a_task_the_budget_once(letters: Letters) -> None:
    with queue_of(letters) as queue, ThreadPoolExecutor(1) as pool:
        await queue.aembed("warm")
        with held(letters, queue, pool):
            queue._budget_s = 0.2
            with pytest.raises(EmbedderError, match=r"within 0\.2 s"):
                await queue.aembed("a")
            with pytest.raises(EmbedderError, match="stalled"):
                await queue.aembed("b")


def test_an_answer_for_a_loop_that_is_gone_breaks_nothing(letters: Letters) -> None:
    with queue_of(letters) as queue:

        async def leave() -> None:
            task = asyncio.ensure_future(queue.aembed("a"))
            await asyncio.to_thread(letters.entered.wait, PATIENT_S)
            task.cancel()

        letters.open.clear()
        asyncio.run(leave())
        letters.open.set()
        np.testing.assert_allclose(queue.embed("b"), unit("b"), atol=1e-6)


def test_bulk_keeps_the_order_and_embeds_repeats_once(letters: Letters) -> None:
    with queue_of(letters, memo=5000) as queue:
        queue.embed("text 1")
        texts = [f"text {number % 700}" for number in range(1500)]
        done: list[int] = []
        rows = queue.embed_many(texts, progress=done.append)
        np.testing.assert_allclose(rows, [unit(text) for text in texts], atol=1e-6)
        assert sum(done) == len(texts)
        assert len(done) > 2
        assert sorted(text for call in letters.calls for text in call) == sorted(set(texts))
        before = len(letters.calls)
        queue.embed("text 699")
        assert len(letters.calls) == before
        assert queue.embed_many([]).shape == (0, queue.dim)


def test_vectors_of_a_users_object_are_checked_and_made_unit() -> None:
    class Sloppy:
        dim, fingerprint = 2, "sloppy"

        def fits(self, text: str) -> bool:
            return True

        def embed(self, texts: list[str]) -> np.ndarray:
            return np.array([[3.0, 4.0]] * (1 if "short" in texts else len(texts)))

    queue = EmbeddingQueue(Sloppy(), memo=0)
    np.testing.assert_allclose(queue.embed("a"), [0.6, 0.8])
    with pytest.raises(EmbedderError, match="shape"):
        queue.embed_many(["short", "b"])
    queue.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("inline", [False, True])
def test_a_child_forked_in_the_middle_of_a_batch_works(letters: Letters, inline: bool) -> None:
    with queue_of(letters, inline=inline) as queue, ThreadPoolExecutor(2) as pool:
        queue.embed("warm")

        def child() -> bytes:
            letters.open = threading.Event()
            letters.open.set()
            assert queue.embed("warm") is not None
            return queue.embed("in the child").tobytes()

        with held(letters, queue, pool):
            answer = in_forked_child(child)
        np.testing.assert_allclose(np.frombuffer(answer, np.float32), unit("in the child"), atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_holds_the_locks_works(letters: Letters) -> None:
    with queue_of(letters) as queue, ThreadPoolExecutor(1) as pool:
        taken, release = threading.Event(), threading.Event()

        def hold() -> None:
            with queue._changed, queue._memo._lock:
                taken.set()
                release.wait(PATIENT_S)

        holding = pool.submit(hold)
        assert taken.wait(PATIENT_S)
        answer = in_forked_child(lambda: queue.embed("in the child").tobytes())
        release.set()
        holding.result(PATIENT_S)
        np.testing.assert_allclose(np.frombuffer(answer, np.float32), unit("in the child"), atol=1e-6)


def test_the_default_embedder_through_the_queue() -> None:
    embedder = OnnxEmbedder()
    queue = EmbeddingQueue(embedder, budget_s=PATIENT_S)
    assert (queue.dim, queue.fingerprint, queue.source) == (384, embedder.fingerprint, embedder.source)
    assert queue.fits("short")
    assert not queue.fits("long " * 300)
    texts = [f"How do I cancel order {number}?" for number in range(40)]
    alone = embedder.embed(texts)
    with ThreadPoolExecutor(8) as pool:
        through = np.stack(list(pool.map(queue.embed, texts)))
    assert np.einsum("ij,ij->i", alone, through).min() > 0.9999
    queue.close()


@pytest.mark.parametrize("options", [{"budget_s": 0}, {"load_budget_s": -1}, {"memo": -1}, {"max_batch": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        EmbeddingQueue(OnnxEmbedder(), **options)
