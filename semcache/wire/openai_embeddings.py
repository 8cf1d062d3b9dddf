"""OpenAI Embeddings, and the many servers that speak it: matched exactly, never by meaning.

Fields: openai 3.54.0 (``types/embedding_create_params``, ``types/create_embedding_response``), read 2026-11-21.

One request is one entry, whatever the number of its inputs: a list of which some are known is asked whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from semcache.types import Request, Usage
from semcache.wire import _sse
from semcache.wire._common import NotRecordable, StreamRecorder, UnknownShape, count, expect, new_request, without
from semcache.wire._sse import Event
from semcache.wire.base import Codec, Recorder, Storable

_TRANSPORT_ONLY: Final = frozenset({"user"})
_HEADERS: Final = ("openai-organization", "openai-project", "openai-beta")
_EXACT: Final = "an embedding belongs to one text"


class OpenAIEmbeddings(Codec):
    """``POST …/embeddings``, Azure's deployment paths included. It has no streams."""

    name = "openai_embeddings"
    stream_type = _sse.MEDIA_TYPE

    def matches(self, method: str, path: str) -> bool:
        return method == "POST" and path.endswith("/embeddings")

    def parse(self, body: Mapping[str, Any], *, upstream: str, headers: Mapping[str, str]) -> Request:
        request = new_request(self.name, body, upstream=upstream, headers=headers, in_scope=_HEADERS)
        try:
            expect(isinstance(body.get("input"), (str, list)) and bool(body["input"]), "input")
            expect(not body.get("stream"), "stream")
        except UnknownShape as surprise:
            return replace(request, bypass=str(surprise), stream=False)
        return replace(
            request, scope={**request.scope, "body": without(body, _TRANSPORT_ONLY)}, exact_only=_EXACT, stream=False
        )

    def storable(self, body: Mapping[str, Any]) -> Storable:
        data = body.get("data")
        if not isinstance(data, list) or not data or body.get("error"):
            return Storable("never", "no embeddings")
        for item in data:
            vector = item.get("embedding") if isinstance(item, Mapping) else None
            if not isinstance(vector, (str, list)) or not vector:
                return Storable("never", "no embeddings")
        return Storable("exact", _EXACT)

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        usage = body.get("usage")
        return Usage(count(usage, "prompt_tokens"), 0) if isinstance(usage, Mapping) else None

    def recorder(self, body: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> Recorder:
        return StreamRecorder(_refuse, lambda: None)

    def replay(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[bytes]:
        return iter(())


def _refuse(event: Event) -> bytes:
    raise NotRecordable
