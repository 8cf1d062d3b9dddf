from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache import Policy, SemanticCache, last_outcome
from semcache.errors import StoreError
from semcache.money.estimates import BAND, CJK, CODE, OTHER, PROSE, Meter, guess_prompt, guess_tokens
from semcache.stores import open_store
from semcache.stores.memory import MemoryStore
from semcache.testing.upstream import Upstream
from semcache.types import Reply, Request, Usage

ANSWER = b'"A lift is a platform that carries people from one floor of a house to another."'
WEEK = 7 * 86_400.0


def asked(text: str = "What is a lift, and who built the first one?", model: str | None = "m-2026-01-01") -> Request:
    return Request("test", {"messages": [{"role": "system", "content": "You know houses."}]}, text, model=model)


# Counted with o200k_base of tiktoken 0.14.0 on 2026-11-21.
COUNTED = [
    ("The quick brown fox jumps over the lazy dog while seventeen engineers discuss the weather at length.", 18),
    ("How do I reset my password if I no longer have the phone that I signed up with? The link fails.", 23),
    ("def add(a, b):\n    return {'sum': a + b, 'first': a, 'second': b}\n\nprint(add(1, 2)['sum'])\n", 35),
    ("Сколько стоит билет на поезд из Москвы в Казань, и где его купить?", 17),
    ("東京から大阪まで新幹線で何時間かかりますか。切符はどこで買えますか。", 27),
]


@pytest.mark.parametrize(("text", "tokens"), COUNTED)
def test_a_first_guess_is_near_what_a_tokenizer_counts(text: str, tokens: int) -> None:
    guess = guess_tokens(text)
    assert (1 - BAND) * guess <= tokens <= (1 + BAND) * guess


def test_kinds_of_text_by_hand() -> None:
    assert guess_tokens("abc abc") == 8 / PROSE
    assert guess_tokens("x = {1: [2]}") == 13 / CODE
    assert guess_tokens("    indented") == 13 / CODE
    assert guess_tokens("東京 ok") == 2 / CJK + 4 / PROSE
    assert guess_tokens("да") == 2 / OTHER + 1 / PROSE
    assert guess_tokens("") < 1


@given(st.text(max_size=300), st.text(max_size=300))
def test_lines_are_counted_one_by_one(a: str, b: str) -> None:
    assert guess_tokens(f"{a}\n{b}") == pytest.approx(guess_tokens(a) + guess_tokens(b))
    assert guess_tokens(a) <= (len(a) + a.count("\n") + 1) / CJK


def test_a_prompt_is_all_its_texts() -> None:
    request = asked("Why?")
    parts = ["user", "system", "You know houses.", "Why?"]
    assert guess_prompt(request) == sum(map(guess_tokens, parts[1:]))
    request.history = ({"role": "user", "content": "Before that?"},)
    assert guess_prompt(request) == sum(map(guess_tokens, [*parts, "Before that?"]))


def test_what_was_reported_is_left_alone_and_what_is_missing_is_estimated() -> None:
    meter = Meter()
    usage = Usage(40, 20, 30)
    assert meter.usage(asked(), Reply("", ANSWER, usage)) is usage
    other = meter.usage(asked(model="other"), Reply("", ANSWER))
    assert other == Usage(round(guess_prompt(asked())), round(guess_tokens(ANSWER.decode()[1:-1])), estimated=True)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (asked(model=None), Reply("", ANSWER)),
        (asked(), Reply("", None)),
        (asked(), Reply("", b'{"cls": "7"}')),
        (asked(), Reply("", b'{"error": "overloaded"}', failed=True)),
        (asked(), Reply("", b'{"choices": [{"message": {"content": null, "tool_calls": [{"id": "1"}]}}]}')),
    ],
    ids=["no model", "no body", "no text", "failed", "tool call"],
)
def test_what_cannot_be_estimated_stays_unknown(request_: Request, reply: Reply) -> None:
    assert Meter().usage(request_, reply) is None


def test_estimates_move_towards_what_a_model_reports() -> None:
    meter = Meter()
    guess, said = guess_prompt(asked()), guess_tokens(ANSWER.decode()[1:-1])
    before = meter.estimate("m", guess, "")
    for _ in range(200):
        meter.usage(asked(), Reply("", ANSWER, Usage(round(1.5 * guess), round(0.7 * said) + 40, reasoning_tokens=40)))
    assert meter.factor("m", "in") == pytest.approx(1.5, rel=0.1)
    assert meter.factor("m", "out") == pytest.approx(0.7, rel=0.1)
    learned = meter.usage(asked(model="openai/m"), Reply("", ANSWER))
    assert learned is not None
    assert learned.estimated
    assert learned.input_tokens == pytest.approx(1.5 * guess, rel=0.1)
    assert learned.input_tokens > before.input_tokens
    assert meter.factor("another", "in") == 1.0


