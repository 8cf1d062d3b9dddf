from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import ConfigurationError
from semcache.prices import ModelPrice, Prices, Rates, as_of, plain_name
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
]


@pytest.mark.parametrize(("model", "usage", "micro"), BY_HAND)
def test_prices_by_hand(model: str, usage: Usage, micro: int) -> None:
    assert Prices().cost(model, usage) == micro


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
    tokens=st.tuples(*[st.integers(0, 10**9)] * 4),
    rates=st.tuples(*[st.integers(0, 10**9)] * 4),
)
def test_cost_is_exact_and_rounds_half_to_even(
    tokens: tuple[int, int, int, int], rates: tuple[int, int, int, int]
) -> None:
    uncached, read, write, output = tokens
    usage = Usage(uncached + read + write, output, read, write)
    exact = sum(Decimal(t * r) for t, r in zip(tokens, rates, strict=True)) / MILLION
    expected = int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))
    assert ModelPrice("test", Rates(*rates)).cost(usage) == expected


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
    assert found.source.endswith("prices.json")


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
    path = tmp_path / "torn.json"
    path.write_text('{"models": {')
    with pytest.raises(ConfigurationError, match="not JSON"):
        Prices(path)


def test_the_table_is_dated_and_every_row_is_usable() -> None:
    assert date.fromisoformat(as_of()) >= date(2026, 11, 21)
    prices = Prices()
    rows = prices._table
    assert len(rows) >= 40
    for name, price in rows.items():
        for rates in (price.base, *(longer for _, longer in price.longer)):
            assert 0 < rates.uncached <= rates.output, name
            assert 0 < rates.read <= rates.uncached <= rates.write <= 2 * rates.uncached, name


def test_prices_import_neither_numpy_nor_genai_prices_until_needed() -> None:
    code = (
        "import sys; from semcache.prices import Prices; from semcache.types import Usage\n"
        "assert Prices().cost('gpt-5-mini', Usage(4, 0)) == 1\n"
        "assert not {'numpy', 'genai_prices', 'pydantic'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_genai_prices_other_models_are_unknown() -> None:
    code = (
        "import sys; sys.modules['genai_prices'] = None\n"
        "from semcache.prices import Prices; from semcache.types import Usage\n"
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
        assert found.source.startswith("genai-prices ")
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


def test_invented_names_do_not_fill_the_memory() -> None:
    prices = Prices()
    for n in range(5_000):
        prices.cost(f"gpt-5-mini-x{n}", Usage(1))
    assert len(prices._known) <= 4096
