"""``semcache replay``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from semcache.cli import Failed
from semcache.cli._common import F, console, json_option, print_json, safe, warn
from semcache.cli._tuning import progress as one_bar

if TYPE_CHECKING:
    from semcache.embedders import Embedder
    from semcache.policy import Policy
    from semcache.tuning.analysis import Analysis
    from semcache.tuning.baselines import BaselineRun
    from semcache.tuning.compare import Compared
    from semcache.tuning.judges import Judge
    from semcache.tuning.logs import LogRecord
    from semcache.tuning.replay import Progress

_IN: Final = click.Path(exists=True, dir_okay=False)
_OUT: Final = click.Path(dir_okay=False, writable=True)
_FIELDS: Final = {
    "text": "the question; default: messages or text",
    "class": "the answer class; default: cls or key",
    "ts": "the time; default: ts",
    "model": "the model; default: model",
    "latency": "how many seconds the call took; default: latency_s",
    "answer": "the answer; equal answers are one class",
    "namespace": "the namespace; those of different ones share no answer",
    "category": "the category, by which a policy may have rules",
}


def _field_options(function: F) -> F:
    for name, meaning in reversed(_FIELDS.items()):
        function = click.option(f"--{name}-field", metavar="FIELD", help=f"Where the log has {meaning}.")(function)
    return function


def _judge_options(function: F) -> F:
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask before the judge is paid."),
        click.option("--judge-model", metavar="MODEL", help="Ask this model, by OpenAI's client."),
        click.option("--judge-file", type=_IN, multiple=True, help="Look pairs up that semcache label has labelled."),
        click.option("--judge", metavar="MODULE:FUNCTION", help="Ask f(asked, stored) of hits that have no label."),
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class _Options:
    logs: tuple[str, ...]
    policy: tuple[str, ...]
    sweep: tuple[float, ...]
    sweep_probability: tuple[float, ...]
    answers: str | None
    baselines: bool
    limit: int | None
    max_entries: int | None
    store_url: str | None
    checkpoint: str | None
    judge: str | None
    judge_file: tuple[str, ...]
    judge_model: str | None
    yes: bool
    html: str | None
    png: str | None
    as_json: bool
    fields: dict[str, str | None]

    def __post_init__(self) -> None:
        if sum(map(bool, (self.judge, self.judge_file, self.judge_model))) > 1:
            raise click.UsageError("give one of --judge, --judge-file and --judge-model")
        several = self.sweep or self.sweep_probability or self.answers or len(self.policy) > 1
        if self.store_url is not None and (several or self.max_entries):
            raise click.UsageError("--store goes with one policy, and bounds its own size")
        for name, path in (("--html", self.html), ("--checkpoint", self.checkpoint)):
            if path is not None and not Path(path).absolute().parent.is_dir():
                raise click.BadParameter(f"there is no folder for {path}", param_hint=name)
        if self.png is not None:
            try:
                Path(self.png).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise click.BadParameter(f"{self.png}: {error.strerror}", param_hint="--png") from error


def _steps(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...]:
    from semcache.tuning.compare import sweep_steps

    try:
        return () if value is None else sweep_steps(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("logs", nargs=-1, required=True, type=click.Path(), metavar="LOG...")
@click.option("--policy", type=_IN, multiple=True, help="Replay under this policy file; of several, the first leads.")
@click.option("--sweep", callback=_steps, metavar="LOW:HIGH:STEP", help="Also at these thresholds, as 0.80:0.99:0.01.")
@click.option(
    "--sweep-probability",
    callback=_steps,
    metavar="LOW:HIGH:STEP",
    help="Also with these least probabilities, with --sweep at each of its thresholds.",
)
@click.option(
    "--answers",
    type=click.Choice(["closed"]),
    help="Also with answers compared, as where they come from a limited set.",
)
@click.option("--baselines", is_flag=True, help="Also one cosine without guards, and vCache's threshold an entry.")
@click.option("--max-entries", type=click.IntRange(min=1), help="Capacity; the least recently used entry goes.")
@click.option("--checkpoint", type=_OUT, help="Keep the vectors in this file; the same command then goes on from it.")
@click.option("--html", type=_OUT, help="Write a report with plots, one file (extra: report).")
@click.option("--png", type=click.Path(file_okay=False), metavar="DIR", help="Write the plots into this folder.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many records.")
@click.option(
    "--store",
    "store_url",
    metavar="URL",
    help="Keep the entries (of the tenant 'replay') there, and use what is there; default: in memory, empty.",
)
@_field_options
@_judge_options
@json_option
def replay(**given: Any) -> None:
    """Replay a query log through the cache: hit rate, wrong hits, savings.

    LOG is JSON Lines, or CSV with a header, gzip-compressed or not, or Parquet (extra: parquet). A record is one
    request: a text, or messages, or the body as sent (the last user message may match by meaning, all before it must
    match exactly). With an answer class (records of one class share an answer) the wrong hits are counted. Other
    fields: ts, model, usage, latency_s, response.

    Records are replayed in the order of time if all have one, and entries expire in the time of the log (with --store
    in real time). All of the input is read and checked first: a bad line ends the command with exit code 2, and
    nothing has been replayed or stored.
    """
    fields = {name: given.pop(f"{name}_field") for name in _FIELDS}
    options = _Options(**given, fields=fields)
    analysis = _analyse(options, _read(options))
    if options.html is not None:
        from semcache.html.page import page

        Path(options.html).write_text(page(analysis), encoding="utf-8")
    if options.png is not None:
        _write_plots(analysis, Path(options.png))
    if options.as_json:
        print_json(analysis.to_dict())
    else:
        _show(analysis)


def _read(options: _Options) -> list[LogRecord]:
    from semcache.tuning.logs import Fields, in_time_order, read_logs

    names = {"class": "label"}
    fields = Fields(**{names.get(name, name): field for name, field in options.fields.items()})
    return in_time_order(list(read_logs(options.logs, fields)))[: options.limit]


def _analyse(options: _Options, records: Sequence[LogRecord]) -> Analysis:
    from semcache.tuning.analysis import Analysis
    from semcache.tuning.headroom import survey

    policies = _policies(options)
    with ExitStack() as stack:
        judge = stack.enter_context(_judge(options))
        needs_vectors = options.baselines or any(policy.any_semantic for policy in policies.values())
        embedder = stack.enter_context(_embedder(options.checkpoint)) if needs_vectors else None
        with _progress(len(records) * len(policies)) as advance:
            played = list(_played(options, policies, records, embedder, advance))
        if judge is not None:
            played = _graded(played, judge, options)
        baselines = _baselines(records, embedder) if options.baselines and embedder is not None else None
    return Analysis([Path(log).name for log in options.logs], played, *survey(records), baselines)


def _policies(options: _Options) -> dict[str, Policy]:
    from semcache.policy import Policy
    from semcache.tuning.compare import swept
    from semcache.tuning.scoring import everywhere

    policies = {path: Policy.load(path) for path in options.policy} or {"default policy": Policy()}
    first = next(iter(policies.values()))
    if options.answers is not None:
        policies[f"answers {options.answers}"] = everywhere(first, answers=options.answers)
    return {**policies, **swept(first, options.sweep, options.sweep_probability)}


@contextmanager
def _embedder(checkpoint: str | None) -> Iterator[Embedder]:
    from semcache.cli._tuning import installed_embedder
    from semcache.embedders import resolve
    from semcache.tuning.vectors import VectorFile

    if checkpoint is None:
        yield installed_embedder()
        return
    with VectorFile(resolve(), checkpoint) as embedder:
        yield embedder


def _played(
    options: _Options,
    policies: dict[str, Policy],
    records: Sequence[LogRecord],
    embedder: Embedder | None,
    advance: Progress,
) -> Iterator[Compared]:
    from semcache.cache import SemanticCache
    from semcache.money.ledger import Ledger
    from semcache.stores import MemoryStore, open_store
    from semcache.tuning.compare import Compared, compare
    from semcache.tuning.replay import TENANT
    from semcache.tuning.replay import replay as play

    if options.store_url is None:
        yield from compare(
            policies, records, embedder, max_entries=options.max_entries, on_event=warn, progress=advance
        )
        return
    ((name, policy),) = policies.items()
    # A ledger with a store of its own, so that a replay is never in the books of real traffic.
    ledger = Ledger(MemoryStore())
    with SemanticCache(
        store=open_store(options.store_url), policy=policy.offline(), embedder=embedder, ledger=ledger, tenant=TENANT
    ) as cache:
        cache.engine.store.ping()  # of a store that does not answer a replay would say that nothing hits
        cache.on_event(warn)
        yield Compared(name, policy, play(cache, records, advance))


def _baselines(records: Sequence[LogRecord], embedder: Embedder) -> BaselineRun:
    from semcache.tuning.baselines import play_baselines, usual_baselines

    with one_bar("baselines", len(records)) as advance:
        return play_baselines(records, embedder, usual_baselines(), advance)


@contextmanager
def _judge(options: _Options) -> Iterator[Judge | None]:
    from semcache.tuning.judges import FileJudge, load_judge, openai_judge

    if options.judge_model is not None:
        from platformdirs import user_cache_path

        from semcache.stores.sqlite import SqliteStore

        store = SqliteStore(user_cache_path("semcache", ensure_exists=True) / "judge.db")
        with openai_judge(options.judge_model, store) as judge:
            yield judge
    elif options.judge_file:
        yield FileJudge(options.judge_file)
    elif options.judge is not None:
        sys.path.insert(0, "")  # a judge in the current folder, as with python -m
        yield load_judge(options.judge)
    else:
        yield None


def _graded(played: Sequence[Compared], judge: Judge, options: _Options) -> list[Compared]:
    """The replays with their unlabelled hits graded by a judge, after its cost was shown."""
    from semcache.tuning.judges import ask_judge, cost_of, judged, unknown_pairs

    pairs = unknown_pairs(one.replay for one in played)
    if pairs and not options.judge_file:
        cost = cost_of(judge, pairs)
        tokens = "" if cost.tokens is None else f", about {cost.tokens:,} tokens"
        price = "price unknown" if cost.usd_micro is None else f"about ${cost.usd_micro / 1e6:,.4f}"
        pairs_of_texts = "1 pair of texts" if cost.calls == 1 else f"{cost.calls:,} pairs of texts"
        click.echo(f"The judge will be asked about {pairs_of_texts}{tokens}, {price}.", err=True)
        if not options.yes and not (sys.stdin.isatty() and click.confirm("Go on?", err=True)):
            raise click.UsageError("not judged; --yes goes on without asking")
    try:
        with one_bar("judging", len(pairs)) as advance:
            verdicts = ask_judge(judge, pairs, advance)
    except Exception as error:  # whatever it raises, it is not the command that is broken
        raise Failed(f"the judge failed: {type(error).__name__}: {error}") from error
    return [replace(one, replay=judged(one.replay, verdicts)) for one in played]


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


def _write_plots(analysis: Analysis, folder: Path) -> None:
    from semcache.html.plots import render

    for name, picture in render(analysis, "png"):
        (folder / f"{name}.png").write_bytes(picture)


def _show(analysis: Analysis) -> None:
    from semcache.report_tables import render_findings

    played = analysis.replay
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
    render_findings(analysis, out, safe)
