from __future__ import annotations

from contextlib import closing

import pytest

from semcache.testing.servers import RedisServer


@pytest.fixture(scope="module")
def redis_server():
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    """A store's URL, and a function that gives all bytes that it keeps anywhere."""
    if request.param == "sqlite":
        path = tmp_path / "store" / "cache.db"
        return f"sqlite:///{path}?budget_s=5", lambda: folder_dump(path.parent)
    server = request.getfixturevalue("redis_server")
    with closing(server.client()) as client:
        client.flushall()
    return f"{server.url}?budget_s=5", lambda: server_dump(server)


def folder_dump(folder) -> bytes:
    return b"\n".join(path.name.encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file())


def server_dump(server) -> bytes:
    """Every key of the server with all that it holds, uncompressed."""
    found = []
    with closing(server.client()) as client:
        for key in client.scan_iter():
            kind = client.type(key).decode()
            read = {
                "string": lambda key: client.get(key),
                "hash": lambda key: b"".join(part for pair in client.hgetall(key).items() for part in pair),
                "set": lambda key: b"".join(client.smembers(key)),
                "zset": lambda key: b"".join(client.zrange(key, 0, -1)),
                "stream": lambda key: repr(client.xrange(key)).encode(),
            }[kind]
            found += [key, read(key)]
    return b"\n".join(found)
