"""One HTTP connection whose requests end by a deadline, whatever the server does.

``http.client`` applies its timeout to each read, so a server that sends a byte now and then holds the caller for
ever. Here every read of the socket is given only the time that is left.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

MAX_ANSWER: Final = 64 << 20
"""Bytes."""


class Stale(Exception):
    """The server had closed a connection that was kept alive; nothing was answered."""


class Connection:
    """A connection to one origin; not safe for threads.

    Args:
        host: Host name or address.
        port: ``None`` for the scheme's own.
        secure: TLS with the system's certificates.
    """

    def __init__(self, host: str, port: int | None, *, secure: bool) -> None:
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection: Any = kind(host, port)
        self._used = False
        self.reusable = False

    def post(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> tuple[int, bytes]:
        """Status and body. ``deadline`` is of the monotonic clock.

        Raises:
            Stale: Try again on another connection.
            TimeoutError: The deadline passed.
            OSError, http.client.HTTPException: The connection failed.
        """
        self.reusable = False
        try:
            answer = self._exchange(path, body, headers, deadline)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            if self._used:
                raise Stale from error
            raise
        except BaseException:
            self.close()
            raise
        self._used = self.reusable = self._connection.sock is not None
        return answer

    def close(self) -> None:
        self._connection.close()

    def _exchange(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> tuple[int, bytes]:
        connection = self._connection
        sock: Any = connection.sock
        if sock is None:
            connection.timeout = _left(deadline)
            connection.connect()
            sock = connection.sock = _DeadlineSocket(connection.sock)
        sock.deadline = deadline
        connection.request("POST", path, body, dict(headers))
        response = connection.getresponse()
        answer = response.read(MAX_ANSWER + 1)
        if len(answer) > MAX_ANSWER:
            raise http.client.HTTPException("the answer is too large")
        return response.status, answer


class _DeadlineSocket:
    """As much of a socket as ``http.client`` uses, with one deadline over all of its calls.

    Closing it while an answer is being read takes effect when the reader is closed, as with a real socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._readers = 0
        self._closing = False
        self.deadline = 0.0

    def sendall(self, data: Any) -> None:
        self._socket.settimeout(_left(self.deadline))
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def receive(self, buffer: Any) -> int:
        self._socket.settimeout(_left(self.deadline))
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        self._closing = True
        self._close_unread()

    def reader_closed(self) -> None:
        self._readers -= 1
        self._close_unread()

    def _close_unread(self) -> None:
        if self._closing and self._readers == 0:
            self._socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, sock: _DeadlineSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._sock.receive(buffer)

    def close(self) -> None:
        if not self.closed:
            self._sock.reader_closed()
        super().close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
