"""A local provider for tests and the demo: real HTTP, real wire formats, no model.

It runs in a process of its own and speaks OpenAI's Chat Completions, Responses, Embeddings and Models, Anthropic's
Messages (also as Bedrock and Vertex have them), Gemini's generateContent and Bedrock's Converse, plain and streamed.
Answers are prepared (``answers``) or derived from the request, so that two requests that differ in anything but
``stream`` never get equal ones. It caches prompts by the rules of Anthropic and OpenAI
(:mod:`semcache.testing._upstream_prompts`). Standard library only::

    with Upstream(answers={"Is it up?": "Yes."}) as up:
        client = openai.OpenAI(base_url=up.openai_url, api_key="any")
        ...
        assert up.calls() == 1

By hand: ``python -m semcache.testing.upstream --port 8089 --latency 1``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from semcache.testing._upstream_model import Fault as Fault

_BOOTSTRAP = """
import sys
sys.path[0:1] = []
sys.path.append({root!r})
from semcache.testing._upstream_server import serve_for_parent
serve_for_parent()
"""


@dataclass(frozen=True)
class RecordedRequest:
    """A request as it arrived. ``headers`` have lower-case names, ``raw`` is the body's text."""

    path: str
    headers: Mapping[str, str]
    raw: str

    @property
    def body(self) -> Any:
        """The body, parsed."""
        return json.loads(self.raw)


class Upstream:
    """A local provider in its own process, started by ``with`` or :meth:`start`.

    It stops at the end of the block, and also when the process that started it dies, however it dies.

    Args:
        answers: Prepared answers by the exact text of the last user message.
        latency: Scale of the latency: 1 is like a hosted small model (median 0.45 s to the first token,
            8–17 ms for each further one), 0 answers at once.
        seed: Seed of the latencies.
        port: Port on 127.0.0.1; 0 takes a free one.
    """

    def __init__(
        self,
        *,
        answers: Mapping[str, str] | None = None,
        latency: float = 0.0,
        seed: int = 0,
        port: int = 0,
    ) -> None:
        self._settings = {"answers": dict(answers or {}), "latency": latency, "seed": seed, "port": port}
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def start(self) -> Upstream:
        """Start the process; return when it listens. Raises RuntimeError if it does not come up."""
        # By path, not by ``-m``: the child must run this very copy, whatever the working directory holds.
        code = _BOOTSTRAP.format(root=str(Path(__file__).resolve().parents[2]))
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stdin = _pipe(self._process.stdin)
        stdin.write(json.dumps(self._settings) + "\n")
        stdin.flush()
        line = _pipe(self._process.stdout).readline()
        if not line:
            self.close()
            raise RuntimeError("the local upstream did not start; its error is on standard error")
        self._port = int(line)
        return self

    def close(self) -> None:
        """Stop the process and wait for it. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _pipe(process.stdin).close()
            _pipe(process.stdout).close()

    def __enter__(self) -> Upstream:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the provider."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def url(self) -> str:
        """The origin, without a path."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """``base_url`` for OpenAI clients."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """``base_url`` for Anthropic clients."""
        return self.url

    @property
    def gemini_url(self) -> str:
        """``base_url`` in the HTTP options of google-genai clients."""
        return self.url

    @property
    def bedrock_url(self) -> str:
        """``endpoint_url`` of boto3's ``bedrock-runtime`` clients, and ``base_url`` of ``AnthropicBedrock``."""
        return self.url

    @property
    def vertex_url(self) -> str:
        """``base_url`` of ``AnthropicVertex``."""
        return f"{self.url}/v1"

    def calls(self, path: str | None = None) -> int:
        """How many POST requests have arrived (on ``path``), faulty ones included, since the last reset."""
        counts: dict[str, int] = self._control(do="state")["calls"]
        return sum(counts.values()) if path is None else counts.get(path, 0)

    def requests(self) -> list[RecordedRequest]:
        """What has arrived since the last reset, in order; the last 20,000 requests."""
        records = self._control(do="requests")["requests"]
        return [RecordedRequest(record["path"], record["headers"], record["body"]) for record in records]

    def forget_prompts(self) -> None:
        """Drop what the prompt cache holds, as a provider may at any time."""
        self._control(do="forget_prompts")

    def reset(self) -> None:
        """Forget recorded requests, counts, cached prompts, and faults that have not happened yet."""
        self._control(do="reset")

    def add_answers(self, answers: Mapping[str, str]) -> None:
        """Prepare further answers."""
        self._control(do="answers", answers=dict(answers))

    def script(self, steps: Sequence[Fault | None]) -> None:
        """What happens to the next POST requests, one step each; ``None`` is a call that works."""
        self._control(do="script", steps=[None if step is None else asdict(step) for step in steps])

    def fail_next(
        self,
        status: int = 500,
        *,
        headers: Mapping[str, str] | None = None,
        message: str | None = None,
        times: int = 1,
    ) -> None:
        """Answer the next ``times`` requests with an error status."""
        self.script([Fault(status=status, headers=headers or {}, message=message)] * times)

    def _control(self, **order: Any) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10.0)
        try:
            connection.request("POST", "/_control", body=json.dumps(order))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve in this process until interrupted."""
    from semcache.testing._upstream_server import Server, State

    parser = argparse.ArgumentParser(prog="python -m semcache.testing.upstream", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, default=8089)
    parser.add_argument("--latency", type=float, default=1.0, help="1 is like a hosted model, 0 answers at once")
    parser.add_argument("--answers", type=Path, help="JSON object: question text to answer")
    options = parser.parse_args(arguments)
    answers = json.loads(options.answers.read_text(encoding="utf-8")) if options.answers else {}
    server = Server(options.port, State(answers, latency=options.latency))
    origin = f"http://127.0.0.1:{server.server_address[1]}"
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"OpenAI and Vertex: {origin}/v1\nAll others: {origin}\nCtrl-C to stop", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
