"""``semcache certify``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from semcache.cli._common import json_option, print_json
from semcache.cli._tuning import (
    Data,
    Source,
    budget,
    budget_options,
    confidence_option,
    data_options,
    installed_embedder,
    progress,
    remember_log,
)

if TYPE_CHECKING:
    from semcache.policy import Policy
    from semcache.tuning.bounds import Budget
    from semcache.tuning.certify import Certificate
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.remembered import Remembered


@click.command()
@click.argument("policy_file", type=click.Path(exists=True, dir_okay=False), metavar="POLICY.toml")
@data_options
@budget_options
@confidence_option()
@click.option(
    "--after", type=click.Path(), metavar="LOG", multiple=True, help="Logs that fill the cache first, uncounted."
)
@json_option
@click.pass_context
def certify(
    ctx: click.Context,
    policy_file: str,
    data: Source,
    after: tuple[str, ...],
    max_false_hit_rate: float | None,
    max_unsafe_rate: float | None,
    confidence: float | None,
    as_json: bool,
) -> None:
    """Check on new data that a policy still keeps its budget of wrong hits.

    The budget is that of the policy's evidence, unless you give one. Exit code 0 if the data show that it is kept, or
    nothing is served by meaning; 1 if it is broken, or the data are too few to show it; 2 for wrong input.

    A log is replayed from an empty cache, which finds other neighbours than a full one: --after fills it first.
    """
    from semcache.policy import Policy

    policy = Policy.load(policy_file)
    for table, field in (("namespaces", data.pair_fields.namespace), ("categories", data.pair_fields.category)):
        if getattr(policy, table) and field is None:
            option = {"namespaces": "--namespace-field", "categories": "--category-field"}[table]
            click.echo(f"Note: the policy has rules for {table}, which only {option} reads from the data.", err=True)
    wanted = _budget(policy, max_false_hit_rate, max_unsafe_rate, confidence)
    read = data.read()
    before = replace(data, paths=after).read().records if after else []
    if read.pairs and after:
        raise click.UsageError("--after needs a log: pairs fill no cache")
    embedder = installed_embedder()
    policy.check_embedder(embedder.fingerprint)
    certificate = _certificate(wanted, read, before, policy, embedder)
    if as_json:
        print_json(certificate.to_dict())
    else:
        click.echo(str(certificate))
    ctx.exit(0 if certificate.verdict == "holds" else 1)


def _budget(
    policy: Policy, max_false_hit_rate: float | None, max_unsafe_rate: float | None, confidence: float | None
) -> Budget:
    from semcache.tuning.certify import budget_of

    shown = budget_of(policy.evidence)
    own = 0.95 if policy.evidence is None or policy.evidence.confidence is None else policy.evidence.confidence
    given = budget(max_false_hit_rate, max_unsafe_rate, confidence or own)
    if given is not None:
        return given
    if shown is None:
        raise click.UsageError("the policy's evidence names no budget; give --max-false-hit-rate or --max-unsafe-rate")
    return shown if confidence is None else replace(shown, confidence=confidence)


def _certificate(
    wanted: Budget, data: Data, before: list[LogRecord], policy: Policy, embedder: Remembered
) -> Certificate:
    from semcache.errors import InputError
    from semcache.tuning.certify import Certificate, Replayed
    from semcache.tuning.scoring import count, score
    from semcache.tuning.streams import served_by_half

    replayed = None
    if data.pairs:
        with progress("judging", len(data.pairs)) as advance:
            total = count(list(score(data.pairs, policy, embedder, advance)))
    else:
        if policy.any_semantic:
            remember_log([*before, *data.records], embedder)
        replayed = Replayed(len(before), served_by_half(data.records, policy, embedder, before))
        total = replayed.halves[0] + replayed.halves[1]
    if not total.requests:
        raise InputError("nothing is labelled, so nothing can be certified", path=data.names[0])
    return Certificate(wanted, total, policy.any_semantic, replayed)
