"""boto3's bedrock-runtime client through the cache, over real HTTP."""

from __future__ import annotations

import gc
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from bedrock_calls import (
    ACCESS_KEY,
    EACH,
    MODEL,
    OPERATIONS,
    PAIRS,
    QUESTION,
    SECRET,
    Make,
    body,
    converse,
    converse_stream,
    invoke,
    status,
)
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, ParamValidationError

from semcache import ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.testing.upstream import Fault, RecordedRequest, Upstream


@pytest.mark.parametrize(("plain", "stream"), PAIRS, ids=["converse", "invoke"])
@pytest.mark.parametrize("stored_as", ["plain", "stream"])
def test_an_answer_serves_both_ways_of_asking(
    plain: Any, stream: Any, stored_as: str, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    bare, client = plain(make()), exact_cache.wrap(make())
    first = (plain if stored_as == "plain" else stream)(client)
    assert status() == "miss"
    assert plain(client) == stream(client) == first == bare
    assert up.calls() == 2
    outcome = last_outcome()
    assert outcome is not None
    assert (outcome.status, outcome.layer, outcome.model) == ("hit", "exact", MODEL)
    assert outcome.usage is not None
    assert outcome.usage.output_tokens > 0


FIRST, SECOND = "How do I reset my password?", "How can I reset my password?"


def test_a_question_of_the_same_meaning(up: Upstream, make: Make) -> None:
    with SemanticCache(store="memory://") as cache:
        client = cache.wrap(make())
        for plain, stream in PAIRS:
            answer = plain(client, FIRST)
            for ask in (plain, stream):
                assert ask(client, SECOND) == answer
                outcome = last_outcome()
                assert outcome is not None
                assert outcome.layer == "semantic"
        assert up.calls() == 2
        for question in (FIRST, SECOND):
            converse(client, question, guardrailConfig={"guardrailIdentifier": "guardrail1", "guardrailVersion": "1"})
            assert status() == "miss", "a guardrail sees every question"


def test_a_hit_has_every_field_of_the_miss(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    asked = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": QUESTION}]}]}
    miss, hit = client.converse(**asked), client.converse(**asked)
    of_miss, of_hit = miss.pop("ResponseMetadata"), hit.pop("ResponseMetadata")
    assert miss == hit
    assert of_hit.keys() == of_miss.keys()
    assert (of_hit["HTTPStatusCode"], of_hit["RetryAttempts"]) == (200, 0)
    assert of_hit["RequestId"].startswith("semcache-")
    assert of_miss["HTTPHeaders"]["cache-status"].startswith("semcache; fwd=uri-miss; stored")
    assert of_hit["HTTPHeaders"]["cache-status"].startswith("semcache; hit")
    streams = [client.converse_stream(**asked), make().converse_stream(**asked)]
    events = [list(answer.pop("stream")) for answer in streams]
    assert [next(iter(event)) for event in events[0]][-2:] == ["messageStop", "metadata"]
    assert events[0][-1] == events[1][-1]
    invoked = [client.invoke_model(modelId=MODEL, body=body()) for _ in range(2)]
    assert invoked[0].keys() == invoked[1].keys()
    assert invoked[0]["body"].read() == invoked[1]["body"].read()
    streamed = [one.invoke_model_with_response_stream(modelId=MODEL, body=body()) for one in (make(), client)]
    assert streamed[0].keys() == streamed[1].keys()
    assert streamed[0]["contentType"] == streamed[1]["contentType"] == "application/json"


# What the objects of an answer can do -----------------------------------------------------------------------------


@pytest.mark.parametrize("answered", ["miss", "hit"])
@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.read(),
        lambda stream: b"".join(iter(lambda: stream.read(7), b"")),
        lambda stream: b"".join(stream.iter_chunks(10)),
        lambda stream: b"".join(stream),
        lambda stream: b"".join(stream.iter_lines(keepends=True)),
        lambda stream: b"".join(stream.readlines()),
        lambda stream: io.BufferedReader(stream).read(),
        lambda stream: stream.read(5) + stream.read(),
        lambda stream: json.dumps(json.load(stream)).encode(),
    ],
    ids=["whole", "pieces", "chunks", "iteration", "lines", "readlines", "buffered", "two reads", "json"],
)
def test_the_streaming_body(read: Any, answered: str, make: Make, exact_cache: SemanticCache) -> None:
    bare, client = make(), exact_cache.wrap(make())
    if answered == "hit":
        invoke(client)
    stream = client.invoke_model(modelId=MODEL, body=body())["body"]
    assert status() == answered
    assert stream.readable()
    found = json.loads(read(stream))
    stream.close()
    with client.invoke_model(modelId=MODEL, body=body())["body"] as raw:
        assert json.loads(raw.read()) == found
    assert raw.closed
    expected = json.loads(bare.invoke_model(modelId=MODEL, body=body())["body"].read())
    assert {**found, "id": ""} == {**expected, "id": ""}


