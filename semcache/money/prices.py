"""What a call costs, in whole millionths of a dollar.

A price in USD per million tokens is the same number in micro-dollars per token. Rates are kept as whole
pico-dollars per token, so that the arithmetic is exact and is rounded once per call, half to even, at the end: the one
rounding rule of the books.

Three sources, in this order: the user's own file, the dated table of this package (``data/prices.json``), and
the package ``genai-prices`` if it is installed. A model that none of them knows costs ``None``, never 0.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple

from semcache.errors import ConfigurationError
from semcache.types import Usage

ENVIRONMENT: Final = "SEMCACHE_PRICES"
"""Names the price file where none is given."""

CACHES_FROM: Final = 1024
"""Shortest prompt, in tokens, that a provider caches by itself, where a row does not say. OpenAI's least, 2026-09."""

_PICO_PER_MICRO: Final = 1_000_000
_MODELS_REMEMBERED: Final = 4096

# How vendors, clouds and routers dress up a model's name without changing its list price.
_ROUTE = re.compile(
    r"^(?:models|openai|azure|anthropic|google|gemini|vertex_ai|bedrock|converse|invoke|deepseek|mistral|xai|openrouter)/"
)
_REGION = re.compile(r"^(?:(?:us|eu|apac|jp|au|global)\.)?anthropic\.")
_RELEASE = re.compile(r"(?:[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|latest)|-00\d)?(?:-v\d+(?::\d+)?)?$")


class Rates(NamedTuple):
    """Whole pico-dollars per token, by the way a token was counted.

    ``write_long``: written for the longer of the two lifetimes on offer, see :class:`~semcache.types.Usage`.
    """

    uncached: int
    read: int
    write: int
    write_long: int
    output: int


class Cost(NamedTuple):
    """What one call cost, in micro-dollars, and what the provider's prompt cache had to do with it.

    The three add up to the list price: what the call costs where every input token is a plain one.

    Args:
        reads: What reads from the prompt cache saved.
        writes: What writes to it saved: the premium, so it is negative or 0.
    """

    usd_micro: int
    reads: int = 0
    writes: int = 0


class ModelPrice(NamedTuple):
    """The price of one model.

    Args:
        id: Table, row and date: ``semcache:gpt-5-mini@2026-11-21``.
        base: Rates of a call of ordinary length.
        longer: ``(tokens, rates)``, rising: a call with more input tokens than that pays these rates for
            all its tokens, as vendors do.
        caches_from: The provider caches prompts of so many tokens or more by itself and for free; ``None`` if it
            caches only what is marked.
        batch: The price in a batch file; ``None`` if it is not known.
    """

    id: str
    base: Rates
    longer: tuple[tuple[int, Rates], ...] = ()
    caches_from: int | None = None
    batch: ModelPrice | None = None

    def cost(self, usage: Usage) -> int:
        """Micro-dollars of a call as it was made, rounded half to even."""
        return self.split(usage).usd_micro

    def split(self, usage: Usage) -> Cost:
        """What a call cost as it was made, and what of the list price the prompt cache took off or put on."""
        rates = self._rates(usage.input_tokens)
        read, write, long = usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_long_tokens
        listed = usage.input_tokens * rates.uncached + usage.output_tokens * rates.output
        only_read = listed + read * (rates.read - rates.uncached)
        in_all = (
            only_read + (write - long) * (rates.write - rates.uncached) + long * (rates.write_long - rates.uncached)
        )
        paid = _micro(in_all)
        return Cost(paid, _micro(listed) - _micro(only_read), _micro(only_read) - paid)

    def again(self, usage: Usage, read_tokens: int | None = None) -> int:
        """Micro-dollars of the same call, had it been made once more.

        What the provider would have read from its prompt cache counts at that price. Where nobody can tell how much
        that is, it is taken to be all that the call read or wrote then, and a whole prompt that is long enough for a
        provider that caches by itself: the least that the call can have cost. No write premium is put on it.

        Args:
            read_tokens: Input tokens that the provider was expected to read.
        """
        if read_tokens is None:
            by_itself = self.caches_from is not None and usage.input_tokens >= self.caches_from
            marked = usage.cache_read_tokens + usage.cache_write_tokens
            read_tokens = usage.input_tokens if by_itself else marked
        rates, read = self._rates(usage.input_tokens), min(max(read_tokens, 0), usage.input_tokens)
        plain = (usage.input_tokens - read) * rates.uncached
        return _micro(plain + read * rates.read + usage.output_tokens * rates.output)

    def _rates(self, input_tokens: int) -> Rates:
        rates = self.base
        for tokens, dearer in self.longer:
            if input_tokens > tokens:
                rates = dearer
        return rates


