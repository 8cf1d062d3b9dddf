"""Several turns: what must match exactly, what may match by meaning, and that the modes never mix."""

from __future__ import annotations

import threading

import pytest

from semcache import AsyncSemanticCache, ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.asked import as_request
from semcache.context import loosen, turns_differ
from semcache.embedders import CallableEmbedder
from semcache.guards import GUARDS
from semcache.keys import history_of, make_key
from semcache.types import Request
from semcache.wire.anthropic import AnthropicMessages
from semcache.wire.openai_chat import OpenAIChat

SYSTEM = {"role": "system", "content": "You know all about music."}
OFFER = {"role": "assistant", "content": "Sure. Which band?"}


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def about(band, question="When did they disband?"):
    return [SYSTEM, user(f"Tell me about {band}."), said("A band from London."), user(question)]


class Embedder:
    def __init__(self):
        self.seen = []

    def __call__(self, texts):
        self.seen += texts
        return [[1.0, 0.0]] * len(texts)


def open_(kind=SemanticCache, embedder=None, **policy):
    wrapped = CallableEmbedder(embedder or Embedder(), fingerprint="all alike")
    return kind.open("memory://", embedder=wrapped, policy=Policy(**policy))


def stand_alone(history, text):
    band = history[0]["content"].removeprefix("Tell me about ").rstrip(".").strip()
    return text.replace("they", band)


async def stand_alone_later(history, text):
    return stand_alone(history, text)


# Loosening


@pytest.mark.parametrize("mode", ["rewrite", "window"])
def test_earlier_turns_leave_the_scope_and_stay_in_the_key(mode) -> None:
    a, b = (make_key(loosen(as_request(about(band)), mode, 3), "n", None) for band in ("Queen", "Genesis"))
    assert a.scope == b.scope
    assert a.canonical != b.canonical
    assert [turn["role"] for turn in history_of(a)] == ["user", "assistant"]
    assert b"Queen" not in a.scope
    other = [{**SYSTEM, "content": "You know nothing."}, *about("Queen")[1:]]
    assert make_key(loosen(as_request(other), mode, 3), "n", None).scope != a.scope


def test_exact_changes_nothing() -> None:
    request = as_request(about("Queen"))
    assert loosen(request, "exact", 3) is request


def test_modes_do_not_share_a_scope() -> None:
    scopes = {
        make_key(loosen(as_request([user("Hi")]), mode, window), "n", None).scope
        for mode, window in (("exact", 3), ("rewrite", 3), ("window", 3), ("window", 2))
    }
    assert len(scopes) == 4


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/i.png"}}]},
        {"role": "user", "content": [{"type": "text", "text": "a", "citations": []}]},
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "user", "content": 5},
    ],
)
@pytest.mark.parametrize("mode", ["rewrite", "window"])
def test_a_history_that_guards_cannot_read_matches_exactly(turn, mode) -> None:
    request = as_request([user("one"), turn, user("two")])
    assert loosen(request, mode, 3) is request


def test_requests_of_the_codecs_are_loosened_alike() -> None:
    body = {"model": "m", "messages": about("Queen")}
    openai = OpenAIChat().parse(body, upstream="u", headers={})
    anthropic = AnthropicMessages().parse(
        {"model": "m", "max_tokens": 9, "system": "s", "messages": about("Queen")[1:]}, upstream="u", headers={}
    )
    for request in (openai, anthropic):
        loose = loosen(request, "rewrite", 3)
        assert [turn["content"] for turn in loose.history] == ["Tell me about Queen.", "A band from London."]
        assert loose.scope["body"]["model"] == "m"
        assert "Queen" not in repr(loose.scope)
        assert loose.text == "When did they disband?"


def test_a_request_without_messages_is_left_alone() -> None:
    request = Request("function", {"function": "f"}, "hi")
    assert loosen(request, "window", 3) is request


# Rewriting


def test_a_rewritten_question_meets_the_same_question_of_another_conversation() -> None:
    embedder = Embedder()
    with open_(embedder=embedder, context="rewrite", rewrite=stand_alone) as cache:
        cache.store(about("Queen"), "never")
        assert embedder.seen == ["When did Queen disband?"]
        other_way = [SYSTEM, user("Tell me about Queen ."), said("Freddie's."), user("when did they disband")]
        assert cache.lookup(other_way).response == "never"
        assert cache.lookup([SYSTEM, user("When did Queen disband?")]).response == "never"
        assert cache.lookup(about("Genesis")).response is None


def test_the_exact_tier_needs_no_rewrite() -> None:
    calls = []

    def rewrite(history, text):
        calls.append(text)
        return stand_alone(history, text)

    with open_(context="rewrite", rewrite=rewrite) as cache:
        cache.store(about("Queen"), "never")
        assert cache.lookup(about("Queen")).outcome.layer == "exact"
        assert calls == ["When did they disband?"]
        cache.lookup([SYSTEM, user("Who is Queen?")])
        assert len(calls) == 1, "a first question stands alone already"


