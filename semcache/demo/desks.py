"""The desks of the demo: real SDK clients and a plain function, each wrapped by the cache."""

from __future__ import annotations

import functools
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from semcache.demo.questions import Api, Question

if TYPE_CHECKING:
    from anthropic import Anthropic
    from anthropic.types import MessageParam
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

    from semcache.cache import SemanticCache
    from semcache.testing.upstream import Upstream

Desk = Callable[[Question], str]
"""Asks a question and returns the answer's text."""

LABEL = "demo"
"""Names the upstream in the cache, since its port is another one in every run."""

SYSTEM = (
    "You work at the {desk} desk of Quillnet, a provider of broadband, television and mobile service. Answer the "
    "customer's question in at most three sentences. Name the menu path in the app where there is one. Do not make "
    "up prices, dates or numbers; if you do not know, say that the phone line 150 does."
)
OPENAI_MODEL = "gpt-6-luna"
ANTHROPIC_MODEL = "claude-haiku-4-5"


@contextmanager
def open_desks(cache: SemanticCache, upstream: Upstream) -> Iterator[dict[Api, Desk]]:
    """A desk for each way of calling a model. A way whose SDK is not installed is left out."""
    with ExitStack() as stack:
        desks: dict[Api, Desk] = {"function": _function_desk(cache, upstream)}
        try:
            from openai import OpenAI
        except ImportError:
            pass
        else:
            openai = stack.enter_context(OpenAI(base_url=upstream.openai_url, api_key="demo"))
            desks["openai"] = functools.partial(_ask_openai, cache.wrap(openai, upstream=LABEL))
        try:
            from anthropic import Anthropic
        except ImportError:
            pass
        else:
            anthropic = stack.enter_context(Anthropic(base_url=upstream.anthropic_url, api_key="demo"))
            desks["anthropic"] = functools.partial(_ask_anthropic, cache.wrap(anthropic, upstream=LABEL))
        yield desks


def _ask_openai(client: OpenAI, question: Question) -> str:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": SYSTEM.format(desk="billing")},
        {"role": "user", "content": question.text},
    ]
    if question.stream:
        chunks = client.chat.completions.create(model=OPENAI_MODEL, messages=messages, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    answer = client.chat.completions.create(model=OPENAI_MODEL, messages=messages)
    return answer.choices[0].message.content or ""


def _ask_anthropic(client: Anthropic, question: Question) -> str:
    system = SYSTEM.format(desk="technical")
    messages: list[MessageParam] = [{"role": "user", "content": question.text}]
    if question.stream:
        stream = client.messages.stream(model=ANTHROPIC_MODEL, max_tokens=400, system=system, messages=messages)
        with stream as events:
            return events.get_final_text()
    answer = client.messages.create(model=ANTHROPIC_MODEL, max_tokens=400, system=system, messages=messages)
    return "".join(block.text for block in answer.content if block.type == "text")


def _function_desk(cache: SemanticCache, upstream: Upstream) -> Desk:
    url = f"{upstream.openai_url}/chat/completions"

    def ask(prompt: str) -> str:
        messages = [
            {"role": "system", "content": SYSTEM.format(desk="mobile")},
            {"role": "user", "content": prompt},
        ]
        body = json.dumps({"model": OPENAI_MODEL, "messages": messages}).encode()
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: str = json.load(response)["choices"][0]["message"]["content"]
            return answer

    # Named, since what it closes over changes from run to run and would be taken for another function.
    cached = cache.wrap(ask, name=f"{LABEL}.mobile-desk")
    return lambda question: cached(question.text)
