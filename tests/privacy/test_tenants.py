"""Nothing crosses tenants, and nothing of a user reaches another user unless it is shared."""

from __future__ import annotations

import threading

import pytest

from semcache import AsyncSemanticCache, ConfigurationError, Options, Policy, SemanticCache, last_outcome
from semcache.embedders import CallableEmbedder

EXACT = Policy(semantic=False)
QUESTION = "How do I reset my password?"


def open_(url="memory://", kind=SemanticCache, **arguments):
    same = CallableEmbedder(lambda texts: [[1.0, 0.0]] * len(texts), fingerprint="all alike")
    return kind.open(url, embedder=same, **arguments)


def counted():
    calls = []

    def ask(prompt, **params):
        calls.append(prompt)
        return f"answer {len(calls)}"

    return ask, calls


@pytest.mark.parametrize("again", [QUESTION, "How can I reset my password?"], ids=["exact", "semantic"])
@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ({"tenant": "a"}, {"tenant": "a"}, True),
        ({"tenant": "a"}, {"tenant": "b"}, False),
        ({"tenant": "a"}, {}, False),
        ({}, {"tenant": "a"}, False),
        ({"tenant": "a", "user": "x"}, {"tenant": "a", "user": "x"}, True),
        ({"tenant": "a", "user": "x"}, {"tenant": "a", "user": "y"}, False),
        ({"tenant": "a", "user": "x"}, {"tenant": "a"}, False),
        ({"tenant": "a"}, {"tenant": "a", "user": "x"}, False),
        ({"tenant": "a", "user": "x"}, {"tenant": "b", "user": "x"}, False),
        ({"tenant": "a", "user": "x", "share": "tenant"}, {"tenant": "a", "user": "y", "share": "tenant"}, True),
        ({"tenant": "a", "user": "x", "share": "tenant"}, {"tenant": "a"}, True),
        ({"tenant": "a", "user": "x", "share": "tenant"}, {"tenant": "a", "user": "y"}, False),
        ({"tenant": "a", "user": "x"}, {"tenant": "a", "user": "y", "share": "tenant"}, False),
        ({"tenant": "a", "user": "x", "share": "tenant"}, {"tenant": "b", "user": "x", "share": "tenant"}, False),
    ],
)
def test_who_shares_with_whom(first, second, shared, again) -> None:
    with open_() as cache:
        function, _ = counted()
        ask = cache.wrap(function, name="ask")
        with cache.options(**first):
            answer = ask(QUESTION)
        with cache.options(**second):
            assert (ask(again) == answer) == shared
            assert last_outcome().hit == shared
            assert (cache.lookup(ask.request(QUESTION)).response == answer) == shared


def test_explain_shows_nothing_of_others() -> None:
    with open_() as cache:
        with cache.options(tenant="a", user="x"):
            cache.store(QUESTION, "secret of x")
        for others in ({"tenant": "b"}, {"tenant": "a"}, {"tenant": "a", "user": "y"}):
            with cache.options(**others):
                explanation = cache.explain("How can I reset my password?")
                assert (explanation.exact, explanation.candidates) == (False, ())


def test_calls_in_flight_are_not_shared_either() -> None:
    started, go_on = threading.Barrier(3, timeout=20), threading.Event()

    def ask(prompt):
        started.wait()
        go_on.wait(20)
        return threading.current_thread().name

    with SemanticCache.open("memory://", policy=EXACT) as cache:
        wrapped = cache.wrap(ask, name="ask")
        answers = {}

        def run(name, options):
            with cache.options(**options):
                answers[name] = wrapped(QUESTION)

        options = {"a": {"tenant": "a"}, "b": {"tenant": "b"}, "x": {"tenant": "a", "user": "x"}}
        threads = [threading.Thread(target=run, args=item, name=item[0]) for item in options.items()]
        for thread in threads:
            thread.start()
        for _ in range(200):  # the barrier breaks in the threads if one of them joined another's flight
            if started.broken or started.n_waiting == 0:
                break
            threading.Event().wait(0.01)
        go_on.set()
        for thread in threads:
            thread.join()
    assert answers == {"a": "a", "b": "b", "x": "x"}


