"""Performs single steps of flows: the store, the flights, the embedder, the index and the verifier are asked here.

Whatever goes wrong in them becomes an event, and the flow is answered that there is nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from semcache import steps
from semcache.errors import (
    EmbedderError,
    EmbedderUnavailable,
    StoreError,
    StoreUnavailable,
    VectorIndexError,
    VerifierError,
)
from semcache.flight import Flights, Landed, wait, wait_async
from semcache.live.answers import answer_id
from semcache.schemas import keeps_to
from semcache.shared_history import erase_prompts
from semcache.types import Event
from semcache.verifiers import KeptVerdicts, VerifierDesk, resolve

if TYPE_CHECKING:
    from concurrent.futures import Future

    from semcache.live.evidence import Evidence
    from semcache.marking import Marker
    from semcache.policy import Policy
    from semcache.semantic import SemanticTier
    from semcache.steps import Marked, Near, Step
    from semcache.stores.base import Store
    from semcache.types import Entry, Key


class Performer:
    """The parts of one cache that steps ask.

    Args:
        semantic: ``None`` leaves the exact tier only.
        marker: ``None`` sends every prompt as it is.
    """

    def __init__(
        self,
        *,
        store: Store,
        semantic: SemanticTier | None,
        policy: Policy,
        evidence: Evidence,
        emit: Callable[[Event], None],
        marker: Marker | None = None,
    ) -> None:
        self.store = store
        self.semantic = semantic
        self.policy = policy
        self.evidence = evidence
        self.emit = emit
        self.marker = marker
        self.flights = Flights()
        self.desk: VerifierDesk | None = None
        if policy.verifier is not None:
            verifier = resolve(policy.verifier)
            self.desk = VerifierDesk(verifier, KeptVerdicts(store, verifier, policy.verify_at_least, emit))
        self._has_read = False
        # Steps that an event loop may run on its own thread.
        self._inline = {
            steps.GetExact: store.inline_reads,
            steps.GetStale: store.inline_reads,
            steps.Write: store.inline_writes,
        }

    def step(self, step: Step) -> Any:
        """Perform one step of a flow, any but ``CallUpstream``. Raises nothing."""
        try:
            return _PERFORM[type(step)](self, step)
        except Exception as error:
            return self._failed(step, error)

    async def astep(self, step: Step) -> Any:
        """As :meth:`step`, off the event loop where it may take long."""
        kind = type(step)
        perform = _APERFORM.get(kind)
        try:
            if perform is not None:
                return await perform(self, step)
            if self._inline.get(kind, True):
                return _PERFORM[kind](self, step)
            return await asyncio.to_thread(_PERFORM[kind], self, step)
        except Exception as error:
            return self._failed(step, error)

    def _failed(self, step: Step, error: Exception) -> Any:
        self._trouble(error, _PARTS.get(type(step), "store_error"))
        return _NOTHING.get(type(step))

    def after_fork(self) -> None:
        """In a child: the parent's calls in flight are its own."""
        self.flights = Flights()
        if self.marker is not None:
            self.marker.after_fork()

    def forget_prompts(self) -> None:
        """Forget all that is known of prompts by their hashes.

        Raises:
            StoreError: The store cannot be read or written.
        """
        if self.marker is not None:
            self.marker.forget()
        else:
            erase_prompts(self.store)

    def close(self) -> None:
        if self.desk is not None:
            self.desk.close()
        if self.marker is not None:
            self.marker.close()

    def _get_exact(self, step: steps.GetExact) -> Entry | None:
        return self.store.get(step.key)

    def _get_stale(self, step: steps.GetStale) -> Entry | None:
        entry = self.store.get(step.key, stale_s=step.stale_s)
        if entry is not None:
            self.emit(Event("served_stale", f"an expired answer was served: {step.why}"))
        return entry

    def _write(self, step: steps.Write) -> bool:
        self.store.put(step.entry)
        if self.semantic is not None:
            try:
                self.semantic.add(step.entry)
            except Exception as error:  # it is stored all the same
                self._trouble(error, "index_error")
        return True

    def _join(self, step: steps.Join) -> Any:
        owner = (threading.get_ident(), None)
        flight, leads = self.flights.join(step.key.canonical, owner)
        if leads:
            return flight
        if flight.owner[0] == owner[0]:
            return _ALONE  # this very thread is reading the leader's stream: waiting for it would never end
        try:
            return wait(flight, step.wait_s)
        except TimeoutError:
            return _ALONE

    async def _ajoin(self, step: steps.Join) -> Any:
        owner = (threading.get_ident(), asyncio.current_task())
        flight, leads = self.flights.join(step.key.canonical, owner)
        if leads:
            return flight
        if flight.owner == owner:
            return _ALONE
        try:
            return await wait_async(flight, step.wait_s)
        except TimeoutError:
            return _ALONE

    def _rewrite(self, step: steps.Rewrite) -> str | None:
        assert self.policy.rewrite is not None
        try:
            text = self.policy.rewrite(step.history, step.text)
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{text!r} is no question")
        except Exception as error:
            self.emit(Event("rewrite_error", f"a question could not be rewritten: {error}", error))
            return None
        return text

    async def _arewrite(self, step: steps.Rewrite) -> str | None:
        return await asyncio.to_thread(self._rewrite, step)

    def _embed(self, step: steps.Embed) -> Any:
        assert self.semantic is not None
        return self.semantic.queue.embed(step.text) if self._reads(step.text) else steps.UNREADABLE

    async def _aembed(self, step: steps.Embed) -> Any:
        assert self.semantic is not None
        # The first question loads the tokenizer, or with some embedders the model.
        reads = self._reads(step.text) if self._has_read else await asyncio.to_thread(self._reads, step.text)
        return await self.semantic.queue.aembed(step.text) if reads else steps.UNREADABLE

    def _reads(self, text: str) -> bool:
        assert self.semantic is not None
        fits = self.semantic.queue.fits(text)
        self._has_read = True
        return fits

    def _search(self, step: steps.Search) -> list[Near]:
        semantic = self.semantic
        assert semantic is not None
        self.evidence.refresh()
        matches = semantic.search(step.key, step.vector, step.k, step.min_similarity)
        ids = [match.id for match in matches if match.id != step.key.id]
        if not ids:
            return []
        entries = self.store.fetch(ids)
        gone = [id for id, entry in zip(ids, entries, strict=True) if entry is None]
        if gone:
            semantic.remove(gone)
        near = semantic.near(step.key, step.vector, entries, step.min_similarity)
        return [self._weighed(step.key, one) for one in near]

    def _weighed(self, key: Key, near: Near) -> Near:
        """A candidate with what has been reported of it, and of its answer to this question in another entry."""
        semantic, entry = self.semantic, near.entry
        assert semantic is not None
        if semantic.any_wrong and semantic.is_wrong(key.id, answer_id(entry.response)):
            near = near._replace(wrong_before=True)
        weight = self.evidence.weigh(entry.namespace, entry.key.id)
        return near if weight is None else near._replace(**weight._asdict())

    async def _asearch(self, step: steps.Search) -> list[Near]:
        reads_only = self.store.inline_writes or not self.evidence.must_write
        if self.store.inline_reads and reads_only and self.semantic is not None and self.semantic.warm:
            return self._search(step)
        return await asyncio.to_thread(self._search, step)

    def _verify(self, step: steps.Verify) -> float | None:
        future = self._asked(step)
        if future is not None and self.policy.verify_within_s:
            concurrent.futures.wait([future], self.policy.verify_within_s)
        return self._verdict(future)

    async def _averify(self, step: steps.Verify) -> float | None:
        asked = self._asked
        future = asked(step) if self.store.inline_reads else await asyncio.to_thread(asked, step)
        if future is not None and not future.done() and self.policy.verify_within_s:
            done, loop = asyncio.Event(), asyncio.get_running_loop()
            future.add_done_callback(lambda _: _tell(loop, done))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(done.wait(), self.policy.verify_within_s)
        return self._verdict(future)

    def _asked(self, step: steps.Verify) -> Future[float] | None:
        return None if self.desk is None else self.desk.ask(step)

    def _verdict(self, future: Future[float] | None) -> float | None:
        if future is None:
            return None
        if not future.done():
            if self.policy.verify_within_s:
                raise VerifierError(f"no verdict within {self.policy.verify_within_s:g} s")
            return None
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise VerifierError(repr(error))  # a verifier's SystemExit ends its own thread only
        return future.result()

    def _rule_failed(self, step: steps.RuleFailed) -> None:
        self.emit(Event("judging_error", f"candidates could not be judged: {step.error!r}", step.error))

    def _check_schema(self, step: steps.CheckSchema) -> bool | None:
        wrong = keeps_to(step.schema, step.answer)
        if wrong:
            self.emit(Event("schema_mismatch", f"a stored answer does not keep to the JSON schema asked for: {wrong}"))
        return None if wrong is None else not wrong

    def _mark(self, step: steps.MarkPrompt) -> Marked | None:
        return None if self.marker is None else self.marker.mark(step.prompt, step.tenant)

    def _reconcile(self, step: steps.Reconcile) -> None:
        if self.marker is not None:
            self.marker.reconcile(step.marked, step.usage)

    def _refused(self, step: steps.Refused) -> bool:
        return self.marker is not None and self.marker.refused(step.marked, step.said)

    def _trouble(self, error: Exception, part: str) -> None:
        if isinstance(error, (StoreUnavailable, EmbedderUnavailable)):
            return  # that it failed has been said once
        kind = next((kind for base, kind in _TROUBLE.items() if isinstance(error, base)), part)
        self.emit(Event(kind, str(error) or repr(error), error))


