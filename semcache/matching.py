"""What is stored that may answer a call, as steps of its flow: the same request, or the nearest question by meaning."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from semcache.context import Fuzzy, alone, turns_differ, windowed
from semcache.judging import judge
from semcache.keys import history_of
from semcache.live.answers import answer_text, folded
from semcache.live.record import MAX_SLACK
from semcache.policy import max_age, secret_in
from semcache.privacy import hides
from semcache.schemas import demanded
from semcache.steps import CheckSchema, Embed, GetExact, Near, Rewrite, RuleFailed, Search, Step, Verify
from semcache.types import Candidate, Decision, Entry, Key, Layer

if TYPE_CHECKING:
    from semcache.flow import Call
    from semcache.types import Vector


def exact(ctx: Call, key: Key) -> Generator[Step, Any, Entry | None]:
    """The stored answer to this very request, if it may be served."""
    entry: Entry | None = yield GetExact(key)
    return entry if entry is not None and (yield from keeps_to_schema(ctx, entry, "exact")) else None


def keeps_to_schema(ctx: Call, entry: Entry, layer: Layer) -> Generator[Step, Any, bool]:
    """Whether an answer may be served by the JSON schema that the request demands, if it demands one.

    Where that cannot be told the exact tier serves: its answer was the provider's to this very request.
    """
    schema = demanded(ctx.request)
    if schema is None:
        return True
    if ctx.unfit == (entry.key.id, entry.created_at):
        return False  # it has been told once
    keeps: bool | None = yield CheckSchema(schema, entry.response)
    if keeps is False:
        ctx.unfit = entry.key.id, entry.created_at
        ctx.outcome.reason = "the stored answer does not keep to the JSON schema"
    elif keeps is None and layer == "semantic":
        ctx.outcome.reason = "the JSON schema that the request demands cannot be checked"
    else:
        return True
    return False


def by_meaning(ctx: Call, key: Key, *, explain: bool = False) -> Generator[Step, Any, Near | None]:
    """The stored question that may answer this one; ``None``, with the reason in the outcome, if none may."""
    vector = yield from embed(ctx)
    if vector is None:
        return None
    outcome, policy, text = ctx.outcome, ctx.policy, ctx.question
    started = ctx.tick()
    # The index may score a little low (quantised vectors); what is judged is the true cosine.
    near: Sequence[Near] = yield Search(
        key,
        vector,
        policy.reach(ctx.rules),
        -1.0 if explain else policy.search_from(ctx.rules) - 0.02 - MAX_SLACK,
    )
    try:
        decision = outcome.decision = _judged(ctx, near, explain)
    except Exception as error:
        yield RuleFailed(error)
        outcome.reason = "judging failed"
        return None
    outcome.seconds["search"] = ctx.tick() - started
    chosen = decision.chosen
    found = None if chosen is None else next(one for one in near if one.entry.key.id == chosen.entry_id)
    if decision.verdict == "verify" and found is not None:
        decision.probability = yield Verify(text, found.entry, ctx.tags)
        sure = decision.probability is not None and decision.probability >= policy.verify_at_least
        decision.verdict = "serve" if sure and (yield from _stands(found.entry)) else "reject"
    if decision.verdict != "serve" or found is None:
        outcome.reason = decision.reason
        return None
    return found if (yield from keeps_to_schema(ctx, found.entry, "semantic")) else None


def _judged(ctx: Call, near: Sequence[Near], explain: bool) -> Decision:
    policy = ctx.policy
    stored_since = ctx.now() - max_age(ctx.rules, ctx.request)
    return judge(
        policy,
        ctx.question,
        [_candidate(ctx, one, stored_since) for one in near],
        rules=ctx.rules,
        min_similarity=ctx.min_similarity,
        explain=explain,
        # Probabilities are fitted to questions by themselves; after other turns every guard has a veto.
        embedder="" if ctx.request.history and policy.context == "window" else ctx.fingerprint(),
    )


def _stands(entry: Entry) -> Generator[Step, Any, bool]:
    """Whether an entry is still there: it may have been reported wrong in the seconds that a verifier takes."""
    current: Entry | None = yield GetExact(entry.key)
    return current is not None and current.created_at == entry.created_at


def _candidate(ctx: Call, near: Near, stored_since: float) -> Candidate:
    entry, policy = near.entry, ctx.policy
    history = ""
    if policy.context == "window":
        history = turns_differ(ctx.rules.guards, ctx.request.history, history_of(entry.key))
    answer = folded(answer_text(entry.response)) if ctx.rules.closed else None
    too_old = entry.created_at < stored_since
    return Candidate(entry.key.id, entry.text or "", *near[1:], history=history, answer=answer, too_old=too_old)


def embed(ctx: Call) -> Generator[Step, Any, Vector | None]:
    """The vector of the fuzzy text; ``None``, with the reason in the outcome, keeps the call to the exact tier."""
    request, outcome = ctx.request, ctx.outcome
    if request.text is None or request.exact_only or not ctx.rules.semantic:
        outcome.reason = request.exact_only or "exact tier only"
    elif (fuzzy := (yield from _fuzzy(ctx, request.text))) is None:
        outcome.reason = "no rewrite"
    elif hidden := hides(fuzzy.embedded):
        outcome.reason = hidden
    elif secret := _brought(ctx, fuzzy):
        outcome.reason = f"{secret} in the rewrite"
    else:
        ctx.compared = fuzzy.compared
        started = ctx.tick()
        answer: Vector | str | None = yield Embed(fuzzy.embedded)
        outcome.seconds["embed"] = ctx.tick() - started
        if isinstance(answer, str):
            outcome.reason = answer
        elif answer is None:
            outcome.reason = "no embedding"
        else:
            ctx.embedded = answer
    return ctx.embedded


def _brought(ctx: Call, fuzzy: Fuzzy) -> str:
    """The secret in a rewritten question; what the caller wrote has been searched."""
    if ctx.request.history and ctx.policy.context == "rewrite":
        return secret_in(ctx.policy, fuzzy.embedded.encode())
    return ""


def _fuzzy(ctx: Call, text: str) -> Generator[Step, Any, Fuzzy | None]:
    """What is matched by meaning; ``None`` if the question depends on earlier turns and could not be rewritten."""
    history = ctx.request.history
    if not history:
        return alone(text)
    if ctx.policy.context == "window":
        return windowed(history, text, ctx.policy.window)
    started = ctx.tick()
    rewritten: str | None = yield Rewrite(history, text)
    ctx.outcome.seconds["rewrite"] = ctx.tick() - started
    return None if rewritten is None else alone(rewritten)
