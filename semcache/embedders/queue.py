"""The one way from the cache to an embedder: batches, remembers, and never waits longer than its budget.

One batch runs at a time. A solitary caller of an in-process embedder runs it in its own thread, since a hop to
another thread would cost more than it brings; whoever comes meanwhile waits, and the worker thread embeds all of
them as the next batch. Embedders that may stall always run in the worker, so that a caller can leave them there.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from semcache._fork import renew_in_child
from semcache.breaker import Breaker
from semcache.embedders._resolve import source_of
from semcache.embedders.base import Embedder, check_texts, unit_rows
from semcache.errors import ConfigurationError, EmbedderError, EmbedderUnavailable
from semcache.events import logger
from semcache.types import Event

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]

IDLE_S: Final = 10.0
"""An idle worker thread ends after so many seconds, and with it the last hidden reference to the queue."""

BULK: Final = 256
"""Texts handed to the embedder at once by ``embed_many``: enough to sort by length, few enough to show progress."""


class EmbeddingQueue:
    """Embeds single texts for many threads and tasks.

    A stalled embedder costs those who wait for it their budget once. From then on every call is refused at once until
    the embedder has answered. One that fails is left alone for a growing while by a circuit breaker.

    Args:
        embedder: What makes the vectors. It runs in the caller's thread if it says ``inline = True``.
        budget_s: Seconds that a call waits for its vector.
        load_budget_s: The same until the embedder has answered for the first time: it may be loading a model.
        memo: How many recent texts to remember, with their vectors.
        max_batch: Most texts in one batch.
        on_event: Told with ``embedder_error`` when the embedder stalls or begins to fail.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        budget_s: float = 0.5,
        load_budget_s: float = 10.0,
        memo: int = 2048,
        max_batch: int = 32,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        if budget_s <= 0 or load_budget_s <= 0 or memo < 0 or max_batch < 1:
            raise ConfigurationError("budget_s, load_budget_s and max_batch must be above 0, memo at least 0")
        self._embedder = embedder
        self._inline = bool(getattr(embedder, "inline", False))
        self._budget_s = budget_s
        self._load_budget_s = load_budget_s
        self._max_batch = max_batch
        self._on_event = on_event
        self._memo = _Memo(memo)
        self._answered = False
        self._closed = False
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        # Slots and the worker belong to threads of the parent.
        self._changed = threading.Condition()
        self._waiting: dict[str, _Slot] = {}
        self._running: dict[str, _Slot] = {}
        self._began: float | None = None
        self._stalled = False
        self._worker: threading.Thread | None = None
        self._breaker = Breaker()
        self._memo.after_fork()

    @property
    def embedder(self) -> Embedder:
        """What makes the vectors."""
        return self._embedder

    @property
    def dim(self) -> int:
        """Length of the vectors. May load the model."""
        return self._embedder.dim

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    @property
    def source(self) -> str:
        """Where the vectors come from, in words."""
        return source_of(self._embedder)

    def fits(self, text: str) -> bool:
        """Whether the model reads the text in full; see :class:`~semcache.embedders.base.Embedder`."""
        return self._embedder.fits(text)

    def embed(self, text: str) -> Vector:
        """float32 [dim], of unit length, read-only.

        Raises:
            EmbedderError: The embedder failed, is not answering, or gave no vector within the budget.
        """
        vector = self._memo.get(text)
        if vector is not None:
            return vector
        self._admit(text)
        if self._inline:
            slot = self._claim(text)
            if slot is not None:
                self._run([slot])
                return slot.result()
        ready = threading.Event()
        timeout = self._timeout()
        slot = self._enqueue(text, timeout, ready.set)
        if not ready.wait(timeout) and slot.vector is None:
            self._gave_up(timeout)
        return slot.result()

    async def aembed(self, text: str) -> Vector:
        """As :meth:`embed`, with the work done off the event loop. A cancelled caller disturbs no other."""
        vector = self._memo.get(text)
        if vector is not None:
            return vector
        import asyncio

        self._admit(text)
        loop = asyncio.get_running_loop()
        ready = loop.create_future()

        def set_ready() -> None:
            if not ready.done():
                ready.set_result(None)

        def wake() -> None:
            # The loop may be gone: its program did not wait for the answer.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(set_ready)

        timeout = self._timeout()
        slot = self._enqueue(text, timeout, wake)
        try:
            await asyncio.wait_for(ready, timeout)
        except asyncio.TimeoutError:
            if slot.vector is None:
                self._gave_up(timeout)
        return slot.result()

    def embed_many(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> npt.NDArray[np.float32]:
        """float32 [n, dim], in this thread, however long it takes; the memo keeps the last of them.

        Args:
            texts: Repeats are embedded once.
            progress: Told how many more texts are done.

        Raises:
            EmbedderError: The embedder failed.
        """
        import numpy as np

        known = {text: vector for text in set(texts) if (vector := self._memo.get(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if progress is not None:
            progress(len(texts) - len(missing))
        for start in range(0, len(missing), BULK):
            chunk = missing[start : start + BULK]
            known.update(zip(chunk, self._vectors(chunk), strict=True))
            if progress is not None:
                progress(len(chunk))
        self._memo.put((text, known[text]) for text in missing)
        return np.stack([known[text] for text in texts]) if texts else np.empty((0, self.dim), np.float32)

    def close(self) -> None:
        """Refuse further work. Callers that wait get EmbedderError; a batch that is running is left to end."""
        with self._changed:
            self._closed = True
            left = list(self._waiting.values())
            self._waiting.clear()
            self._changed.notify_all()
        _settle(left, EmbedderError("the embedding queue is closed"))

    # Callers ------------------------------------------------------------------------------------------------------

    def _timeout(self) -> float:
        return self._budget_s if self._answered else self._load_budget_s

    def _admit(self, text: str) -> None:
        check_texts([text])
        if self._stalled:
            raise EmbedderUnavailable(f"{self.source} has stalled: it has not answered an earlier call yet")
        if not self._breaker.allow():
            raise EmbedderUnavailable(f"{self.source} failed lately and is left alone for a while")

    def _claim(self, text: str) -> _Slot | None:
        """A slot to run in this thread, if nothing else is running or waiting."""
        with self._changed:
            if self._began is not None or self._waiting or self._closed:
                return None
            slot = _Slot(text)
            self._begin([slot])
            return slot

    def _enqueue(self, text: str, timeout: float, wake: Callable[[], None]) -> _Slot:
        with self._changed:
            if self._closed:
                raise EmbedderError("the embedding queue is closed")
            slot = self._running.get(text) or self._waiting.get(text)
            if slot is None:
                slot = self._waiting[text] = _Slot(text)
            slot.deadline = max(slot.deadline, time.monotonic() + timeout)
            slot.wakers.append(wake)
            # A function that raises SystemExit takes the thread with it.
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name="semcache-embed", daemon=True)
                self._worker.start()
            self._changed.notify()
            return slot

    def _gave_up(self, timeout: float) -> None:
        """A caller has waited in vain: the embedder has stalled, or there was too much before it in the queue."""
        with self._changed:
            # The batch begins a little after its caller does, when the worker thread has been woken.
            stalled = self._began is not None and time.monotonic() - self._began >= 0.8 * timeout
            first = stalled and not self._stalled
            self._stalled = stalled
        error = EmbedderError(f"{self.source} gave no vector within {timeout:g} s")
        if first:
            self._breaker.failure()
            self._report(error)
        raise error

    # Work ---------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting or self._began is not None:
                    if self._closed or (not self._changed.wait(IDLE_S) and not self._waiting):
                        self._worker = None
                        return
                batch, late = self._take()
            _settle(late, EmbedderError(f"{self.source} was busy with earlier texts"))
            if batch:
                self._run(batch)

    def _take(self) -> tuple[list[_Slot], list[_Slot]]:
        """The next batch, and the slots for which nobody waits any more."""
        now = time.monotonic()
        late = [slot for slot in self._waiting.values() if slot.deadline < now]
        batch = [slot for slot in self._waiting.values() if slot.deadline >= now][: self._max_batch]
        for slot in (*late, *batch):
            del self._waiting[slot.text]
        if batch:
            self._begin(batch)
        return batch, late

    def _begin(self, batch: Iterable[_Slot]) -> None:
        self._running = {slot.text: slot for slot in batch}
        self._began = time.monotonic()

    def _run(self, batch: list[_Slot]) -> None:
        """Embed a batch that has begun, and wake its callers."""
        error: EmbedderError | None = EmbedderError("embedding was interrupted")
        try:
            vectors = self._vectors([slot.text for slot in batch])
        except EmbedderError as trouble:
            error = trouble
            if self._breaker.failure():
                self._report(trouble)
        else:
            error = None
            self._answered = True
            self._breaker.success()
            self._memo.put((slot.text, vector) for slot, vector in zip(batch, vectors, strict=True))
            for slot, vector in zip(batch, vectors, strict=True):
                slot.vector = vector
        finally:
            with self._changed:
                self._running, self._began, self._stalled = {}, None, False
                if self._waiting:
                    self._changed.notify()
            _settle(batch, error)

    def _vectors(self, texts: list[str]) -> list[Vector]:
        """One read-only vector a text, none a view that would keep its whole batch in memory."""
        try:
            rows = self._embedder.embed(texts)
        except EmbedderError:
            raise
        except Exception as error:
            raise EmbedderError(f"{self.source} failed: {error!r}") from error
        vectors = [row.copy() for row in unit_rows(rows, count=len(texts))]
        for vector in vectors:
            vector.flags.writeable = False
        return vectors

    def _report(self, error: EmbedderError) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(Event("embedder_error", str(error), error))
        except Exception:
            logger.exception("an event hook failed on embedder_error")


class _Slot:
    """One text on its way through the embedder, and all who wait for it."""

    __slots__ = ("deadline", "error", "text", "vector", "wakers")

    def __init__(self, text: str) -> None:
        self.text = text
        self.vector: Vector | None = None
        self.error: EmbedderError | None = None
        self.deadline = 0.0
        self.wakers: list[Callable[[], None]] = []

    def result(self) -> Vector:
        if self.vector is None:
            # Each caller raises an exception of its own: they would write their tracebacks into a shared one.
            raise EmbedderError(str(self.error)) from self.error
        return self.vector


def _settle(slots: Iterable[_Slot], error: EmbedderError | None) -> None:
    """Wake all who wait for slots that nobody can find in the queue any more."""
    for slot in slots:
        slot.error = error
        for wake in slot.wakers:
            wake()


class _Memo:
    """The vectors of the texts used last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[str, Vector] = OrderedDict()
        self.after_fork()

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def get(self, text: str) -> Vector | None:
        with self._lock:
            vector = self._items.get(text)
            if vector is not None:
                self._items.move_to_end(text)
            return vector

    def put(self, items: Iterable[tuple[str, Vector]]) -> None:
        with self._lock:
            for text, vector in items:
                self._items[text] = vector
                self._items.move_to_end(text)
            while len(self._items) > self._size:
                self._items.popitem(last=False)