# Plain functions: bound methods kept in a performer would hold it in a ring of references. See Engine.emit.
_PERFORM: dict[type, Callable[[Performer, Any], Any]] = {
    steps.GetExact: Performer._get_exact,
    steps.Join: Performer._join,
    steps.Rewrite: Performer._rewrite,
    steps.Embed: Performer._embed,
    steps.Search: Performer._search,
    steps.Verify: Performer._verify,
    steps.RuleFailed: Performer._rule_failed,
    steps.CheckSchema: Performer._check_schema,
    steps.GetStale: Performer._get_stale,
    steps.MarkPrompt: Performer._mark,
    steps.Reconcile: Performer._reconcile,
    steps.Refused: Performer._refused,
    steps.Write: Performer._write,
}
_APERFORM: dict[type, Callable[[Performer, Any], Awaitable[Any]]] = {
    steps.Join: Performer._ajoin,
    steps.Rewrite: Performer._arewrite,
    steps.Embed: Performer._aembed,
    steps.Search: Performer._asearch,
    steps.Verify: Performer._averify,
}
_TROUBLE: dict[type[Exception], str] = {
    StoreError: "store_error",
    EmbedderError: "embedder_error",
    VectorIndexError: "index_error",
}
# The event of an error that does not say whose it is.
_PARTS: dict[type, str] = {
    steps.Rewrite: "rewrite_error",
    steps.Embed: "embedder_error",
    steps.Search: "index_error",
    steps.Verify: "verifier_error",
    steps.CheckSchema: "schema_mismatch",
    steps.MarkPrompt: "prompt_cache_error",
    steps.Reconcile: "prompt_cache_error",
    steps.Refused: "prompt_cache_error",
}
_NOTHING: dict[type, Any] = {steps.Search: (), steps.Write: False, steps.Refused: False}
"""The answers that are not ``None``."""


_ALONE = Landed()


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
        loop.call_soon_threadsafe(done.set)
