"""Anthropic's Messages as Bedrock (InvokeModel) and Vertex (rawPredict) serve them.

Paths and framing as in anthropic 2.12 (``lib/bedrock``, ``lib/vertex``) and botocore 1.44.5 (November 2026).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from semcache.testing import _upstream_anthropic as anthropic
from semcache.testing import _upstream_bedrock as bedrock
from semcache.testing._upstream_model import Ask, Json, Turn


class Vertex:
    """The functions of a wire format, for Vertex."""

    STREAM_TYPE = "text/event-stream; charset=utf-8"
    _PATH = re.compile(
        r"/v1/projects/[^/]+/locations/[^/]+/publishers/anthropic/models/"
        r"(?P<model>[^/:]+):(?:rawPredict|(?P<stream>streamRawPredict))"
    )

    def route(self, path: str) -> Json | None:
        """What the path says of the request: ``model`` and ``stream``; ``None`` if it is not of this API."""
        found = self._PATH.fullmatch(path)
        return found and {"model": unquote(found["model"]), "stream": found["stream"] is not None}

    def problem(self, body: Json) -> str | None:
        """Why the provider would answer 400, or ``None``."""
        return anthropic.problem(body) if body.get("anthropic_version") else "anthropic_version: Field required"

    def read(self, body: Json) -> Ask:
        """The request, provider-neutral."""
        return anthropic.read(body)

    def complete(self, turn: Turn, request: Json, *, finish: str | None = None) -> Json:
        """The whole answer as one JSON object; ``finish`` replaces the stop reason."""
        return anthropic.complete(turn, request, finish=finish)

    def events(self, turn: Turn, request: Json, *, finish: str | None = None) -> Iterator[tuple[bytes, int]]:
        """The same answer as events, each with the number of output tokens it carries."""
        return anthropic.events(turn, request, finish=finish)

    def error(self, status: int, message: str) -> Json:
        """An error body."""
        return anthropic.error(status, message)

    def error_event(self, message: str) -> bytes:
        """An error in the middle of a stream."""
        return anthropic.error_event(message)

    def headers(self, elapsed_s: float) -> Mapping[str, str]:
        """What the provider adds to every answer."""
        return anthropic.headers(elapsed_s)


class Invoke(Vertex):
    """The functions of a wire format, for Bedrock: Anthropic's events in AWS's frames, AWS's errors."""

    STREAM_TYPE = bedrock.STREAM_TYPE
    _PATH = re.compile(r"/model/(?P<model>[^/]+)/(?:invoke|(?P<stream>invoke-with-response-stream))")

    def events(self, turn: Turn, request: Json, *, finish: str | None = None) -> Iterator[tuple[bytes, int]]:
        for event, tokens in super().events(turn, request, finish=finish):
            data = json.loads(event.partition(b"data: ")[2])
            if data["type"] == "message_stop":
                counts = {"inputTokenCount": turn.input_tokens, "outputTokenCount": turn.output_tokens}
                data["amazon-bedrock-invocationMetrics"] = counts
            chunk = base64.b64encode(json.dumps(data).encode()).decode()
            yield bedrock.frame({":message-type": "event", ":event-type": "chunk"}, {"bytes": chunk}), tokens

    def error(self, status: int, message: str) -> Json:
        return bedrock.error(status, message)

    def error_event(self, message: str) -> bytes:
        return bedrock.error_event(message)

    def headers(self, elapsed_s: float) -> Mapping[str, str]:
        return {**bedrock.headers(elapsed_s), "x-amzn-bedrock-content-type": "application/json"}