@pytest.mark.parametrize("wrong", [lambda history, text: 1 / 0, lambda history, text: "", lambda history, text: None])
def test_a_rewrite_that_fails_leaves_the_exact_tier(wrong) -> None:
    with open_(context="rewrite", rewrite=wrong) as cache:
        events = []
        cache.on_event(events.append)
        assert cache.store(about("Queen"), "never").stored
        assert cache.lookup(about("Queen")).outcome.layer == "exact"
        outcome = cache.lookup(about("Genesis")).outcome
        assert (outcome.status, outcome.reason) == ("miss", "no rewrite")
        assert {event.kind for event in events} == {"rewrite_error"}


def test_a_secret_that_a_rewrite_brings_in_is_neither_embedded_nor_stored() -> None:
    secret = "sk-" + "a1b2c3d4" * 4
    embedder = Embedder()
    with open_(embedder=embedder, context="rewrite", rewrite=lambda history, text: f"{text} {secret}") as cache:
        stored = cache.store(about("Queen"), "never")
        outcome = cache.lookup(about("Genesis")).outcome
        assert (outcome.status, outcome.reason) == ("miss", "secret: API key in the rewrite")
        assert cache.lookup(about("Queen")).outcome.layer == "exact"
        (entry,) = cache.engine.store.fetch([stored.entry_id])
        assert (entry.text, entry.vector, embedder.seen) == ("When did they disband?", None, [])


async def test_on_an_event_loop_a_rewrite_runs_in_a_thread() -> None:
    threads = []

    def rewrite(history, text):
        threads.append(threading.get_ident())
        return stand_alone(history, text)

    async with open_(AsyncSemanticCache, context="rewrite", rewrite=rewrite) as cache:
        await cache.store(about("Queen"), "never")
        assert (await cache.lookup([SYSTEM, user("When did Queen disband?")])).response == "never"
    assert threads
    assert threading.get_ident() not in threads


# Window


def test_a_window_embeds_the_last_user_turns() -> None:
    embedder = Embedder()
    with open_(embedder=embedder, context="window", window=2) as cache:
        cache.lookup([user("one?"), said("1"), user("two?"), said("2"), user("three?")])
        cache.lookup([user("one?")])
    assert embedder.seen == ["two?\nthree?", "one?"]


def test_a_reworded_conversation_hits_and_another_one_does_not() -> None:
    stored = [user("How do I reset my password?"), said("In the app."), user("And where do I find that?")]
    with open_(context="window") as cache:
        ask = cache.wrap(lambda messages: messages[0]["content"], name="ask")
        ask(stored)
        assert (
            ask([user("how can I reset my password"), said("In the app."), user("and where do I find that")])
            == (stored[0]["content"])
        )
        assert last_outcome().layer == "semantic"
        for other in (
            [user("How do I reset my username?"), *stored[1:]],
            [stored[0], said("On the website."), stored[2]],
            [*stored[:2], user("And when do I find that?")],
            stored[2:],
            [*stored[:2], user("Thanks."), said("Sure."), stored[2]],
        ):
            ask(other)
            assert last_outcome().status == "miss", other


def test_explain_says_which_turn_it_is() -> None:
    with open_(context="window") as cache:
        cache.store([user("I have 5 apples."), said("Nice."), user("What now?")], "x")
        explanation = cache.explain([user("I have 6 apples."), said("Nice."), user("What now?")])
        assert explanation.candidates[0].reasons[0].startswith("history: turn 1: numbers: ")


def test_hidden_characters_in_an_earlier_turn_are_seen() -> None:
    hidden = user("Hello\U000e0068\U000e0069")
    assert turns_differ(GUARDS, [user("Hello")], [hidden]) == "turn 1: hidden characters"
    assert turns_differ(GUARDS, [user("Hello"), OFFER], [user("hello."), OFFER]) == ""


# Configuration


@pytest.mark.parametrize(
    "bad",
    [
        {"context": "all"},
        {"context": "rewrite"},
        {"rewrite": stand_alone},
        {"context": "rewrite", "rewrite": stand_alone_later},
        {"context": "window", "window": 0},
    ],
)
def test_what_cannot_work_is_refused(bad) -> None:
    with pytest.raises(ConfigurationError):
        Policy(**bad)


def test_the_policy_file_holds_the_window_but_no_callable(tmp_path) -> None:
    path = tmp_path / "policy.toml"
    Policy(context="window", window=2).save(path)
    assert (Policy.load(path).context, Policy.load(path).window) == ("window", 2)
    with pytest.raises(ConfigurationError, match="rewrite"):
        Policy(context="rewrite", rewrite=stand_alone).save(path)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("I'd like to check my account balance.", "I'd like to check the balance of my checking account."),
        ("I'd like to check my account balance.", "I wish to check my checking account balance."),
        ("Can you get me a cab for one please?", "Can you help me get a cab?"),
        ("I want to book a hotel room.", "I want to book one hotel room."),
        ("I want to go out to eat somewhere.", "I want to eat somewhere."),
        ("I need a one way flight for 1.", "I want to find a one way flight"),
    ],
)
def test_a_dialogue_does_not_open_with_what_another_one_wanted(stored, asked) -> None:
    """With the real embedder: what an opening leaves unsaid an assistant asks for, and what it says is settled."""
    with SemanticCache.open("memory://") as cache:
        for first, second in ((stored, asked), (asked, stored)):
            with cache.options(tenant=first):
                assert cache.store([SYSTEM, user(first)], "Sure.").stored
                assert cache.lookup([SYSTEM, user(second)]).response is None
