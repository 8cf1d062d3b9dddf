"""Performs the steps of a flow: one sync loop, one async loop, and what both share.

This is where effects and trouble live. Whatever goes wrong in the cache's own parts becomes an event and a ``None``
answer here; what the upstream raises is thrown into the flow and leaves it as the same object.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from semcache import flow as flows
from semcache import steps
from semcache._fork import renew_in_child
from semcache.context import loosen
from semcache.errors import (
    CacheTrouble,
    CanonicalError,
    EmbedderError,
    EmbedderUnavailable,
    StoreError,
    StoreUnavailable,
    VectorIndexError,
    VerifierError,
)
from semcache.events import EventHook, Hook, emit, logger
from semcache.flight import Flights, Landed, wait, wait_async
from semcache.keys import make_key
from semcache.live.audit import Auditor, Later
from semcache.live.evidence import Evidence
from semcache.options import USER_TAG, Options, current_options
from semcache.policy import secret_in
from semcache.privacy import mask_secrets
from semcache.served import Pending, Served, last
from semcache.types import Event, Outcome, Reply, Request
from semcache.verifiers import VerifierDesk, resolve

if TYPE_CHECKING:
    from concurrent.futures import Future

    from semcache.flow import Answered, Call, Flow
    from semcache.ledger import Ledger
    from semcache.live.answers import Judge
    from semcache.policy import Policy
    from semcache.semantic import SemanticTier
    from semcache.steps import Near, Step, StreamReply
    from semcache.stores.base import Store

T = TypeVar("T")


class Engine:
    """The parts of one cache, and the two loops.

    Args:
        semantic: ``None`` leaves the exact tier only.
        clock: Unix seconds, from which entries get their age. A replay gives the time of its log.
        judge: Of audits, where the policy has an ``audit_rate``.
    """

    def __init__(
        self,
        *,
        store: Store,
        semantic: SemanticTier | None,
        policy: Policy,
        ledger: Ledger,
        namespace: str,
        tenant: str | None,
        event_hooks: list[EventHook],
        clock: Callable[[], float] = time.time,
        judge: Judge | None = None,
    ) -> None:
        self.store = store
        self.semantic = semantic
        self.policy = policy
        self.ledger = ledger
        self.namespace = namespace
        self.tenant = tenant
        self.flights = Flights()
        # Masked requests match again in this process only, unless the store has a secret to share.
        self._mask_key: bytes = getattr(store, "mask_key", None) or os.urandom(32)
        self._desk = None if policy.verifier is None else VerifierDesk(resolve(policy.verifier))
        self._has_read = False
        self.outcome_hooks: list[Hook] = []
        self.event_hooks = event_hooks
        self.clock = clock
        self.evidence = Evidence(store, policy, self.emit)
        self.auditor: Auditor | None = None
        if policy.audit_rate > 0.0:
            self.auditor = Auditor(policy.audit_rate, judge, self.evidence, ledger, self.mark_wrong, self.emit)
        self._perform: dict[type, Callable[[Any], Any]] = {
            steps.GetExact: self._get_exact,
            steps.Join: self._join,
            steps.Rewrite: self._rewrite,
            steps.Embed: self._embed,
            steps.Search: self._search,
            steps.Verify: self._verify,
            steps.Write: self._write,
        }
        self._aperform: dict[type, Callable[[Any], Awaitable[Any]]] = {
            steps.Join: self._ajoin,
            steps.Rewrite: self._arewrite,
            steps.Embed: self._aembed,
            steps.Search: self._asearch,
            steps.Verify: self._averify,
        }
        # Steps that an event loop may run on its own thread.
        self._inline = {steps.GetExact: store.inline_reads, steps.Write: store.inline_writes}
        renew_in_child(self)

    def emit(self, event: Event) -> None:
        emit(self.event_hooks, event)

    # Calls --------------------------------------------------------------------------------------------------------

    def run(
        self,
        request: Request,
        call: Callable[[], Reply | StreamReply],
        *,
        refresh: bool = False,
        later: Later | None = None,
    ) -> Served:
        """Serve a request, calling upstream on a miss. What ``call`` raises passes through unchanged.

        ``later`` makes a ``call`` that the caller cannot change any more, for an audit.
        """
        ctx = self.context(request, refresh=refresh)
        served = self._drive(ctx, flows.call(ctx), call)
        if self.auditor is not None:
            self.auditor.consider(ctx, call, later)
        return served

    async def arun(
        self,
        request: Request,
        call: Callable[[], Awaitable[Reply | StreamReply]],
        *,
        refresh: bool = False,
        later: Later | None = None,
    ) -> Served:
        """As :meth:`run`, for an event loop."""
        ctx = self.context(request, refresh=refresh)
        served = await self._adrive(ctx, flows.call(ctx), call)
        if self.auditor is not None:
            self.auditor.consider(ctx, call, later, awaits=True)
        return served

    def perform(self, generator: Generator[Step, Any, T]) -> T:
        """Drive a flow that never calls upstream."""
        answer: Any = None
        try:
            while True:
                step = generator.send(answer)
                answer = self.step(step)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def aperform(self, generator: Generator[Step, Any, T]) -> T:
        answer: Any = None
        try:
            while True:
                answer = await self.astep(generator.send(answer))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def done(self, ctx: Call) -> None:
        """Book a call that ends here and now, and make its outcome the last one of this thread or task."""
        ctx.outcome.seconds["total"] = time.perf_counter() - ctx.started
        last.set(ctx.outcome)
        self.finish(ctx.outcome)

    def finish(self, outcome: Outcome) -> Outcome:
        """Book an outcome and hand it to the hooks."""
        self.ledger.record(outcome)
        for hook in self.outcome_hooks:
            try:
                hook(outcome)
            except Exception as error:
                logger.exception("an outcome hook failed")
                self.emit(Event("hook_error", str(error), error))
        return outcome

    def mark_wrong(self, key_id: int, entry_id: int) -> None:
        """These two questions must never answer each other.

        Raises:
            StoreError: The store could not be told.
        """
        self.store.mark_wrong(*sorted((key_id, entry_id)))
        if self.semantic is not None:
            self.semantic.mark_wrong(key_id, entry_id)

    def close(self) -> None:
        if self._desk is not None:
            self._desk.close()
        if self.auditor is not None:
            self.auditor.close()
        self.evidence.close()
        self.ledger.close()
        if self.semantic is not None:
            self.semantic.close()
        self.store.close()

    def after_fork(self) -> None:
        self.flights = Flights()
        self.evidence.after_fork()
        if self.auditor is not None:
            self.auditor.after_fork()
        if self.semantic is not None:
            self.semantic.after_fork()

    # The two loops ------------------------------------------------------------------------------------------------

    def _drive(self, ctx: Call, flow: Flow, call: Callable[[], Reply | StreamReply]) -> Served:
        answer: Any = None
        try:
            while True:
                try:
                    step = flow.send(answer)
                except StopIteration as stop:  # the flow's own; one that the upstream raises is the caller's
                    return self._served(ctx, stop.value)
                if type(step) is not steps.CallUpstream:
                    answer = self.step(step)
                    continue
                answer = call()
                if type(answer) is steps.StreamReply:
                    return self._begun(ctx, flow, answer)
        except BaseException as error:
            self._broken(ctx, flow, error)
            raise

    async def _adrive(self, ctx: Call, flow: Flow, call: Callable[[], Awaitable[Reply | StreamReply]]) -> Served:
        answer: Any = None
        try:
            while True:
                try:
                    step = flow.send(answer)
                except StopIteration as stop:  # the flow's own; one that the upstream raises is the caller's
                    return self._served(ctx, stop.value)
                if type(step) is not steps.CallUpstream:
                    answer = await self.astep(step)
                    continue
                answer = await call()
                if type(answer) is steps.StreamReply:
                    return self._begun(ctx, flow, answer)
        except BaseException as error:
            self._broken(ctx, flow, error)
            raise

    def step(self, step: Step) -> Any:
        """Perform one step of a flow."""
        return self._perform[type(step)](step)

    async def astep(self, step: Step) -> Any:
        """As :meth:`step`, off the event loop where it may take long."""
        kind = type(step)
        perform = self._aperform.get(kind)
        if perform is not None:
            return await perform(step)
        if self._inline.get(kind, True):
            return self._perform[kind](step)
        return await asyncio.to_thread(self._perform[kind], step)

    def _served(self, ctx: Call, answered: Answered) -> Served:
        self.done(ctx)
        return Served(ctx.outcome, answered.body, answered.value)

    def _begun(self, ctx: Call, flow: Flow, answer: StreamReply) -> Served:
        last.set(ctx.outcome)
        return Served(ctx.outcome, value=answer.value, pending=Pending(self, ctx, flow))

    def _broken(self, ctx: Call, flow: Flow, error: BaseException) -> None:
        """The upstream raised, or the caller was cancelled: let the flow leave its flight."""
        flow.close()
        ctx.outcome.reason = f"upstream raised {type(error).__name__}"
        self.done(ctx)

    def context(self, request: Request, *, refresh: bool = False) -> Call:
        """What a flow needs to know of a call made here and now."""
        options = current_options() or _NO_OPTIONS
        namespace = options.namespace or self.namespace
        tenant = options.tenant if options.tenant is not None else self.tenant
        bypass = "asked for by the caller" if options.bypass else ""
        key = None
        request = loosen(request, self.policy.context, self.policy.window)
        try:
            key = make_key(request, namespace, tenant, options.private_to)
            if self.policy.secrets == "redact" and secret_in(self.policy, key.canonical):
                request = mask_secrets(request, self._mask_key, emails=self.policy.emails_are_secret)
                key = make_key(request, namespace, tenant, options.private_to)
        except CanonicalError as error:
            bypass = bypass or str(error)
            self.emit(Event("uncanonical", str(error), error))
        semantic = self.semantic
        return flows.Call(
            request=request,
            key=key,
            outcome=Outcome(
                "miss",
                namespace=namespace,
                tenant=tenant,
                model=request.model,
                request=request,
                key=key,
            ),
            policy=self.policy,
            namespace=namespace,
            tenant=tenant,
            now=self.clock,
            tick=time.perf_counter,
            started=time.perf_counter(),
            fingerprint=_no_fingerprint if semantic is None else self._fingerprint,
            ttl=options.ttl,
            tags=options.tags if options.user is None else (*options.tags, f"{USER_TAG}{options.user}"),
            bypass=bypass,
            refresh=refresh or options.refresh,
            min_similarity=options.min_similarity,
            off=self.evidence.off,
        )

    # Steps --------------------------------------------------------------------------------------------------------

    def _get_exact(self, step: steps.GetExact) -> Any:
        try:
            return self.store.get(step.key)
        except CacheTrouble as error:
            self._trouble(error)
            return None

    def _write(self, step: steps.Write) -> bool:
        try:
            self.store.put(step.entry)
        except CacheTrouble as error:
            self._trouble(error)
            return False
        if self.semantic is not None:
            try:
                self.semantic.add(step.entry)
            except CacheTrouble as error:
                self._trouble(error)
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

    def _fingerprint(self) -> str | None:
        assert self.semantic is not None
        return self.semantic.queue.fingerprint

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
        queue = self.semantic.queue
        try:
            return queue.embed(step.text) if self._reads(step.text) else steps.UNREADABLE
        except CacheTrouble as error:
            self._trouble(error)
            return None

    async def _aembed(self, step: steps.Embed) -> Any:
        assert self.semantic is not None
        queue = self.semantic.queue
        try:
            # The first question loads the tokenizer, or with some embedders the model.
            reads = self._reads(step.text) if self._has_read else await asyncio.to_thread(self._reads, step.text)
            return await queue.aembed(step.text) if reads else steps.UNREADABLE
        except CacheTrouble as error:
            self._trouble(error)
            return None

    def _reads(self, text: str) -> bool:
        assert self.semantic is not None
        fits = self.semantic.queue.fits(text)
        self._has_read = True
        return fits

    def _search(self, step: steps.Search) -> list[Near]:
        semantic = self.semantic
        assert semantic is not None
        self.evidence.refresh()
        try:
            matches = semantic.search(step.key, step.vector, step.k, step.min_similarity)
            ids = [match.id for match in matches if match.id != step.key.id]
            if not ids:
                return []
            entries = self.store.fetch(ids)
            gone = [id for id, entry in zip(ids, entries, strict=True) if entry is None]
            if gone:
                semantic.remove(gone)
            near = semantic.near(step.key, step.vector, entries, step.min_similarity)
        except CacheTrouble as error:
            self._trouble(error)
            return []
        weights = (self.evidence.weigh(n.entry.namespace, n.entry.key.id) for n in near)
        return [n if w is None else n._replace(**w._asdict()) for n, w in zip(near, weights, strict=True)]

    async def _asearch(self, step: steps.Search) -> list[Near]:
        if self.store.inline_reads and self.semantic is not None and self.semantic.warm:
            return self._search(step)
        return await asyncio.to_thread(self._search, step)

    def _verify(self, step: steps.Verify) -> float | None:
        future = self._asked(step)
        if future is not None and self.policy.verify_within_s:
            concurrent.futures.wait([future], self.policy.verify_within_s)
        return self._verdict(future)

    async def _averify(self, step: steps.Verify) -> float | None:
        future = self._asked(step)
        if future is not None and not future.done() and self.policy.verify_within_s:
            done, loop = asyncio.Event(), asyncio.get_running_loop()
            future.add_done_callback(lambda _: _tell(loop, done))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(done.wait(), self.policy.verify_within_s)
        return self._verdict(future)

    def _asked(self, step: steps.Verify) -> Future[float] | None:
        try:
            return None if self._desk is None else self._desk.ask(step.query, step.cached)
        except CacheTrouble as error:
            self._trouble(error)
            return None

    def _verdict(self, future: Future[float] | None) -> float | None:
        if future is None:
            return None
        if not future.done():
            if self.policy.verify_within_s:
                self._trouble(VerifierError(f"no verdict within {self.policy.verify_within_s:g} s"))
            return None
        error = future.exception()
        if error is not None:
            self._trouble(error if isinstance(error, Exception) else VerifierError(repr(error)))
            return None
        return future.result()

    def _trouble(self, error: Exception) -> None:
        if isinstance(error, (StoreUnavailable, EmbedderUnavailable)):
            return  # that it failed has been said once
        kind = next((kind for base, kind in _TROUBLE.items() if isinstance(error, base)), "verifier_error")
        self.emit(Event(kind, str(error), error))


_TROUBLE: dict[type[Exception], str] = {
    StoreError: "store_error",
    EmbedderError: "embedder_error",
    VectorIndexError: "index_error",
}


_ALONE = Landed(None)
_NO_OPTIONS = Options()


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
        loop.call_soon_threadsafe(done.set)


def _no_fingerprint() -> None:
    return None
