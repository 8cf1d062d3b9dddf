"""The desks of the demo: real SDK clients and a plain function, each wrapped by the cache."""

from __future__ import annotations

import functools
import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

from semcache.demo.providers import SDKS, Ask, Provider, open_sdk
from semcache.demo.questions import Api, Question, load_answers
from semcache.errors import MissingExtraError

if TYPE_CHECKING:
    from semcache.cache import SemanticCache
    from semcache.testing.upstream import Upstream

Desk = Callable[[Question], str]
"""Asks a question and returns the answer's text."""

LABEL: Final = "demo"
"""Names the upstream in the cache, since its port is another one in every run."""

SYSTEM: Final = (
    "You work at the {desk} desk of Quillnet, a provider of broadband, television and mobile service. Answer the "
    "customer's question in at most three sentences. Name the menu path in the app where there is one. Do not make "
    "up prices, dates or numbers; if you do not know, say that the phone line 150 does."
)
_DESKS: Final[Mapping[Api, str]] = {"openai": "billing", "anthropic": "technical", "function": "mobile"}


class Desks(NamedTuple):
    """All desks, and the ways of calling a model that they have."""

    by_api: Mapping[Api, Desk]
    ways: tuple[str, ...]


@contextmanager
def open_desks(cache: SemanticCache, upstream: Upstream, provider: Provider | None = None) -> Iterator[Desks]:
    """The desks, each with its own way of calling a model; or all at one provider's.

    A desk whose SDK is not installed gets the plain function. Where all are at one provider's, their prompts hold a
    handbook, so that its prompt cache has something to keep.

    Raises:
        MissingExtraError: The SDK of ``provider`` is not installed.
    """
    with ExitStack() as stack:
        if provider is not None:
            wrap = functools.partial(cache.wrap, upstream=LABEL, provider=SDKS[provider].vendor)
            desk = functools.partial(_at_desk, open_sdk(provider, upstream, stack, wrap), handbook())
            yield Desks(dict.fromkeys(get_args(Api), desk), (provider,))
            return
        function = _function_desk(cache, upstream)
        desks: dict[Api, Desk] = dict.fromkeys(get_args(Api), function)
        ways = ["function"]
        for name in ("openai", "anthropic"):
            try:
                ask = open_sdk(name, upstream, stack, functools.partial(cache.wrap, upstream=LABEL))
            except MissingExtraError:
                continue
            desks[name] = functools.partial(_at_desk, ask, "")
            ways.append(name)
        yield Desks(desks, tuple(ways))


@functools.cache
def handbook() -> str:
    """What the desks know, for the end of a system prompt."""
    return "\n".join(("", "", "The handbook:", *load_answers().values()))


def _at_desk(ask: Ask, known: str, question: Question) -> str:
    return ask(SYSTEM.format(desk=_DESKS[question.api]) + known, question)


def _function_desk(cache: SemanticCache, upstream: Upstream) -> Desk:
    url = f"{upstream.openai_url}/chat/completions"

    def ask(prompt: str) -> str:
        messages = [
            {"role": "system", "content": SYSTEM.format(desk=_DESKS["function"])},
            {"role": "user", "content": prompt},
        ]
        body = json.dumps({"model": SDKS["openai"].model, "messages": messages}).encode()
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: str = json.load(response)["choices"][0]["message"]["content"]
            return answer

    # Named, since what it closes over changes from run to run and would be taken for another function.
    cached = cache.wrap(ask, name=f"{LABEL}.mobile-desk")
    return lambda question: cached(question.text)
