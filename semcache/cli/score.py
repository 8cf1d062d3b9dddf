"""``semcache score``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from semcache.cli._common import console, json_option, print_json, safe
from semcache.cli._tuning import installed_embedder, pair_options, policy_option, progress

if TYPE_CHECKING:
    from semcache.report import Rate
    from semcache.tuning.pairs import PairFields
    from semcache.tuning.scoring import Scored, Totals

_SHOWN = 10


@click.command()
@click.argument("pairs", nargs=-1, required=True, type=click.Path(), metavar="PAIRS...")
@pair_options
@policy_option("Judge by this policy file.")
@json_option
def score(
    pairs: tuple[str, ...],
    fields: PairFields,
    policy_file: str | None,
    as_json: bool,
) -> None:
    """Judge pairs of texts: would the answer to the second be served to the first?

    PAIRS is JSON Lines, or CSV with a header, gzip-compressed or not. Where pairs have a label, right and wrong
    decisions are counted. A bad line ends the command with exit code 2.
    """
    from semcache.policy import Policy
    from semcache.tuning.pairs import read_pairs
    from semcache.tuning.scoring import Totals
    from semcache.tuning.scoring import score as judged

    policy = Policy() if policy_file is None else Policy.load(policy_file)
    read = read_pairs(pairs, fields)
    embedder = installed_embedder()
    policy.check_embedder(embedder.fingerprint)
    with progress("judging", len(read)) as advance:
        scored = list(judged(read, policy, embedder, advance))
    totals = Totals.of(scored)
    if as_json:
        print_json({**totals.to_dict(), "pairs": [one.to_dict() for one in scored]})
    else:
        _show(totals, scored)


def _show(totals: Totals, scored: list[Scored]) -> None:
    from rich.table import Table

    out = console()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("pairs", f"{totals.pairs:,}", f"{totals.positives:,} right, {totals.negatives:,} wrong by the labels")
    table.add_row("accepted", f"{totals.accepted:,}", "")
    table.add_row("right", f"{totals.right:,}", "")
    table.add_row("wrong", f"{totals.wrong:,}", "")
    table.add_row("recall", *_rate(totals.recall, "right pairs that are accepted"))
    table.add_row("false-accept rate", *_rate(totals.false_accept_rate, "wrong pairs that are accepted"))
    table.add_row("false-hit rate", *_rate(totals.false_hit_rate, "accepted pairs that are wrong"))
    out.print(table)
    wrong = [one for one in scored if one.accepted and one.pair.right is False]
    if wrong:
        out.print()
        listed = Table("similarity", "asked", "stored", title="Wrongly accepted, most similar first", box=None)
        for one in sorted(wrong, key=lambda one: one.similarity or 0.0, reverse=True)[:_SHOWN]:
            listed.add_row(f"{one.similarity:.4f}", safe(one.pair.a), safe(one.pair.b))
        out.print(listed)


def _rate(rate: Rate, what: str) -> tuple[str, str]:
    if rate.value is None:
        return "?", "no such pairs"
    return f"{rate.value:.2%}", f"{what}; 95 % interval {rate.low:.2%}–{rate.high:.2%}"
