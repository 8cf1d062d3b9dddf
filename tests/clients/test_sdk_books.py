"""What a provider's prompt cache did, from the SDK's own request to the books."""

from __future__ import annotations

import anthropic
import openai

from semcache import Policy, SemanticCache, last_outcome
from semcache.testing.upstream import Upstream
from semcache.wire.anthropic import AnthropicMessages
from semcache.wire.openai_responses import OpenAIResponses

LONG = "You answer questions about the lifts of a large house. " * 600


def test_a_prompt_written_for_an_hour_and_read_again_is_booked_by_its_price(up: Upstream) -> None:
    with (
        SemanticCache("memory://", policy=Policy(semantic=False)) as cache,
        anthropic.Anthropic(base_url=up.anthropic_url, api_key="any") as plain,
    ):
        client = cache.wrap(plain)

        def ask(question: str) -> None:
            client.messages.create(
                model="claude-sonnet-5",
                max_tokens=100,
                system=[{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
                messages=[{"role": "user", "content": question}],
            )

        ask("Is it up?")
        outcome = last_outcome()
        assert outcome is not None
        wrote = outcome.usage
        assert wrote is not None
        assert wrote.cache_write_tokens == wrote.cache_write_long_tokens > 1000
        ask("And the other one?")
        ask("Is it up?")
        totals = cache.stats().ledger.totals
        prefix = wrote.cache_write_tokens
        # $2 for a million of input: an hour's write costs as much again, a read a tenth.
        assert totals.writes.usd_micro == -2 * prefix
        assert abs(totals.reads.usd_micro - 0.9 * 2 * prefix) <= 1
        # The hit would have read what the first call wrote.
        plain_tokens = wrote.input_tokens - prefix
        assert abs(totals.exact.usd_micro - (2 * plain_tokens + 0.2 * prefix + 10 * wrote.output_tokens)) <= 1
        assert totals.paid_usd_micro + totals.net_usd_micro == totals.without_usd_micro


def test_the_longer_lifetime_is_read_where_it_is_reported() -> None:
    told = anthropic.types.Usage(
        input_tokens=10,
        output_tokens=5,
        cache_creation_input_tokens=300,
        cache_creation=anthropic.types.CacheCreation(ephemeral_1h_input_tokens=200, ephemeral_5m_input_tokens=100),
    )
    usage = AnthropicMessages().usage({"usage": told.model_dump()})
    assert usage is not None
    assert (usage.cache_write_tokens, usage.cache_write_long_tokens) == (300, 200)
    body = {
        "input_tokens": 500,
        "output_tokens": 5,
        "total_tokens": 505,
        "input_tokens_details": {
            "cached_tokens": 0,
            "cache_write_tokens": 400,
            "cache_write_tokens_details": {"ttl_30m_tokens": 100, "ttl_12h_tokens": 300},
        },
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    dumped = openai.types.responses.ResponseUsage.model_validate(body).model_dump()
    usage = OpenAIResponses().usage({"usage": dumped})
    assert usage is not None
    assert (usage.cache_write_tokens, usage.cache_write_long_tokens) == (400, 300)
