"""The local provider's process: HTTP, timing, faults and the record of what was asked."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from semcache.testing import _upstream_anthropic as anthropic
from semcache.testing import _upstream_bedrock as bedrock
from semcache.testing import _upstream_gemini as gemini
from semcache.testing import _upstream_openai as openai
from semcache.testing import _upstream_responses as responses
from semcache.testing._upstream_hosted import Invoke, Vertex
from semcache.testing._upstream_model import Fault, Json, Pace, paces, pieces, respond
from semcache.testing._upstream_prompts import Prompts

CONTROL_PATH = "/_control"
_RECORDED = 20_000
_CHAT = {openai.CHAT_PATH: openai, responses.RESPONSES_PATH: responses, anthropic.MESSAGES_PATH: anthropic}
# Those whose paths name the model.
_ROUTED = (gemini, bedrock, Invoke(), Vertex())
# Azure's deployments have OpenAI's endpoints.
_AZURE = re.compile(r"^/openai(/v1|/deployments/[^/]+)?(?=/)")
_EVENTS = "text/event-stream; charset=utf-8"


def _wire(path: str) -> tuple[Any, Json | None]:
    """The wire format of a chat's path and what the path says of the request; ``None`` if it is of no chat."""
    if path in _CHAT:
        return _CHAT[path], {}
    found = ((wire, wire.route(path)) for wire in _ROUTED)
    return next(((wire, named) for wire, named in found if named is not None), (openai, None))


