"""RemoteEmbedder against a real HTTP server that can misbehave, and CallableEmbedder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from embedding_server import DIM, EmbeddingServer, serve, vectors

from semcache.embedders import CallableEmbedder, RemoteEmbedder
from semcache.errors import ConfigurationError, EmbedderError
from semcache.testing.embedder_contract import in_forked_child

PATIENT_S = 30.0


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with serve() as running:
        yield running


def unit(texts: list[str]) -> np.ndarray:
    rows = vectors(texts)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("floats", [False, True])
def test_both_encodings_and_the_order_of_indices(server: EmbeddingServer, floats: bool) -> None:
    server.floats = floats
    rows = RemoteEmbedder(server.url, "letters", timeout_s=PATIENT_S).embed(["one", "two", "three"])
    np.testing.assert_allclose(rows, unit(["one", "two", "three"]), atol=1e-6)


def test_what_is_sent(server: EmbeddingServer) -> None:
    embedder = RemoteEmbedder(f"{server.url}/", "m", api_key="secret", dimensions=8, timeout_s=PATIENT_S)
    assert embedder.dim == 8
    assert embedder.embed(["hé"]).shape == (1, 8)
    assert server.requests == [
        {"path": "/v1/embeddings", "model": "m", "input": ["hé"], "encoding_format": "base64", "dimensions": 8}
    ]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in embedder.fingerprint + embedder.source


def test_one_connection_is_kept_and_bulk_is_cut(server: EmbeddingServer) -> None:
    embedder = RemoteEmbedder(server.url, "letters", timeout_s=PATIENT_S)
    texts = [f"text {number}" for number in range(70)]
    np.testing.assert_allclose(embedder.embed(texts), unit(texts), atol=1e-6)
    assert [len(request["input"]) for request in server.requests] == [32, 32, 6]
    assert server.connections == 1


def test_a_connection_that_the_server_closed_is_opened_again(server: EmbeddingServer) -> None:
    embedder = RemoteEmbedder(server.url, "letters", timeout_s=PATIENT_S)
    server.close_after = True
    for text in ("a", "b", "c"):
        np.testing.assert_allclose(embedder.embed([text]), unit([text]), atol=1e-6)
    assert len(server.requests) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_a_connection_of_its_own(server: EmbeddingServer) -> None:
    embedder = RemoteEmbedder(server.url, "letters", timeout_s=PATIENT_S)
    embedder.embed(["parent"])
    in_forked_child(lambda: embedder.embed(["child"]).tobytes())
    embedder.embed(["parent again"])
    assert server.connections == 2


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_an_error_answer_is_trouble_and_not_tried_again(server: EmbeddingServer, status: int) -> None:
    server.status = status
    with pytest.raises(EmbedderError, match=f"answered {status}: .*slow down"):
        RemoteEmbedder(server.url, "letters", timeout_s=PATIENT_S).embed(["a"])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data": []}',
        b'{"data": [{"index": 0}]}',
        b'{"data": [{"index": 1, "embedding": [1, 2]}]}',
        b'{"data": [{"index": 0, "embedding": "AAA"}]}',
        b'{"data": [{"index": 0, "embedding": []}]}',
        b'{"data": [{"index": 0, "embedding": [0, 0]}]}',
        b'{"data": [{"index": 0, "embedding": [1, NaN]}]}',
        b'{"data": [{"index": 0, "embedding": [1, "x"]}]}',
    ],
)
def test_an_answer_without_good_vectors_is_trouble(server: EmbeddingServer, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(EmbedderError):
        RemoteEmbedder(server.url, "letters", timeout_s=PATIENT_S).embed(["a"])


def test_a_dimension_that_changes_is_trouble(server: EmbeddingServer) -> None:
    embedder = RemoteEmbedder(server.url, "letters", timeout_s=PATIENT_S)
    assert embedder.dim == DIM
    server.answer = json.dumps({"data": [{"index": 0, "embedding": [1.0, 2.0]}]}).encode()
    with pytest.raises(EmbedderError, match=rf"shape \[1, 2\], expected \[1, {DIM}\]"):
        embedder.embed(["a"])


def test_a_stalled_server_costs_the_time_limit(server: EmbeddingServer) -> None:
    server.released.clear()
    with pytest.raises(EmbedderError, match="no answer within"):
        RemoteEmbedder(server.url, "letters", timeout_s=0.2).embed(["a"])


def test_a_server_that_drips_bytes_costs_the_time_limit_too(server: EmbeddingServer) -> None:
    """Each read succeeds in time; only the sum is too long (the whole answer would come in half a minute)."""
    server.drip_s = 0.1
    with pytest.raises(EmbedderError, match="no answer within"):
        RemoteEmbedder(server.url, "letters", timeout_s=0.5).embed(["a"])


def test_nobody_listening_is_trouble() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(EmbedderError, match="cannot be reached"):
            RemoteEmbedder(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "m").embed(["a"])


def test_what_fits_by_bytes() -> None:
    unknown = RemoteEmbedder("https://example.com/v1", "unheard-of")
    assert unknown.fits("é" * 255)
    assert not unknown.fits("é" * 256)
    assert not unknown.fits("")
    assert RemoteEmbedder("https://example.com/v1", "text-embedding-3-small").fits("a" * 8191)
    assert RemoteEmbedder("https://example.com/v1", "unheard-of", max_bytes=9).fits("a" * 9)


@pytest.mark.parametrize("url", ["example.com/v1", "ftp://example.com", "http://", "https://user:pw@example.com/v1"])
def test_addresses_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RemoteEmbedder(url, "m")
    assert "pw" not in str(refused.value)


def test_the_fingerprint_tells_servers_models_and_dimensions_apart() -> None:
    made = [
        RemoteEmbedder("https://a.example/v1", "m"),
        RemoteEmbedder("https://b.example/v1", "m"),
        RemoteEmbedder("https://a.example/v2", "m"),
        RemoteEmbedder("https://a.example/v1", "n"),
        RemoteEmbedder("https://a.example/v1", "m", dimensions=8),
    ]
    assert len({embedder.fingerprint for embedder in made}) == len(made)
    assert RemoteEmbedder("https://A.example/v1/", "m", api_key="k").fingerprint == made[0].fingerprint


def test_a_function_that_fails_is_trouble() -> None:
    def broken(texts: list[str]) -> object:
        raise RuntimeError("out of memory")

    with pytest.raises(EmbedderError, match="out of memory"):
        CallableEmbedder(broken, fingerprint="f", dim=3).embed(["a"])


@pytest.mark.parametrize("rows", [[[1.0]] * 2, [1.0, 2.0], [[0.0, 0.0]], [[float("inf"), 1.0]], "text", None])
def test_a_function_that_returns_no_matrix_is_trouble(rows: object) -> None:
    with pytest.raises(EmbedderError):
        CallableEmbedder(lambda texts: rows, fingerprint="f").embed(["a"])


def test_lists_of_numbers_become_unit_vectors() -> None:
    embedder = CallableEmbedder(lambda texts: [[3, 4] for _ in texts], fingerprint="f")
    np.testing.assert_allclose(embedder.embed(["a", "b"]), [[0.6, 0.8]] * 2)
    assert embedder.dim == 2


def test_functions_need_a_fingerprint() -> None:
    with pytest.raises(ConfigurationError, match="fingerprint is empty"):
        CallableEmbedder(vectors, fingerprint="")
    with pytest.raises(ConfigurationError, match="cannot be called"):
        CallableEmbedder("letters", fingerprint="x")