def test_pictures_and_estimates_teach_nothing() -> None:
    meter = Meter()
    meter.usage(asked(), Reply("", ANSWER, Usage(100_000, 9_000)))
    meter.usage(asked(), Reply("", ANSWER, Usage(20, 20, estimated=True)))
    assert meter.factor("m", "in") == meter.factor("m", "out") == 1.0


def test_invented_models_keep_no_known_one_from_learning_nor_a_new_one_next_week() -> None:
    now = [100 * WEEK]
    meter = Meter(clock=lambda: now[0])

    def teach(model: str) -> float:
        before = meter.factor(model, "out")
        meter.usage(asked(model=model), Reply(None, ANSWER, Usage(20, 40)))
        return abs(meter.factor(model, "out") - before)

    assert teach("known")
    for n in range(1_100):
        teach(f"invented-{n}")
    assert teach("known")
    assert not teach("new")
    now[0] += WEEK
    assert teach("new")


def test_what_is_old_weighs_less() -> None:
    now = [WEEK * 3000]
    meter = Meter(clock=lambda: now[0])
    guess = guess_prompt(asked())
    factors = []
    for week in range(10):
        if week == 0:
            for _ in range(100):
                meter.usage(asked(), Reply("", None, Usage(round(2 * guess))))
        factors.append(meter.factor("m", "in"))
        now[0] += WEEK
    assert factors == sorted(factors, reverse=True)
    assert factors[0] > 1.6
    assert factors[-1] == 1.0


def test_processes_learn_together_and_old_weeks_go(lasting_url: str) -> None:
    now = [WEEK * 3000]
    guess = guess_prompt(asked())
    with closing(open_store(lasting_url)) as store, closing(open_store(lasting_url)) as other_store:
        one, other = (Meter(s, clock=lambda: now[0]) for s in (store, other_store))
        for _ in range(100):
            one.usage(asked(), Reply("", ANSWER, Usage(round(1.5 * guess), 15)))
        one.flush()
        one.flush()
        assert other.factor("m", "in") == 1.0
        other.flush()
        assert other.factor("m", "in") == one.factor("m", "in") > 1.3
        assert len(store.counters("tokens1|")) == 4
        now[0] += 8 * WEEK
        other.flush()
        assert store.counters("tokens1|") == {}


class BrokenStore(MemoryStore):
    def counters(self, prefix: str = "") -> dict[str, int]:
        raise StoreError("switched off")


def test_trouble_in_the_store_changes_nothing() -> None:
    meter = Meter(BrokenStore())
    meter.usage(asked(), Reply("", ANSWER, Usage(40, 20)))
    meter.flush()
    assert meter.usage(asked(), Reply("", ANSWER)) is not None


# Through the cache ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


def test_a_stream_without_usage_is_booked_by_estimate(upstream: Upstream, tmp_path: Path) -> None:
    """A gateway that is not known to report the usage of streams is not asked for it."""
    with (
        SemanticCache(tmp_path / "s.db", policy=Policy(semantic=False)) as cache,
        openai.OpenAI(base_url=upstream.openai_url, api_key="any") as plain,
    ):
        from semcache.clients.http import wrap_client

        client = wrap_client(plain, cache.engine, ask_usage=False)

        def ask() -> Any:
            chunks = client.chat.completions.create(
                model="gpt-5-mini",
                messages=[{"role": "user", "content": "Tell me about lifts, from the first one on."}],
                stream=True,
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            return text, last_outcome()

        text, miss = ask()
        assert miss.usage.estimated
        assert miss.usage.output_tokens == round(guess_tokens(text))
        _, hit = ask()
        assert (hit.status, hit.usage) == ("hit", miss.usage)
        totals = cache.stats().ledger.totals
        assert (totals.spent.estimated, totals.exact.estimated, totals.spent.unmetered) == (1, 1, 0)
        assert totals.to_dict()["estimated"] == 2
        assert totals.spent.usd_micro == miss.usd_micro is not None
