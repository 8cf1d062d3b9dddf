"""One call, as steps. The order of work is written here, once, and nowhere else.

A flow is a generator: it yields a step and is sent the answer. It does no I/O, knows no clock and starts no thread;
the engine has one sync and one async loop that perform the steps. Two rules:

- A step that meets cache trouble is answered with ``None`` (or an empty list): trouble is a miss.
- Only ``CallUpstream`` may raise into a flow; what it raises leaves the flow as the same object, unless an expired
  answer is served in its stead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from semcache.flight import Found, Landed
from semcache.live.answers import answer_text, same_answer
from semcache.matching import by_meaning, embed, exact, keeps_to_schema
from semcache.outage import is_outage, refusal
from semcache.policy import admit, secret_in, stale_for, ttl_for
from semcache.steps import (
    CallUpstream,
    GetStale,
    Join,
    Lead,
    Marked,
    MarkPrompt,
    Reconcile,
    Refused,
    Step,
    Write,
)
from semcache.types import (
    Decision,
    Entry,
    Judged,
    Key,
    Layer,
    Outcome,
    Prompt,
    Reply,
    Request,
    Status,
    Usage,
    WouldServe,
)

if TYPE_CHECKING:
    from semcache.policy import Policy, Rules
    from semcache.types import Vector


SHADOW: Final = "shadow mode"


@dataclass(slots=True)
class Call:
    """What a flow knows of its call, and the outcome that it fills in.

    Args:
        outcome: Begins as a miss.
        now: Unix seconds.
        tick: Monotonic seconds; both are functions so that a flow is free of the clock.
        started: ``tick`` at the beginning.
        compared: The text that guards compare and that an entry keeps, if it is not the request's own.
        embedded: The vector of the fuzzy text, once it has been asked for.
        off: Why the semantic tier of a namespace is off, as of the last look at the store; empty if it is on.
        found: The entry that a hit served, or that would have answered where it was withheld.
        fresh: What the upstream said instead of a withheld entry.
        clean: The request has been searched for secrets, and may be kept.
        unfit: Id and time of an entry that does not keep to the JSON schema of the request.
        prompt: The body to send upstream, where it may get marks for the provider's prompt cache.
        meter: What a call used: as reported, or an estimate.
    """

    request: Request
    key: Key | None
    outcome: Outcome
    policy: Policy
    rules: Rules
    namespace: str
    tenant: str | None
    now: Callable[[], float]
    tick: Callable[[], float]
    started: float
    fingerprint: Callable[[], str | None]
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    bypass: str = ""
    refresh: bool = False
    min_similarity: float | None = None
    off: Callable[[str], str] = lambda namespace: ""
    compared: str | None = None
    embedded: Vector | None = None
    found: Entry | None = None
    fresh: Reply | None = None
    clean: bool = False
    unfit: tuple[int, float] | None = None
    prompt: Prompt | None = None
    meter: Callable[[Request, Reply], Usage | None] = lambda request, reply: reply.usage

    @property
    def question(self) -> str:
        """What candidates are compared with."""
        return self.compared or self.request.text or ""

    @property
    def shadow(self) -> bool:
        return self.rules.mode == "shadow"


class Answered(NamedTuple):
    """The end of a flow. ``body`` is set when the cache or another's flight answered; else the upstream's value."""

    body: bytes | None = None
    value: Any = None


Flow = Generator[Step, Any, Answered]


def call(ctx: Call) -> Flow:
    """A whole call: admit, exact, collapse, semantic, judge, upstream, keep."""
    key = _admitted(ctx)
    if key is None:
        return (yield from _bypass(ctx))
    if ctx.shadow:
        return (yield from _shadow(ctx, key))
    if not ctx.refresh:
        entry = yield from exact(ctx, key)
        if entry is not None:
            return _hit(ctx, entry, 1.0, "exact")
    if _holds_secret(ctx, key):
        return (yield from _bypass(ctx))
    lead: Lead | None = None
    for _ in range(2):  # a follower whose second leader fails too goes upstream by itself
        joined = yield Join(key, ctx.policy.collapse_wait_s)
        if joined is None:
            continue
        if not isinstance(joined, Landed):
            lead = joined
        elif joined.found is not None:
            if (shared := _shared(ctx, joined.found)) is not None:
                return shared
        elif joined.body is not None:
            return _collapsed(ctx, joined)
        break
    if lead is None:
        return (yield from _miss(ctx, key, None))
    try:
        return (yield from _lead(ctx, key, lead))
    finally:
        lead.fail()  # has no effect once the flight has landed


def lookup(ctx: Call) -> Flow:
    """Look, and neither call nor store."""
    key = _admitted(ctx)
    if key is None:
        return Answered()
    return (yield from _find(ctx, key)) or Answered()


def store(ctx: Call, reply: Reply) -> Flow:
    """Keep an answer that was got elsewhere."""
    key = _admitted(ctx)
    if key is not None and not _holds_secret(ctx, key):
        ctx.outcome.usage = reply.usage
        yield from _keep(ctx, key, reply, 0.0)
    return Answered()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request would hit or miss. Nothing was served or counted, and no answer stored.

    Args:
        status: ``hit``, ``miss`` or ``bypass``.
        reason: Why it would not be served; empty for a hit.
        exact: Whether the exact tier holds it.
        decision: The judgement over the nearest stored questions; ``None`` if the semantic tier was not asked.
    """

    request: Request
    key: Key | None
    status: Status
    reason: str
    exact: bool
    decision: Decision | None = None

    @property
    def candidates(self) -> tuple[Judged, ...]:
        """The nearest stored questions with their scores and everything held against them, best first."""
        return () if self.decision is None else self.decision.judged


