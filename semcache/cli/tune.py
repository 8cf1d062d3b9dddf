"""``semcache tune``."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from semcache.cli._common import json_option, print_json, safe
from semcache.cli._tuning import (
    Data,
    Source,
    budget,
    budget_options,
    confidence_option,
    data_options,
    installed_embedder,
    policy_option,
    progress,
    remember_log,
)

if TYPE_CHECKING:
    from semcache.policy import Policy
    from semcache.tuning.prepare import Prepared
    from semcache.tuning.remembered import Remembered
    from semcache.tuning.tune import Tuning

MAX_REPLAYS: Final = 8
"""Settings tested on a log, in each slice: every test is a whole replay."""

_ANSWERS: Final = (
    "Of a log: closed also tries to let near questions with one answer vouch for it, where answers come from a limited "
    "set and are equal where they mean the same. Default: as the policy says."
)


@click.command()
@data_options
@budget_options
@confidence_option(default=0.95, show_default=True)
@click.option("--group-field", metavar="FIELD", help="Pairs: keep those of one value together in the split.")
@policy_option("Start from this policy: its guards and all else but the thresholds are kept.")
@click.option("--answers", type=click.Choice(["free", "closed"]), help=_ANSWERS)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, writable=True), help="Policy to write.")
@json_option
def tune(
    data: Source,
    max_false_hit_rate: float | None,
    max_unsafe_rate: float | None,
    confidence: float,
    policy_file: str | None,
    answers: str | None,
    output: str,
    as_json: bool,
) -> None:
    """Choose thresholds that are shown to keep a budget of wrong hits, and write a policy.

    PAIRS-or-LOG is a file of labelled pairs (a, b, label) or a log with answer classes, as for replay. On one half of
    it, of a log the earlier, the scoring is fitted, and the order set in which thresholds and least probabilities are
    tried; the other half is the test. Only semantic hits count, of a log those of real replays. That nothing passes is
    a result too: the policy then keeps the semantic tier off.
    """
    from semcache.policy import Policy
    from semcache.tuning.choose import MOST_TESTS
    from semcache.tuning.tune import tune as choose

    wanted = budget(max_false_hit_rate, max_unsafe_rate, confidence)
    if wanted is None:
        raise click.UsageError("give a budget: --max-false-hit-rate or --max-unsafe-rate")
    if not Path(output).absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder for {output}", param_hint="--output")
    base = Policy() if policy_file is None else Policy.load(policy_file)
    read = data.read()
    embedder = installed_embedder()
    prepared = _prepared(read, base, embedder, closed=None if answers is None else answers == "closed")
    most = MAX_REPLAYS if read.records else MOST_TESTS
    tuning = choose(prepared.parts, wanted, sliced=data.pair_fields.slice_by is not None, max_tests=most)
    today = datetime.now(timezone.utc).date().isoformat()
    tuning.policy(prepared.policy, fingerprint=embedder.fingerprint, data=read.names, date=today).save(output)
    if as_json:
        print_json({**tuning.to_dict(), "scoring_fitted_to": prepared.fitted_to, "policy": output})
    else:
        _show(tuning, prepared.fitted_to, output)


def _prepared(data: Data, base: Policy, embedder: Remembered, *, closed: bool | None) -> Prepared:
    from semcache.errors import InputError
    from semcache.tuning.prepare import of_log, of_pairs

    if data.records:
        if all(record.label is None for record in data.records):
            raise InputError("no record has an answer class; semcache label makes labelled pairs", path=data.names[0])
        remember_log(data, embedder)
        return of_log(data.records, base, embedder, closed=closed)
    labelled = [pair for pair in data.pairs if pair.right is not None]
    if not labelled:
        raise InputError("no pair has a label; semcache label makes some", path=data.names[0])
    if closed:
        raise click.UsageError("--answers closed needs a log: a pair has no near questions that could vouch")
    with progress("judging", len(labelled)) as advance:
        return of_pairs(labelled, base, embedder, advance)


def _show(tuning: Tuning, fitted_to: int, output: str) -> None:
    from semcache.tuning.bounds import percent
    from semcache.tuning.tune import describe

    if fitted_to:
        click.echo(f"The scoring was fitted to {fitted_to:,} pairs of the earlier half.")
    for one in tuning.slices:
        click.echo(safe(describe(one)))
    claim = f"at most {percent(tuning.budget.rate)} of {tuning.budget.per} wrong"
    if tuning.semantic:
        together = "" if len(tuning.slices) == 1 else ", for all slices together"
        click.echo(f"Shown: {claim}, at {percent(tuning.budget.confidence)} confidence{together}.")
    else:
        click.echo(f"Not shown: {claim}. The policy keeps the semantic tier off.")
    click.echo(f"Written to {output}")
