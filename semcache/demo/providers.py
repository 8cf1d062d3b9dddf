"""The providers of the demo: the real SDK of each, against the local upstream."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from semcache.demo.questions import Question
from semcache.errors import MissingExtraError

if TYPE_CHECKING:
    from anthropic import Anthropic
    from anthropic.types import MessageParam
    from google.genai import Client as GenaiClient
    from google.genai.types import GenerateContentConfigDict
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

    from semcache.testing.upstream import Upstream

Provider = Literal["openai", "anthropic", "gemini", "bedrock", "litellm"]
Ask = Callable[[str, Question], str]
"""Asks a question under a system prompt and returns the answer's text."""
Wrap = Callable[[Any], Any]

_LIMIT: Final = 400


class Sdk(NamedTuple):
    """How a provider is called.

    Args:
        package: The distribution that brings the SDK. The extra has the provider's name.
        open: Builds the client, wraps it, and closes it with the stack.
        vendor: Whose prompt cache the provider keeps; ``None`` where a caller marks nothing.
    """

    package: str
    model: str
    open: Callable[[Upstream, ExitStack, Wrap], Ask]
    vendor: str | None = None


def open_sdk(provider: Provider, upstream: Upstream, stack: ExitStack, wrap: Wrap) -> Ask:
    """The wrapped client of a provider.

    Raises:
        MissingExtraError: Its SDK is not installed.
    """
    try:
        return SDKS[provider].open(upstream, stack, wrap)
    except ImportError as error:
        raise MissingExtraError(SDKS[provider].package, provider) from error


def _openai(upstream: Upstream, stack: ExitStack, wrap: Wrap) -> Ask:
    from openai import OpenAI

    client = stack.enter_context(OpenAI(base_url=upstream.openai_url, api_key="demo"))
    return functools.partial(_ask_openai, wrap(client))


def _ask_openai(client: OpenAI, system: str, question: Question) -> str:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": system},
        {"role": "user", "content": question.text},
    ]
    model = SDKS["openai"].model
    if question.stream:
        chunks = client.chat.completions.create(model=model, messages=messages, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    answer = client.chat.completions.create(model=model, messages=messages)
    return answer.choices[0].message.content or ""


def _anthropic(upstream: Upstream, stack: ExitStack, wrap: Wrap) -> Ask:
    from anthropic import Anthropic

    client = stack.enter_context(Anthropic(base_url=upstream.anthropic_url, api_key="demo"))
    return functools.partial(_ask_anthropic, wrap(client))


def _ask_anthropic(client: Anthropic, system: str, question: Question) -> str:
    messages: list[MessageParam] = [{"role": "user", "content": question.text}]
    model = SDKS["anthropic"].model
    if question.stream:
        with client.messages.stream(model=model, max_tokens=_LIMIT, system=system, messages=messages) as events:
            return events.get_final_text()
    answer = client.messages.create(model=model, max_tokens=_LIMIT, system=system, messages=messages)
    return "".join(block.text for block in answer.content if block.type == "text")


def _gemini(upstream: Upstream, stack: ExitStack, wrap: Wrap) -> Ask:
    from google.genai import Client

    client = stack.enter_context(Client(api_key="demo", http_options={"base_url": upstream.gemini_url}))
    return functools.partial(_ask_gemini, wrap(client))


def _ask_gemini(client: GenaiClient, system: str, question: Question) -> str:
    config: GenerateContentConfigDict = {"system_instruction": system}
    model = SDKS["gemini"].model
    if question.stream:
        chunks = client.models.generate_content_stream(model=model, contents=question.text, config=config)
        return "".join(chunk.text or "" for chunk in chunks)
    return client.models.generate_content(model=model, contents=question.text, config=config).text or ""


def _bedrock(upstream: Upstream, stack: ExitStack, wrap: Wrap) -> Ask:
    import boto3

    keys = {"aws_access_key_id": "demo", "aws_secret_access_key": "demo"}
    client = boto3.client("bedrock-runtime", endpoint_url=upstream.bedrock_url, region_name="us-east-1", **keys)
    stack.callback(client.close)
    return functools.partial(_ask_bedrock, wrap(client))


def _ask_bedrock(client: Any, system: str, question: Question) -> str:
    asked = {
        "modelId": SDKS["bedrock"].model,
        "system": [{"text": system}],
        "messages": [{"role": "user", "content": [{"text": question.text}]}],
    }
    if question.stream:
        deltas = (
            event.get("contentBlockDelta", {}).get("delta", {}) for event in client.converse_stream(**asked)["stream"]
        )
        return "".join(delta.get("text", "") for delta in deltas)
    return "".join(block["text"] for block in client.converse(**asked)["output"]["message"]["content"])


def _litellm(upstream: Upstream, stack: ExitStack, wrap: Wrap) -> Ask:
    # Otherwise importing it fetches a list of prices.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    completion = wrap(litellm.completion)

    def ask(system: str, question: Question) -> str:
        answer = completion(
            model=SDKS["litellm"].model,
            messages=[{"role": "system", "content": system}, {"role": "user", "content": question.text}],
            api_base=upstream.openai_url,
            api_key="demo",
            stream=question.stream,
        )
        if question.stream:
            return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
        return answer.choices[0].message.content or ""

    return ask


SDKS: Final[Mapping[Provider, Sdk]] = {
    "openai": Sdk("openai", "gpt-6-luna", _openai, "openai"),
    "anthropic": Sdk("anthropic", "claude-sonnet-5", _anthropic, "anthropic"),
    "gemini": Sdk("google-genai", "gemini-3.8-flash", _gemini),
    "bedrock": Sdk("boto3", "us.anthropic.claude-sonnet-5-20260201-v1:0", _bedrock, "bedrock"),
    "litellm": Sdk("litellm", "openai/gpt-6-luna", _litellm),
}
