"""Embeddings requests and answers, as the cache sees them."""

from __future__ import annotations

from typing import Any

import pytest

from semcache.keys import canonical
from semcache.types import Request, Usage
from semcache.wire import find
from semcache.wire.openai_embeddings import OpenAIEmbeddings

CODEC = OpenAIEmbeddings()


def parse(**fields: Any) -> Request:
    return CODEC.parse({"model": "m", "input": "hi", **fields}, upstream="https://host/v1", headers={})


@pytest.mark.parametrize("path", ["/v1/embeddings", "/openai/deployments/e/embeddings"])
def test_find(path: str) -> None:
    codec = find("POST", path)
    assert codec is not None
    assert codec.name == "openai_embeddings"
    assert find("POST", "/v1/embeddings/other") is None


@pytest.mark.parametrize("given", ["hi", ["hi", "ho"], [1, 2], [[1, 2], [3]]])
def test_texts_and_tokens_match_exactly(given: Any) -> None:
    request = parse(input=given)
    assert request.bypass is None
    assert request.exact_only
    assert request.text is None
    assert request.model == "m"


@pytest.mark.parametrize(
    "fields",
    [{"input": "ho"}, {"input": ["hi"]}, {"model": "n"}, {"dimensions": 8}, {"encoding_format": "float"}, {"new": 1}],
)
def test_every_field_but_the_user_is_part_of_the_key(fields: dict[str, Any]) -> None:
    assert canonical(parse(**fields).scope) != canonical(parse().scope)
    assert canonical(parse(**fields, user="u").scope) == canonical(parse(**fields).scope)


@pytest.mark.parametrize("fields", [{"input": None}, {"input": ""}, {"input": []}, {"input": 5}, {"stream": True}])
def test_bypass(fields: dict[str, Any]) -> None:
    request = parse(**fields)
    assert (request.bypass or "").startswith("unknown shape")
    assert not request.stream


@pytest.mark.parametrize(
    ("data", "keep"),
    [
        ([{"embedding": [0.5]}], "exact"),
        ([{"embedding": "AAAAPw=="}, {"embedding": "AAAAPw=="}], "exact"),
        ([{"embedding": [0.5]}, {"embedding": []}], "never"),
        ([{"embedding": ""}], "never"),
        ([{"embedding": None}], "never"),
        (["x"], "never"),
        ([], "never"),
        (None, "never"),
    ],
)
def test_storable(data: Any, keep: str) -> None:
    assert CODEC.storable({"object": "list", "data": data}).keep == keep
    assert CODEC.storable({"data": data, "error": {"message": "m"}}).keep == "never"


def test_usage() -> None:
    assert CODEC.usage({"usage": {"prompt_tokens": 7, "total_tokens": 7}}) == Usage(7, 0)
    assert CODEC.usage({}) is None


def test_there_is_no_stream_to_record() -> None:
    recorder = CODEC.recorder({"model": "m"})
    stream = b'data: {"data": []}\n\ndata: [DONE]\n\n'
    assert b"".join([*recorder.feed(stream), recorder.flush()]) == stream
    assert recorder.finish() is None
