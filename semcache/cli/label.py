"""``semcache label``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from semcache.cli._common import safe
from semcache.cli._tuning import (
    Data,
    Source,
    data_options,
    installed_embedder,
    policy_option,
    progress,
    remember_log,
)

if TYPE_CHECKING:
    from semcache.policy import Policy
    from semcache.tuning.labelling import LabelFile, Question

_KEYS: Final = "y yes · n no · s skip · b back · q quit"
_ANSWERS: Final = {"y": True, "n": False, "s": None}


@click.command()
@data_options
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="File to append the labels to.")
@policy_option("Ask around the thresholds of this policy file.")
def label(
    data: Source,
    output: str,
    policy_file: str | None,
) -> None:
    """Ask you which pairs of questions share an answer, the most informative first.

    Only pairs without a label are asked; of a log, questions with the stored question that the cache would have found.
    First come those that no guard objects to, nearest to the threshold. Each answer is on the disk before the next
    question, and a later run goes on where you stopped. The file is one of pairs, for tune, certify and score.
    """
    from semcache.policy import Policy
    from semcache.tuning.labelling import LabelFile

    if any(Path(path).resolve() == Path(output).resolve() for path in data.paths):
        raise click.BadParameter("the labels need a file of their own", param_hint="--output")
    policy = Policy() if policy_file is None else Policy.load(policy_file)
    read = data.read()
    with LabelFile(output) as labels:
        questions = [one for one in _questions(read, policy) if one.pair not in labels]
        if not questions:
            click.echo("No pair is left to label.")
            return
        click.echo(f"{len(questions):,} pairs to label. Does the answer to the stored question serve what is asked?")
        given = _ask(questions, labels)
    click.echo(f"{given:,} answered, {len(questions) - given:,} left; {output}")


def _questions(data: Data, policy: Policy) -> list[Question]:
    from semcache.tuning.labelling import most_informative_first
    from semcache.tuning.scoring import similarities
    from semcache.tuning.streams import unsure

    embedder = installed_embedder()
    policy.check_embedder(embedder.fingerprint)
    pairs = data.pairs
    if not pairs:
        remember_log(data.records, embedder)
        pairs = unsure(data.records, policy, embedder)
    pairs = [pair for pair in pairs if pair.right is None]
    with progress("judging", len(pairs)) as advance:
        found = list(similarities(pairs, embedder, advance))
    return most_informative_first(pairs, found, policy, embedder.fingerprint)


def _ask(questions: Sequence[Question], labels: LabelFile) -> int:
    """Ask until the questions or the answers end; return how many of the questions are behind."""
    place = 0
    while place < len(questions):
        answer = _answer(questions[place], f"{place + 1:,}/{len(questions):,}")
        if answer == "q":
            break
        if answer == "b":
            place = max(0, place - 1)
        else:
            labels.append(questions[place], _ANSWERS[answer])
            place += 1
    return place


def _answer(question: Question, where: str) -> str:
    """One key, ``q`` at the end of the input."""
    against = "  (a guard objects)" if question.vetoed else ""
    click.echo(f"\n[{where}] similarity {question.similarity:.3f}{against}")
    click.echo(f"  asked:  {safe(question.pair.a)}\n  stored: {safe(question.pair.b)}")
    while True:
        click.echo(f"{_KEYS} > ", nl=False)
        line = sys.stdin.readline()
        answer = line.strip().lower()[:1] if line else "q"
        if answer in {*_ANSWERS, "b", "q"}:
            return answer