class State:
    """What the process knows: prepared answers, coming faults, and past requests. Safe for threads."""

    def __init__(self, answers: Mapping[str, str], *, latency: float = 0.0, seed: int = 0) -> None:
        self.answers = dict(answers)
        self.prompts = Prompts()
        self._paces = paces(latency, seed)
        self._lock = threading.Lock()
        self._faults: deque[Fault | None] = deque()
        self._records: deque[Json] = deque(maxlen=_RECORDED)
        self._counts: Counter[str] = Counter()

    def arrive(self, path: str, headers: Mapping[str, str], body: str) -> tuple[Fault, Pace]:
        """Record a request; return what shall go wrong with it (nothing: empty) and how long it takes."""
        record = {
            "path": path,
            "headers": {name.lower(): value for name, value in headers.items()},
            "body": body,
        }
        with self._lock:
            self._counts[path] += 1
            self._records.append(record)
            fault = self._faults.popleft() if self._faults else None
            return fault or Fault(), next(self._paces)

    def control(self, order: Json) -> Json:
        """Carry out one order of the controlling process."""
        with self._lock:
            if order["do"] == "reset":
                self._faults.clear()
                self._records.clear()
                self._counts.clear()
                self.prompts.forget()
            elif order["do"] == "forget_prompts":
                self.prompts.forget()
            elif order["do"] == "script":
                self._faults.extend(None if step is None else Fault(**step) for step in order["steps"])
            elif order["do"] == "answers":
                self.answers.update(order["answers"])
            elif order["do"] == "requests":
                return {"requests": list(self._records)}
            return {"calls": dict(self._counts), "waiting": len(self._faults)}


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive between requests."""

    protocol_version = "HTTP/1.1"
    server_version = "semcache-upstream"
    # Headers and body leave in two writes: with Nagle's algorithm the second waits 40 ms for a delayed ACK.
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent: standard error belongs to the process that started this one."""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == openai.MODELS_PATH:
            self._json(200, openai.models(), openai.headers(0.0))
        else:
            self._json(404, openai.error(404, f"Unknown request URL: GET {self.path}"))

    def do_POST(self) -> None:
        started = time.monotonic()
        path = self.path.partition("?")[0]
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        if path == CONTROL_PATH:
            self._json(200, self.server.state.control(json.loads(data)))
            return
        fault, pace = self.server.state.arrive(path, dict(self.headers.items()), data.decode(errors="replace"))
        path = _AZURE.sub("/v1", path)
        wire, named = _wire(path)
        time.sleep(fault.stall_s)
        if fault.status is not None:
            message = fault.message or f"This {fault.status} was asked for."
            self._json(fault.status, wire.error(fault.status, message), fault.headers)
            return
        try:
            body = json.loads(data)
        except ValueError:
            self._json(400, wire.error(400, "We could not parse the JSON body of your request."))
            return
        if path == openai.EMBEDDINGS_PATH:
            answer = openai.embeddings(body)
            time.sleep(pace.first_token_s / 10)
            self._json(200, answer, openai.headers(time.monotonic() - started))
        elif named is not None:
            self._chat(wire, {**body, **named}, fault, pace)
        else:
            self._json(404, wire.error(404, f"Unknown request URL: POST {self.path}"))

    def _chat(self, wire: Any, body: Json, fault: Fault, pace: Pace) -> None:
        started = time.monotonic()
        problem = wire.problem(body)
        if problem is not None:
            self._json(400, wire.error(400, problem))
            return
        turn = respond(wire.read(body), self.server.state.answers)
        if wire is not gemini:
            prompt = bedrock.prompt(body) if wire is bedrock else body
            cached = self.server.state.prompts.use(prompt, marks=wire not in (openai, responses))
            turn = turn._replace(cached=cached)
        if fault.answer is not None:
            turn = turn._replace(text=fault.answer, calls=(), finish="stop", output_tokens=len(pieces(fault.answer)))
        if body.get("stream"):
            self._stream(wire, wire.events(turn, body, finish=fault.finish), fault, pace)
            return
        time.sleep(pace.first_token_s + pace.token_s * turn.output_tokens + fault.delay_s)
        answer = json.dumps(wire.complete(turn, body, finish=fault.finish)).encode()
        sent = answer[: len(answer) // 2] if fault.cut_after is not None else answer
        if fault.malformed_after is not None:
            answer = sent = answer.replace(b"{", b"<", 1)
        self._head(200, wire.headers(time.monotonic() - started), length=len(answer))
        self.wfile.write(sent)
        if len(sent) < len(answer):
            self.close_connection = True

    def _stream(self, wire: Any, events: Iterator[tuple[bytes, int]], fault: Fault, pace: Pace) -> None:
        due = time.monotonic() + pace.first_token_s
        self._wait_until(due)
        self._head(200, wire.headers(pace.first_token_s), kind=getattr(wire, "STREAM_TYPE", _EVENTS))
        for number, (event, tokens) in enumerate(events):
            due += pace.token_s * tokens + fault.delay_s
            self._wait_until(due)
            if number == fault.cut_after:
                self.close_connection = True
                return
            if number == fault.end_after:
                break
            if number == fault.error_after:
                self._chunk(wire.error_event("The server had an error while processing your request."))
                break
            self._chunk(event.replace(b"{", b"{,", 1) if number == fault.malformed_after else event)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _wait_until(self, due: float) -> None:
        left = due - time.monotonic()
        if left > 0:
            time.sleep(left)

    def _head(
        self, status: int, headers: Mapping[str, str], *, kind: str = "application/json", length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", kind)
        if length is None:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", str(length))
        self.end_headers()

    def _json(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self._head(status, headers or {}, length=len(data))
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """The listening socket and the state behind it."""

    daemon_threads = True
    request_queue_size = 256  # the default of 5 refuses bursts of new connections

    def __init__(self, port: int, state: State) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.state = state

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def serve_for_parent() -> None:
    """Read one line of JSON settings from standard input, print the port, serve until the parent is gone."""
    parent = os.getppid()
    settings = json.loads(sys.stdin.readline())
    state = State(settings["answers"], latency=settings["latency"], seed=settings["seed"])
    server = Server(settings["port"], state)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    threading.Thread(target=_exit_at_eof, daemon=True).start()
    # A fork of the parent may hold the other end of standard input open after the parent has died.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def _exit_at_eof() -> None:
    while sys.stdin.readline():
        pass
    os._exit(0)
