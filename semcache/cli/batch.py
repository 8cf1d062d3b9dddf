"""``semcache batch``: whole files, and its two steps, ``split`` and ``merge``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from semcache.cli import Refused
from semcache.cli._common import F, json_option, print_json, safe, store_option, warn
from semcache.cli._tuning import progress

if TYPE_CHECKING:
    from semcache.batch import Merged, Split
    from semcache.cache import SemanticCache
    from semcache.money.books import Line

_IN: Final = click.Path(exists=True, dir_okay=False)
_OUT: Final = click.Path(dir_okay=False, writable=True)
_NAMED: Final = 5
"""How many ids are named where there are more."""


def _cache_options(function: F) -> F:
    for option in (
        click.option("--upstream", metavar="LABEL", help="Who answers, as in cache.wrap(…, upstream=LABEL)."),
        click.option("--tenant", help="Whose data this is."),
        click.option("--namespace", default="default", show_default=True, help="Part of the cache."),
        click.option("--policy", type=_IN, help="A policy file."),
        store_option,
    ):
        function = option(function)
    return function


@contextmanager
def _cache(store_url: str, policy: str | None, namespace: str, tenant: str | None) -> Iterator[SemanticCache]:
    from semcache import SemanticCache

    with SemanticCache(store=store_url, policy=policy, namespace=namespace, tenant=tenant) as cache:
        cache.on_event(warn)
        yield cache


@contextmanager
def _progress(what: str, path: str) -> Iterator[Callable[[int], object]]:
    from pathlib import Path

    from semcache.batch.files import lines

    with progress(what, sum(1 for _ in lines(Path(path)))) as advance:
        yield advance


class _Files(click.Group):
    """Whatever is no command's name is a file to answer."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = bool(args) and args[0] in self.commands
        return super().resolve_command(ctx, args if known else ["answer", *args])


@click.group(cls=_Files, context_settings={"ignore_unknown_options": True})
def batch() -> None:
    """Answer OpenAI batch files from the cache, and send only the rest.

    \b
    semcache batch in.jsonl -o out.jsonl
    …send out.rest.jsonl as a batch, and fetch its output and error file…
    semcache batch in.jsonl -o out.jsonl --results output.jsonl --results errors.jsonl

    That is `split` and then `merge`, which take the names of all files.
    """


@batch.command()
@click.argument("source", metavar="IN", type=_IN)
@click.option("-o", "--out", required=True, type=_OUT, help="Write one result a request here, in the order of IN.")
@click.option("--results", type=_IN, multiple=True, help="An output or error file of the batch; may be given again.")
@_cache_options
@json_option
@click.pass_context
def answer(ctx: click.Context, /, source: str, out: str, results: tuple[str, ...], **options: Any) -> None:
    """Answer IN: first what the cache knows, and with the batch's --results the rest.

    Beside OUT stand what the cache answers (.hits) and what must be sent (.rest). Where nothing must be sent OUT is
    there at once.
    """
    from pathlib import Path

    hits, rest = (str(Path(out).with_suffix(f".{kind}{Path(out).suffix}")) for kind in ("hits", "rest"))
    if not results:
        found = _split(source, hits, rest, **{name: value for name, value in options.items() if name != "as_json"})
        if found.sent:
            _show_split(found, rest, options["as_json"])
            if not options["as_json"]:
                click.echo(f"Send {rest} as a batch, then: semcache batch {source} -o {out} --results FILE")
            return
    ctx.invoke(merge, source=source, hits=hits, results=results, out=out, **options)


@batch.command()
@click.argument("source", metavar="IN", type=_IN)
@click.option("--hits", required=True, type=_OUT, help="Write the results of what the cache answers here.")
@click.option("--rest", required=True, type=_OUT, help="Write the requests to send here.")
@_cache_options
@json_option
def split(source: str, hits: str, rest: str, as_json: bool, **options: Any) -> None:
    """Look every request of IN up: results to HITS, and what must be sent to REST.

    Equal requests are sent once.
    """
    _show_split(_split(source, hits, rest, **options), rest, as_json)


