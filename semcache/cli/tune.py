"""``semcache tune``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
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
    from semcache.tuning.bounds import Budget
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.remembered import Remembered
    from semcache.tuning.tune import Part, Tuning

MAX_REPLAYS: Final = 8
"""Thresholds tested on a log, in each slice: every test is a whole replay."""


@click.command()
@data_options
@budget_options
@confidence_option(default=0.95, show_default=True)
@click.option("--group-field", metavar="FIELD", help="Pairs: keep those of one value together in the split.")
@policy_option("Start from this policy: its guards and all else but the thresholds are kept.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, writable=True), help="Policy to write.")
@json_option
def tune(
    data: Source,
    max_false_hit_rate: float | None,
    max_unsafe_rate: float | None,
    confidence: float,
    policy_file: str | None,
    output: str,
    as_json: bool,
) -> None:
    """Choose thresholds that are shown to keep a budget of wrong hits, and write a policy.

    PAIRS-or-LOG is a file of labelled pairs (a, b, label) or a log with answer classes, as for replay. One half of it,
    of a log the earlier, sets the order in which thresholds are tried; the other half is the test. Only semantic
    hits count, of a log those of real replays. That no threshold passes is a result too: the policy then keeps the
    semantic tier off.
    """
    from semcache.policy import Policy

    wanted = budget(max_false_hit_rate, max_unsafe_rate, confidence)
    if wanted is None:
        raise click.UsageError("give a budget: --max-false-hit-rate or --max-unsafe-rate")
    if not Path(output).absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder for {output}", param_hint="--output")
    base = Policy() if policy_file is None else Policy.load(policy_file)
    read = data.read()
    embedder = installed_embedder()
    tuning = _tune(read, wanted, base, embedder, sliced=data.pair_fields.slice_by is not None)
    today = datetime.now(timezone.utc).date().isoformat()
    tuning.policy(base, fingerprint=embedder.fingerprint, data=read.names, date=today).save(output)
    if as_json:
        print_json({**tuning.to_dict(), "policy": output})
    else:
        _show(tuning, output)


def _tune(data: Data, wanted: Budget, base: Policy, embedder: Remembered, *, sliced: bool) -> Tuning:
    from semcache.tuning.tune import tune as choose

    if data.pairs:
        return choose(_halves(data, base, embedder), wanted, sliced=sliced)
    return choose(_streams(data, base, embedder), wanted, sliced=sliced, max_tests=MAX_REPLAYS)


def _halves(data: Data, base: Policy, embedder: Remembered) -> dict[str, Part]:
    from semcache.errors import InputError
    from semcache.tuning.pairs import grouped_split
    from semcache.tuning.tune import halves

    labelled = [pair for pair in data.pairs if pair.right is not None]
    if not labelled:
        raise InputError("no pair has a label; semcache label makes some", path=data.names[0])
    with progress("judging", len(labelled)) as advance:
        return halves(*grouped_split(labelled), base, embedder, advance)


def _streams(data: Data, base: Policy, embedder: Remembered) -> dict[str, Part]:
    from semcache.errors import InputError
    from semcache.tuning.streams import Stream

    if all(record.label is None for record in data.records):
        raise InputError("no record has an answer class; semcache label makes labelled pairs", path=data.names[0])
    remember_log(data, embedder)
    middle = len(data.records) // 2
    earlier, later = _by_namespace(data.records[:middle]), _by_namespace(data.records[middle:])
    names = sorted({*earlier, *later})
    return {name: Stream(earlier.get(name, []), later.get(name, []), base, embedder) for name in names}


def _by_namespace(records: Sequence[LogRecord]) -> dict[str, list[LogRecord]]:
    found: dict[str, list[LogRecord]] = defaultdict(list)
    for record in records:
        found[record.namespace or ""].append(record)
    return found


def _show(tuning: Tuning, output: str) -> None:
    from semcache.tuning.bounds import percent
    from semcache.tuning.tune import describe

    for one in tuning.slices:
        click.echo(safe(describe(one)))
    claim = f"at most {percent(tuning.budget.rate)} of {tuning.budget.per} wrong"
    if tuning.semantic:
        together = "" if len(tuning.slices) == 1 else ", for all slices together"
        click.echo(f"Shown: {claim}, at {percent(tuning.budget.confidence)} confidence{together}.")
    else:
        click.echo(f"Not shown: {claim}. The policy keeps the semantic tier off.")
    click.echo(f"Written to {output}")
