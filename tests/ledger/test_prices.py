from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import ConfigurationError
from semcache.money.prices import Cost, ModelPrice, Prices, Rates, as_of, plain_name
from semcache.types import Usage

MILLION = 1_000_000


def price_file(tmp_path: Path, models: object) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"models": models}))
    return path


# Worked by hand from the vendors' price lists as of the table's date, in micro-dollars.
BY_HAND = [
    ("claude-opus-5-5", Usage(1000, 200), 1000 * 4 + 200 * 20),
    ("claude-opus-5-5", Usage(1000, 200, cache_read_tokens=600), 400 * 4 + 120 + 200 * 20),
    ("claude-opus-5-5", Usage(1000, 0, cache_write_tokens=1000), 1250 * 4),
    ("claude-fable-5-2", Usage(1000, 0, cache_read_tokens=1000), 200),
    ("gpt-5-mini", Usage(1000, 500), 250 + 1000),
    ("gpt-4o-mini", Usage(1000, 0, cache_read_tokens=1000), 75),
    ("gpt-4o", Usage(8, 4, cache_read_tokens=4), 10 + 5 + 40),
    ("gpt-4o-2024-05-13", Usage(8, 4), 40 + 60),
    ("gemini-2.5-flash", Usage(1000, 100, reasoning_tokens=80), 300 + 250),
    ("claude-haiku-5-5", Usage(100_000, 1000), 10_000 + 500),
    ("claude-haiku-5-5", Usage(100_001, 1000), 50_000 + 2500),
    ("gpt-6.1-sol", Usage(272_001, 0, cache_read_tokens=272_001), 54_400),
    # Anthropic: 3,000 read at 0.05, 600 written for 5 min at 1.25, 400 for an hour at 2, 1,000 plain.
    ("claude-opus-5-5", Usage(5000, 100, 3000, 1000, 0, 400), 600 + 3000 + 3200 + 4000 + 2000),
    # OpenAI: 1,000 written for 30 min at 1.25, 500 for 12 h at 2.5; reasoning is output.
    ("gpt-6-sol", Usage(2000, 300, 0, 1500, 200, 500), 500 * 2 + 2500 + 2500 + 3000),
    ("gpt-6-sol", Usage(300_000, 10, 100_000, 0, 0), 200_000 * 4 + 40_000 + 150),
    # Gemini: implicit reads at a tenth, thoughts are output, and all of it dearer above 200,000.
    ("gemini-2.5-pro", Usage(8000, 900, cache_read_tokens=4000, reasoning_tokens=700), 5000 + 500 + 9000),
    ("gemini-2.5-pro", Usage(200_001, 2, cache_read_tokens=200_001), 50_000 + 30),
    # DeepSeek: hits at a fiftieth.
    ("deepseek-v4-flash", Usage(10_000, 1000, cache_read_tokens=9000), 150 + 27 + 600),
    ("us.anthropic.claude-haiku-4-5-20251001-v1:0", Usage(4000, 10, 3000, 500, 0, 500), 500 + 300 + 1000 + 50),
]

