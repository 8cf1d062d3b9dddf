"""``report_wrong`` and ``report_right``: what callers say of single hits, and what becomes of the entries."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from bank import OTHER, RESET, RESET_AGAIN, Upstream, eventually

from semcache import AsyncSemanticCache, ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.live.record import CONFIRMED, MAX_SLACK, Standing, Verdicts

LOOSER = "Please tell me how do I reset my password?"


def similarity(question, stored):
    """Their cosine, as the cache sees it."""
    with SemanticCache(store="memory://") as cache:
        cache.store(stored, "answer")
        return cache.explain(question).candidates[0].candidate.similarity


def hits(cache, question):
    return cache.lookup(question).outcome.hit


def test_an_entry_that_is_wrong_again_and_again_stops_answering_by_meaning(lasting_url):
    with SemanticCache.open(lasting_url) as cache, SemanticCache.open(lasting_url) as other:
        cache.store(OTHER, "-196 °C")
        for again in (RESET_AGAIN, RESET_AGAIN + " please"):
            cache.store(RESET, "Ask your boss.")
            outcome = cache.lookup(again).outcome
            assert outcome.layer == "semantic"
            cache.report_wrong(outcome)
            assert not hits(cache, RESET)  # evicted
        cache.store(RESET, "Ask your boss.")
        third = RESET_AGAIN + "!"
        assert cache.explain(third).reason == "too many of its hits were wrong"
        eventually(lambda: not hits(other, third))
        assert cache.lookup(RESET).outcome.layer == "exact"
        for one in (cache, other):
            assert one.lookup(OTHER.lower()).outcome.layer == "semantic"  # the rest is not hurt
        assert other.stats().live == {"default": Standing(reported_wrong=2)}


def test_an_answer_reported_wrong_does_not_come_back_from_another_entry(lasting_url):
    with SemanticCache.open(lasting_url) as cache, SemanticCache.open(lasting_url) as other:
        assert not hits(other, RESET_AGAIN)  # its index is warm
        cache.store(RESET, "Ask your boss.")
        cache.store(RESET.rstrip("?"), "ask your boss")
        assert hits(cache, RESET_AGAIN)
        cache.report_wrong(cache.lookup(RESET_AGAIN).outcome)
        eventually(lambda: cache.explain(RESET_AGAIN).reason == "reported wrong before")
        eventually(lambda: other.explain(RESET_AGAIN).reason == "reported wrong before")
        assert hits(cache, RESET.rstrip("?"))  # to its own question it may be right


def test_a_much_confirmed_entry_answers_a_little_below_the_threshold(lasting_url):
    threshold = similarity(LOOSER, RESET) + MAX_SLACK / 2
    policy = Policy(threshold=threshold)
    with SemanticCache.open(lasting_url, policy=policy) as cache, SemanticCache.open(lasting_url, policy=policy) as two:
        for question in (RESET, OTHER):
            cache.store(question, "answer")
        assert not hits(cache, LOOSER)
        for _ in range(CONFIRMED):
            cache.report_right(cache.lookup(RESET_AGAIN).outcome)
        assert hits(cache, LOOSER)
        eventually(lambda: hits(two, LOOSER))
        with cache.options(min_similarity=threshold):
            assert not hits(cache, LOOSER)
        assert cache.stats().live == {"default": Standing(reported_right=CONFIRMED)}
    code = f"""
from semcache import Policy, SemanticCache
with SemanticCache.open({lasting_url!r}, policy=Policy(threshold={threshold!r})) as cache:
    print(cache.lookup({LOOSER!r}).outcome.layer)
"""
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    assert run.stdout.strip() == "semantic"


async def test_on_an_event_loop():
    async with AsyncSemanticCache(store="memory://") as cache:
        ask = cache.wrap(Upstream().aask)
        await ask(RESET)
        await ask(RESET_AGAIN)
        outcome = last_outcome()
        await cache.report_right(outcome)
        await cache.report_wrong(outcome)
        assert (await cache.stats()).live == {"default": Standing(reported_wrong=1)}
        await ask(RESET_AGAIN)
        assert not last_outcome().hit
        assert await cache.resume("default") is False


def test_one_outcome_counts_once_and_the_last_word_counts():
    with SemanticCache(store="memory://") as cache:
        cache.store(RESET, "answer")
        first, second = (cache.lookup(RESET_AGAIN).outcome for _ in range(2))
        for _ in range(3):
            cache.report_right(first)
        cache.report_right(second)
        assert cache.stats().live == {"default": Standing(reported_right=2)}
        for _ in range(3):
            cache.report_wrong(second)
        assert cache.stats().live == {"default": Standing(reported_right=1, reported_wrong=1)}
        record = cache.engine.evidence._records["default"]
        assert record.entries[second.entry_id] == Verdicts(right=1, wrong=1)


def test_a_report_said_again_spares_the_answer_that_came_since():
    with SemanticCache(store="memory://") as cache:
        cache.store(RESET, "bad")
        outcome = cache.lookup(RESET_AGAIN).outcome
        cache.report_wrong(outcome)
        cache.store(RESET, "good")
        cache.report_wrong(outcome)
        assert cache.lookup(RESET).response == "good"


def test_an_exact_hit_teaches_nothing_of_meaning_and_a_miss_cannot_be_reported():
    with SemanticCache(store="memory://") as cache:
        cache.store(RESET, "answer")
        miss = cache.lookup(OTHER).outcome
        for report in (cache.report_right, cache.report_wrong):
            with pytest.raises(ConfigurationError, match="not a miss"):
                report(miss)
        cache.report_right(cache.lookup(RESET).outcome)
        cache.report_wrong(cache.lookup(RESET).outcome)
        assert cache.stats().live == {}
        assert not hits(cache, RESET)


def test_namespaces_learn_apart():
    with SemanticCache(store="memory://") as cache, cache.options(namespace="billing"):
        cache.store(RESET, "answer")
        cache.report_right(cache.lookup(RESET_AGAIN).outcome)
        assert cache.stats().live == {"billing": Standing(reported_right=1)}
