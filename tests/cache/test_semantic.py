"""The whole cache with the real embedder, on every store: what is served by meaning, and what never is."""

import asyncio
import gc
import inspect
import os
import subprocess
import sys
import threading
import weakref

import pytest

from semcache import AsyncSemanticCache, ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.embedders import CallableEmbedder
from semcache.policy import Evidence

RESET = "How do I reset my password?"
RESET_AGAIN = "how do I reset my password"
TRAP = "How do I not reset my password?"
OTHER = "What is the boiling point of nitrogen?"
SYSTEM = [{"role": "system", "content": "You are the support bot of a bank. Answer briefly and in English."}]


class Upstream:
    def __init__(self):
        self.calls = 0

    def ask(self, messages, **params):
        self.calls += 1
        return f"answer {self.calls}"


def user(text):
    return [*SYSTEM, {"role": "user", "content": text}]


def wrapped(cache):
    return cache.wrap(Upstream().ask, name="ask")


def test_the_same_meaning_hits_and_near_misses_do_not(url):
    with SemanticCache.open(url) as cache:
        ask = wrapped(cache)
        first = ask(user(RESET))
        assert ask(user(RESET_AGAIN)) == first
        assert (last_outcome().layer, last_outcome().stored) == ("semantic", False)
        assert last_outcome().similarity > 0.95
        assert ask(user(TRAP)) != first
        assert ask(user(OTHER)) != first


@pytest.mark.parametrize(
    "changed",
    [
        lambda ask, text: ask([{"role": "system", "content": "Answer in German."}, *user(text)[1:]]),
        lambda ask, text: ask([*SYSTEM, {"role": "user", "content": "Hi"}, *user(text)[1:]]),
        lambda ask, text: ask(user(text), model="other"),
        lambda ask, text: ask(user(text), temperature=0.7),
        lambda ask, text: ask(user(text), tools=[{"name": "t"}]),
    ],
    ids=["system prompt", "earlier turn", "model", "temperature", "tools"],
)
def test_no_paraphrase_crosses_a_scope(changed):
    with SemanticCache.open("memory://") as cache:
        ask = wrapped(cache)
        first = ask(user(RESET))
        assert changed(ask, RESET_AGAIN) != first
        assert last_outcome().status == "miss"


def test_no_paraphrase_crosses_tenants_or_namespaces(url):
    with SemanticCache.open(url, tenant="a") as cache:
        ask = wrapped(cache)
        first = ask(user(RESET))
        for options in ({"tenant": "b"}, {"namespace": "n"}):
            with cache.options(**options):
                assert ask(user(RESET_AGAIN)) != first


def test_a_caller_may_only_raise_the_bar():
    with SemanticCache.open("memory://") as cache:
        ask = wrapped(cache)
        first = ask(user(RESET))
        with cache.options(min_similarity=0.9999):
            assert not cache.lookup(ask.request(user(RESET_AGAIN))).outcome.hit
        with cache.options(min_similarity=-1):
            assert not cache.lookup(ask.request(user(TRAP))).outcome.hit
            assert cache.lookup(ask.request(user(RESET_AGAIN))).response == first


def test_a_text_beyond_the_window_stays_in_the_exact_tier():
    with SemanticCache.open("memory://") as cache:
        ask = wrapped(cache)
        long = "tell me about the weather in all of the many cities of the world " * 60
        first = ask(user(long))
        assert last_outcome().reason == "the embedder cannot read the whole text"
        assert ask(user(long)) == first
        assert ask(user(long + "!")) != first


def test_what_was_reported_wrong_never_matches_again(lasting_url):
    with SemanticCache.open(lasting_url) as cache:
        ask = wrapped(cache)
        ask(user(RESET))
        ask(user(RESET_AGAIN))
        cache.report_wrong(last_outcome())
        assert not cache.lookup(ask.request(user(RESET))).outcome.hit
        ask(user(RESET))
        assert not cache.lookup(ask.request(user(RESET_AGAIN))).outcome.hit
        explained = cache.explain(ask.request(user(RESET_AGAIN)))
        assert any("wrong" in reason for reason in explained.candidates[0].reasons)
    with SemanticCache.open(lasting_url) as later:
        assert not later.lookup(wrapped(later).request(user(RESET_AGAIN))).outcome.hit


