"""The command line.

Commands are imported when they are called: ``semcache --help`` loads none of them, and none of what they need.

Exit codes: 0 done; 1 it did not work (a store that does not answer, a check that failed); 2 wrong arguments or input.
"""

from __future__ import annotations

import logging
from errno import EPIPE
from importlib import import_module
from typing import Any, Final

import click

from semcache._version import __version__
from semcache.errors import ConfigurationError, InputError, SemcacheError

COMMANDS: Final = {
    "demo": "Wrap real clients, replay a support log through them, and show what the cache did.",
    "stats": "Show hits, misses, tokens and money, by source, namespace, model and day.",
    "explain": "Show why a question would hit or miss: candidates, scores, guards.",
    "invalidate": "Delete stored answers by id, tag, namespace, scope or tenant.",
    "forget": "Erase all that is kept of a tenant, and leave nothing behind.",
    "report": "Say whether a stored answer is right for a question.",
    "resume": "Switch on again what audits have switched off: the semantic tier of a namespace.",
    "doctor": "Check the store, the index, the embedder and the installed versions.",
    "replay": "Replay a query log through the cache: hit rate, wrong hits, savings.",
    "estimate": "Estimate what a log costs with and without the cache, for each of some models.",
    "score": "Judge pairs of texts: would the answer to the second be served to the first?",
    "tune": "Choose thresholds that are shown to keep a budget of wrong hits, and write a policy.",
    "certify": "Check on new data that a policy still keeps its budget of wrong hits.",
    "batch": "Answer OpenAI batch files from the cache, and send only the rest.",
    "label": "Ask you which pairs of questions share an answer, the most informative first.",
}
"""Each command with its short help; the module of that name in this package holds the function of that name."""


_QUIET: Final = logging.NullHandler()


class Failed(click.ClickException):
    """It did not work: one line on stderr, exit code 1."""

    exit_code = 1


class Refused(Failed):
    """Wrong arguments or input: exit code 2."""

    exit_code = 2


class LazyGroup(click.Group):
    """A group that knows the names and short helps of its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SemcacheError as error:
            failure = Refused if isinstance(error, (InputError, ConfigurationError)) else Failed
            raise failure(" ".join(str(error).split())) from error
        except OSError as error:  # a full disk, say
            if error.errno == EPIPE:  # whoever read this has gone: click ends quietly
                raise
            raise Failed(str(error)) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="semcache")
def main() -> None:
    """A semantic cache for LLM calls that would rather miss than be wrong."""
    # A command says itself what matters to its user; without a handler, logging would print the rest on stderr.
    logging.getLogger("semcache").addHandler(_QUIET)
