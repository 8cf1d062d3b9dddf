"""``semcache demo``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcache.cli._common import console, json_option, print_json, safe

if TYPE_CHECKING:
    from rich.console import Console

    from semcache.demo.providers import Provider
    from semcache.demo.run import DemoRun, Example
    from semcache.stores.base import StoreStats

NAMESPACE = "demo"
"""Its own, so that a demo on a store in use neither serves nor deletes what others keep there."""

_WRONG_SHOWN = 3


@click.command()
@click.option(
    "--provider",
    type=click.Choice(["openai", "anthropic", "gemini", "bedrock", "litellm"]),
    help="Ask all questions through the SDK of this one, with its prompt cache.",
)
@click.option(
    "--store",
    "store",
    metavar="URL",
    help="A file's path, sqlite:///path or redis://host:port/db; by default demo/demo.db in your data folder. "
    "It stays for the next run.",
)
@click.option("--fresh", is_flag=True, help="Forget the answers of earlier demos first.")
@click.option("--requests", "limit", type=click.IntRange(min=1), help="Only so many questions of the log.")
@click.option(
    "--speed",
    default=4.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="How many times faster the local upstream answers than a hosted model does.",
)
@json_option
def demo(
    provider: Provider | None, store: str | None, fresh: bool, limit: int | None, speed: float, as_json: bool
) -> None:
    """Wrap real clients, replay a support log through them, and show what the cache did.

    A local upstream speaks the wire formats of the providers over HTTP; the SDK clients of OpenAI and Anthropic and a
    plain function, or that of one provider, are wrapped by the cache. The log holds repeats, paraphrases and traps
    (questions that look alike and have other answers), each labelled with its right answer, so that every wrong hit is
    counted. No key, no network.
    """
    from semcache.cache import SemanticCache
    from semcache.demo.questions import load_answers, load_questions
    from semcache.demo.run import run_demo
    from semcache.policy import Policy
    from semcache.stores import SqliteStore, open_store
    from semcache.testing.upstream import Upstream

    questions, answers = load_questions(limit), load_answers()
    prepared = {question.text: answers[question.label] for question in questions}
    # On a machine that is busy with other things a part may take its time: here that is no outage.
    patience_s = 10.0
    path = store or _default_path()
    opened = open_store(store) if store and "://" in store else SqliteStore(path, budget_s=patience_s)
    with SemanticCache(store=opened, namespace=NAMESPACE, policy=Policy(embed_budget_s=patience_s)) as cache:
        if fresh:
            cache.invalidate(namespace=NAMESPACE)
        before = cache.stats().store
        with Upstream(answers=prepared, latency=1 / speed) as upstream, _progress(len(questions)) as advance:
            run = run_demo(cache, upstream, questions, answers, advance, provider)
        after = cache.stats().store
    if as_json:
        print_json({"provider": provider, **_to_dict(run, before, after, speed)})
    else:
        _show(console(), run, before, after, speed)
        if provider is not None:
            _show_provider(console(), provider, run)
        _show_examples(console(), run)


def _default_path() -> Path:
    from platformdirs import user_data_path

    return user_data_path("semcache", appauthor=False) / "demo" / "demo.db"


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("asking", total=total)
        yield lambda: bar.advance(task)


def _missing(run: DemoRun) -> list[str]:
    return [sdk for sdk in ("openai", "anthropic") if sdk not in run.ways] if "function" in run.ways else []


def _to_dict(run: DemoRun, before: StoreStats, after: StoreStats, speed: float) -> dict[str, Any]:
    def example(chosen: Example | None) -> dict[str, Any] | None:
        return None if chosen is None else chosen.to_dict()

    return {
        **run.report.to_dict(),
        "explain": {
            "semantic_hit": example(run.semantic_hit),
            "rejected_trap": example(run.rejected_trap),
        },
        "wrong": [
            {"asked": asked, "answered_as": stored, "similarity": similarity}
            for asked, stored, similarity in _wrong_pairs(run)
        ],
        "store": {"path": after.location, "entries_before": before.entries, "entries": after.entries},
        "clients": list(run.ways),
        "clients_missing": _missing(run),
        "upstream_speed": speed,
        "seconds": run.seconds,
    }


def _wrong_pairs(run: DemoRun) -> list[tuple[str, str | None, float | None]]:
    pairs = []
    for call in run.wrong:
        decision = call.outcome.decision
        stored = decision.chosen.text if decision is not None and decision.chosen is not None else None
        pairs.append((call.question.text, stored, call.outcome.similarity))
    return pairs


def _show(out: Console, run: DemoRun, before: StoreStats, after: StoreStats, speed: float) -> None:
    found = f"found {before.entries:,} answers of an earlier run" if before.entries else "empty"
    out.print(f"Store {after.location}: {found}; now {after.entries:,}.")
    missing = _missing(run)
    if missing:
        extras = ",".join(missing)
        out.print(f"Not installed: {', '.join(missing)}; the plain function asked their questions as well. To see")
        out.print(f"their clients wrapped:  pip install 'semcache-llm[{extras}]'")
    out.print()
    run.report.render(out)
    out.print(f"\nUpstream: local, {speed:g} times as fast as a hosted model; the whole run took {run.seconds:.1f} s.")
    for asked, stored, similarity in _wrong_pairs(run)[:_WRONG_SHOWN]:
        near = "" if similarity is None else f" ({similarity:.3f})"
        out.print(f"Wrong: “{safe(asked)}” got the answer to “{safe(stored)}”{near}", style="red")


def _show_provider(out: Console, provider: Provider, run: DemoRun) -> None:
    from importlib.metadata import version

    from semcache.demo.providers import SDKS

    sdk, books = SDKS[provider], run.report.books
    out.print(
        f"Real: {sdk.package} {version(sdk.package)}, and all of the cache. Simulated: the provider, by a process here "
        f"that speaks its wire format and has the answers prepared. Priced as {sdk.model}."
    )
    read, written = books.reads, books.writes
    if read.usd and written.usd:
        out.print(
            f"Its prompt cache: {read.tokens:,} tokens read in {read.calls:,} of {books.spent.calls:,} calls saved "
            f"${read.usd:,.4f}; to write {written.tokens:,} cost ${-written.usd:,.4f} more than to send them."
        )


def _show_examples(out: Console, run: DemoRun) -> None:
    _show_example(out, "A semantic hit, explained", run.semantic_hit)
    _show_example(out, "A trap that was refused, explained", run.rejected_trap)


def _show_example(out: Console, title: str, example: Example | None) -> None:
    out.print(f"\n{title}", style="bold")
    if example is None:
        out.print("  none in this run")
        return
    candidate = example.neighbour.candidate
    out.print(f"  asked       {safe(example.question.text)}")
    out.print(f"  stored      {safe(candidate.text)}")
    out.print(f"  similarity  {candidate.similarity:.4f}, threshold {example.threshold:.4f}")
    content = ", ".join(verdict.guard for verdict in example.neighbour.verdicts if verdict.ok)
    for verdict in example.neighbour.verdicts:
        if not verdict.ok:
            out.print(f"  guard       {verdict.guard}: {safe(verdict.reason)}")
    if content:
        out.print(f"  no objection from {content}")
    ending = "served" if example.served else f"not served: {safe('; '.join(example.neighbour.reasons))}"
    out.print(f"  → {ending}", style="green" if example.served else "yellow")