def _split(source: str, hits: str, rest: str, *, upstream: str | None, **where: Any) -> Split:
    from semcache.batch import split as split_file

    with _cache(**where) as cache, _progress("looking up", source) as advance:
        return split_file(cache, source, hits=hits, rest=rest, upstream=upstream, progress=advance)


def _show_split(found: Split, rest: str, as_json: bool) -> None:
    if as_json:
        print_json(_split_json(found))
        return
    click.echo(f"{found.requests:,} requests")
    _row(
        found.exact_hits + found.semantic_hits, f"answered, {found.semantic_hits:,} by meaning ({_money(found.saved)})"
    )
    _row(found.copies, "equal to another one here")
    _row(found.sent, f"to send, in {rest}")
    for reason, number in sorted(found.uncached.items()):
        _row(number, f"of them not for the cache: {safe(reason)}", indent=4)


@batch.command()
@click.argument("source", metavar="IN", type=_IN)
@click.option("--hits", required=True, type=_IN, help="What split has written.")
@click.option("--results", type=_IN, multiple=True, help="An output or error file of the batch; may be given again.")
@click.option("-o", "--out", required=True, type=_OUT, help="Write one result a request here, in the order of IN.")
@_cache_options
@json_option
def merge(
    source: str, hits: str, results: tuple[str, ...], out: str, upstream: str | None, as_json: bool, **where: Any
) -> None:
    """Put HITS and RESULTS together as OUT; store the fresh answers.

    Errors are passed on, and never stored. Requests without any result are named, left out of OUT, and make the exit
    code 2: give the file that is missing, and merge again.
    """
    from semcache.batch import merge as merge_files

    with _cache(**where) as cache, _progress("merging", source) as advance:
        done = merge_files(cache, source, hits=hits, results=results, out=out, upstream=upstream, progress=advance)
    if as_json:
        print_json(_merged_json(done))
    else:
        click.echo(f"{done.requests:,} requests")
        _row(done.hits, "answered by the cache")
        _row(done.copies, f"copied from an equal one (both: {_money(done.saved)})")
        _row(done.fresh, f"answered by the batch, {done.stored:,} stored ({_money(done.spent, 'spent')})")
        _row(done.failed, "failed")
    if done.strangers:
        click.echo(f"Warning: {_ids(done.strangers, 'result')} to no request of {source}", err=True)
    if done.missing:
        raise Refused(f"{_ids(done.missing, 'request')} without a result")


def _row(number: int, what: str, indent: int = 2) -> None:
    if number:
        click.echo(f"{'':{indent}}{number:>9,} {what}")


def _money(line: Line, verb: str = "saved") -> str:
    money = "price unknown" if line.usd is None else f"${line.usd:,.4f}"
    return f"{line.tokens:,} tokens, {money} {verb} at batch price"


def _ids(ids: list[str], what: str) -> str:
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    named = ", ".join(map(safe, ids[:_NAMED]))
    return f"{len(ids):,} {what}{'s' if len(ids) > 1 else ''} ({named}{more})"


def _split_json(found: Split) -> Mapping[str, Any]:
    return {
        "requests": found.requests,
        "exact_hits": found.exact_hits,
        "semantic_hits": found.semantic_hits,
        "copies": found.copies,
        "sent": found.sent,
        "uncached": found.uncached,
        **_line_json("saved", found.saved),
    }


def _merged_json(done: Merged) -> Mapping[str, Any]:
    return {
        "requests": done.requests,
        "hits": done.hits,
        "fresh": done.fresh,
        "copies": done.copies,
        "failed": done.failed,
        "missing": done.missing,
        "strangers": done.strangers,
        "stored": done.stored,
        **_line_json("saved", done.saved),
        **_line_json("spent", done.spent),
    }


def _line_json(name: str, line: Line) -> Mapping[str, Any]:
    return {f"tokens_{name}": line.known_tokens, f"usd_{name}": None if line.usd is None else float(line.usd)}
