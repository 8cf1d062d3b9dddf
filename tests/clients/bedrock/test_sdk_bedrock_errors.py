"""What fails through boto3's bedrock-runtime client, over real HTTP, is as it is without the cache."""

from __future__ import annotations

from typing import Any

import pytest
from bedrock_calls import EACH, MODEL, OPERATIONS, QUESTION, Make, converse, converse_stream, invoke_stream, status
from botocore.exceptions import ClientError, ReadTimeoutError

from semcache import SemanticCache
from semcache.testing.upstream import Fault, Upstream

FAULTS = {
    "500": Fault(status=500),
    "429": Fault(status=429, headers={"retry-after": "0"}),
    "400": Fault(status=400),
    "401": Fault(status=401),
    "cut": Fault(cut_after=1),
    "malformed": Fault(malformed_after=1),
    "error event": Fault(error_after=1),
}
FAILING = [
    pytest.param(ask, fault, id=f"{ask.__name__}-{name}")
    for ask in OPERATIONS
    for name, fault in FAULTS.items()
    if fault.error_after is None or ask in (converse_stream, invoke_stream)
]


@pytest.mark.parametrize(("ask", "fault"), FAILING)
def test_what_fails_raises_as_without_the_cache_and_is_not_stored(
    ask: Any, fault: Fault, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    raised = []
    for client in (make(), exact_cache.wrap(make())):
        up.script([fault])
        with pytest.raises(Exception) as caught:  # noqa: PT011  the bare client says which
            ask(client)
        raised.append(caught.value)
    assert _without_class_of_its_client(raised[1]) == _without_class_of_its_client(raised[0])
    if fault.status:
        assert isinstance(raised[1], ClientError)
        assert raised[1].response["ResponseMetadata"]["HTTPStatusCode"] == fault.status
    assert up.calls() == 2, "no retries of our own"
    ask(client)
    assert status() == "miss"


def _without_class_of_its_client(error: BaseException) -> Any:
    """Each client makes its own classes of modelled errors."""
    kind = type(error)
    details = error.response["Error"] if isinstance(error, ClientError) else None
    return kind.__module__, kind.__name__, details


def test_a_modelled_error_is_of_the_clients_own_classes(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make())
    up.fail_next(429)
    with pytest.raises(client.exceptions.ThrottlingException):
        converse(client)


@EACH
def test_a_timeout_is_botocores(ask: Any, up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make(config={"read_timeout": 0.2}))
    up.script([Fault(stall_s=1.0)])
    with pytest.raises(ReadTimeoutError):
        ask(client)
    ask(client)
    assert status() == "miss"


@EACH
@pytest.mark.parametrize("mode", ["legacy", "standard"])
def test_retries_are_botocores(ask: Any, mode: str, up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make(config={"retries": {"total_max_attempts": 3, "mode": mode}}))
    up.fail_next(503)
    assert ask(client)
    assert up.calls() == 2
    assert ask(client)
    assert up.calls() == 2


def test_the_number_of_retries_is_told(up: Upstream, make: Make, exact_cache: SemanticCache) -> None:
    client = exact_cache.wrap(make(config={"retries": {"total_max_attempts": 3, "mode": "standard"}}))
    up.fail_next(503)
    answer = client.converse(modelId=MODEL, messages=[{"role": "user", "content": [{"text": QUESTION}]}])
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1


@pytest.mark.parametrize("finish", ["max_tokens", "guardrail_intervened", "content_filtered"])
@EACH
def test_an_answer_that_did_not_end_by_itself_is_not_stored(
    ask: Any, finish: str, up: Upstream, make: Make, exact_cache: SemanticCache
) -> None:
    client = exact_cache.wrap(make())
    up.script([Fault(finish=finish)])
    assert ask(client)
    ask(client)
    assert status() == "miss"
