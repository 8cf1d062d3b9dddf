"""What a call costs, in whole millionths of a dollar.

A price in USD per million tokens is the same number in micro-dollars per token. Rates are kept as whole
pico-dollars per token, so that the arithmetic is exact and is rounded once, half to even, at the end.

Three sources, in this order: the user's own file, the dated table of this package (``data/prices.json``), and
the package ``genai-prices`` if it is installed. A model that none of them knows costs ``None``, never 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple

from semcache.errors import ConfigurationError
from semcache.types import Usage

_PICO_PER_MICRO: Final = 1_000_000
_MODELS_REMEMBERED: Final = 4096

# How vendors, clouds and routers dress up a model's name without changing its list price.
_ROUTE = re.compile(
    r"^(?:models|openai|azure|anthropic|google|gemini|vertex_ai|bedrock|deepseek|mistral|xai|openrouter)/"
)
_REGION = re.compile(r"^(?:(?:us|eu|apac|jp|au|global)\.)?anthropic\.")
_RELEASE = re.compile(r"(?:[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|latest)|-00\d)?(?:-v\d+(?::\d+)?)?$")


class Rates(NamedTuple):
    """Whole pico-dollars per token, by the way a token was counted."""

    uncached: int
    read: int
    write: int
    output: int


class ModelPrice(NamedTuple):
    """The price of one model.

    Args:
        source: Where the price is from: a file with its date, or a package with its version.
        base: Rates of a call of ordinary length.
        longer: ``(tokens, rates)``, rising: a call with more input tokens than that pays these rates for
            all its tokens, as vendors do.
    """

    source: str
    base: Rates
    longer: tuple[tuple[int, Rates], ...] = ()

    def cost(self, usage: Usage) -> int:
        """Micro-dollars of a call, rounded half to even."""
        rates = self.base
        for tokens, dearer in self.longer:
            if usage.input_tokens > tokens:
                rates = dearer
        read, write = usage.cache_read_tokens, usage.cache_write_tokens
        pico = (
            (usage.input_tokens - read - write) * rates.uncached
            + read * rates.read
            + write * rates.write
            + usage.output_tokens * rates.output
        )
        micro, rest = divmod(pico, _PICO_PER_MICRO)
        half = _PICO_PER_MICRO // 2
        return micro + (rest > half or (rest == half and micro & 1))


class Prices:
    """Prices of models by name.

    Names match whatever release date, region or router prefix they carry: ``claude-opus-5-5-20261001`` and
    ``us.anthropic.claude-opus-5-5-20261001-v1:0`` are ``claude-opus-5-5``, unless the table names the dated
    model itself.

    Args:
        override: A JSON file of the same shape as ``semcache/data/prices.json``; its models win.

    Raises:
        ConfigurationError: The file cannot be read or holds something that is not a price; the message names
            the file, the model and the field.
    """

    def __init__(self, override: str | PathLike[str] | None = None) -> None:
        self._table = dict(_own_table())
        if override is not None:
            self._table |= _read_override(Path(override))
        self._known: dict[str, ModelPrice | None] = {}

    def cost(self, model: str | None, usage: Usage) -> int | None:
        """Micro-dollars of a call, or ``None`` if the price of the model is not known."""
        if model is None:
            return None
        try:
            price = self._known[model]
        except KeyError:
            price = self.find(model)
        return None if price is None else price.cost(usage)

    def find(self, model: str) -> ModelPrice | None:
        """The price of a model, looked up once: a price that varies by the hour stays as it was then."""
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


@cache
def _own_file() -> dict[str, Any]:
    text = resources.files("semcache").joinpath("data/prices.json").read_text(encoding="utf-8")
    return dict(json.loads(text, parse_float=Decimal))


@cache
def _own_table() -> dict[str, ModelPrice]:
    data = _own_file()
    return _table(data["models"], source=f"semcache {data['as_of']}")


def _read_override(path: Path) -> dict[str, ModelPrice]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), parse_float=Decimal)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot read the price file: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: the price file is not JSON: {error}") from error
    models = data.get("models") if isinstance(data, dict) else None
    if not isinstance(models, dict):
        raise ConfigurationError(f'{path}: expected {{"models": {{"NAME": {{"input": …, "output": …}}}}}}')
    try:
        return _table(models, source=str(path))
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _table(models: Mapping[str, Any], source: str) -> dict[str, ModelPrice]:
    table: dict[str, ModelPrice] = {}
    for name, row in models.items():
        try:
            unknown = row.keys() - {"input", "output", "read", "write", "above", "aliases"}
            if unknown:
                raise ValueError(f"unknown field {min(unknown)!r}")
            read, write = _number(row, "read", default=1), _number(row, "write", default=1)
            steps = sorted(row.get("above", ()), key=lambda step: _number(step, "tokens"))
            longer = tuple((int(step["tokens"]), _rates(step, read, write)) for step in steps)
            price = ModelPrice(source, _rates(row, read, write), longer)
            names = [alias.lower() for alias in (name, *row.get("aliases", ()))]
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"model {name!r}: {error}") from error
        table |= dict.fromkeys(names, price)
    return table


def _rates(row: Mapping[str, Any], read: Decimal, write: Decimal) -> Rates:
    price, output = _number(row, "input"), _number(row, "output")
    return Rates(_pico(price), _pico(price * read), _pico(price * write), _pico(output))


def _number(row: Mapping[str, Any], field: str, default: int | None = None) -> Decimal:
    value = row.get(field, default)
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value < 0:
        raise ValueError(f"{field} must be a number >= 0, got {value!r}")
    return Decimal(value)


def _pico(usd_per_million: Decimal) -> int:
    return int((usd_per_million * _PICO_PER_MICRO).to_integral_value())


def _from_genai_prices(model: str) -> ModelPrice | None:
    try:
        import genai_prices
    except ImportError:
        return None
    try:
        found = genai_prices.calc_price(genai_prices.Usage(input_tokens=1), model).model_price
    except LookupError:
        return None
    plain, output = found.input_mtok, found.output_mtok
    if plain is None or output is None:
        return None
    # A provider that names no price for its prompt cache charges those tokens as plain input.
    read, write = (plain if price is None else price for price in (found.cache_read_mtok, found.cache_write_mtok))
    prices = (plain, read, write, output)
    steps = sorted({step.start for price in prices for step in getattr(price, "tiers", ())})

    def rates(tokens: int) -> Rates:
        return Rates(*(_pico(_at_length(price, tokens)) for price in prices))

    longer = tuple((start, rates(start + 1)) for start in steps)
    return ModelPrice(f"genai-prices {genai_prices.__version__}", rates(0), longer)


def _at_length(price: Any, tokens: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    reached = [step.price for step in price.tiers if tokens > step.start]
    return Decimal(reached[-1] if reached else price.base)
