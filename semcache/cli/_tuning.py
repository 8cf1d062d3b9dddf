"""What score, tune, certify and label share: reading pairs or a log, options, a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

import click

from semcache.cli._common import F, console

if TYPE_CHECKING:
    from semcache.tuning.bounds import Budget
    from semcache.tuning.logs import Fields, LogRecord
    from semcache.tuning.pairs import Pair, PairFields
    from semcache.tuning.remembered import Remembered

_POLICY = click.Path(exists=True, dir_okay=False)
_SHARE = click.FloatRange(0.0, 1.0, max_open=True)


def pair_options(function: F) -> F:
    """Add the names of the fields of a pair; the command gets ``fields``."""

    @wraps(function)
    def command(
        *,
        a_field: str,
        b_field: str,
        label_field: str | None,
        namespace_field: str | None,
        category_field: str | None,
        group_field: str | None = None,
        **given: Any,
    ) -> Any:
        from semcache.tuning.pairs import PairFields

        fields = PairFields(a_field, b_field, label_field, group_field, namespace_field, category_field)
        return function(fields=fields, **given)

    return _with(
        cast(F, command),
        click.option("--category-field", metavar="FIELD", help="The category, by which a policy may have rules."),
        click.option("--namespace-field", metavar="FIELD", help="The namespace; those of different ones never meet."),
        click.option("--label-field", metavar="FIELD", help="Pairs: 1 if one answer serves both, 0 if not."),
        click.option("--b-field", default="b", show_default=True, metavar="FIELD", help="Pairs: what is stored."),
        click.option("--a-field", default="a", show_default=True, metavar="FIELD", help="Pairs: what is asked."),
    )


def data_options(function: F) -> F:
    """Add PAIRS-or-LOG and the names of the fields of both; the command gets ``data``, a :class:`Source`."""

    @pair_options
    @wraps(function)
    def command(
        *,
        data: tuple[str, ...],
        fields: PairFields,
        text_field: str | None,
        class_field: str | None,
        ts_field: str | None,
        **given: Any,
    ) -> Any:
        from semcache.tuning.logs import Fields

        log = Fields(text_field, class_field, ts_field, namespace=fields.namespace, category=fields.category)
        return function(data=Source(data, fields, log), **given)

    return _with(
        cast(F, command),
        click.option("--ts-field", metavar="FIELD", help="Log: when; default: ts."),
        click.option("--class-field", metavar="FIELD", help="Log: the answer class; default: cls or key."),
        click.option("--text-field", metavar="FIELD", help="Log: the question; default: messages or text."),
        click.argument("data", nargs=-1, required=True, type=click.Path(), metavar="PAIRS-or-LOG..."),
    )


def _with(command: F, *options: Callable[[F], F]) -> F:
    for option in options:
        command = option(command)
    return command


def policy_option(text: str) -> Callable[[F], F]:
    """Add ``--policy FILE``."""
    return click.option("--policy", "policy_file", type=_POLICY, help=text)


def budget_options(function: F) -> F:
    """Add the two budgets, of which at most one can be given."""
    return _with(
        function,
        click.option("--max-unsafe-rate", type=_SHARE, callback=_not_zero, help="Most wrong hits per request."),
        click.option("--max-false-hit-rate", type=_SHARE, callback=_not_zero, help="Most wrong hits per semantic hit."),
    )


def _not_zero(ctx: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value == 0.0:
        raise click.BadParameter(
            "no number of right hits shows that none is ever wrong: a policy with semantic = false has none;"
            " 0.001 takes 2,995 labelled hits, all right"
        )
    return value


def confidence_option(**kwargs: Any) -> Callable[[F], F]:
    """Add ``--confidence``."""
    kind = click.FloatRange(0.5, 1.0, min_open=True, max_open=True)
    return click.option("--confidence", type=kind, help="Of the statement about the budget.", **kwargs)


def budget(max_false_hit_rate: float | None, max_unsafe_rate: float | None, confidence: float) -> Budget | None:
    """The budget given, ``None`` if none is."""
    from semcache.tuning.bounds import Budget

    if max_false_hit_rate is not None and max_unsafe_rate is not None:
        raise click.UsageError("give --max-false-hit-rate or --max-unsafe-rate, not both")
    if max_unsafe_rate is not None:
        return Budget(max_unsafe_rate, "requests", confidence)
    return None if max_false_hit_rate is None else Budget(max_false_hit_rate, "hits", confidence)


@dataclass(frozen=True)
class Data:
    """What the files hold: pairs, or the records of a log in time order. One of both is empty.

    Args:
        names: Of the files, without their folders.
    """

    names: tuple[str, ...]
    pairs: list[Pair]
    records: list[LogRecord]


@dataclass(frozen=True)
class Source:
    """Files of pairs, or of a log, and how to read them."""

    paths: tuple[str, ...]
    pair_fields: PairFields
    log_fields: Fields

    def sliced(self, by: str | None) -> Source:
        """The same, with the field of that name read where none was given for a namespace or category."""
        fields = {by: by} if by in ("namespace", "category") and getattr(self.pair_fields, by) is None else {}
        return replace(
            self, pair_fields=self.pair_fields._replace(**fields), log_fields=self.log_fields._replace(**fields)
        )

    def read(self) -> Data:
        """Read all of them: the first row of the first file tells which they are.

        Raises:
            InputError: A file cannot be read, or a line cannot be used.
        """
        from pathlib import Path

        from semcache.errors import InputError
        from semcache.tuning.logs import in_time_order, read_logs
        from semcache.tuning.pairs import has_pairs, read_pairs

        for path in self.paths:
            if Path(path).is_fifo():
                raise InputError("is a pipe, and this is read more than once; give a file", path=path)
        names = tuple(Path(path).name for path in self.paths)
        if has_pairs(self.paths[0], self.pair_fields):
            return Data(names, read_pairs(self.paths, self.pair_fields), [])
        return Data(names, [], in_time_order(list(read_logs(self.paths, self.log_fields))))


def installed_embedder() -> Remembered:
    """The embedder that a cache takes by default, with a memory."""
    from semcache.embedders import resolve
    from semcache.tuning.remembered import Remembered

    return Remembered(resolve())


def remember_log(records: Sequence[LogRecord], embedder: Remembered) -> None:
    """Embed what replays of a log will ask for, with a progress bar."""
    from semcache.tuning.streams import texts

    asked = list(dict.fromkeys(texts(records, embedder)))
    with progress("embedding", len(asked)) as advance:
        embedder.remember(asked, advance)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr, if someone watches it."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