BATCHES_BY_HAND = [
    ("gpt-5-mini", Usage(1000, 500), 125 + 500),
    ("claude-opus-5-5", Usage(5000, 100, 3000, 1000, 0, 400), (600 + 3000 + 3200 + 4000 + 2000) // 2),
    ("gpt-4o", Usage(1000, 100, cache_read_tokens=400), 750 + 500 + 500),  # its reads cost the same in a batch
    ("gemini-2.5-flash", Usage(1000, 100, cache_read_tokens=1000), 30 + 125),
    ("deepseek-v4-flash", Usage(1000, 100), None),
    ("nonesuch", Usage(1000, 100), None),
]


@pytest.mark.parametrize(("model", "usage", "micro"), BY_HAND)
def test_prices_by_hand(model: str, usage: Usage, micro: int) -> None:
    assert Prices().cost(model, usage) == micro


@pytest.mark.parametrize(("model", "usage", "micro"), BATCHES_BY_HAND)
def test_batches_by_hand(model: str, usage: Usage, micro: int | None) -> None:
    assert Prices().cost(model, usage, batch=True) == micro


def test_what_the_prompt_cache_took_off_and_put_on_by_hand() -> None:
    price = Prices().find("claude-opus-5-5")
    assert price is not None
    # List price 5,000 at $4 and 100 at $20. 3,000 read save 0.95 of it; 600 cost 0.25 and 400 cost 1 more of it.
    assert price.split(Usage(5000, 100, 3000, 1000, 0, 400)) == Cost(12_800, 11_400, -2_200)
    assert 12_800 + 11_400 - 2_200 == 5000 * 4 + 100 * 20


@pytest.mark.parametrize(
    ("model", "usage", "read", "micro"),
    [
        # What was written then may be read by the next: nobody knows, so it is taken to be.
        ("claude-opus-5-5", Usage(5000, 100, 3000, 1000, 0, 400), None, 4000 * 4 // 20 + 4000 + 2000),
        ("claude-opus-5-5", Usage(5000, 100, 3000, 1000, 0, 400), 0, 20_000 + 2000),
        ("claude-opus-5-5", Usage(5000, 100, 3000, 1000, 0, 400), 9999, 1000 + 2000),
        ("claude-opus-5-5", Usage(5000, 100), None, 20_000 + 2000),
        # OpenAI before 5.6 caches by itself, from 1,024 tokens on; Gemini 2.5 from 2,048.
        ("gpt-5-mini", Usage(1023, 0), None, 256),
        ("gpt-5-mini", Usage(2000, 0), None, 50),
        ("gpt-5-mini", Usage(2000, 0), 1000, 250 + 25),
        ("gemini-2.5-flash", Usage(2047, 0), None, 614),
        ("gemini-2.5-flash", Usage(2048, 0), None, 61),
        ("gpt-6-sol", Usage(2000, 0), None, 4000),
    ],
)
def test_what_a_call_would_have_cost_once_more_by_hand(model: str, usage: Usage, read: int | None, micro: int) -> None:
    price = Prices().find(model)
    assert price is not None
    assert price.again(usage, read) == micro


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("claude-opus-5-5-20261001", "claude-opus-5-5"),
        ("claude-opus-5-5@20261001", "claude-opus-5-5"),
        ("us.anthropic.claude-opus-5-5-20261001-v1:0", "claude-opus-5-5"),
        ("anthropic.claude-haiku-4-5-v2", "claude-haiku-4-5"),
        ("GPT-5-Mini-2025-08-07", "gpt-5-mini"),
        ("openrouter/openai/gpt-5-mini", "gpt-5-mini"),
        ("models/gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("claude-sonnet-5-latest", "claude-sonnet-5"),
        ("gpt-5.5", "gpt-5.5"),
        ("gpt-4-0613", "gpt-4-0613"),
        ("ft:gpt-4o-mini-2024-07-18:acme::x1", "ft:gpt-4o-mini-2024-07-18:acme::x1"),
    ],
)
def test_names_lose_only_route_region_and_release(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_a_longer_name_is_another_model() -> None:
    prices = Prices()
    assert prices.cost("gpt-5-mini", Usage(MILLION)) != prices.cost("gpt-5", Usage(MILLION))
    assert prices.cost("gpt-5-nonesuch", Usage(MILLION)) is None


@pytest.mark.parametrize("model", [None, "", "nonesuch-1", "my-own-model", "-2024-05-13"])
def test_an_unknown_model_costs_none(model: str | None) -> None:
    assert Prices().cost(model, Usage(1000, 1000)) is None


def test_a_known_model_without_tokens_costs_nothing() -> None:
    assert Prices().cost("gpt-5-mini", Usage()) == 0


@given(
    tokens=st.tuples(*[st.integers(0, 10**9)] * 5),
    rates=st.tuples(*[st.integers(0, 10**9)] * 5),
)
def test_cost_is_exact_and_rounds_half_to_even(tokens: tuple[int, ...], rates: tuple[int, ...]) -> None:
    uncached, read, write, long, output = tokens
    usage = Usage(uncached + read + write + long, output, read, write + long, cache_write_long_tokens=long)
    price = ModelPrice("test", Rates(*rates))

    def rounded(rates: Sequence[int]) -> int:
        exact = sum(Decimal(t * r) for t, r in zip(tokens, rates, strict=True)) / MILLION
        return int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))

    assert price.cost(usage) == rounded(rates)
    plain, listed = rates[0], [rates[0]] * 4 + [rates[4]]
    assert sum(price.split(usage)) == rounded(listed)
    assert price.split(usage).reads == rounded(listed) - rounded([plain, rates[1], plain, plain, rates[4]])