class Prices:
    """Prices of models by name.

    Names match whatever release date, region or router prefix they carry: ``claude-opus-5-5-20261001`` and
    ``us.anthropic.claude-opus-5-5-20261001-v1:0`` are ``claude-opus-5-5``, unless the table names the dated
    model itself.

    Args:
        override: A file of the same shape as ``semcache/data/prices.json``, JSON or (by its suffix) TOML; its models
            win. Default: the file that the environment variable ``SEMCACHE_PRICES`` names, if any.

    Raises:
        ConfigurationError: The file cannot be read or holds something that is not a price; the message names
            the file, the model and the field.
    """

    def __init__(self, override: str | PathLike[str] | None = None) -> None:
        override = override or os.environ.get(ENVIRONMENT) or None
        self._table = dict(_own_table())
        if override is not None:
            self._table |= _read_override(Path(override))
        self._known: dict[str, ModelPrice | None] = {}

    def cost(self, model: str | None, usage: Usage, *, batch: bool = False) -> int | None:
        """Micro-dollars of a call, or ``None`` if the price of the model, or of its batches, is not known."""
        price = self.find(model)
        if price is not None and batch:
            price = price.batch
        return None if price is None else price.cost(usage)

    def find(self, model: str | None) -> ModelPrice | None:
        """The price of a model, looked up once: a price that varies by the hour stays as it was then."""
        if model is None:
            return None
        try:
            return self._known[model]
        except KeyError:
            pass
        name = model.lower()
        price = self._table.get(name) or self._table.get(plain_name(name)) or _from_genai_prices(model)
        if len(self._known) >= _MODELS_REMEMBERED:
            # Names come from callers: without a bound, a caller who invents names would fill the memory.
            self._known.clear()
        self._known[model] = price
        return price


def plain_name(model: str) -> str:
    """A model's name without router prefix, region and release date."""
    name = model.lower()
    while (shorter := _ROUTE.sub("", name)) != name:
        name = shorter
    return _RELEASE.sub("", _REGION.sub("", name))


def as_of() -> str:
    """The day, ISO 8601, on which the table of this package was checked."""
    return str(_own_file()["as_of"])


def dollars(usd_micro: int) -> str:
    """Money as people read it: with four places below a dollar, else with two."""
    sign, amount = ("-" if usd_micro < 0 else ""), Decimal(abs(usd_micro)).scaleb(-6)
    return f"{sign}${amount:,.4f}" if amount < 1 else f"{sign}${amount:,.2f}"


def _micro(pico: int) -> int:
    micro, rest = divmod(pico, _PICO_PER_MICRO)
    half = _PICO_PER_MICRO // 2
    return micro + (rest > half or (rest == half and micro & 1))


@cache
def _own_file() -> dict[str, Any]:
    text = resources.files("semcache").joinpath("data/prices.json").read_text(encoding="utf-8")
    return dict(json.loads(text, parse_float=Decimal))


@cache
def _own_table() -> dict[str, ModelPrice]:
    return _table(_own_file()["models"], source="semcache")


def _read_override(path: Path) -> dict[str, ModelPrice]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot read the price file: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: the price file is not UTF-8: {error}") from error
    is_toml = path.suffix.lower() == ".toml"
    try:
        data = _parse_toml(text) if is_toml else json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise ConfigurationError(f"{path}: the price file is not {'TOML' if is_toml else 'JSON'}: {error}") from error
    models = data.get("models") if isinstance(data, dict) else None
    if not isinstance(models, dict):
        shape = "[models.NAME] tables with input and output"
        expected = shape if is_toml else '{"models": {"NAME": {"input": …, "output": …}}}'
        raise ConfigurationError(f"{path}: expected {expected}")
    try:
        return _table(models, source=path.name)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _parse_toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text, parse_float=Decimal)


_FIELDS: Final = frozenset(
    {
        "input",
        "output",
        "read",
        "write",
        "write_long",
        "batch",
        "batch_read",
        "caches_from",
        "above",
        "aliases",
        "as_of",
    }
)


