"""``semcache replay``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import click

from semcache.cli._common import console, json_option, print_json, warn

if TYPE_CHECKING:
    from semcache.cache import SemanticCache
    from semcache.tuning.replay import Progress, Replay


@click.command()
@click.argument("logs", nargs=-1, required=True, type=click.Path(), metavar="LOG...")
@click.option("--policy", type=click.Path(exists=True, dir_okay=False), help="Replay under this policy file.")
@click.option("--text-field", metavar="FIELD", help="Where the question is; default: messages or text.")
@click.option("--class-field", metavar="FIELD", help="Where the answer class is; default: cls or key.")
@click.option("--ts-field", metavar="FIELD", help="Where the time is; default: ts.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many records.")
@click.option(
    "--store",
    "store_url",
    metavar="URL",
    help="Keep the entries (of the tenant 'replay') there, and use what is there; default: in memory, empty.",
)
@json_option
def replay(
    logs: tuple[str, ...],
    policy: str | None,
    text_field: str | None,
    class_field: str | None,
    ts_field: str | None,
    limit: int | None,
    store_url: str | None,
    as_json: bool,
) -> None:
    """Replay a query log through the cache: hit rate, wrong hits, savings.

    LOG is JSON Lines, or CSV with a header, gzip-compressed or not. A record is one request: a text, or messages (the
    last user message may match by meaning, all before it must match exactly). With an answer class (records of one
    class share an answer) the wrong hits are counted. Other fields: ts, model, usage.

    All of the input is read and checked first: a bad line ends the command with exit code 2, and nothing has been
    replayed or stored. Time stamps do not make entries expire.
    """
    from semcache.tuning.logs import Fields, read_logs
    from semcache.tuning.replay import replay as play

    records = list(islice(read_logs(logs, Fields(text_field, class_field, ts_field)), limit))
    with _cache(store_url, policy) as cache, _progress(len(records)) as progress:
        played = play(cache, records, progress)
    if as_json:
        print_json(played.to_dict())
    else:
        _show(played)


@contextmanager
def _cache(url: str | None, policy: str | None) -> Iterator[SemanticCache]:
    from semcache.cache import SemanticCache
    from semcache.ledger import Ledger
    from semcache.stores import MemoryStore, open_store
    from semcache.tuning.replay import TENANT

    store = MemoryStore(max_entries=None, max_bytes=None) if url is None else open_store(url)
    # A ledger with a store of its own, so that a replay is never in the books of real traffic.
    with SemanticCache(store=store, policy=policy, ledger=Ledger(MemoryStore()), tenant=TENANT) as cache:
        cache.on_event(warn)
        yield cache


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield lambda phase, done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        tasks = {phase: bar.add_task(phase, total=total) for phase in ("embedding", "replaying")}
        yield lambda phase, done: bar.advance(tasks[phase], done)


def _show(played: Replay) -> None:
    out = console()
    played.report.render(out)
    figures = played.to_dict()
    rate = figures["requests_per_second"]
    per_text = 1000 * played.embedding_s / played.embedded if played.embedded else 0.0
    out.print(
        f"\nLatency is that of the look-up, {'' if rate is None else f'{rate:,.0f} a second; '}"
        f"embedding came before: {played.embedded:,} texts, {per_text:.1f} ms each."
    )
    if played.span_s:
        out.print(f"The log covers {played.span_s / 86_400:,.1f} days.")
