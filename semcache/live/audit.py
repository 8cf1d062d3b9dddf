"""Audits: a random share of semantic hits is asked of the upstream too, behind the caller's back, and compared.

The caller never waits: what is to be audited goes into a short queue, and what finds it full is dropped and counted.
Calls that must be awaited run as tasks of the caller's own event loop, since clients belong to a loop; all else runs on
daemon threads. An upstream that fails an audit makes an event, never an exception.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from semcache._callables import must_not_await
from semcache.context import in_context
from semcache.keys import history_of
from semcache.live.answers import Judge, answer_text, same_answer
from semcache.steps import StreamReply
from semcache.types import Event, Outcome, Reply

if TYPE_CHECKING:
    from semcache.flow import Call
    from semcache.live.evidence import Evidence
    from semcache.money.ledger import Ledger
    from semcache.types import Entry, WouldServe

QUEUE_LENGTH: Final = 64
WORKERS: Final = 2
IDLE_S: Final = 1.0
"""Seconds after which a thread without work ends."""

CLOSE_WAIT_S: Final = 2.0
"""Seconds that closing a cache waits for audits under way; what is left then is dropped."""


Later = Callable[[], Callable[[], Any]]
"""Makes a call that the caller cannot change any more, by going on to append to its messages for one."""


class AuditFailed(Exception):
    """The upstream gave an audit no answer that can be compared."""


@dataclass(slots=True)
class Audit:
    """One semantic hit to check.

    Args:
        entry: The entry that answered, or would have.
        outcome: Of the call.
        question: What was asked, as it was decided upon: made to stand alone, or with the user turns before it.
        stored: The stored question, in the same way.
        fresh: What the upstream said to the question, JSON bytes; ``None`` if it has yet to be asked.
        call: Asks it: gives a ``Reply`` or a ``StreamReply`` with its ``drain``, or what is to be awaited for one.
    """

    entry: Entry
    outcome: Outcome
    question: str
    stored: str
    fresh: bytes | None
    call: Callable[[], Any] | None = None


class Auditor:
    """The queue and the threads of one cache.

    Args:
        rate: Share of semantic hits to audit, in (0, 1].
        judge: ``None`` takes :func:`semcache.live.answers.same_answer`, whose verdicts make no rate.
        mark_wrong: Told of the key id and the entry id of a pair that was found wrong, and of the entry's answer.

    Raises:
        ConfigurationError: The judge is a coroutine function.
    """

    def __init__(
        self,
        rate: float,
        judge: Judge | None,
        evidence: Evidence,
        ledger: Ledger,
        mark_wrong: Callable[[int, int, bytes], None],
        emit: Callable[[Event], None],
    ) -> None:
        must_not_await("a judge", judge)
        self._rate = rate
        self._judge = judge
        self._evidence = evidence
        self._ledger = ledger
        self._mark_wrong = mark_wrong
        self._emit = emit
        self._reset()

    def _reset(self) -> None:
        self._queue: queue.Queue[tuple[contextvars.Context, Audit]] = queue.Queue(QUEUE_LENGTH)
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    after_fork = _reset

    def consider(
        self, ctx: Call, call: Callable[[], Any] | None = None, later: Later | None = None, *, awaits: bool = False
    ) -> None:
        """Audit this finished call if it was a semantic hit, served or withheld, and chance takes it.

        Never raises and never waits: dropped if there is too much under way already.

        Args:
            call: Asks the upstream; not needed where it was asked because the hit was withheld.
            awaits: Whether what ``call`` gives must be awaited on this event loop.
        """
        outcome, would, found = ctx.outcome, ctx.outcome.would_serve, ctx.found
        if found is None or (outcome.layer if would is None else would.layer) != "semantic":
            return
        fresh = None if ctx.fresh is None else ctx.fresh.body
        if (would is not None and fresh is None) or random.random() >= self._rate:
            return
        context, window = ctx.policy.context, ctx.policy.window
        question = in_context(context, window, ctx.request.history, ctx.question)
        stored = in_context(context, window, history_of(found.key), found.text or "")
        if fresh is not None:
            self._enqueue(Audit(found, outcome, question, stored, fresh))
            return
        try:
            call = call if later is None else later()
        except Exception as error:  # arguments that cannot be copied
            self._emit(Event("audit_error", f"an audit could not be prepared: {error}", error))
            return
        audit = Audit(found, outcome, question, stored, None, call)
        if awaits:
            self._start_task(audit)
        else:
            self._enqueue(audit)

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is under way; false if something still is. Not for an event loop's own thread."""
        end = time.monotonic() + seconds
        while self._tasks or self._queue.unfinished_tasks:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def close(self) -> None:
        """Wait a little for what is under way, and take no more.

        Called on an event loop's own thread it does not wait: the audits on that loop could not go on meanwhile.
        """
        if not _on_event_loop():
            self.wait(CLOSE_WAIT_S)
        self._closed = True

    # On the caller's thread ---------------------------------------------------------------------------------------

    def _start_task(self, audit: Audit) -> None:
        if self._closed or len(self._tasks) >= QUEUE_LENGTH:
            self._evidence.dropped(audit.outcome.namespace)
            return
        task = asyncio.get_running_loop().create_task(self._ask_awaiting(audit))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_awaiting(self, audit: Audit) -> None:
        assert audit.call is not None
        try:
            reply = await audit.call()
            if isinstance(reply, StreamReply):
                reply = await _drain(reply)
            audit.fresh = self._answered(audit, reply)
        except asyncio.CancelledError:
            self._evidence.dropped(audit.outcome.namespace)
            raise
        except Exception as error:
            await asyncio.to_thread(self._failed, audit, error)
        else:
            self._enqueue(audit)

    def _enqueue(self, audit: Audit) -> None:
        try:
            if self._closed:
                raise queue.Full
            self._queue.put_nowait((contextvars.copy_context(), audit))
        except queue.Full:
            self._evidence.dropped(audit.outcome.namespace)
            return
        with self._lock:
            if len(self._threads) < min(WORKERS, self._queue.unfinished_tasks):
                thread = threading.Thread(target=self._work, name="semcache-audit", daemon=True)
                with suppress(RuntimeError):  # no more threads: the next audit tries again
                    thread.start()
                    self._threads.append(thread)

    # On a thread of its own ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        jobs = self._queue
        while True:
            try:
                context, audit = jobs.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if jobs.empty():
                        self._threads.remove(threading.current_thread())
                        return
                continue
            try:
                if self._closed:
                    self._evidence.dropped(audit.outcome.namespace)
                else:
                    context.run(self._perform, audit)
            except BaseException as error:  # a judge's SystemExit must not end the thread: it would not be replaced
                self._failed(audit, error)
            finally:
                jobs.task_done()

    def _perform(self, audit: Audit) -> None:
        if audit.fresh is None:
            assert audit.call is not None
            reply = audit.call()
            audit.fresh = self._answered(audit, _drain(reply) if isinstance(reply, StreamReply) else reply)
        self._compare(audit, audit.fresh)

    def _compare(self, audit: Audit, fresh: bytes) -> None:
        entry, outcome = audit.entry, audit.outcome
        judge = self._judge or same_answer
        right = _verdict(judge(audit.question, audit.stored, answer_text(entry.response), answer_text(fresh)))
        would: WouldServe | None = outcome.would_serve
        if would is not None:
            would.agrees = right
        # First of all: a store that cannot be told of the pair must not keep a wrong answer out of the rate.
        self._evidence.audited(outcome.namespace, entry.key.id, right, judged=self._judge is not None)
        if right is False and outcome.key is not None:
            self._mark_wrong(outcome.key.id, entry.key.id, entry.response)

    def _answered(self, audit: Audit, reply: Reply) -> bytes:
        self._ledger.record_audit(audit.outcome.namespace, audit.outcome.model, reply.usage)
        if reply.failed or reply.keep == "never" or reply.body is None:
            raise AuditFailed(reply.reason or "the answer cannot be represented")
        return reply.body

    def _failed(self, audit: Audit, error: BaseException) -> None:
        if self._closed:
            return  # so is the store, and that may be why
        self._emit(Event("audit_error", f"an audit came to nothing: {error or repr(error)}", error))
        self._evidence.failed(audit.outcome.namespace)


def _verdict(said: object) -> bool | None:
    """What a judge has said. Anything but a truth value is none: "no" and 0.1 would count as right."""
    if said is None:
        return None
    if said not in (True, False):  # numpy's are equal to these, and so are 1 and 0
        raise AuditFailed(f"the judge said {said!r}, where True, False or None is wanted")
    return bool(said)


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _drain(stream: StreamReply) -> Any:
    if stream.drain is None:
        raise AuditFailed("this edge cannot read a stream by itself")
    return stream.drain()
