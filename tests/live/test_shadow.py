"""Shadow mode: everything is found and judged, nothing is served, and the books say what it would have saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bank import OTHER, RESET, RESET_AGAIN, Upstream
from click.testing import CliRunner

from semcache import AsyncSemanticCache, ConfigurationError, Policy, SemanticCache, flow, last_outcome
from semcache.cli import main
from semcache.keys import make_key
from semcache.policy import Override
from semcache.steps import CallUpstream, Embed, GetExact, Near, Search, Write
from semcache.types import Entry, Outcome, Reply, Request, Usage

SHADOW = Policy(mode="shadow")
VECTOR = np.eye(1, 8, dtype=np.float32)[0]


def context(**changes):
    request = Request("api", {"model": "m"}, RESET, model="m")
    key = make_key(request, "default", None)
    settings = {
        "request": request,
        "key": key,
        "outcome": Outcome("miss", request=request, key=key),
        "policy": SHADOW,
        "namespace": "default",
        "tenant": None,
        "now": lambda: 1000.0,
        "tick": lambda: 0.0,
        "started": 0.0,
        "fingerprint": lambda: "fp",
    }
    settings |= changes
    return flow.Call(rules=settings["policy"].rules(settings["namespace"]), **settings)


def stored(text, response=b'"stored"'):
    return Entry(
        make_key(Request("api", {"model": "m"}, text), "default", None), text, response, "api", "default", None, "m",
        900.0, usage=Usage(7, 3), vector=VECTOR, fingerprint="fp",
    )  # fmt: skip


def steps_of(call, answers):
    """The kinds of the steps that a flow asks for, given an answer to each kind, and what it returned."""
    kinds, answer = [], None
    try:
        while True:
            step = call.send(answer)
            kinds.append(type(step))
            answer = answers[type(step)]
    except StopIteration as stop:
        return kinds, stop.value


@pytest.mark.parametrize(("fresh", "agrees"), [(b'"stored"', True), (b'"Stored. "', True), (b'"other"', None)])
def test_a_would_be_exact_hit_goes_upstream_and_leaves_the_entry_alone(fresh, agrees):
    ctx, entry = context(), stored(RESET)
    reply = Reply("value", fresh, Usage(9, 9))
    kinds, answered = steps_of(flow.call(ctx), {GetExact: entry, CallUpstream: reply})
    assert kinds == [GetExact, CallUpstream]
    assert (answered.value, answered.body) == ("value", None)
    outcome, would = ctx.outcome, ctx.outcome.would_serve
    assert (outcome.status, outcome.reason, outcome.stored, outcome.usage) == (
        "miss",
        "shadow mode",
        False,
        Usage(9, 9),
    )
    assert (would.layer, would.similarity, would.entry_id) == ("exact", 1.0, entry.key.id)
    assert (would.agrees, would.usage) == (agrees, entry.usage)


def test_a_would_be_semantic_hit_is_judged_as_live_and_not_stored_over():
    ctx, near = context(), stored(RESET_AGAIN)
    answers = {GetExact: None, Embed: VECTOR, Search: [Near(near, 0.99, False)], CallUpstream: Reply(1, b"1")}
    kinds, _ = steps_of(flow.call(ctx), answers)
    assert kinds == [GetExact, Embed, Search, CallUpstream]
    assert (ctx.outcome.would_serve.layer, ctx.outcome.would_serve.similarity) == ("semantic", 0.99)
    assert ctx.outcome.decision.verdict == "serve"


@pytest.mark.parametrize("near", [[], [Near(stored(OTHER), 0.99, True)]])
def test_a_would_be_miss_is_stored(near):
    ctx = context()
    answers = {GetExact: None, Embed: VECTOR, Search: near, CallUpstream: Reply(1, b"1"), Write: True}
    kinds, _ = steps_of(flow.call(ctx), answers)
    assert kinds[-1] is Write
    assert ctx.outcome.would_serve is None
    assert ctx.outcome.stored


def test_a_refresh_in_shadow_stores_as_it_would_live():
    kinds, _ = steps_of(flow.call(context(refresh=True)), {CallUpstream: Reply(1, b"1"), Embed: VECTOR, Write: True})
    assert kinds == [CallUpstream, Embed, Write]


def test_a_failed_call_compares_and_stores_nothing():
    ctx = context()
    failed = Reply("503", None, keep="never", reason="status 503", failed=True)
    steps_of(flow.call(ctx), {GetExact: stored(RESET), CallUpstream: failed})
    assert ctx.outcome.would_serve.agrees is None
    assert ctx.outcome.reason == "status 503"


def test_a_lookup_in_shadow_serves_nothing_either():
    ctx = context()
    _, answered = steps_of(flow.lookup(ctx), {GetExact: stored(RESET)})
    assert answered.body is None
    assert ctx.outcome.would_serve is not None


def test_the_cache_fills_as_live_and_the_books_keep_the_would_be_savings_apart(lasting_url):
    up = Upstream()
    with SemanticCache.open(lasting_url, policy=SHADOW) as cache:
        ask = cache.wrap(up.ask, name="ask")
        for question in (RESET, RESET, RESET_AGAIN, OTHER):
            assert ask(question) == up.answer
        assert up.calls == 4
        assert cache.stats().store.entries == 2
        totals = cache.stats().ledger.totals
    assert (totals.hits, totals.misses, totals.saved.calls) == (0, 4, 0)
    assert (totals.shadow_exact_hits, totals.shadow_semantic_hits, totals.shadow.calls) == (1, 1, 2)
    shown = CliRunner().invoke(main, ["stats", "--store", lasting_url]).stdout
    assert "Withheld: 1 exact and 1 semantic hits" in shown
    printed = CliRunner().invoke(main, ["stats", "--json", "--store", lasting_url]).stdout
    assert json.loads(printed)["totals"]["shadow_semantic_hits"] == 1
    with SemanticCache.open(lasting_url) as live:  # what shadow stored is served once it is live
        assert live.wrap(up.ask, name="ask")(RESET_AGAIN) == up.answer
    assert up.calls == 4


def test_would_be_savings_are_priced():
    usage = Usage(1000, 500)
    with SemanticCache(store="memory://", policy=SHADOW) as cache:
        request = Request("api", {}, RESET, model="gpt-5-mini")
        for _ in range(2):
            cache.engine.run(request, lambda: Reply(None, b'"a"', usage))
        totals = cache.stats().ledger.totals
    assert (totals.shadow.tokens, totals.shadow.usd_micro) == (1500, 1250)
    assert (totals.spent.tokens, totals.saved.tokens) == (3000, 0)


def test_streams_are_handed_through_and_compared():
    up = Upstream()
    with SemanticCache(store="memory://", policy=SHADOW) as cache:
        stream = cache.wrap(up.stream)
        assert list(stream(RESET)) == list(stream(RESET_AGAIN)) == up.answer.split()
        outcomes = []
        cache.on_outcome(outcomes.append)
        assert list(stream(RESET_AGAIN)) == up.answer.split()
    assert up.calls == 3
    assert (outcomes[0].would_serve.layer, outcomes[0].would_serve.agrees) == ("semantic", True)


async def test_on_an_event_loop_too():
    up = Upstream()
    async with AsyncSemanticCache(store="memory://", policy=SHADOW) as cache:
        ask, stream = cache.wrap(up.aask), cache.wrap(up.astream)
        assert await ask(RESET) == await ask(RESET_AGAIN)
        assert last_outcome().would_serve.agrees
        up.answer = "Another answer."
        for _ in range(2):
            assert [word async for word in stream(RESET)] == ["Another", "answer."]
        totals = (await cache.stats()).ledger.totals
    assert up.calls == 4
    assert (totals.shadow_exact_hits, totals.shadow_semantic_hits) == (1, 1)


def test_a_namespace_may_be_in_shadow_by_itself(tmp_path):
    path = tmp_path / "policy.toml"
    policy = Policy(namespaces={"trial": Override(mode="shadow")})
    policy.save(path)
    assert Policy.load(path) == policy
    up = Upstream()
    with SemanticCache(store="memory://", policy=path) as cache:
        ask = cache.wrap(up.ask)
        ask(RESET)
        ask(RESET)
        with cache.options(namespace="trial"):
            ask(RESET)
            ask(RESET)
            assert last_outcome().would_serve is not None
    assert up.calls == 3


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'live' or 'shadow'"):
        Policy(mode="shade")
    with pytest.raises(ConfigurationError, match="namespace 'n'"):
        Policy(namespaces={"n": Override(mode="dark")})
