"""A log of the questions that a running cache was asked, in the form that ``semcache replay`` and ``tune`` read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from xxhash import xxh3_128_hexdigest

from semcache.errors import ConfigurationError
from semcache.policy import secret_in
from semcache.types import Event

if TYPE_CHECKING:
    from semcache.flow import Call


class RequestLog:
    """Appends a JSON line for each call to a file. Several processes may write to one file.

    A line holds the time (Unix seconds), the question and any earlier turns that are no part of the scope, a digest of
    the scope (system prompt, tools, sampling, tenant, namespace, …) in place of the scope itself, the model, the
    tokens, what upstream took in seconds, and how the call ended. A question that is answered by the exact tier only
    is a digest too. Left out are calls that went past the cache, and those that hold a secret.

    The questions are in clear, in a file that only its owner may read; nothing else of semcache erases them.

    Args:
        path: Made if it is not there.
        emit: Takes the event ``request_log_error``, after which nothing more is written.

    Raises:
        ConfigurationError: The file cannot be opened for writing.
    """

    def __init__(self, path: str | Path, emit: Callable[[Event], None]) -> None:
        self.path = Path(path)
        self._emit = emit
        try:
            self._file: FileIO | None = FileIO(self.path, "a", opener=partial(os.open, mode=0o600))
        except OSError as error:
            raise ConfigurationError(f"request_log: {self.path} cannot be written: {error.strerror}") from error

    def record(self, ctx: Call) -> None:
        """Write the line of a finished call, in one piece. Trouble is an event and never the caller's."""
        file = self._file
        if file is None or ctx.key is None or ctx.outcome.status == "bypass":
            return
        try:
            if ctx.clean or not secret_in(ctx.policy, ctx.key.canonical):
                line = orjson.dumps(_row(ctx), option=orjson.OPT_APPEND_NEWLINE)
                if file.write(line) != len(line):
                    raise OSError("the file system is full")
        except Exception as error:
            if self._file is not None:  # else another thread has closed it
                self.close()
                self._emit(Event("request_log_error", f"no more questions are logged: {error}", error))

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _row(ctx: Call) -> Mapping[str, Any]:
    assert ctx.key is not None
    request, outcome = ctx.request, ctx.outcome
    usage, upstream_s = outcome.usage, outcome.seconds.get("upstream")
    return {
        "ts": round(ctx.now() - outcome.seconds.get("total", 0.0), 3),
        "body": {
            "messages": [*request.history, _question(request.text, ctx.key.canonical)],
            "scope": xxh3_128_hexdigest(ctx.key.scope),
        },
        **({} if request.model is None else {"model": request.model}),
        **({} if usage is None else {"usage": usage._asdict()}),
        **({} if upstream_s is None else {"latency_s": round(upstream_s, 4)}),
        "namespace": ctx.namespace,
        "status": outcome.status,
        "layer": outcome.layer,
    }


def _question(text: str | None, canonical: bytes) -> dict[str, str]:
    """The message asked. What may only match exactly takes the form of a tool's result, which a cache treats so too."""
    if text is not None:
        return {"role": "user", "content": text}
    return {"role": "tool", "tool_call_id": "exact", "content": xxh3_128_hexdigest(canonical)}
