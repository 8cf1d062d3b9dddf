"""``semcache certify``."""

from __future__ import annotations

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
    from semcache.tuning.bounds import Budget, Count
    from semcache.tuning.remembered import Remembered


@click.command()
@click.argument("policy_file", type=click.Path(exists=True, dir_okay=False), metavar="POLICY.toml")
@data_options
@budget_options
@confidence_option()
@json_option
@click.pass_context
def certify(
    ctx: click.Context,
    policy_file: str,
    data: Source,
    max_false_hit_rate: float | None,
    max_unsafe_rate: float | None,
    confidence: float | None,
    as_json: bool,
) -> None:
    """Check on new data that a policy still keeps its budget of wrong hits.

    The budget is that of the policy's evidence, unless you give one. Exit code 0 if the data show that it is kept, or
    nothing is served by meaning; 1 if it is broken, or the data are too few to show it; 2 for wrong input.
    """
    from semcache.policy import Policy
    from semcache.tuning.certify import Certificate

    policy = Policy.load(policy_file)
    if policy.namespaces and data.pair_fields.slice_by is None:
        click.echo("Note: the policy has rules for namespaces, which only --slice-by reads from the data.", err=True)
    wanted = _budget(policy, max_false_hit_rate, max_unsafe_rate, confidence)
    read = data.read()
    embedder = installed_embedder()
    policy.check_embedder(embedder.fingerprint)
    certificate = Certificate(wanted, _count(read, policy, embedder), policy.any_semantic)
    if as_json:
        print_json(certificate.to_dict())
    else:
        click.echo(str(certificate))
    ctx.exit(0 if certificate.verdict == "holds" else 1)


def _budget(
    policy: Policy, max_false_hit_rate: float | None, max_unsafe_rate: float | None, confidence: float | None
) -> Budget:
    from dataclasses import replace

    from semcache.tuning.certify import budget_of

    shown = budget_of(policy.evidence)
    own = 0.95 if policy.evidence is None or policy.evidence.confidence is None else policy.evidence.confidence
    given = budget(max_false_hit_rate, max_unsafe_rate, confidence or own)
    if given is not None:
        return given
    if shown is None:
        raise click.UsageError("the policy's evidence names no budget; give --max-false-hit-rate or --max-unsafe-rate")
    return shown if confidence is None else replace(shown, confidence=confidence)


def _count(data: Data, policy: Policy, embedder: Remembered) -> Count:
    from semcache.errors import InputError
    from semcache.tuning.scoring import count, score
    from semcache.tuning.streams import served

    if data.pairs:
        with progress("judging", len(data.pairs)) as advance:
            total = count(list(score(data.pairs, policy, embedder, advance)))
    else:
        if policy.any_semantic:
            remember_log(data, embedder)
        total = served(data.records, policy, embedder)
    if not total.requests:
        raise InputError("nothing is labelled, so nothing can be certified", path=data.names[0])
    return total
