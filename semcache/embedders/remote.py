"""An embedder behind an OpenAI-compatible HTTP endpoint.

Source: https://platform.openai.com/docs/api-reference/embeddings (read 2026-11-21).
"""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from semcache._fork import renew_in_child
from semcache.embedders.base import check_texts, unit_rows, utf8_length
from semcache.embedders.function import SAFE_BYTES
from semcache.errors import ConfigurationError, EmbedderError
from semcache.types import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from semcache.embedders._http import Connection

    Vectors = npt.NDArray[np.float32]

KNOWN_WINDOWS: Final = {"text-embedding-3-small": 8191, "text-embedding-3-large": 8191, "text-embedding-ada-002": 8191}
"""Tokens; https://platform.openai.com/docs/guides/embeddings (read 2026-11-21). A token is at least one byte."""

TEXTS_PER_REQUEST: Final = 32
"""The least limit among common servers (Text Embeddings Inference, ``--max-client-batch-size``)."""


class RemoteEmbedder:
    """Asks ``POST {base_url}/embeddings`` of an OpenAI-compatible server, with no retries.

    Args:
        base_url: With the version, like ``"https://api.openai.com/v1"``.
        model: Name of the model, as the server knows it.
        api_key: Sent as a bearer token.
        timeout_s: Seconds for one request in all, however slowly the answer drips in. The time to resolve the host's
            name is not included, and each of its addresses is given the same time to connect.
        dimensions: Shorten the vectors, if the model can.
        max_bytes: Longest text, in bytes of UTF-8, that the model reads in full; longer ones are kept to the exact
            tier. Default: what the model is known for, or else 510, since some servers cut off in silence.

    Raises:
        ConfigurationError: An argument cannot be used.

    A server can change the weights behind a name without a word: the fingerprint only knows address, model and
    dimensions. ``on_usage`` is told of each request's model and tokens (``None`` if the server does not say): a cache
    books them by it.
    """

    inline = False

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 2.0,
        dimensions: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigurationError(
                f"base_url must be like 'https://host/v1', without user or query: {parts.hostname!r}"
            )
        if timeout_s <= 0:
            raise ConfigurationError(f"timeout_s is {timeout_s}, must be above 0")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = f"{parts.path.rstrip('/')}/embeddings"
        self._name = model
        self._timeout_s = timeout_s
        self._dimensions = dimensions
        self._dim = dimensions
        self._max_bytes = max_bytes or KNOWN_WINDOWS.get(model, SAFE_BYTES)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self.on_usage: Callable[[str | None, Usage | None], None] | None = None
        self._idle: deque[Connection] = deque()
        self.source = f"{model} at {parts.scheme}://{parts.netloc}"
        origin = f"{parts.netloc.lower()}{parts.path.rstrip('/')}"
        self.fingerprint = f"remote/{origin}/{model}/{dimensions or 'full'}"
        renew_in_child(self)

    @property
    def dim(self) -> int:
        """Length of the vectors; costs a request if no vector has been seen yet."""
        if self._dim is None:
            self.embed(["dimension"])
        assert self._dim is not None
        return self._dim

    def fits(self, text: str) -> bool:
        length = utf8_length(text)
        return length is not None and 0 < length <= self._max_bytes

    def embed(self, texts: Sequence[str]) -> Vectors:
        import numpy as np

        check_texts(texts)
        if not texts:
            return np.empty((0, self.dim), np.float32)
        starts = range(0, len(texts), TEXTS_PER_REQUEST)
        return np.concatenate([self._request(texts[at : at + TEXTS_PER_REQUEST]) for at in starts])

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().close()

    def after_fork(self) -> None:
        # The parent goes on using these sockets.
        self._idle = deque()

    def _request(self, texts: Sequence[str]) -> Vectors:
        body: dict[str, Any] = {"model": self._name, "input": list(texts), "encoding_format": "base64"}
        if self._dimensions is not None:
            body["dimensions"] = self._dimensions
        status, answer = self._post(json.dumps(body).encode(), time.monotonic() + self._timeout_s)
        if status != 200:
            raise EmbedderError(f"{self.source} answered {status}: {answer[:200].decode(errors='replace')}")
        if self.on_usage is not None:
            self.on_usage(self._name, _usage(answer))
        matrix = unit_rows(_rows(answer, self.source), count=len(texts), dim=self._dim)
        self._dim = matrix.shape[1]
        return matrix

    def _post(self, body: bytes, deadline: float) -> tuple[int, bytes]:
        from semcache.embedders._http import Connection, Stale

        try:
            while True:
                try:
                    # Used connections first; one that the server has closed meanwhile says so before it answers.
                    connection = self._idle.pop()
                except IndexError:
                    connection = Connection(self._host, self._port, secure=self._secure)
                try:
                    answer = connection.post(self._path, body, self._headers, deadline)
                except Stale:
                    continue
                if connection.reusable:
                    self._idle.append(connection)
                return answer
        except TimeoutError as error:
            raise EmbedderError(f"{self.source} gave no answer within {self._timeout_s} s") from error
        except Exception as error:
            raise EmbedderError(f"{self.source} cannot be reached: {error!r}") from error


def _usage(answer: bytes) -> Usage | None:
    try:
        tokens = json.loads(answer)["usage"]["prompt_tokens"]
    except (ValueError, KeyError, TypeError):
        return None
    return Usage(tokens) if type(tokens) is int and tokens >= 0 else None


def _rows(answer: bytes, source: str) -> list[Any]:
    """The vectors in the order of the texts. A server that does not know base64 sends lists of numbers."""
    import numpy as np

    try:
        items = sorted(json.loads(answer)["data"], key=lambda item: item["index"])
        if [item["index"] for item in items] != list(range(len(items))):
            raise ValueError("indices have gaps")
        rows = [item["embedding"] for item in items]
        return [np.frombuffer(base64.b64decode(row), "<f4") if isinstance(row, str) else row for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise EmbedderError(f"{source} sent an answer that is no list of embeddings: {error!r}") from error
