"""The public face: :class:`SemanticCache` and :class:`AsyncSemanticCache`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import orjson

from semcache import flow
from semcache.asked import Asked, as_reply, as_request, as_selector, served_by
from semcache.engine import Engine
from semcache.errors import ConfigurationError
from semcache.events import EventHook, Hook, emit
from semcache.keys import Difference, diff, make_key
from semcache.options import USER_TAG, Options, Share, current_options, options_in_force
from semcache.types import Key, Outcome, Usage

if TYPE_CHECKING:
    from types import TracebackType

    from semcache_indexes import Kind as IndexKind
    from semcache_indexes import VectorIndex
    from typing_extensions import Self

    from semcache.flow import Explanation
    from semcache.live.answers import Judge
    from semcache.live.record import Standing
    from semcache.money.budgets import Budget, BudgetState
    from semcache.money.ledger import Ledger
    from semcache.money.ledger import Stats as LedgerStats
    from semcache.money.prices import Prices
    from semcache.policy import Policy
    from semcache.prompt_cache.predictions import Predicted
    from semcache.stores.base import Selector, Store, StoreStats

T = TypeVar("T")


class Lookup(NamedTuple):
    """What a look-up found: ``response`` is the stored answer, ``None`` on a miss."""

    outcome: Outcome
    response: Any


class CacheStats(NamedTuple):
    """The books, and the size of the parts."""

    ledger: LedgerStats
    store: StoreStats
    index_vectors: int
    in_flight: int
    live: Mapping[str, Standing]
    """How each namespace stands of which audits or reports have told anything."""
    budgets: Sequence[BudgetState]
    """How each budget of this cache stands today."""
    prompt_cache: Sequence[Predicted]
    """By provider and model, what a prompt cache was expected to hold, and what it held."""


class _Cache:
    """What the sync and the async cache share: building, wrapping, options, hooks.

    Every argument is optional.

    Args:
        store: Where answers live: a ``Store``, a URL for :meth:`open`, or the path of an SQLite file. Default: one in
            the user's data folder, shared by all processes of the user.
        index: Kind of the vector index (``"ladder"``, ``"flat"``, ``"ivf"``, ``"hnsw"``), or a function from vector
            length to a ``VectorIndex``.
        embedder: An ``Embedder``, a callable, a model name or a path. Default: the installed MiniLM weights.
        policy: A ``Policy`` or the path of a policy file.
        ledger: A ``Ledger``; by default one that writes to the store.
        tenant: Whose data this is. Tenants never share answers.
        namespace: Part of the cache with its own policy. Namespaces never share answers.
        clock: Unix seconds, for a run in the time of a log. The store has a clock of its own.
        judge: ``judge(question, stored_question, stored_answer, fresh_answer)`` says of audited hits whether the stored
            answer serves the question; ``None`` where it cannot tell. Without one, equal answers are right, and of
            others nothing is known.
        prompt_cache: Whether misses get marks for the provider's prompt cache where that pays, at hosts whose rules are
            known (``docs/prompt-caching.md``).
        prices: A ``Prices``, or the path of a price file (``docs/savings.md``).
        budgets: What calls upstream may cost in a day: a ``Budget``, or several.
        request_log: Path of a file to which the questions asked are appended, in clear, for ``semcache replay`` and
            ``tune`` (:class:`~semcache.request_log.RequestLog`).

    Raises:
        ConfigurationError: The arguments cannot work together, or no embedder is installed.
    """

    def __init__(
        self,
        store: Store | str | Path | None = None,
        index: IndexKind | Callable[[int], VectorIndex] = "ladder",
        embedder: Any = None,
        policy: Policy | str | Path | None = None,
        ledger: Ledger | None = None,
        tenant: str | None = None,
        namespace: str = "default",
        clock: Callable[[], float] = time.time,
        judge: Judge | None = None,
        prompt_cache: bool = True,
        prices: Prices | str | Path | None = None,
        budgets: Budget | Sequence[Budget] = (),
        request_log: str | Path | None = None,
    ) -> None:
        from semcache.money.budgets import Budget
        from semcache.money.ledger import Ledger
        from semcache.money.prices import Prices
        from semcache.policy import Policy
        from semcache.semantic import open_tier
        from semcache.stores import open_store

        self._event_hooks: list[EventHook] = []
        Options(tenant=tenant, namespace=namespace)  # checks both
        opened: Store = store if hasattr(store, "changes") else open_store(store)  # type: ignore[assignment]
        opened.on_event = tell = partial(emit, self._event_hooks)
        if not isinstance(policy, Policy):
            policy = Policy() if policy is None else Policy.load(policy)
        opened.keep_expired_s = max(opened.keep_expired_s, policy.longest_stale)
        if policy.max_false_hit_rate is not None and judge is None:
            raise ConfigurationError("max_false_hit_rate needs a judge, or no answer would ever be found wrong")
        if ledger is None:
            ledger = Ledger(prices=prices if isinstance(prices, Prices) else Prices(prices))
        elif prices is not None:
            raise ConfigurationError("prices are those of the ledger: give them to Ledger(prices=…)")
        ledger.attach(opened, self._event_hooks)
        self.engine = Engine(
            store=opened,
            semantic=open_tier(opened, index, embedder, policy, tell),
            policy=policy,
            ledger=ledger,
            namespace=namespace,
            tenant=tenant,
            event_hooks=self._event_hooks,
            clock=clock,
            judge=judge,
            prompt_cache=prompt_cache,
            budgets=(budgets,) if isinstance(budgets, Budget) else tuple(budgets),
            request_log=request_log,
        )

    @classmethod
    def open(cls, url: str, **arguments: Any) -> Self:
        """A cache on ``memory://``, ``sqlite:///absolute/path``, ``redis://host:port/db``, ``rediss://`` or ``unix://``."""
        return cls(store=url, **arguments)

    @property
    def policy(self) -> Policy:
        return self.engine.policy

    def wrap(
        self, target: T, *, name: str | None = None, upstream: str | None = None, provider: str | None = None
    ) -> T:
        """The same function or client, with this cache before it. The original is not changed.

        Args:
            target: A function ``f(prompt, **params)`` or ``f(messages, **params)``, sync, async or a generator of
                either kind; an ``openai.OpenAI``, ``AsyncOpenAI``, ``anthropic.Anthropic`` or ``AsyncAnthropic``; a
                ``google.genai.Client``; a boto3 client of ``bedrock-runtime``; an instructor client over one of OpenAI
                or Anthropic; ``litellm.completion``, ``litellm.acompletion`` or a ``litellm.Router``.
            name: For functions: identity in the cache, by default module, name and code.
            upstream: For clients: a stable label of who answers, by default the host of the base URL. Clients with
                one label share answers.
            provider: For OpenAI, Anthropic and boto3 clients and LiteLLM: whose prompt cache is behind the base URL,
                where its host does not tell (a gateway, vLLM): ``"anthropic"``, ``"openai"``, ``"azure"``,
                ``"bedrock"``, ``"vllm"``.

        Raises:
            ConfigurationError: It is neither, or no such provider is known.
        """
        from semcache.clients import wrap

        return wrap(target, self.engine, name=name, upstream=upstream, provider=provider)

    def options(
        self,
        *,
        namespace: str | None = None,
        category: str | None = None,
        tenant: str | None = None,
        user: str | None = None,
        share: Share | None = None,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        bypass: bool = False,
        refresh: bool = False,
        min_similarity: float | None = None,
    ) -> AbstractContextManager[None]:
        """Options for the calls inside a ``with`` block of this thread or task. See :class:`semcache.Options`."""
        if isinstance(tags, str):
            raise ConfigurationError(f"tags is a sequence of strings, not the string {tags!r}")
        return options_in_force(
            Options(
                namespace=namespace,
                category=category,
                tenant=tenant,
                user=user,
                share=share,
                ttl=ttl,
                tags=tuple(tags),
                bypass=bypass,
                refresh=refresh,
                min_similarity=min_similarity,
            )
        )

    def on_outcome(self, hook: Hook) -> None:
        """Call ``hook`` with the outcome of every finished call."""
        self.engine.outcome_hooks.append(hook)

    def on_event(self, hook: EventHook) -> None:
        """Call ``hook`` with every event (trouble, collisions, damaged entries)."""
        self._event_hooks.append(hook)

    def key(self, asked: Asked) -> Key:
        """The key of a request here and now, namespace and tenant included.

        Raises:
            CanonicalError: It has no canonical form.
        """
        key = self.engine.context(as_request(asked)).key
        return key if key is not None else make_key(as_request(asked), self.engine.namespace, self.engine.tenant)

    def diff(self, a: Asked, b: Asked) -> list[Difference]:
        """The fields that make two requests differ; empty if they are one request to the cache."""
        return diff(_key_of(self, a), _key_of(self, b))

    def _own(self, selector: Selector) -> Selector:
        """A selector that names no tenant, held to the tenant that is in force here."""
        options = current_options()
        tenant = self.engine.tenant if options is None or options.tenant is None else options.tenant
        return selector if tenant is None or selector.tenant is not None else selector._replace(tenant=tenant)

    def _delete(self, selector: Selector) -> int:
        selector.check()
        return self.engine.store.delete(self._own(selector))

    def _erase(self, tenant: str, user: str | None) -> int:
        from semcache.stores.base import Selector

        options = Options(tenant=tenant, user=user)  # checks both
        selector = Selector(tenant=tenant, tag=None if options.user is None else f"{USER_TAG}{options.user}")
        self.engine.evidence.forget(selector)
        self.engine.performer.forget_prompts()
        erased = self.engine.store.erase(selector)
        if self.engine.semantic is not None:
            self.engine.semantic.forget()
        return erased

    def _report_right(self, outcome: Outcome) -> None:
        if outcome.reported != "right":
            self._learn(outcome, served_by(outcome), "right")

    def _report_wrong(self, outcome: Outcome) -> None:
        from semcache.stores.base import Selector

        engine, entry_id = self.engine, served_by(outcome)
        if outcome.reported == "wrong":
            return  # a better answer may stand in its place by now
        if outcome.layer == "semantic" and outcome.key is not None:
            (entry,) = engine.store.fetch([entry_id])
            engine.mark_wrong(outcome.key.id, entry_id, None if entry is None else entry.response)
        engine.store.delete(Selector(ids=(entry_id,)))
        if engine.semantic is not None:
            engine.semantic.remove([entry_id])
        self._learn(outcome, entry_id, "wrong")

    def _learn(self, outcome: Outcome, entry_id: int, said: Literal["right", "wrong"]) -> None:
        before, outcome.reported = outcome.reported, said
        if outcome.layer == "semantic":
            evidence = self.engine.evidence
            tell = evidence.reported if before is None else evidence.corrected
            tell(outcome.namespace, entry_id, right=said == "right")

    def _stats(self) -> CacheStats:
        semantic = self.engine.semantic
        index = semantic.index if semantic is not None else None
        marker = self.engine.performer.marker
        return CacheStats(
            self.engine.ledger.report(),
            self.engine.store.stats(),
            0 if index is None else len(index),
            len(self.engine.performer.flights),
            self.engine.evidence.standings(),
            self.engine.budgets.states(),
            [] if marker is None else marker.shared.predictions(),
        )