def test_the_next_cache_finds_what_this_one_stored(lasting_url):
    with SemanticCache.open(lasting_url) as cache:
        first = wrapped(cache)(user(RESET))
    with SemanticCache.open(lasting_url) as later:
        ask = wrapped(later)
        assert ask(user(RESET)) == first
        assert ask(user(RESET_AGAIN)) == first
        assert later.stats().ledger.totals.requests == 3


def test_caches_side_by_side_see_each_others_answers_and_deletions(lasting_url):
    with SemanticCache.open(lasting_url) as one, SemanticCache.open(lasting_url) as two:
        wrapped(one)(user(OTHER))
        wrapped(two)(user(OTHER))
        first = wrapped(one)(user(RESET))
        assert wrapped(two)(user(RESET_AGAIN)) == first
        one.invalidate(namespace="default")
        assert not two.lookup(wrapped(two).request(user(RESET_AGAIN))).outcome.hit


def test_another_process_sees_them(lasting_url):
    code = f"""
import sys
from semcache import SemanticCache
with SemanticCache.open({lasting_url!r}) as cache:
    cache.store({RESET!r}, "from the child")
"""
    with SemanticCache.open(lasting_url) as cache:
        assert cache.lookup(RESET).response is None
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
        assert cache.lookup(RESET).response == "from the child"
        assert cache.lookup(RESET_AGAIN).response == "from the child"


def test_another_embedder_never_sees_these_vectors(lasting_url):
    with SemanticCache.open(lasting_url) as cache:
        first = wrapped(cache)(user(RESET))

    def letters(texts):
        return [[1.0] * 384 for _ in texts]

    with SemanticCache.open(lasting_url, embedder=CallableEmbedder(letters, fingerprint="letters")) as other:
        ask = wrapped(other)
        assert not other.lookup(ask.request(user(RESET_AGAIN))).outcome.hit
        assert ask(user(RESET)) == first  # the exact tier does not depend on it


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw", "ladder"])
def test_every_kind_of_index_serves(kind):
    with SemanticCache(store="memory://", index=kind) as cache:
        ask = wrapped(cache)
        first = ask(user(RESET))
        ask(user(OTHER))
        assert ask(user(RESET_AGAIN)) == first