def _table(models: Mapping[str, Any], source: str) -> dict[str, ModelPrice]:
    table: dict[str, ModelPrice] = {}
    for name, row in models.items():
        try:
            price = _price(f"{source}:{name}", row)
            names = [alias.lower() for alias in (name, *row.get("aliases", ()))]
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"model {name!r}: {error}") from error
        table |= dict.fromkeys(names, price)
    return table


def _price(id: str, row: Mapping[str, Any]) -> ModelPrice:
    if unknown := row.keys() - _FIELDS:
        raise ValueError(f"unknown field {min(unknown)!r}")
    if "as_of" in row:
        id = f"{id}@{date.fromisoformat(str(row['as_of']))}"
    steps = sorted(row.get("above", ()), key=lambda step: _number(step, "tokens"))

    def price(id: str, share: Decimal, of_reads: Decimal) -> ModelPrice:
        longer = tuple((int(step["tokens"]), _rates(step, row, share, of_reads)) for step in steps)
        return ModelPrice(id, _rates(row, row, share, of_reads), longer, _caches_from(row))

    ordinary = price(id, Decimal(1), Decimal(1))
    if "batch" not in row:
        return ordinary
    share = _number(row, "batch")
    return ordinary._replace(batch=price(f"{id}/batch", share, _number(row, "batch_read", default=share)))


def _caches_from(row: Mapping[str, Any]) -> int | None:
    if "caches_from" in row:
        return int(_number(row, "caches_from"))
    # A discount on reads without a charge for writes: the provider caches unasked.
    return CACHES_FROM if _number(row, "read", default=1) < 1 and "write" not in row else None


def _rates(prices: Mapping[str, Any], multiples: Mapping[str, Any], share: Decimal, of_reads: Decimal) -> Rates:
    price = _number(prices, "input")
    write = _number(multiples, "write", default=1)
    return Rates(
        _pico(share * price),
        _pico(of_reads * price * _number(multiples, "read", default=1)),
        _pico(share * price * write),
        _pico(share * price * _number(multiples, "write_long", default=write)),
        _pico(share * _number(prices, "output")),
    )


def _number(row: Mapping[str, Any], field: str, default: Decimal | int | None = None) -> Decimal:
    value = row.get(field, default)
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not (value >= 0 and value < _TOO_MUCH):
        raise ValueError(f"{field} must be a number >= 0, got {value!r}")
    return Decimal(value)


_TOO_MUCH: Final = 10**9


def _pico(usd_per_million: Decimal) -> int:
    return int((usd_per_million * _PICO_PER_MICRO).to_integral_value())


def _from_genai_prices(model: str) -> ModelPrice | None:
    try:
        import genai_prices
    except ImportError:
        return None
    id = f"genai-prices-{genai_prices.__version__}:{model}"
    price = _genai_price(model, id)
    batch = None if price is None else _genai_price(model, f"{id}/batch", processing="batch")
    # Where no batch price is known, the package gives the ordinary one.
    if price is None or batch is None or batch[1:] == price[1:]:
        return price
    return price._replace(batch=batch)


def _genai_price(model: str, id: str, **context: str) -> ModelPrice | None:
    import genai_prices

    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1), model, price_context=context or None
        ).model_price
    except LookupError:
        return None
    plain, output = found.input_mtok, found.output_mtok
    if plain is None or output is None:
        return None
    # A provider that names no price for its prompt cache charges those tokens as plain input.
    read, write = (plain if price is None else price for price in (found.cache_read_mtok, found.cache_write_mtok))
    long = found.cache_write_1h_mtok
    prices = (plain, read, write, write if long is None else long, output)
    steps = sorted({step.start for price in prices for step in getattr(price, "tiers", ())})

    def rates(tokens: int) -> Rates:
        return Rates(*(_pico(_at_length(price, tokens)) for price in prices))

    longer = tuple((start, rates(start + 1)) for start in steps)
    by_itself = found.cache_read_mtok is not None and found.cache_write_mtok is None
    return ModelPrice(id, rates(0), longer, CACHES_FROM if by_itself else None)


def _at_length(price: Any, tokens: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    reached = [step.price for step in price.tiers if tokens > step.start]
    return Decimal(reached[-1] if reached else price.base)