def explain(ctx: Call) -> Generator[Step, Any, Explanation]:
    """As :func:`lookup`, with every candidate judged by every guard, also below the threshold."""
    key = _admitted(ctx)
    if key is None:
        return Explanation(ctx.request, ctx.key, "bypass", ctx.outcome.reason, exact=False)
    entry = yield from exact(ctx, key)
    if entry is None and _holds_secret(ctx, key):
        return Explanation(ctx.request, key, "bypass", ctx.outcome.reason, exact=False)
    near = yield from by_meaning(ctx, key, explain=True)
    if entry is not None:
        withheld = _withheld(ctx, "exact")
    else:
        withheld = _withheld(ctx, "semantic") if near else ctx.outcome.reason
    return Explanation(
        ctx.request,
        key,
        "miss" if withheld else "hit",
        withheld,
        exact=entry is not None,
        decision=ctx.outcome.decision,
    )


def _admitted(ctx: Call) -> Key | None:
    ctx.outcome.reason = ctx.bypass or admit(ctx.policy, ctx.request)
    if ctx.outcome.reason:
        ctx.outcome.status = "bypass"
        return None
    return ctx.key


def _holds_secret(ctx: Call, key: Key) -> bool:
    """Whether the request must not be kept. Asked after the exact tier: what is found there was asked it before."""
    if not ctx.clean and (reason := secret_in(ctx.policy, key.canonical)):
        ctx.outcome.status, ctx.outcome.reason = "bypass", reason
        return True
    ctx.clean = True
    return False


def _bypass(ctx: Call) -> Flow:
    started = ctx.tick()
    reply: Reply = yield CallUpstream()
    _spent(ctx, reply, ctx.tick() - started)
    _metered(ctx, reply)
    return Answered(value=reply.value)


def _shadow(ctx: Call, key: Key) -> Flow:
    """Find and judge as ever, then call upstream whatever was found: no answer is served, none is shared."""
    if _holds_secret(ctx, key):
        return (yield from _bypass(ctx))
    if not ctx.refresh:
        yield from _find(ctx, key)
    return (yield from _miss(ctx, key, None))


def _find(ctx: Call, key: Key) -> Generator[Step, Any, Answered | None]:
    entry = yield from exact(ctx, key)
    if entry is not None:
        return _offer(ctx, entry, 1.0, "exact")
    if _holds_secret(ctx, key):
        return None
    near = yield from by_meaning(ctx, key)
    return None if near is None else _offer(ctx, near.entry, near.similarity, "semantic")