def test_a_snapshot_spares_the_rebuild_and_a_damaged_one_costs_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("semcache.semantic.SNAPSHOT_FROM", 1)
    url = f"sqlite:///{tmp_path / 'cache.sqlite'}"
    with SemanticCache.open(url) as cache:
        first = wrapped(cache)(user(RESET))
        wrapped(cache)(user(TRAP))
    (snapshot,) = [p for p in tmp_path.iterdir() if "index" in p.name]
    whole = snapshot.read_bytes()
    for damage in (
        None,
        lambda b: b[: len(b) // 2],
        lambda b: b[:-5] + bytes(5),
        lambda b: b"",
        lambda b: b"x" + b[1:],
    ):
        events = []
        if damage is not None:
            snapshot.write_bytes(damage(whole))
        with SemanticCache.open(url) as cache:
            cache.on_event(events.append)
            assert cache.lookup(wrapped(cache).request(user(RESET_AGAIN))).response == first
        assert [e.kind for e in events] == ([] if damage is None else ["index_rebuilt"])


def test_a_snapshot_older_than_the_store_is_brought_up_to_date(tmp_path, monkeypatch):
    monkeypatch.setattr("semcache.semantic.SNAPSHOT_FROM", 1)
    url = f"sqlite:///{tmp_path / 'cache.sqlite'}"
    with SemanticCache.open(url) as cache:
        wrapped(cache)(user(RESET))
        wrapped(cache)(user(OTHER))
    (snapshot,) = [p for p in tmp_path.iterdir() if "index" in p.name]
    old = snapshot.read_bytes()
    with SemanticCache.open(url) as cache:
        later = wrapped(cache)(user("Where is my nearest branch?"))
        cache.invalidate(id=cache.lookup(wrapped(cache).request(user(RESET))).outcome.entry_id)
    snapshot.write_bytes(old)
    with SemanticCache.open(url) as cache:
        ask = wrapped(cache)
        assert cache.lookup(ask.request(user("where is my nearest branch"))).response == later
        assert not cache.lookup(ask.request(user(RESET_AGAIN))).outcome.hit


def test_a_child_after_fork_serves_and_stores(lasting_url):
    with SemanticCache.open(lasting_url) as cache:
        ask = wrapped(cache)
        first = ask(user(RESET))
        assert ask(user(RESET_AGAIN)) == first
        pid = os.fork()
        if pid == 0:
            ok = False
            try:
                ok = ask(user("How do I reset my Password")) == first
                ok = ok and ask(user(OTHER)) != first and last_outcome().stored
            finally:
                os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert cache.lookup(ask.request(user(OTHER))).outcome.hit


def test_threads_share_one_cache(url):
    questions = [f"What does plan number {word} cost?" for word in ("alpha", "bravo", "charlie", "delta", "echo")]
    with SemanticCache.open(url) as cache:
        up = Upstream()
        ask = cache.wrap(lambda messages: f"{messages[-1]['content']}!{up.ask(messages)[:0]}", name="echo")
        wrong = []

        def work(i):
            for j in range(20):
                question = questions[(i + j) % 5]
                if ask(user(question)) != f"{question}!":
                    wrong.append(question)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert up.calls == 5


def test_a_dropped_cache_frees_its_model_at_once():
    gc.collect()
    gc.disable()
    try:
        with SemanticCache.open("memory://", policy=Policy(audit_rate=1.0)) as cache:
            ask = wrapped(cache)
            ask(user(RESET))
            model = weakref.ref(cache.engine.semantic.queue.embedder)
        assert model() is not None
        del cache, ask
        assert model() is None
    finally:
        gc.enable()


async def test_the_async_cache_does_the_same(url):
    async with AsyncSemanticCache.open(url) as cache:
        calls = []

        async def ask(messages):
            calls.append(1)
            await asyncio.sleep(0)
            return f"answer {len(calls)}"

        asked = cache.wrap(ask)
        first = await asked(user(RESET))
        assert await asked(user(RESET_AGAIN)) == first
        assert last_outcome().layer == "semantic"
        assert (await cache.explain(asked.request(user(TRAP)))).status == "miss"
        assert await cache.invalidate(namespace="default") == 1
        assert (await cache.lookup(asked.request(user(RESET)))).response is None
        assert (await cache.store("a", "b")).stored
        assert (await cache.lookup("a")).response == "b"
        await cache.report_wrong(last_outcome())
        assert (await cache.stats()).ledger.totals.requests == 4


def test_sync_and_async_have_the_same_methods():
    def public(cls):
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    assert public(SemanticCache) == public(AsyncSemanticCache)


def test_without_the_semantic_tier_nothing_is_embedded():
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        ask = wrapped(cache)
        assert ask(user(RESET)) != ask(user(RESET_AGAIN))
        assert cache.engine.semantic is None


def test_a_policy_made_for_another_embedder_is_refused():
    policy = Policy(evidence=Evidence(fingerprint="another model"))
    with pytest.raises(ConfigurationError, match="another model"):
        SemanticCache(store="memory://", policy=policy)


def test_a_verifier_decides_in_the_grey_zone():
    asked = []

    def verifier(query, cached):
        asked.append((query, cached))
        return 0.99

    with SemanticCache(store="memory://", policy=Policy(guards=(), verifier=verifier, verify_from=0.3)) as cache:
        ask = wrapped(cache)
        first = ask(user(RESET))
        assert ask(user("I forgot my password")) == first
        assert asked == [("I forgot my password", RESET)]


def test_a_verifier_that_fails_means_a_miss_and_an_event():
    def verifier(query, cached):
        raise TimeoutError("late")

    with SemanticCache(store="memory://", policy=Policy(guards=(), verifier=verifier, verify_from=0.3)) as cache:
        events = []
        cache.on_event(lambda event: events.append(event.kind))
        ask = wrapped(cache)
        assert ask(user(RESET)) != ask(user("I forgot my password"))
        assert events == ["verifier_error"]
