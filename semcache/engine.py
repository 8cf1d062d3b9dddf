"""Drives flows: one sync loop, one async loop, and what both share.

The steps themselves are performed by :mod:`semcache.performer`, but for the call upstream, which is the edge's own.
What the upstream raises leaves the engine as the same object.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from semcache import flow as flows
from semcache import steps
from semcache._fork import renew_in_child
from semcache.context import loosen
from semcache.errors import BudgetExceeded, CanonicalError
from semcache.events import EventHook, Hook, emit, logger
from semcache.guards import language
from semcache.keys import make_key
from semcache.live.answers import answer_id
from semcache.live.audit import Auditor, Later
from semcache.live.evidence import Evidence
from semcache.marking import Marker
from semcache.money.budgets import Budgets
from semcache.options import USER_TAG, Options, current_options
from semcache.performer import Performer
from semcache.policy import secret_in
from semcache.privacy import mask_secrets
from semcache.request_log import RequestLog
from semcache.served import Pending, Served, last
from semcache.types import Event, Outcome, Reply, Request

if TYPE_CHECKING:
    from pathlib import Path

    from semcache.flow import Answered, Call, Flow
    from semcache.live.answers import Judge
    from semcache.money.budgets import Budget
    from semcache.money.ledger import Ledger
    from semcache.policy import Policy
    from semcache.semantic import SemanticTier
    from semcache.steps import Step, StreamReply
    from semcache.stores.base import Store
    from semcache.types import Prompt

T = TypeVar("T")


class Engine:
    """The parts of one cache, and the two loops.

    Args:
        semantic: ``None`` leaves the exact tier only.
        clock: Unix seconds, from which entries get their age. A replay gives the time of its log.
        judge: Of audits, where the policy has an ``audit_rate``.
        prompt_cache: Whether misses get marks for the provider's prompt cache.
        budgets: What calls upstream may cost.
        request_log: File to which the questions asked are appended.
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
        prompt_cache: bool = True,
        budgets: Sequence[Budget] = (),
        request_log: str | Path | None = None,
    ) -> None:
        self.store = store
        self.semantic = semantic
        self.policy = policy
        self.ledger = ledger
        self.namespace = namespace
        self.tenant = tenant
        # Masked requests match again in this process only, unless the store has a secret to share.
        self._mask_key: bytes = getattr(store, "mask_key", None) or os.urandom(32)
        self.outcome_hooks: list[Hook] = []
        # Not methods, since the parts hold these: in a ring of references a dropped engine would keep the memory of its
        # model until the garbage collector comes by.
        self.emit = partial(emit, event_hooks)
        self.mark_wrong = partial(mark_wrong, store, semantic)
        self.request_log = None if request_log is None else RequestLog(request_log, self.emit)
        self.clock = clock
        self.evidence = Evidence(store, policy, self.emit)
        self.budgets = Budgets(budgets, store, self.emit)
        if budgets:
            ledger.on_paid.append(self.budgets.paid)
        ledger.watch("embedding", None if semantic is None else semantic.queue.embedder, namespace)
        ledger.watch("verifier", policy.verifier, namespace)
        self.auditor: Auditor | None = None
        if policy.audit_rate > 0.0:
            self.auditor = Auditor(policy.audit_rate, judge, self.evidence, ledger, self.mark_wrong, self.emit)
        self.performer = Performer(
            store=store,
            semantic=semantic,
            policy=policy,
            evidence=self.evidence,
            emit=self.emit,
            marker=Marker(store, self.emit, clock) if prompt_cache else None,
        )
        renew_in_child(self)

    # Calls --------------------------------------------------------------------------------------------------------

    def run(
        self,
        request: Request,
        call: Callable[..., Reply | StreamReply],
        *,
        refresh: bool = False,
        later: Later | None = None,
        prompt: Prompt | None = None,
    ) -> Served:
        """Serve a request, calling upstream on a miss. What ``call`` raises passes through unchanged.

        Args:
            call: Called without arguments, or with one: the body to send instead of ``prompt.body``.
            later: Makes a ``call`` that the caller cannot change any more, for an audit.
            prompt: What would be sent, where it may get marks for the provider's prompt cache.
        """
        ctx = self.context(request, refresh=refresh, prompt=prompt)
        served = self._drive(ctx, flows.call(ctx), call)
        if self.auditor is not None and not self.budgets.exceeded(ctx.namespace):
            self.auditor.consider(ctx, call, later)
        return served

    async def arun(
        self,
        request: Request,
        call: Callable[..., Awaitable[Reply | StreamReply]],
        *,
        refresh: bool = False,
        later: Later | None = None,
        prompt: Prompt | None = None,
    ) -> Served:
        """As :meth:`run`, for an event loop."""
        ctx = self.context(request, refresh=refresh, prompt=prompt)
        served = await self._adrive(ctx, flows.call(ctx), call)
        if self.auditor is not None and not self.budgets.exceeded(ctx.namespace):
            self.auditor.consider(ctx, call, later, awaits=True)
        return served

    def perform(self, generator: Generator[Step, Any, T]) -> T:
        """Drive a flow that never calls upstream."""
        answer: Any = None
        try:
            while True:
                step = generator.send(answer)
                answer = self.performer.step(step)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def aperform(self, generator: Generator[Step, Any, T]) -> T:
        answer: Any = None
        try:
            while True:
                answer = await self.performer.astep(generator.send(answer))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def done(self, ctx: Call) -> None:
        """Book a call that ends here and now, and make its outcome the last one of this thread or task."""
        outcome, marker = ctx.outcome, self.performer.marker
        outcome.seconds["total"] = time.perf_counter() - ctx.started
        if marker is not None and ctx.prompt is not None and not outcome.spent:
            outcome.expected_read_tokens = marker.expected(ctx.prompt)
        last.set(outcome)
        self.finish(outcome, ctx)

    def finish(self, outcome: Outcome, ctx: Call | None = None) -> None:
        """Book an outcome, log what was asked, and hand the outcome to the hooks."""
        self.ledger.record(outcome)
        if self.request_log is not None and ctx is not None:
            self.request_log.record(ctx)
        for hook in self.outcome_hooks:
            try:
                hook(outcome)
            except Exception as error:
                logger.exception("an outcome hook failed")
                self.emit(Event("hook_error", str(error), error))

    def close(self) -> None:
        self.performer.close()
        if self.auditor is not None:
            self.auditor.close()
        self.evidence.close()
        self.budgets.close()
        with suppress(ValueError):  # closed before, or none was given
            self.ledger.on_paid.remove(self.budgets.paid)
        self.ledger.close()
        if self.request_log is not None:
            self.request_log.close()
        if self.semantic is not None:
            self.semantic.close()
        self.store.close()

    def after_fork(self) -> None:
        self.performer.after_fork()
        self.evidence.after_fork()
        if self.auditor is not None:
            self.auditor.after_fork()
        if self.semantic is not None:
            self.semantic.after_fork()

    # The two loops ------------------------------------------------------------------------------------------------

    def _drive(self, ctx: Call, flow: Flow, call: Callable[..., Reply | StreamReply]) -> Served:
        resume: Callable[[Any], Step] = flow.send
        answer: Any = None
        try:
            while True:
                try:
                    step = resume(answer)
                except StopIteration as stop:  # the flow's own; one that the upstream raises is the caller's
                    return self._served(ctx, stop.value)
                resume = flow.send
                if type(step) is not steps.CallUpstream:
                    answer = self.performer.step(step)
                    continue
                try:
                    self.budgets.admit(ctx.namespace)
                    answer = call() if step.body is None else call(step.body)
                except _OF_GENERATORS:
                    raise  # thrown into a generator they would become another exception
                except Exception as error:
                    resume, answer = flow.throw, error
                    continue
                if type(answer) is steps.StreamReply:
                    return self._begun(ctx, flow, answer)
        except BaseException as error:
            self._broken(ctx, flow, error)
            raise

    async def _adrive(self, ctx: Call, flow: Flow, call: Callable[..., Awaitable[Reply | StreamReply]]) -> Served:
        resume: Callable[[Any], Step] = flow.send
        answer: Any = None
        try:
            while True:
                try:
                    step = resume(answer)
                except StopIteration as stop:  # the flow's own; one that the upstream raises is the caller's
                    return self._served(ctx, stop.value)
                resume = flow.send
                if type(step) is not steps.CallUpstream:
                    answer = await self.performer.astep(step)
                    continue
                try:
                    if self.budgets.must_look and not self.store.inline_writes:
                        await asyncio.to_thread(self.budgets.look)
                    self.budgets.admit(ctx.namespace)
                    answer = await (call() if step.body is None else call(step.body))
                except _OF_GENERATORS:
                    raise  # thrown into a generator they would become another exception
                except Exception as error:
                    resume, answer = flow.throw, error
                    continue
                if type(answer) is steps.StreamReply:
                    return self._begun(ctx, flow, answer)
        except BaseException as error:
            self._broken(ctx, flow, error)
            raise

    def _served(self, ctx: Call, answered: Answered) -> Served:
        self.done(ctx)
        return Served(ctx.outcome, answered.body, answered.value)

    def _begun(self, ctx: Call, flow: Flow, answer: StreamReply) -> Served:
        last.set(ctx.outcome)
        return Served(ctx.outcome, value=answer.value, pending=Pending(self, ctx, flow))

    def _broken(self, ctx: Call, flow: Flow, error: BaseException) -> None:
        """The upstream raised, or the caller was cancelled: let the flow leave its flight."""
        flow.close()
        refused = ctx.outcome.refused = isinstance(error, BudgetExceeded)
        ctx.outcome.reason = "over budget" if refused else f"upstream raised {type(error).__name__}"
        self.done(ctx)

    def context(self, request: Request, *, refresh: bool = False, prompt: Prompt | None = None) -> Call:
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
        except (CanonicalError, RecursionError) as error:  # masking goes deeper than making a key
            key, bypass = None, bypass or str(error)
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
            rules=self.policy.rules(namespace, options.category, self._language(request)),
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
            prompt=prompt,
            meter=self.ledger.meter.usage,
        )

    def _language(self, request: Request) -> str | None:
        """The language of the question, where the policy has rules by it."""
        return language(request.text) if self.policy.languages and request.text is not None else None

    def _fingerprint(self) -> str | None:
        assert self.semantic is not None
        return self.semantic.queue.fingerprint


_NO_OPTIONS = Options()
_OF_GENERATORS = (StopIteration, StopAsyncIteration)


def _no_fingerprint() -> None:
    return None


def mark_wrong(store: Store, semantic: SemanticTier | None, key_id: int, entry_id: int, answer: bytes | None) -> None:
    """These two questions must never answer each other, and no entry the first one with this answer.

    Args:
        answer: As entries keep it; ``None`` if it is not known any more.

    Raises:
        StoreError: The store could not be told; this process knows all the same.
    """
    wrong = [(key_id, entry_id)] if answer is None else [(key_id, entry_id), (key_id, answer_id(answer))]
    if semantic is not None:
        for pair in wrong:
            semantic.mark_wrong(*pair)
    for pair in wrong:
        store.mark_wrong(*sorted(pair))
