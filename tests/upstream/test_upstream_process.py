"""The provider's process: control, record, timing, connections, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.testing._upstream_model import digest, instance, paces, pieces
from semcache.testing.servers import free_port
from semcache.testing.upstream import Fault, Upstream


def post(up: Upstream, body: dict[str, Any], path: str = "/v1/chat/completions") -> tuple[int, Any]:
    connection = http.client.HTTPConnection(up.url.removeprefix("http://"), timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), {"X-Trace": "7"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def ask(text: str, **extra: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **extra}


def content(up: Upstream, body: dict[str, Any]) -> str:
    status, answer = post(up, body)
    assert status == 200
    return str(answer["choices"][0]["message"]["content"])


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited 60 s in vain")


def test_requests_are_recorded_as_they_came(up: Upstream) -> None:
    post(up, ask("one", metadata={"b": 1, "a": 2}))
    post(up, {"input": "two", "model": "text-embedding-3-small", "dimensions": 8}, "/v1/embeddings")
    assert up.calls() == 2
    assert up.calls("/v1/embeddings") == 1
    first, second = up.requests()
    assert (first.path, second.path) == ("/v1/chat/completions", "/v1/embeddings")
    assert first.headers["x-trace"] == "7"
    assert first.raw == json.dumps(ask("one", metadata={"b": 1, "a": 2}))
    assert second.body["input"] == "two"
    up.reset()
    assert up.calls() == 0
    assert up.requests() == []


def test_a_script_happens_in_order_and_reset_clears_it(up: Upstream) -> None:
    up.script([None, Fault(status=503), Fault(status=418)])
    assert [post(up, ask("x"))[0] for _ in range(2)] == [200, 503]
    up.reset()
    assert post(up, ask("x"))[0] == 200


def test_answers_can_be_added(up: Upstream) -> None:
    derived = content(up, ask("When is the canteen open?"))
    up.add_answers({"When is the canteen open?": "Until two."})
    assert derived != content(up, ask("When is the canteen open?")) == "Until two."


def test_unknown_paths_and_broken_bodies_are_the_clients_fault(up: Upstream) -> None:
    assert post(up, {}, "/v1/nothing")[0] == 404
    connection = http.client.HTTPConnection(up.url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/chat/completions", b"{")
    assert connection.getresponse().status == 400
    connection.close()


def test_one_connection_carries_many_requests(up: Upstream) -> None:
    connection = http.client.HTTPConnection(up.url.removeprefix("http://"), timeout=60)
    sockets: list[socket.socket] = []
    for number in range(3):
        connection.request("POST", "/v1/chat/completions", json.dumps(ask(str(number), stream=number == 1)))
        connection.getresponse().read()
        assert connection.sock is not None
        sockets.append(connection.sock)
    assert sockets[0] is sockets[1] is sockets[2]
    connection.close()


def test_a_burst_of_connections_is_served(up: Upstream) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda number: content(up, ask(f"burst {number}")), range(50)))
    assert len(set(answers)) == 50
    assert up.calls() == 50


def test_latency_scales_and_streams_spread_over_it() -> None:
    with Upstream(latency=0.2) as up:
        started = time.monotonic()
        tokens = post(up, ask("how long does this take?"))[1]["usage"]["completion_tokens"]
        plain = time.monotonic() - started
        assert plain >= 0.2 * 0.008 * tokens
        # A reader whom a busy machine holds up finds the pieces together; one in twenty will get there in time.
        assert any(seconds_after_the_first_piece(up) > 0.2 * 0.008 * 5 for _ in range(20))


def seconds_after_the_first_piece(up: Upstream) -> float:
    connection = http.client.HTTPConnection(up.url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(ask("and this?", stream=True)))
    response = connection.getresponse()
    response.readline()
    started = time.monotonic()
    response.read()
    connection.close()
    return time.monotonic() - started


def test_paces_are_seeded_and_log_normal() -> None:
    series = paces(1.0, 3)
    sample = sorted(next(series).first_token_s for _ in range(2001))
    assert sample[1000] == pytest.approx(0.45, rel=0.1)
    assert sample[1980] == pytest.approx(0.45 * 2.718 ** (0.45 * 2.326), rel=0.2)
    assert next(paces(1.0, 3)) == next(paces(1.0, 3)) != next(paces(1.0, 4))
    assert next(paces(0.0, 3)) == (0.0, 0.0)


def test_it_stops_when_its_block_ends() -> None:
    with Upstream() as up:
        pid = up.pid
        assert post(up, ask("x"))[0] == 200
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    up.close()


STARTER = """
import os, time
from semcache.testing.upstream import Upstream
up = Upstream().start()
if os.fork() == 0:
    time.sleep(600)
print(up.pid, flush=True)
time.sleep(600)
"""


def test_it_stops_when_its_parent_is_killed_even_with_a_fork_left_over() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    try:
        assert alive(pid)
        starter.kill()
        starter.wait()
        wait_until(lambda: not alive(pid))
    finally:
        os.killpg(starter.pid, signal.SIGKILL)
        starter.stdout.close()


def alive(pid: int) -> bool:
    # A process that has ended stays a zombie until whoever inherited it has collected it.
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_serves_by_hand() -> None:
    port = free_port()
    command = [sys.executable, "-m", "semcache.testing.upstream", "--port", str(port), "--latency", "0"]
    # Who starts the tests in the background of a shell has SIGINT ignored, and children inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heed)
    try:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}/v1" in process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        process.stdout.close()


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules);"
        "import semcache.testing._upstream_server, semcache.testing.upstream;"
        "heavy = {'numpy', 'faiss', 'onnxruntime', 'redis', 'openai', 'anthropic', 'rich', 'click', 'httpx'};"
        "sys.exit(', '.join(heavy.intersection(sys.modules) - before) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.text())
@settings(deadline=None)
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda j: st.lists(j, max_size=3))
BODIES = st.dictionaries(st.sampled_from(["messages", "model", "tools", "temperature"]), JSON)


@given(BODIES, BODIES)
@settings(max_examples=50, deadline=None)
def test_only_equal_requests_have_one_identity(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (digest("/p", a) == digest("/p", b)) == (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))
    assert digest("/p", a) == digest("/p", {**a, "stream": True, "stream_options": {"include_usage": True}})
    assert digest("/p", a) != digest("/q", a)


def test_schema_instances_follow_references_and_unions() -> None:
    schema = {
        "$defs": {"when": {"type": "string", "format": "date"}},
        "type": "object",
        "properties": {
            "day": {"$ref": "#/$defs/when"},
            "either": {"anyOf": [{"type": "number", "minimum": 5, "maximum": 6}, {"type": "null"}]},
            "kind": {"const": "k"},
            "maybe": {"type": ["string", "null"]},
            "three": {"type": "array", "items": {"type": "string"}, "minItems": 3},
            "nothing": {"type": "null"},
        },
    }
    made = instance(schema, "the text", "0123456789abcdef0")
    assert made["day"] == "2026-03-01"
    assert made["either"] in (5, 6)
    assert made["kind"] == "k"
    assert made["maybe"] == "the text"
    assert len(set(made["three"])) == 3
    assert made["nothing"] is None