@pytest.mark.parametrize(("tokens", "micro"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_halves_go_to_the_even_neighbour(tmp_path: Path, tokens: int, micro: int) -> None:
    prices = Prices(price_file(tmp_path, {"m": {"input": 0.5, "output": 0}}))
    assert prices.cost("m", Usage(tokens)) == micro


def test_the_users_file_wins_over_the_table(tmp_path: Path) -> None:
    models = {
        "gpt-5-mini": {"input": 1, "output": 2},
        "House-Model": {"input": 3, "output": 4, "read": 0.5, "aliases": ["hm"]},
        "long": {"input": 1, "output": 1, "above": [{"tokens": 10, "input": 2, "output": 3}]},
    }
    prices = Prices(price_file(tmp_path, models))
    assert prices.cost("gpt-5-mini-2025-08-07", Usage(1, 1)) == 3
    assert prices.cost("HM", Usage(10, 1, cache_read_tokens=10)) == 19
    assert [prices.cost("long", Usage(n, 1)) for n in (10, 11)] == [11, 25]
    assert prices.cost("gpt-5", Usage(100)) == 125
    found = prices.find("house-model")
    assert found is not None
    assert found.id == "prices.json:House-Model"


TOML = """
[models."House-Model"]
input = 3
output = 4.5
read = 0.1
write = 1.25
write_long = 2
batch = 0.5
as_of = 2026-10-01
aliases = ["hm"]
above = [{ tokens = 1000, input = 6, output = 9 }]
"""


def test_a_price_file_may_be_toml(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(TOML)
    found = Prices(path).find("HM")
    assert found is not None
    assert found.id == "prices.toml:House-Model@2026-10-01"
    assert found.base == Rates(3_000_000, 300_000, 3_750_000, 6_000_000, 4_500_000)
    assert found.cost(Usage(1001, 2)) == 6006 + 18
    assert found.batch is not None
    assert found.batch.cost(Usage(1000, 2)) == 1500 + 4  # 4.5, to the even neighbour


def test_the_environment_names_a_price_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = price_file(tmp_path, {"gpt-5-mini": {"input": 1, "output": 2}})
    monkeypatch.setenv("SEMCACHE_PRICES", str(path))
    assert Prices().cost("gpt-5-mini", Usage(5)) == 5
    monkeypatch.setenv("SEMCACHE_PRICES", "")
    assert Prices().cost("gpt-5-mini", Usage(8)) == 2


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ([], '{"models"'),
        ({"m": 3}, "'m'"),
        ({"m": {"input": 1}}, "output must be a number"),
        ({"m": {"input": "1", "output": 1}}, "input must be a number"),
        ({"m": {"input": True, "output": 1}}, "input must be a number"),
        ({"m": {"input": -1, "output": 1}}, "input must be a number"),
        ({"m": {"input": float("nan"), "output": 1}}, "input must be a number"),
        ({"m": {"input": 1, "output": 1, "reed": 1}}, "unknown field 'reed'"),
        ({"m": {"input": 1, "output": 1, "above": [{"input": 1, "output": 1}]}}, "tokens must be a number"),
        ({"m": {"input": 1, "output": 1, "aliases": [3]}}, "'m'"),
        ({"m": {"input": 1, "output": 1, "batch": "half"}}, "batch must be a number"),
        ({"m": {"input": 1, "output": 1, "as_of": "last week"}}, "last week"),
    ],
)
def test_a_bad_price_file_is_refused_with_its_name(tmp_path: Path, models: object, says: str) -> None:
    path = price_file(tmp_path, models)
    with pytest.raises(ConfigurationError) as caught:
        Prices(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_price_file_that_is_absent_or_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        Prices(tmp_path / "absent.json")
    for name, text, says in [
        ("torn.json", '{"models": {', "not JSON"),
        ("torn.toml", "[models.m", "not TOML"),
        ("empty.toml", "", r"\[models.NAME\]"),
    ]:
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=says):
            Prices(path)


def test_the_table_is_dated_and_every_row_is_usable() -> None:
    assert date.fromisoformat(as_of()) >= date(2026, 11, 21)
    prices = Prices()
    rows = prices._table
    assert len(rows) >= 40
    for name, price in rows.items():
        for rates in (price.base, *(longer for _, longer in price.longer)):
            assert 0 < rates.uncached <= rates.output or "embedding" in name, name
            assert 0 < rates.read <= rates.uncached <= rates.write <= rates.write_long <= 2.5 * rates.uncached, name
        assert price.id == f"semcache:{name}@2026-11-21" or name not in price.id, name
        if price.batch is not None:
            assert price.batch.base.uncached * 2 == price.base.uncached, name


def test_prices_import_neither_numpy_nor_genai_prices_until_needed() -> None:
    code = (
        "import sys; from semcache.money.prices import Prices; from semcache.types import Usage\n"
        "assert Prices().cost('gpt-5-mini', Usage(4, 0)) == 1\n"
        "assert not {'numpy', 'genai_prices', 'pydantic'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_genai_prices_other_models_are_unknown() -> None:
    code = (
        "import sys; sys.modules['genai_prices'] = None\n"
        "from semcache.money.prices import Prices; from semcache.types import Usage\n"
        "assert Prices().cost('gpt-3.5-turbo', Usage(4, 0)) is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_genai_prices_fills_in_where_it_is_installed() -> None:
    genai_prices = pytest.importorskip("genai_prices")
    prices = Prices()
    usages = [Usage(1000, 200), Usage(1000, 200, 300, 100), Usage(500_000, 1000, 400_000)]
    for model in ("gpt-3.5-turbo", "gpt-5.5-pro", "grok-4.20", "claude-3-5-haiku-20241022", "command-r"):
        found = prices.find(model)
        assert found is not None
        assert found.id.startswith("genai-prices-")
        for usage in usages:
            theirs = genai_prices.calc_price(
                genai_prices.Usage(
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    cache_read_tokens=usage.cache_read_tokens or None,
                    cache_write_tokens=usage.cache_write_tokens or None,
                ),
                model,
            ).total_price
            assert prices.cost(model, usage) == int((theirs * MILLION).quantize(Decimal(1), ROUND_HALF_EVEN))


def test_batches_and_writes_for_an_hour_are_priced_by_genai_prices_too() -> None:
    pytest.importorskip("genai_prices")
    price = Prices().find("claude-3-5-haiku-20241022")  # $0.80 in, $4 out
    assert price is not None
    assert price.cost(Usage(1000, 0, 0, 1000, 0, 1000)) == 1600
    batched = Prices().find("o3-mini")  # $1.10 in, $4.40 out
    assert batched is not None
    assert batched.batch is not None
    assert batched.batch.cost(Usage(1000, 100)) == 550 + 220
    other = Prices().find("claude-3-5-haiku-20241022")
    assert other is not None
    assert other.batch is None


def test_invented_names_do_not_fill_the_memory() -> None:
    prices = Prices()
    for n in range(5_000):
        prices.cost(f"gpt-5-mini-x{n}", Usage(1))
    assert len(prices._known) <= 4096
