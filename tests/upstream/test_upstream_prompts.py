"""The local provider's prompt cache keeps to the rules of those it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from semcache.testing.upstream import Upstream

LONG = "The lifts of the harbour run until ten. " * 200


@pytest.fixture
def up() -> Iterator[Upstream]:
    with Upstream() as up:
        yield up


def claude(up: Upstream, question: str, *blocks: tuple[str, str | None]) -> tuple[int, int, int]:
    """Tokens read, written for five minutes, and written for an hour, by system blocks and their lifetimes."""
    system: list[Any] = [
        {"type": "text", "text": text, **({"cache_control": {"type": "ephemeral", "ttl": ttl}} if ttl else {})}
        for text, ttl in blocks
    ]
    with anthropic.Anthropic(base_url=up.anthropic_url, api_key="key") as client:
        messages: list[Any] = [{"role": "user", "content": question}]
        answer = client.messages.create(model="claude-sonnet-5", max_tokens=9, system=system, messages=messages)
    usage = answer.usage
    assert usage.cache_creation is not None
    written = usage.cache_creation.ephemeral_5m_input_tokens, usage.cache_creation.ephemeral_1h_input_tokens
    assert usage.cache_creation_input_tokens == sum(written)
    return usage.cache_read_input_tokens or 0, *written


def test_anthropic_writes_at_a_mark_and_reads_with_one(up: Upstream) -> None:
    assert claude(up, "a", (LONG, None)) == (0, 0, 0)
    read, short, long = claude(up, "b", (LONG, "5m"))
    assert (read, long) == (0, 0)
    assert short > 1024
    assert claude(up, "c", (LONG, "5m")) == (short, 0, 0)
    assert claude(up, "d", (LONG, None)) == (0, 0, 0)
    assert claude(up, "e", (LONG, "1h"), (LONG, "5m"))[0] == short
    assert claude(up, "f", ("Other. " + LONG, "1h"))[:2] == (0, 0)
    up.forget_prompts()
    assert claude(up, "g", (LONG, "5m")) == (0, short, 0)


def test_a_short_prefix_is_not_kept(up: Upstream) -> None:
    assert claude(up, "a", ("Be brief.", "5m")) == claude(up, "b", ("Be brief.", "5m")) == (0, 0, 0)


def chat(up: Upstream, question: str, *, mark: bool = False, model: str = "gpt-6-sol", **more: Any) -> tuple[int, int]:
    """Tokens read and written."""
    part = {"type": "text", "text": LONG, **({"prompt_cache_breakpoint": {"mode": "explicit"}} if mark else {})}
    messages: list[Any] = [{"role": "system", "content": [part]}, {"role": "user", "content": question}]
    with openai.OpenAI(base_url=up.openai_url, api_key="key") as client:
        usage = client.chat.completions.create(model=model, messages=messages, extra_body=more).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    details = usage.prompt_tokens_details.model_dump()
    return details["cached_tokens"], details["cache_write_tokens"]


EXPLICIT: dict[str, Any] = {"prompt_cache_options": {"mode": "explicit"}}


def test_openai_caches_by_itself_unless_told_otherwise(up: Upstream) -> None:
    read, written = chat(up, "a")
    assert read == 0
    assert written > 1024
    assert chat(up, "b", **EXPLICIT) == (0, 0)
    assert chat(up, "c", mark=True, **EXPLICIT)[0] == 0
    read, written = chat(up, "d", mark=True, **EXPLICIT)
    assert read > 1024
    assert written == 0
    assert chat(up, "e", mark=True, prompt_cache_key="other", **EXPLICIT)[0] == 0


def test_earlier_models_tell_of_no_writes(up: Upstream) -> None:
    assert chat(up, "a", model="gpt-4o") == (0, 0)
    assert chat(up, "a", model="gpt-4o")[0] > 1024