@pytest.mark.parametrize("answered", ["miss", "hit"])
def test_an_event_stream_can_be_closed_at_any_time(answered: str, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    if answered == "hit":
        converse(client)
    answer = client.converse_stream(modelId=MODEL, messages=[{"role": "user", "content": [{"text": QUESTION}]}])
    events = iter(answer["stream"])
    assert next(events) == {"messageStart": {"role": "assistant"}}
    answer["stream"].close()
    answer["stream"].close()
    converse(client)
    assert status() == ("hit" if answered == "hit" else "miss"), "what was not read to its end is not kept"


@pytest.mark.parametrize("end", ["close", "drop"])
def test_an_event_stream_that_was_read_to_its_end_is_kept(end: str, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    answer = client.converse_stream(modelId=MODEL, messages=[{"role": "user", "content": [{"text": QUESTION}]}])
    for event in answer["stream"]:
        if "metadata" in event:
            break
    if end == "close":
        answer["stream"].close()
    del answer
    gc.collect()
    converse(client)
    assert status() == ("hit" if end == "close" else "miss")


def test_tools_and_their_results(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": schema}}}], "toolChoice": {"any": {}}}
    asked: list[Any] = [{"role": "user", "content": [{"text": QUESTION}]}]
    answers = [client.converse(modelId=MODEL, messages=asked, toolConfig=tools) for _ in range(2)]
    message = answers[0]["output"]["message"]
    assert answers[1]["output"]["message"] == message
    assert answers[1]["stopReason"] == "tool_use"
    call = message["content"][-1]["toolUse"]
    stream = list(client.converse_stream(modelId=MODEL, messages=asked, toolConfig=tools)["stream"])
    (start,) = (event["contentBlockStart"]["start"]["toolUse"] for event in stream if "contentBlockStart" in event)
    deltas = [event["contentBlockDelta"]["delta"] for event in stream if "contentBlockDelta" in event]
    typed = "".join(delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta)
    assert {**start, "input": json.loads(typed)} == call
    result = {"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": "sunny"}]}}
    turns = [*asked, message, {"role": "user", "content": [result]}]
    for _ in range(2):
        client.converse(modelId=MODEL, messages=turns, toolConfig=tools)
    assert up.calls() == 2
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.request is not None
    assert outcome.request.exact_only


def test_documents_and_images_reach_the_key_as_digests(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())

    def ask(picture: bytes) -> None:
        image = {"image": {"format": "png", "source": {"bytes": picture}}}
        client.converse(modelId=MODEL, messages=[{"role": "user", "content": [image, {"text": QUESTION}]}])

    for picture in (b"one", b"one", b"two"):
        ask(picture)
    assert up.calls() == 2


# The client -------------------------------------------------------------------------------------------------------