def _lead(ctx: Call, key: Key, lead: Lead) -> Flow:
    if not ctx.refresh:
        # The exact tier is asked again: another leader may have landed since this call's first look.
        found = yield from _find(ctx, key)
        if found is not None:
            _share(ctx, lead)
            return found
    return (yield from _miss(ctx, key, lead))


def _miss(ctx: Call, key: Key, lead: Lead | None) -> Flow:
    marked: Marked | None = None
    if ctx.prompt is not None:
        marked = yield MarkPrompt(ctx.prompt, ctx.tenant)
    started = ctx.tick()
    try:
        reply, marked = yield from _marked_call(marked)
    except Exception as error:
        why = f"upstream raised {type(error).__name__}"
        stale = (yield from _stale(ctx, key, lead, why)) if is_outage(error) else None
        if stale is None:
            raise
        return stale
    latency = ctx.tick() - started
    _spent(ctx, reply, latency)
    if marked is not None and not reply.failed:
        ctx.outcome.marks, ctx.outcome.expected_read_tokens = marked.marks, marked.expected
        yield Reconcile(marked, reply.usage)
    if reply.failed:
        ctx.outcome.reason = reply.reason
        stale = (yield from _stale(ctx, key, lead, reply.reason)) if reply.outage else None
        return stale or Answered(value=reply.value)
    reply = _metered(ctx, reply)
    _compare(ctx, reply)
    if not (ctx.shadow and ctx.found):  # where a hit would have been nothing would have been stored
        yield from _keep(ctx, key, reply, latency)
    if lead is not None:
        # After the write, or a caller that comes between would find neither the flight nor the entry.
        lead.land(Landed(reply.body, reply.usage, latency))
    return Answered(value=reply.value)


def _marked_call(marked: Marked | None) -> Generator[Step, Any, tuple[Reply, Marked | None]]:
    """Send a prompt; with marks, if it has some, and again without where the provider says that they are at fault.

    Any other refusal is the caller's, after one call.
    """
    if marked is None or marked.body is None:
        return (yield CallUpstream()), marked
    try:
        reply: Reply = yield CallUpstream(marked.body)
    except Exception as error:
        said = refusal(error)
        if said is None or not (yield Refused(marked, said)):
            raise
    else:
        if reply.refusal is None or not (yield Refused(marked, reply.refusal)):
            return reply, marked
    return (yield CallUpstream()), None


def _stale(ctx: Call, key: Key, lead: Lead | None, why: str) -> Generator[Step, Any, Answered | None]:
    """The answer that has expired, where the policy allows it in place of a failure."""
    seconds = stale_for(ctx.rules, ctx.request)
    if not seconds or ctx.refresh or ctx.shadow:
        return None
    entry: Entry | None = yield GetStale(key, seconds, why)
    if entry is None or not (yield from keeps_to_schema(ctx, entry, "exact")):
        return None
    if lead is not None:
        # Else each follower would wait for a failure of its own, one after the other.
        lead.land(Landed(found=Found(entry, ctx.rules, stale=why)))
    return _hit(ctx, entry, 1.0, "exact", why)


def _secret_in_answer(ctx: Call, body: bytes) -> str:
    found = secret_in(ctx.policy, body)
    if found or not body.startswith(b"["):
        return found
    # The chunks of a generator: a secret may run over several.
    return secret_in(ctx.policy, answer_text(body).encode(errors="surrogatepass"))


def _keep(ctx: Call, key: Key, reply: Reply, latency: float) -> Generator[Step, Any, None]:
    outcome = ctx.outcome
    if reply.keep == "never" or reply.body is None:
        outcome.reason = reply.reason or "the answer cannot be represented"
        return
    if secret := _secret_in_answer(ctx, reply.body):
        outcome.reason = f"{secret} in the answer"
        return
    if reply.keep == "all" and "embed" not in outcome.seconds:
        # A refresh, or a store() without a look-up before it.
        missed_because = outcome.reason
        yield from embed(ctx)
        outcome.reason = missed_because
    vector = ctx.embedded if reply.keep == "all" else None
    now = ctx.now()
    ttl = ttl_for(ctx.rules, ctx.request, ctx.ttl)
    entry = Entry(
        key=key,
        text=ctx.compared if vector is not None else ctx.request.text,
        response=reply.body,
        api=ctx.request.api,
        namespace=ctx.namespace,
        tenant=ctx.tenant,
        model=ctx.request.model,
        created_at=now,
        expires_at=None if ttl is None else now + ttl,
        latency_s=latency,
        usage=reply.usage,
        tags=ctx.tags,
        vector=vector,
        fingerprint=None if vector is None else ctx.fingerprint(),
    )
    outcome.stored = yield Write(entry)
    if outcome.stored:
        outcome.entry_id = key.id
        outcome.ttl_s = ttl


