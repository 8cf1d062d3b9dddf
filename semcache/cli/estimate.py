"""``semcache estimate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from semcache.cli._common import console, json_option, print_json, safe, warn
from semcache.cli._money import usd
from semcache.cli._tuning import installed_embedder, policy_option
from semcache.cli._tuning import progress as one_bar
from semcache.money.prices import dollars

if TYPE_CHECKING:
    from semcache.tuning.costs import Amount, Counted, ModelCost
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.replay import Replay


@click.command()
@click.argument("logs", nargs=-1, required=True, type=click.Path(), metavar="LOG...")
@click.option("--model", "models", multiple=True, required=True, help="A model to price the log with; repeat it.")
@policy_option("Replay under this policy file.")
@click.option(
    "--prices", "price_file", type=click.Path(exists=True, dir_okay=False), help="Your own prices, JSON or TOML."
)
@click.option("--text-field", metavar="FIELD", help="Where the log has the question; default: messages or text.")
@click.option("--answer-field", metavar="FIELD", help="Where it has the answer; default: that in response.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many records.")
@json_option
def estimate(
    logs: tuple[str, ...],
    models: tuple[str, ...],
    policy_file: str | None,
    price_file: str | None,
    text_field: str | None,
    answer_field: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Estimate what a log costs with and without the cache, for each of some models.

    The log is replayed as by `semcache replay`. Tokens are those that it reports; where it does not, they are estimated
    from the texts, and the amounts get a band.
    """
    from semcache.money.prices import Prices
    from semcache.tuning.costs import cost_with, count_tokens
    from semcache.tuning.logs import Fields, in_time_order, read_logs

    prices = Prices(price_file)
    records = in_time_order(list(read_logs(logs, Fields(text=text_field, answer=answer_field))))[:limit]
    played = _play(records, policy_file)
    counted = count_tokens(records)
    costs = [cost_with(model, counted, played, prices) for model in dict.fromkeys(models)]
    if not as_json:
        _show(costs, counted, played)
        return
    books = played.report.books
    print_json(
        {
            "requests": books.requests,
            "hits": books.hits,
            "hit_rate": books.hit_rate,
            "estimated_requests": counted.estimated,
            "requests_without_answer": counted.unanswered,
            "models": [cost.to_dict() for cost in costs],
        }
    )


def _play(records: list[LogRecord], policy_file: str | None) -> Replay:
    from semcache.policy import Policy
    from semcache.tuning.replay import replay, replay_cache

    policy = Policy() if policy_file is None else Policy.load(policy_file)
    embedder = installed_embedder() if policy.any_semantic else None
    with (
        replay_cache(policy, embedder=embedder, on_event=warn) as cache,
        one_bar("replaying", len(records)) as advance,
    ):

        def replayed(phase: str, done: int) -> None:
            if phase == "replaying":
                advance(done)

        return replay(cache, records, replayed)


def _show(costs: list[ModelCost], counted: Counted, played: Replay) -> None:
    from rich.table import Table

    out, books = console(), played.report.books
    out.print(f"{books.requests:,} requests, of which the cache answers {books.hits:,} ({books.hit_rate or 0.0:.1%}).")
    table = Table("model", box=None, pad_edge=False)
    for title in ("without cache", "with cache", "saved"):
        table.add_column(title, justify="right", no_wrap=True)
    for cost in costs:
        cells = (_amount(amount) for amount in (cost.without, cost.paid, cost.saved))
        table.add_row(safe(cost.model), *cells)
    out.print(table)
    if counted.estimated:
        out.print(f"The tokens of {counted.estimated:,} requests are estimates, ±30 %.")
    if counted.unanswered:
        out.print(f"{counted.unanswered:,} requests have no answer in the log: one of average length is assumed.")
    if any(cost.without is None for cost in costs):
        out.print("A price that is not known can be set with --prices FILE.")


def _amount(amount: Amount | None) -> str:
    if amount is None:
        return usd(None)
    exact, low, high = map(dollars, amount)
    return exact if low == high else f"{exact} ({low}–{high})"
