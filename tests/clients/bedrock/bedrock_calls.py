"""The operations of boto3's bedrock-runtime client behind one face: each returns the answer's text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from semcache import last_outcome

MODEL, QUESTION = "us.anthropic.claude-haiku-4-5-20251001-v1:0", "Is it up?"
ACCESS_KEY, SECRET = "AKIDEXAMPLEEXAMPLE", "not/a/secret/but/treated/as/one"
Make = Callable[..., Any]


def converse(client: Any, text: str = QUESTION, model: str = MODEL, **more: Any) -> str:
    answer = client.converse(modelId=model, messages=[{"role": "user", "content": [{"text": text}]}], **more)
    return said(answer["output"]["message"])


def converse_stream(client: Any, text: str = QUESTION, model: str = MODEL, **more: Any) -> str:
    answer = client.converse_stream(modelId=model, messages=[{"role": "user", "content": [{"text": text}]}], **more)
    deltas = [event["contentBlockDelta"]["delta"] for event in answer["stream"] if "contentBlockDelta" in event]
    return "".join(delta.get("text", "") for delta in deltas)


def body(text: str = QUESTION, **more: Any) -> str:
    asked = [{"role": "user", "content": text}]
    return json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 500, "messages": asked, **more})


def invoke(client: Any, text: str = QUESTION, model: str = MODEL, **more: Any) -> str:
    return said(json.loads(client.invoke_model(modelId=model, body=body(text, **more))["body"].read()))


def invoke_stream(client: Any, text: str = QUESTION, **more: Any) -> str:
    answer = client.invoke_model_with_response_stream(modelId=MODEL, body=body(text, **more))
    events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


def said(message: dict[str, Any]) -> str:
    return "".join(block.get("text", "") for block in message["content"])


PAIRS = [(converse, converse_stream), (invoke, invoke_stream)]
OPERATIONS = [operation for pair in PAIRS for operation in pair]
EACH = pytest.mark.parametrize("ask", OPERATIONS, ids=lambda ask: ask.__name__)


def status() -> str:
    outcome = last_outcome()
    assert outcome is not None
    return outcome.status