def test_streams_are_kept_apart() -> None:
    calls = []

    def stream(prompt):
        calls.append(prompt)
        yield from ("answer", str(len(calls)))

    with SemanticCache.open("memory://", policy=EXACT) as cache:
        ask = cache.wrap(stream, name="stream")
        for number, (tenant, user) in enumerate([("a", None), ("b", None), ("a", "x"), ("a", "y")], 1):
            with cache.options(tenant=tenant, user=user):
                assert list(ask(QUESTION)) == list(ask(QUESTION)) == ["answer", str(number)]


async def test_tasks_are_kept_apart() -> None:
    async with open_(kind=AsyncSemanticCache, tenant="a") as cache:
        await cache.store(QUESTION, "of a")
        with cache.options(tenant="b"):
            assert (await cache.lookup(QUESTION)).response is None
            assert await cache.invalidate(everything=True) == 0
        assert (await cache.lookup(QUESTION)).response == "of a"
        assert await cache.invalidate(everything=True) == 1


@pytest.mark.parametrize("what", [{"everything": True}, {"tag": "t"}, {"namespace": "default"}, {"id": None}])
def test_a_tenant_deletes_only_its_own(what) -> None:
    with open_() as cache:
        stored = {}
        for tenant in (None, "a", "b"):
            with cache.options(tenant=tenant, tags=("t",)):
                stored[tenant] = cache.store(QUESTION, f"of {tenant}").entry_id
        for foreign in ("b", None):
            if "id" in what:
                what = {"id": stored[foreign]}
            with cache.options(tenant="a", tags=("t",)):
                assert cache.invalidate(**what) == (0 if "id" in what else 1)
                cache.store(QUESTION, "of a") if "id" not in what else None
        with cache.options(tenant="b"):
            assert cache.lookup(QUESTION).response == "of b"
        assert cache.lookup(QUESTION).response == "of None"
        with cache.options(tenant="a"):
            assert cache.invalidate(tenant="b", everything=True) == 1, "naming another tenant is not silent"
        assert cache.invalidate(everything=True) == 2, "without a tenant the cache is the operator's"


def test_nothing_selected_is_refused_for_a_tenant_too() -> None:
    with open_(tenant="a") as cache, pytest.raises(ConfigurationError, match="nothing is selected"):
        cache.invalidate()


def test_the_entries_of_a_user_can_be_deleted() -> None:
    with open_(tenant="a") as cache:
        for user in ("x", "y"):
            with cache.options(user=user, tags=("t",)):
                cache.store(QUESTION, user)
        assert cache.invalidate(tag="user:x") == 1
        with cache.options(user="y"):
            assert cache.lookup(QUESTION).response == "y"


def test_sharing_is_said_of_one_user() -> None:
    with open_() as cache, cache.options(user="x", share="tenant"):
        cache.store(QUESTION, "shared")
        with cache.options(user="y"):
            assert cache.lookup(QUESTION).response is None
        with cache.options(share="user"):
            assert cache.lookup(QUESTION).response is None
        with cache.options(namespace="default"):
            assert cache.lookup(QUESTION).response == "shared"


def test_share_needs_a_user_and_a_known_word() -> None:
    with open_() as cache, pytest.raises(ConfigurationError, match="user"), cache.options(share="user"):
        pass
    with pytest.raises(ConfigurationError, match="share"):
        Options(share="everyone")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="user"):
        Options(user="")


@pytest.mark.parametrize("name", ["namespace", "category", "tenant", "user"])
def test_what_only_looks_like_a_name_is_refused(name) -> None:
    with open_() as cache:
        with pytest.raises(ConfigurationError, match=f"{name} must be a string, not 7"), cache.options(**{name: 7}):
            pass
        with pytest.raises(ConfigurationError, match="tags is a sequence of strings"), cache.options(tags=(7,)):
            pass
    with pytest.raises(ConfigurationError, match="tenant must be a string"):
        open_(tenant=7)