def _offer(ctx: Call, entry: Entry, similarity: float, layer: Layer) -> Answered | None:
    """Serve an entry, or withhold it."""
    withheld = _withheld(ctx, layer)
    if not withheld:
        return _hit(ctx, entry, similarity, layer)
    ctx.found = entry
    ctx.outcome.reason = withheld
    ctx.outcome.would_serve = WouldServe(layer, similarity, entry.key.id, usage=entry.usage)
    return None


def _withheld(ctx: Call, layer: Layer) -> str:
    """Why a hit of this layer may not be served; empty if it may."""
    return SHADOW if ctx.shadow else ctx.off(ctx.namespace) if layer == "semantic" else ""


def _hit(ctx: Call, entry: Entry, similarity: float, layer: Layer, stale: str = "") -> Answered:
    """Serve an entry; ``stale`` says why although it has expired."""
    outcome = ctx.outcome
    ctx.found = entry
    outcome.status = "stale" if stale else "hit"
    outcome.layer = layer
    outcome.reason = stale
    outcome.similarity = similarity
    outcome.entry_id = entry.key.id
    now = ctx.now()
    outcome.age_s = max(0.0, now - entry.created_at)
    if entry.expires_at is not None:
        outcome.ttl_s = entry.expires_at - now
    outcome.usage = entry.usage
    outcome.upstream_latency_s = entry.latency_s
    return Answered(entry.response)


def _compare(ctx: Call, fresh: Reply) -> None:
    """Hold a withheld answer against the fresh one."""
    would, found = ctx.outcome.would_serve, ctx.found
    if would is None or found is None or fresh.body is None or fresh.keep == "never":
        return
    ctx.fresh = fresh
    question = ctx.question
    would.agrees = same_answer(question, found.text or "", answer_text(found.response), answer_text(fresh.body))


def _collapsed(ctx: Call, landed: Landed) -> Answered:
    outcome = ctx.outcome
    outcome.collapsed = True
    outcome.usage = landed.usage
    outcome.upstream_latency_s = landed.latency_s
    return Answered(landed.body)


def _share(ctx: Call, lead: Lead) -> None:
    """Hand followers what a hit has served, so that theirs is one too."""
    entry, outcome = ctx.found, ctx.outcome
    assert entry is not None
    assert outcome.layer is not None
    assert outcome.similarity is not None
    found = Found(entry, ctx.rules, outcome.similarity, outcome.layer, compared=ctx.compared)
    lead.land(Landed(found=found))


def _shared(ctx: Call, found: Found) -> Answered | None:
    """A leader's hit, if the follower would take it: what callers demand of a hit is no part of the key."""
    near_enough = ctx.min_similarity is None or found.similarity >= ctx.min_similarity
    if ctx.refresh or found.rules != ctx.rules or not near_enough:
        return None
    ctx.compared = found.compared
    return _hit(ctx, found.entry, found.similarity, found.layer, found.stale)


def _metered(ctx: Call, reply: Reply) -> Reply:
    """A reply with its tokens counted, where that can be done."""
    usage = ctx.outcome.usage = ctx.meter(ctx.request, reply)
    return reply if usage is reply.usage else reply._replace(usage=usage)


def _spent(ctx: Call, reply: Reply, latency: float) -> None:
    ctx.outcome.usage = reply.usage
    ctx.outcome.upstream_latency_s = latency
    ctx.outcome.seconds["upstream"] = latency