class SemanticCache(_Cache):
    """A semantic cache. Its own methods are sync; :meth:`wrap` takes sync and async functions and clients alike.

    Safe for threads, and usable in a child after fork.
    """

    __doc__ = f"{__doc__}\n{_Cache.__doc__}"

    def lookup(self, asked: Asked) -> Lookup:
        """Look a request up, without calling anything."""
        ctx = self.engine.context(as_request(asked))
        answered = self.engine.perform(flow.lookup(ctx))
        return _looked_up(self.engine, ctx, answered)

    def store(self, asked: Asked, response: Any, usage: Usage | None = None) -> Outcome:
        """Keep an answer (JSON-like) that was got elsewhere; the outcome says whether it was stored."""
        ctx = self.engine.context(as_request(asked))
        self.engine.perform(flow.store(ctx, as_reply(response, usage)))
        return ctx.outcome

    def explain(self, asked: Asked) -> Explanation:
        """Why a request would hit or miss: scope, key, nearest candidates, each guard's verdict."""
        return self.engine.perform(flow.explain(self.engine.context(as_request(asked))))

    def invalidate(
        self,
        *,
        id: int | None = None,
        tag: str | None = None,
        namespace: str | None = None,
        tenant: str | None = None,
        scope: int | None = None,
        everything: bool = False,
    ) -> int:
        """Delete the entries that match every field that is given; return how many there were.

        Where a tenant is in force (of the cache, or by :meth:`options`), only its entries are looked at, unless
        ``tenant`` names another.
        """
        return self._delete(as_selector(id, tag, namespace, tenant, scope, everything))

    def forget(self, tenant: str, *, user: str | None = None) -> int:
        """Erase all that is kept of a tenant, or of one user of it, and leave nothing behind; return how many entries.

        Beside the entries that :meth:`invalidate` deletes, this removes what is left of them: see ``docs/privacy.md``.
        It takes as long as writing the store's file anew. Stop asking for the tenant first.

        Raises:
            StoreError: Something may be left; try again.
        """
        return self._erase(tenant, user)

    def report_wrong(self, outcome: Outcome) -> None:
        """An answer that the cache served was wrong: evict it, and never let this pair of questions match again.

        Said again of one outcome it counts once; the last word on an outcome counts.
        """
        self._report_wrong(outcome)

    def report_right(self, outcome: Outcome) -> None:
        """A semantic hit was right. An entry with a good record may answer a little below the threshold.

        An exact hit that was right teaches nothing: the question was the same.
        """
        self._report_right(outcome)

    def resume(self, namespace: str) -> bool:
        """Switch on the semantic tier of a namespace that audits have switched off; false if it was not off."""
        return self.engine.evidence.resume(namespace)

    def stats(self) -> CacheStats:
        """The books, and the size of the parts."""
        return self._stats()

    def close(self) -> None:
        """Write the books and the index snapshot, and let go of the store."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSemanticCache(_Cache):
    """As :class:`SemanticCache`, with async methods for use on an event loop."""

    __doc__ = f"{__doc__}\n{_Cache.__doc__}"

    async def lookup(self, asked: Asked) -> Lookup:
        """As :meth:`SemanticCache.lookup`."""
        ctx = self.engine.context(as_request(asked))
        answered = await self.engine.aperform(flow.lookup(ctx))
        return _looked_up(self.engine, ctx, answered)

    async def store(self, asked: Asked, response: Any, usage: Usage | None = None) -> Outcome:
        """As :meth:`SemanticCache.store`."""
        ctx = self.engine.context(as_request(asked))
        await self.engine.aperform(flow.store(ctx, as_reply(response, usage)))
        return ctx.outcome

    async def explain(self, asked: Asked) -> Explanation:
        """As :meth:`SemanticCache.explain`."""
        return await self.engine.aperform(flow.explain(self.engine.context(as_request(asked))))

    async def invalidate(
        self,
        *,
        id: int | None = None,
        tag: str | None = None,
        namespace: str | None = None,
        tenant: str | None = None,
        scope: int | None = None,
        everything: bool = False,
    ) -> int:
        """As :meth:`SemanticCache.invalidate`."""
        return await _off_loop(self._delete, as_selector(id, tag, namespace, tenant, scope, everything))

    async def forget(self, tenant: str, *, user: str | None = None) -> int:
        """As :meth:`SemanticCache.forget`."""
        return await _off_loop(self._erase, tenant, user)

    async def report_wrong(self, outcome: Outcome) -> None:
        """As :meth:`SemanticCache.report_wrong`."""
        await _off_loop(self._report_wrong, outcome)

    async def report_right(self, outcome: Outcome) -> None:
        """As :meth:`SemanticCache.report_right`."""
        await _off_loop(self._report_right, outcome)

    async def resume(self, namespace: str) -> bool:
        """As :meth:`SemanticCache.resume`."""
        return await _off_loop(self.engine.evidence.resume, namespace)

    async def stats(self) -> CacheStats:
        """As :meth:`SemanticCache.stats`."""
        return await _off_loop(self._stats)

    async def close(self) -> None:
        """As :meth:`SemanticCache.close`."""
        await _off_loop(self.engine.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _off_loop(function: Callable[..., T], *arguments: Any) -> T:
    import asyncio

    return await asyncio.to_thread(function, *arguments)


def _looked_up(engine: Engine, ctx: flow.Call, answered: flow.Answered) -> Lookup:
    engine.done(ctx)
    return Lookup(ctx.outcome, None if answered.body is None else orjson.loads(answered.body))


def _key_of(cache: _Cache, asked: Asked) -> Key:
    if isinstance(asked, Outcome) and asked.key is not None:
        return asked.key  # as it was then, under the options of that call
    return cache.key(asked)
