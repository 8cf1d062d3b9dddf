"""What the calls of a log cost with a model, with the cache and without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from semcache.money.estimates import BAND, Meter, guess_prompt
from semcache.tuning.replay import request_of
from semcache.types import Reply, Usage

if TYPE_CHECKING:
    from semcache.money.prices import ModelPrice, Prices
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.replay import Replay

_LOG: Final = "log"


class Counted(NamedTuple):
    """Tokens of the records of a log, in its order.

    Args:
        usages: As the log says, or estimates.
        unanswered: Records of which neither usage nor answer is known: their answer is taken to be as long as the
            others' are on average, and left out if there are no others.
    """

    usages: Sequence[Usage]
    unanswered: int

    @property
    def estimated(self) -> int:
        """How many of the usages are estimates."""
        return sum(usage.estimated for usage in self.usages)


class Amount(NamedTuple):
    """Micro-dollars, and the least and the most that they may be by the band of estimates."""

    usd_micro: int
    low: int
    high: int

    def to_dict(self) -> dict[str, float]:
        """JSON-ready, in dollars."""
        return {"usd": self.usd_micro / 1e6, "low": self.low / 1e6, "high": self.high / 1e6}


class ModelCost(NamedTuple):
    """What a log costs with one model; amounts are ``None`` where its price is unknown.

    ``without``: each request is a call. ``paid``: those are that the cache does not answer.
    """

    model: str
    price_id: str | None
    without: Amount | None
    paid: Amount | None
    saved: Amount | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        amounts = {"without_cache": self.without, "with_cache": self.paid, "saved": self.saved}
        told = {name: amount and amount.to_dict() for name, amount in amounts.items()}
        return {"model": self.model, "price_id": self.price_id, **told}


def count_tokens(records: Sequence[LogRecord]) -> Counted:
    """The tokens of each record, by the log's own usage or else by an estimate that the log's own usages correct."""
    meter = Meter()
    requests = [replace(request_of(record), model=_LOG) for record in records]
    for record, request in zip(records, requests, strict=True):
        if record.usage is not None:
            meter.usage(
                request, Reply(None, None if record.answer is None else orjson.dumps(record.answer), record.usage)
            )
    usages = [
        record.usage or meter.estimate(_LOG, guess_prompt(request), record.answer or "")
        for record, request in zip(records, requests, strict=True)
    ]
    unanswered = [record.usage is None and record.answer is None for record in records]
    known = [usage.output_tokens for usage, missing in zip(usages, unanswered, strict=True) if not missing]
    usual = round(fmean(known)) if known else 0
    return Counted(
        [
            usage._replace(output_tokens=usual) if missing else usage
            for usage, missing in zip(usages, unanswered, strict=True)
        ],
        sum(unanswered),
    )


def cost_with(model: str, counted: Counted, replay: Replay, prices: Prices) -> ModelCost:
    """What a log that was replayed costs with a model.

    The tokens are those of the log, though another model may cut the same text into some more or fewer.
    """
    price = prices.find(model)
    if price is None:
        return ModelCost(model, None, None, None, None)
    spared = [usage for usage, one in zip(counted.usages, replay.played, strict=True) if one.layer is not None]
    without, saved = _sum(price, counted.usages), _sum(price, spared)
    paid = Amount(*(all_ - some for all_, some in zip(without, saved, strict=True)))
    return ModelCost(model, price.id, without, paid, saved)


def _sum(price: ModelPrice, usages: Sequence[Usage]) -> Amount:
    return Amount(
        *(sum(price.cost(_scaled(usage, by)) for usage in usages) for by in (1.0, 1.0 - BAND, 1.0 + BAND)),
    )


def _scaled(usage: Usage, by: float) -> Usage:
    if not usage.estimated or by == 1.0:
        return usage
    return Usage(round(usage.input_tokens * by), round(usage.output_tokens * by))
