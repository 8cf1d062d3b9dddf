"""Options for the calls of wrapped functions, and the cache asked by hand."""

import pytest
from counting import Upstream

import semcache
from semcache import ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.stores import MemoryStore


def test_tenants_and_namespaces_never_meet(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    answers = {ask("hi")}
    for options in ({"tenant": "a"}, {"tenant": "b"}, {"namespace": "n"}, {"namespace": "n", "tenant": "a"}):
        with cache.options(**options):
            answers.add(ask("hi"))
            assert ask("hi") in answers
            assert last_outcome().hit
    assert up.calls == len(answers) == 5


def test_bypass_and_refresh(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    ask("hi")
    with cache.options(bypass=True):
        assert ask("hi") == "answer 2 to hi"
    assert ask("hi") == "answer 1 to hi"
    with cache.options(refresh=True):
        assert ask("hi") == "answer 3 to hi"
    assert ask("hi") == "answer 3 to hi"


def test_ttl_ends_an_answer():
    up, now = Upstream(), [1_800_000_000.0]

    def clock():
        return now[0]

    with SemanticCache(store=MemoryStore(clock=clock), policy=Policy(semantic=False), clock=clock) as cache:
        ask = cache.wrap(up.ask)
        with cache.options(ttl=60.0):
            ask("hi")
        now[0] += 59.0
        assert ask("hi") == "answer 1 to hi"
        now[0] += 2.0
        assert ask("hi") == "answer 2 to hi"


def test_invalidate_by_tag_id_namespace_scope(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    with cache.options(tags=["pricing"]):
        ask("a")
    ask("b")
    assert cache.invalidate(tag="pricing") == 1
    assert not cache.lookup(ask.request("a")).outcome.hit
    found = cache.lookup(ask.request("b"))
    assert found.response == "answer 2 to b"
    assert cache.invalidate(id=found.outcome.entry_id) == 1
    ask("c")
    assert cache.invalidate(scope=cache.key(ask.request("c")).scope_id) == 1
    ask("d")
    assert cache.invalidate(namespace="other") == 0
    assert cache.invalidate(namespace="default") == 1
    with pytest.raises(ConfigurationError):
        cache.invalidate()


def test_a_hot_request_bypasses(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    assert ask("hi", temperature=1.2) != ask("hi", temperature=1.2)
    assert last_outcome().status == "bypass"
    assert ask("hi", temperature=1.0) == ask("hi", temperature=1.0)


# Manual look-up -------------------------------------------------------------------------------------------------------


def test_lookup_and_store_by_hand(cache):
    assert cache.lookup("hi").response is None
    assert cache.store("hi", {"text": "ho"}, semcache.Usage(3, 4)).stored
    found = cache.lookup("hi")
    assert found.response == {"text": "ho"}
    assert found.outcome.usage == semcache.Usage(3, 4)
    assert cache.lookup([{"role": "user", "content": "hi"}]).response is None


def test_diff_names_the_fields(cache):
    ask = cache.wrap(Upstream().ask)
    a, b = ask.request("hi", model="a", seed=1), ask.request("hi", model="b", seed=1)
    assert [(d.path, d.a, d.b) for d in cache.diff(a, b)] == [("request.arguments.model", "a", "b")]
    assert cache.diff(a, a) == []


def test_explain_and_stats(cache):
    ask = cache.wrap(Upstream().ask)
    assert cache.explain(ask.request("hi")).status == "miss"
    ask("hi")
    explained = cache.explain(last_outcome())
    assert (explained.status, explained.exact) == ("hit", True)
    ask("hi")
    totals = cache.stats().ledger.totals
    assert (totals.requests, totals.exact_hits, totals.misses) == (2, 1, 1)


def test_hooks_get_every_outcome_and_cannot_hurt(cache):
    seen = []

    def bad(outcome):
        raise RuntimeError("hook")

    cache.on_outcome(bad)
    cache.on_outcome(lambda outcome: seen.append(outcome.status))
    ask = cache.wrap(Upstream().ask)
    assert ask("hi") == ask("hi") == "answer 1 to hi"
    assert seen == ["miss", "hit"]


def test_report_wrong_evicts(cache):
    up = Upstream()
    ask = cache.wrap(up.ask)
    ask("hi")
    ask("hi")
    cache.report_wrong(last_outcome())
    assert ask("hi") == "answer 2 to hi"
    with pytest.raises(ConfigurationError):
        cache.report_wrong(last_outcome())
