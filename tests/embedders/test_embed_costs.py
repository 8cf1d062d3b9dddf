"""What an embedder and a verifier cost is in the cache's books."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from embedding_server import EmbeddingServer, serve

from semcache import Policy, SemanticCache
from semcache.embedders import RemoteEmbedder
from semcache.types import Reply, Request, Usage
from semcache.verifiers import LLMVerifier

TEXTS = ["How do I get to the station?", "How do I get to the station"]


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with serve() as running:
        yield running


def ask(cache: SemanticCache, text: str) -> str:
    request = Request("test", {}, text, model="gpt-5-mini")
    return cache.engine.run(request, lambda: Reply(1, b'"a"', Usage(100, 10))).outcome.status


def test_what_a_remote_embedder_used_is_booked(server: EmbeddingServer) -> None:
    embedder = RemoteEmbedder(server.url, "text-embedding-3-small", timeout_s=30.0)
    policy = Policy(threshold=0.999999, guards=())
    with SemanticCache("memory://", embedder=embedder, policy=policy, namespace="desk") as cache:
        for text in (TEXTS[0] * 100, TEXTS[0] * 100, "x"):
            ask(cache, text)
        books = cache.stats().ledger
        letters = sum(len(text) for request in server.requests for text in request["input"])
        line = books.totals.embedding
        assert (line.calls, line.tokens) == (len(server.requests), letters)
        assert line.usd_micro == sum(round(sum(map(len, request["input"])) * 0.02) for request in server.requests)
        assert line.usd_micro > 0
        assert {row.model for row in books.rows if row.books.embedding.calls} == {"text-embedding-3-small"}
        assert {row.namespace for row in books.rows} == {"desk"}


def test_a_server_that_does_not_say_is_unmetered(server: EmbeddingServer) -> None:
    server.tells_usage = False
    embedder = RemoteEmbedder(server.url, "letters", timeout_s=30.0)
    with SemanticCache("memory://", embedder=embedder) as cache:
        ask(cache, TEXTS[0])
        line = cache.stats().ledger.totals.embedding
        assert (line.calls, line.unmetered, line.usd) == (1, 1, None)


def test_what_a_verifier_is_thought_to_cost_is_booked(server: EmbeddingServer) -> None:
    verifier = LLMVerifier(lambda prompt: "yes", model="gpt-4o-mini")
    policy = Policy(threshold=0.9999, guards=(), verifier=verifier, verify_from=0.1, verify_within_s=30.0)
    embedder = RemoteEmbedder(server.url, "letters", timeout_s=30.0)
    with SemanticCache("memory://", embedder=embedder, policy=policy) as cache:
        assert [ask(cache, text) for text in TEXTS] == ["miss", "hit"]
        line = cache.stats().ledger.totals.verifier
        assert (line.calls, line.estimated) == (1, 1)
        assert line.usd_micro == verifier.spent_usd_micro > 0
