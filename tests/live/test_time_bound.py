"""Questions about now: which ones they are, how long their answers live, and that no older answer serves them."""

from __future__ import annotations

import math
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache import ConfigurationError, Policy, SemanticCache
from semcache.guards.lexicon import language_words
from semcache.guards.time_bound import time_bound
from semcache.policy import Override, ttl_for
from semcache.stores import MemoryStore
from semcache.types import Request

NOW = "What's the weather in Rome today?"
REWORDED = "what is the weather in Rome today"
ALWAYS = "How do I reset my password?"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What time is it?", "what time is it"),
        ("what's the time", "what s the time"),
        ("Who is the current president?", "current"),
        ("What is today's exchange rate?", "today"),
        ("Are you open right now?", "now"),
        ("WHAT'S THE LATEST VERSION OF CHROME", "latest"),
        ("Is it going to rain this weekend", "this weekend"),
        ("What is the price of gold at the moment?", "at the moment"),
        ("Show me the share price of Acme", "share price"),
        ("How do I open a current account today?", "today"),
        ("Wie spät ist es in Rom?", "wie spät ist es"),
        ("Was kostet das heute und was ist im Angebot?", "heute"),
        ("Quelle heure est-il ?", "quelle heure est il"),
        ("Qu'est-ce qui est ouvert aujourd'hui à Paris ?", "aujourd hui"),
        ("¿Qué hora es en Madrid ahora?", "qué hora es"),
        ("Che ore sono a Roma?", "che ore sono"),
        ("Hoe laat is het in Utrecht?", "hoe laat is het"),
    ],
)
def test_questions_about_now(text, words) -> None:
    assert time_bound(text) == words


@pytest.mark.parametrize(
    "text",
    [
        ALWAYS,
        "How do I open a current account?",
        "What is the difference between alternating current and direct current?",
        "How do I change my current password?",
        "My card was stolen, what do I do now?",
        "Who was the first president?",
        "How long does a transfer take?",
        "Wo finde ich hier die Hilfe und wie geht das?",  # "hier" is yesterday in French
        "What does the word nowhere mean?",
        "",
    ],
)
def test_other_questions(text) -> None:
    assert time_bound(text) == ""


def test_a_long_text_brings_its_own_today() -> None:
    assert time_bound(f"Summarise: {'The market fell today. ' * 3}")
    assert not time_bound(f"Summarise: {'The market fell today. ' * 30}")


def test_every_line_of_the_list_is_of_a_known_language() -> None:
    text = files("semcache").joinpath("data", "lexicons", "time_bound.txt").read_text(encoding="utf-8")
    codes = {line.partition(":")[0] for line in text.splitlines() if line and not line.startswith("#")}
    assert codes - {"timeless"} <= language_words().keys()


@given(st.text(max_size=80))
def test_any_text_can_be_read(text) -> None:
    assert time_bound(text) == time_bound(text.upper().lower()) or not text.isascii()


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def at_hand(clock, policy=None):
    return SemanticCache(store=MemoryStore(clock=clock), policy=policy, clock=clock)


@pytest.mark.parametrize("again", [NOW, REWORDED])
def test_an_answer_about_now_lives_a_minute(again) -> None:
    clock = Clock()
    with at_hand(clock) as cache:
        assert cache.store(NOW, "Sunny.").ttl_s == 60.0
        assert cache.store(ALWAYS, "Press the button.").ttl_s is None
        clock.now += 59.0
        assert cache.lookup(again).response == "Sunny."
        clock.now += 2.0
        assert cache.lookup(again).response is None
        assert cache.lookup(ALWAYS).response


def test_the_shorter_time_holds() -> None:
    asked = Request("manual", {}, NOW)
    for policy, caller, expected in [
        (Policy(ttl=3600.0), None, 60.0),
        (Policy(ttl=5.0), None, 5.0),
        (Policy(), 7200.0, 60.0),
        (Policy(), 10.0, 10.0),
        (Policy(ttl=3600.0, time_bound_ttl=math.inf), None, 3600.0),
        (Policy(time_bound_ttl=math.inf), None, None),
        (Policy(namespaces={"n": Override(time_bound_ttl=1.5)}), None, 1.5),
        (Policy(time_bound_ttl=9.0, namespaces={"n": Override(ttl=20.0)}), None, 9.0),
    ]:
        assert ttl_for(policy.rules("n"), asked, caller) == expected


def test_no_older_answer_to_a_timeless_question_serves_one_about_now() -> None:
    """The stored question says nothing of time, so its answer lives long."""
    clock = Clock()
    stored, asked = "Who is the president of France?", "Who is currently the president of France?"
    policy = Policy(threshold=0.5, guards=(), min_probability=0.0)
    with at_hand(clock, policy) as cache:
        assert cache.store(stored, "Someone.").ttl_s is None
        assert cache.lookup(asked).response == "Someone."
        clock.now += 61.0
        assert cache.lookup(asked).response is None
        assert "its answer is too old for a question about now" in cache.explain(asked).candidates[0].reasons
        assert cache.lookup("who is the President of France").response == "Someone."


def test_a_follow_up_is_about_now_when_the_question_before_it_was() -> None:
    talk = [
        {"role": "user", "content": "Will it rain in Paris today?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "And in Rome?"},
    ]
    with SemanticCache(store="memory://") as cache:
        assert cache.store(talk, "Yes.").ttl_s == 60.0
        assert cache.store([talk[2]], "In Italy.").ttl_s is None
    looser = Policy(context="rewrite", rewrite=lambda history, text: "Will it rain in Rome?")
    with SemanticCache(store="memory://", policy=looser) as cache:
        assert cache.store(talk, "Yes.").ttl_s == 60.0


def test_the_policy_file_holds_it(tmp_path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("time_bound_ttl = inf\n[namespaces.weather]\ntime_bound_ttl = 600\n", encoding="utf-8")
    policy = Policy.load(path)
    assert (policy.rules("default").time_bound_ttl, policy.rules("weather").time_bound_ttl) == (math.inf, 600.0)
    policy.save(path)
    assert Policy.load(path) == policy
    with pytest.raises(ConfigurationError, match="time_bound_ttl of the policy must be above 0"):
        Policy(time_bound_ttl=0.0)
