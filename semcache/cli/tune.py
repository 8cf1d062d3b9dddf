"""``semcache tune``."""

from __future__ import annotations

from dataclasses import dataclass
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
    from semcache.tuning.prepare import Prepared, Space, SwitchOff
    from semcache.tuning.remembered import Remembered
    from semcache.tuning.tune import Table, Tuning

MAX_REPLAYS: Final = 8
"""Settings tested on a log, in each slice: every test is a whole replay."""

_TABLES: Final[dict[str, Table]] = {"namespace": "namespaces", "category": "categories", "language": "languages"}

_ANSWERS: Final = (
    "Of a log: closed also tries to let near questions with one answer vouch for it, where answers come from a limited "
    "set and are equal where they mean the same. Default: as the policy says."
)
_SWITCH_OFF: Final = (
    "Guards that may be switched off where your labels speak for it: wording, question, surplus and order (soft); none;"
    " or, besides, all at once, which leaves the cosine alone (all)."
)
_SLICE_BY: Final = (
    "Rules of its own for each namespace, category (the field of that name, unless one is given) or detected language "
    "that has enough data."
)
_START: Final = "Of a log: test on a cache that the earlier half has filled (warm), or on an empty one (cold)."


@dataclass(frozen=True)
class _Choice:
    """What is tried, and on what."""

    slice_by: str | None
    space: Space
    cold: bool

    @property
    def table(self) -> Table:
        return _TABLES[self.slice_by or "namespace"]

    def started(self, read: Data) -> str:
        """What the figures of a log are about; empty of pairs."""
        if not read.records:
            return ""
        half = len(read.records) // 2
        filled = "was empty at first" if self.cold else f"{half:,} earlier requests had filled"
        return f"Tested on a cache that {filled}."


@click.command()
@data_options
@budget_options
@confidence_option(default=0.95, show_default=True)
@click.option("--group-field", metavar="FIELD", help="Pairs: keep those of one value together in the split.")
@click.option("--slice-by", type=click.Choice(list(_TABLES)), help=_SLICE_BY)
@policy_option("Start from this policy: all but its thresholds and soft guards is kept.")
@click.option("--answers", type=click.Choice(["free", "closed"]), help=_ANSWERS)
@click.option(
    "--switch-off", type=click.Choice(["none", "soft", "all"]), default="soft", show_default=True, help=_SWITCH_OFF
)
@click.option("--start", type=click.Choice(["warm", "cold"]), default="warm", show_default=True, help=_START)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, writable=True), help="Policy to write.")
@json_option
def tune(
    data: Source,
    max_false_hit_rate: float | None,
    max_unsafe_rate: float | None,
    confidence: float,
    slice_by: str | None,
    policy_file: str | None,
    answers: str | None,
    switch_off: SwitchOff,
    start: str,
    output: str,
    as_json: bool,
) -> None:
    """Choose thresholds that are shown to keep a budget of wrong hits, and write a policy.

    PAIRS-or-LOG is a file of labelled pairs (a, b, label) or a log with answer classes, as for replay. On one half of
    it, of a log the earlier, the scoring is fitted, and the order set in which thresholds, least probabilities and
    guards to switch off are tried; the other half is the test. Only semantic hits count, of a log those of real
    replays. That nothing passes is a result too: the policy then keeps the semantic tier off.
    """
    from semcache.policy import Policy
    from semcache.tuning.prepare import Space

    wanted = budget(max_false_hit_rate, max_unsafe_rate, confidence)
    if wanted is None:
        raise click.UsageError("give a budget: --max-false-hit-rate or --max-unsafe-rate")
    if not Path(output).absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder for {output}", param_hint="--output")
    base = Policy() if policy_file is None else Policy.load(policy_file)
    closed = None if answers is None else answers == "closed"
    choice = _Choice(slice_by, Space(closed, switch_off), start == "cold")
    read = data.sliced(slice_by).read()
    embedder = installed_embedder()
    prepared = _prepared(read, base, embedder, choice)
    tuning = _tuned(prepared, wanted, choice)
    made = tuning.policy(
        prepared.policy,
        fingerprint=embedder.fingerprint,
        data=read.names,
        date=datetime.now(timezone.utc).date().isoformat(),
        note=choice.started(read),
    )
    made.save(output)
    if as_json:
        print_json({**tuning.to_dict(), "start": start, "scoring_fitted_to": prepared.fitted_to, "policy": output})
    else:
        _show(tuning, prepared.fitted_to, choice.started(read), output)


def _prepared(data: Data, base: Policy, embedder: Remembered, choice: _Choice) -> Prepared:
    from semcache.errors import InputError
    from semcache.tuning.prepare import of_log, of_pairs

    if data.records:
        if all(record.label is None for record in data.records):
            raise InputError("no record has an answer class; semcache label makes labelled pairs", path=data.names[0])
        remember_log(data.records, embedder)
        return of_log(data.records, base, embedder, space=choice.space, slice_by=choice.table, cold=choice.cold)
    labelled = [pair for pair in data.pairs if pair.right is not None]
    if not labelled:
        raise InputError("no pair has a label; semcache label makes some", path=data.names[0])
    if choice.space.closed:
        raise click.UsageError("--answers closed needs a log: a pair has no near questions that could vouch")
    if choice.cold:
        raise click.UsageError("--start cold needs a log: pairs fill no cache")
    with progress("judging", len(labelled)) as advance:
        return of_pairs(labelled, base, embedder, advance, space=choice.space, slice_by=choice.table)


def _tuned(prepared: Prepared, wanted: Budget, choice: _Choice) -> Tuning:
    from semcache.tuning.choose import MOST_TESTS
    from semcache.tuning.tune import tune as choose
    from semcache.tuning.tune import tune_together

    if prepared.shared is not None:
        return tune_together(prepared.shared, prepared.policy, choice.table, wanted, max_tests=MAX_REPLAYS)
    most = MOST_TESTS if prepared.costless else MAX_REPLAYS
    return choose(prepared.parts, wanted, sliced=choice.slice_by is not None, max_tests=most, table=choice.table)


def _show(tuning: Tuning, fitted_to: int, started: str, output: str) -> None:
    from semcache.tuning.bounds import percent
    from semcache.tuning.tune import describe

    if fitted_to:
        click.echo(f"The scoring was fitted to {fitted_to:,} pairs of the earlier half.")
    for one in tuning.slices:
        click.echo(safe(describe(one)))
    if started:
        click.echo(started)
    claim = f"at most {percent(tuning.budget.rate)} of {tuning.budget.per} wrong"
    if tuning.semantic:
        together = "" if len(tuning.slices) == 1 else ", for each slice, all together"
        click.echo(f"Shown: {claim}, at {percent(tuning.budget.confidence)} confidence{together}.")
        if tuning.rest_off:
            click.echo("What is in none of these slices is not matched by meaning.")
    else:
        click.echo(f"Not shown: {claim}. The policy keeps the semantic tier off.")
    click.echo(f"Written to {output}")