def test_the_original_is_not_changed_and_its_calls_are_not_cached(
    up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    original = make()
    before = dict(vars(original)), dict(vars(original._endpoint))
    wrapped = exact_cache.wrap(original)
    converse(wrapped)
    assert (vars(original), vars(original._endpoint)) == before
    assert type(wrapped) is type(original)
    assert wrapped.meta is original.meta
    for _ in range(2):
        converse(original)
    assert up.calls() == 3
    wrapped.close()
    converse(original)
    converse(wrapped, "Another?")


def test_everything_else_passes_through(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    assert client.can_paginate("converse") is False
    with pytest.raises(ParamValidationError):
        client.converse(messages=[])
    with pytest.raises(ClientError, match="404"):
        client.apply_guardrail(guardrailIdentifier="g", guardrailVersion="1", source="INPUT", content=[])
    nova = json.dumps({"inputText": QUESTION})
    for _ in range(2):
        with pytest.raises(ClientError, match="anthropic_version"):
            client.invoke_model(modelId="amazon.titan", body=nova)
        assert status() == "bypass"
    with pytest.raises(AttributeError):
        client.no_such_operation()


@pytest.mark.parametrize(
    "kind", [str, str.encode, lambda text: bytearray(text.encode())], ids=["str", "bytes", "array"]
)
def test_a_body_of_any_kind(kind: Any, up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    for _ in range(2):
        assert client.invoke_model(modelId=MODEL, body=kind(body()))["body"].read()
    assert up.calls() == 1


def test_a_body_that_is_a_file_goes_upstream_untouched(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    for _ in range(2):
        assert client.invoke_model(modelId=MODEL, body=io.BytesIO(body().encode()))["body"].read()
    assert up.calls() == 2


def test_hooks_of_the_caller_stay_in_force(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    original = make()
    seen: list[str] = []
    original.meta.events.register("before-sign.bedrock-runtime", lambda request, **_: seen.append(request.url))
    wrapped = exact_cache.wrap(original)
    converse(wrapped)
    assert len(seen) == 1


def test_region_endpoint_and_model_keep_answers_apart(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    clients = [exact_cache.wrap(make(region_name=region)) for region in ("us-east-1", "eu-west-1")]
    for client in clients:
        converse(client)
    assert up.calls() == 2
    labelled = [exact_cache.wrap(make(region_name=region), upstream="all") for region in ("us-east-1", "eu-west-1")]
    for client in labelled:
        converse(client)
    assert up.calls() == 3


def test_credentials_are_neither_in_the_key_nor_in_the_store(tmp_path: Path, up: Upstream, make: Make) -> None:
    with_password = up.bedrock_url.replace("://", "://someone:a-password@")
    # What is never kept must not depend on what is found to be secret.
    policy = Policy(semantic=False, secrets="allow")
    with SemanticCache.open(f"sqlite:///{tmp_path}/cache.db", policy=policy) as cache:
        for token, url in ((None, up.bedrock_url), ("a-session-token", with_password)):
            client = cache.wrap(make(aws_session_token=token, endpoint_url=url))
            for ask in OPERATIONS:
                ask(client)
        outcome = last_outcome()
    assert outcome is not None
    assert outcome.key is not None
    assert outcome.hit, "other credentials ask for the same"
    kept = outcome.key.canonical + b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (ACCESS_KEY, SECRET, "a-session-token", "a-password", "AWS4-HMAC"):
        assert secret.encode() not in kept


@pytest.mark.parametrize("service", ["s3", "bedrock-agent-runtime"])
def test_a_client_of_another_service_is_refused(service: str, exact_cache: SemanticCache) -> None:
    client = boto3.client(service, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with pytest.raises(ConfigurationError, match=service):
        exact_cache.wrap(client)


def test_an_async_client_is_refused(make: Make, exact_cache: SemanticCache) -> None:
    client = make()

    class Async(type(client)):  # type: ignore[misc]
        """As aiobotocore makes one."""

        async def _make_api_call(self, *arguments: Any) -> None: ...

    client.__class__ = Async
    with pytest.raises(ConfigurationError, match="async"):
        exact_cache.wrap(client)


@EACH
def test_equal_requests_in_flight_share_one_call(
    ask: Any, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(make())
    up.script([Fault(stall_s=0.3)])
    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(lambda _: ask(client), range(4)))
    assert len(answers) == 1
    assert up.calls() == 1


# What reaches the provider ----------------------------------------------------------------------------------------

_OF_ONE_SENDING = ("x-amz-date", "authorization", "amz-sdk-invocation-id")


@EACH
def test_the_provider_gets_what_the_bare_client_sends(
    ask: Any, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    for client in (make(), exact_cache.wrap(make())):
        ask(client, "wörd")
    bare, sent = up.requests()
    assert (sent.path, sent.raw) == (bare.path, bare.raw)
    bare_headers, headers = ({n: v for n, v in r.headers.items() if n not in _OF_ONE_SENDING} for r in (bare, sent))
    assert headers == bare_headers
    assert is_signed(sent)


def is_signed(request: RecordedRequest, region: str = "us-east-1") -> bool:
    """Whether the signature of a request is that of its body and headers."""
    given = request.headers["authorization"]
    names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    url = f"http://{request.headers['host']}{request.path}"
    signed = {name: request.headers[name] for name in names if name not in ("host", "x-amz-date")}
    again = AWSRequest("POST", url, headers=signed, data=request.raw.encode())
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET), "bedrock", region)
    again.context["timestamp"] = request.headers["x-amz-date"]
    again.headers["X-Amz-Date"] = request.headers["x-amz-date"]
    found = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    return given.endswith(f"Signature={found}")


CACHES_SHORT_PREFIXES = "us.anthropic.claude-sonnet-5-20260201-v1:0"
SYSTEM = [{"text": "You answer questions about the harbour lifts of a northern town, briefly and kindly. " * 80}]


@pytest.mark.parametrize("ask", [converse, converse_stream, invoke], ids=lambda ask: ask.__name__)
def test_a_request_with_cache_points_is_signed_again_and_read_from_the_providers_cache(
    ask: Any, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(make(), provider="bedrock")
    system: Any = SYSTEM[0]["text"] if ask is invoke else SYSTEM
    for number in range(4):
        ask(client, f"Question {number}?", CACHES_SHORT_PREFIXES, system=system)
    mark = "cache_control" if ask is invoke else "cachePoint"
    marked = next(request for request in up.requests() if mark in request.raw)
    assert int(marked.headers["content-length"]) == len(marked.raw.encode())
    assert all(is_signed(request) for request in up.requests())
    assert not is_signed(RecordedRequest(marked.path, marked.headers, marked.raw + " "))
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.usage is not None
    assert outcome.usage.cache_read_tokens > 1000
    assert outcome.expected_read_tokens == pytest.approx(outcome.usage.cache_read_tokens, rel=0.1)
    ask(exact_cache.wrap(make()), "Question 3?", CACHES_SHORT_PREFIXES, system=system)
    assert status() == "hit", "cache points are no part of the key"


def test_cache_points_that_are_not_taken_are_left_out_and_other_refusals_are_not_asked_again(
    up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(make(), provider="bedrock")
    for number in range(3):
        converse(client, f"Question {number}?", CACHES_SHORT_PREFIXES, system=SYSTEM)
    up.script([Fault(status=403, message="You are not authorized to perform: bedrock:InvokeModel")])
    with pytest.raises(ClientError, match="not authorized"):
        converse(client, "Refused?", CACHES_SHORT_PREFIXES, system=SYSTEM)
    assert len(up.requests()) == 4
    said = "You invoked an unsupported model or your request did not allow prompt caching."
    up.script([Fault(status=403, message=said)])
    converse(client, "Refused?", CACHES_SHORT_PREFIXES, system=SYSTEM)
    marked, taken = up.requests()[-2:]
    assert "cachePoint" in marked.raw
    assert "cachePoint" not in taken.raw


def test_a_request_with_a_bearer_token_needs_no_signature(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    original = make()

    def authorise(request: Any, **_: Any) -> None:
        # botocore itself sends a token over TLS only; a gateway's is put in by a hook.
        request.headers["Authorization"] = "Bearer a-token"

    original.meta.events.register("before-send.bedrock-runtime", authorise)
    client = exact_cache.wrap(original, provider="bedrock")
    for number in range(4):
        converse(client, f"Question {number}?", CACHES_SHORT_PREFIXES, system=SYSTEM)
    assert any("cachePoint" in request.raw for request in up.requests())
    assert {request.headers["authorization"] for request in up.requests()} == {"Bearer a-token"}
