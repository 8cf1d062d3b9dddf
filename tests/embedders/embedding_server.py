"""A real HTTP server on 127.0.0.1 with an OpenAI-compatible embeddings endpoint, and ways to misbehave."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIM = 64


def vectors(texts: Sequence[str]) -> np.ndarray:
    """Letter pairs hashed into DIM counters: near texts are near, different ones differ; not of unit length."""
    rows = np.zeros((len(texts), DIM), np.float32)
    for row, text in zip(rows, texts, strict=True):
        row[0] = 1.0
        for at in range(len(text)):
            digest = hashlib.blake2b(f"{text[at : at + 2]}{at % 97}".encode(), digest_size=8).digest()
            row[int.from_bytes(digest, "little") % DIM] += 1.0
    return rows


class EmbeddingServer(ThreadingHTTPServer):
    """``requests`` holds the bodies that came in; the other attributes change how the next ones are answered."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.status = 200
        self.floats = False
        self.tells_usage = True  # a letter is a token
        self.answer: bytes | None = None
        self.close_after = False
        self.drip_s = 0.0
        self.released = threading.Event()
        self.released.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EmbeddingServer

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append({"path": self.path, **body})
        server.headers.append(dict(self.headers))
        server.released.wait(30)
        data = server.answer if server.answer is not None else _answer(body, server)
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        step = 1 if server.drip_s else len(data) or 1
        for start in range(0, len(data), step):
            self.wfile.write(data[start : start + step])
            self.wfile.flush()
            time.sleep(server.drip_s)
        self.close_connection = server.close_after


def _answer(body: dict[str, Any], server: EmbeddingServer) -> bytes:
    if server.status != 200:
        return json.dumps({"error": {"message": "slow down"}}).encode()
    rows = vectors(body["input"])[:, : body.get("dimensions", DIM)]
    items = [
        {"object": "embedding", "index": index, "embedding": _encode(row, server.floats)}
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": sum(map(len, body["input"])), "total_tokens": sum(map(len, body["input"]))}
    told = {"usage": usage} if server.tells_usage else {}
    return json.dumps({"object": "list", "data": items[::-1], "model": body["model"], **told}).encode()


def _encode(row: np.ndarray, floats: bool) -> object:
    return row.tolist() if floats else base64.b64encode(row.tobytes()).decode()


@contextmanager
def serve() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
