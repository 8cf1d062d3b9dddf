"""Anthropic's Messages as Bedrock (``InvokeModel``) and Vertex (``rawPredict``) have them.

The body is Anthropic's but for the model and the wish for a stream, which stand in the path; the edge hands that in,
percent-decoded, as the header ``:path``. Sources: anthropic 2.12.0 (``lib/bedrock``, ``lib/vertex``) and the
``bedrock-runtime`` service model of botocore 1.44.5, read 2026-11-21.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from semcache.types import Request
from semcache.wire import _eventstream
from semcache.wire._common import NotRecordable, StreamRecorder, routed
from semcache.wire._json import dumps, loads_object
from semcache.wire._sse import Event
from semcache.wire.anthropic import AnthropicMessages, Record, events
from semcache.wire.base import Recorder

_BEDROCK: Final = re.compile(r"/model/(?P<model>.+)/(?:invoke|(?P<stream>invoke-with-response-stream))$")
_VERTEX: Final = re.compile(
    r"/publishers/anthropic/models/(?P<model>[^/:]+):(?:rawPredict|(?P<stream>streamRawPredict))$"
)
# Of Bedrock's headers, those that do not change the answer. Source: service model, 2026-11-21.
_OPTIONS: Final = "x-amzn-bedrock-"
_TRANSPORT_ONLY: Final = frozenset({"performanceconfig-latency", "request-metadata", "service-tier"})


class _Hosted(AnthropicMessages):
    """Messages under a path that names the model."""

    _path: re.Pattern[str]

    def matches(self, method: str, path: str) -> bool:
        found = self._path.search(path) if method == "POST" else None
        return found is not None and found["model"] != "count-tokens"

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        model, stream, upstream = routed(self._path, headers.get(":path", ""), upstream)
        request = super().parse({**body, "model": model, "stream": stream}, upstream=upstream, headers=headers)
        bypass = request.bypass
        if not isinstance(body.get("anthropic_version"), str):
            bypass = "unknown shape: anthropic_version"
        return replace(request, model=model.rpartition("/")[2], bypass=bypass)


class AnthropicOnVertex(_Hosted):
    """``POST …/publishers/anthropic/models/MODEL:rawPredict`` and ``:streamRawPredict``."""

    name = "anthropic_vertex"
    _path = _VERTEX


class AnthropicOnBedrock(_Hosted):
    """``POST …/model/MODEL/invoke`` and ``/invoke-with-response-stream``, with Anthropic's body.

    The bodies of other vendors' models are of other shapes, and bypassed.
    """

    name = "anthropic_bedrock"
    stream_type = _eventstream.MEDIA_TYPE
    _path = _BEDROCK

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        request = super().parse(body, upstream=upstream, headers=headers)
        options = {name.removeprefix(_OPTIONS) for name in headers if name.startswith(_OPTIONS)}
        for option in sorted(options - _TRANSPORT_ONLY):
            # A guardrail's, above all: a stream does not tell in Anthropic's own fields that it has stepped in.
            return replace(request, bypass=request.bypass or f"header {_OPTIONS}{option}")
        return request

    def recorder(self, body: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> Recorder:
        record = Record()

        def take(event: Event) -> bytes:
            chunk = loads_object(event.data)
            if chunk is None or event.name != "chunk":
                raise NotRecordable
            return record.take(Event("", base64.b64decode(chunk["bytes"]), event.raw))

        return StreamRecorder(take, record.build, _eventstream.Splitter())

    def replay(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[bytes]:
        for event in events(answer):
            yield _eventstream.write("chunk", {"bytes": base64.b64encode(dumps(event)).decode()})
