"""Stores that several processes share, patient enough for a busy machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from semcache.testing.servers import RedisServer


@pytest.fixture(scope="package")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def lasting_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cache.sqlite'}?budget_s=5"
    server = request.getfixturevalue("redis_server")
    return f"{server.url}?prefix={tmp_path.name}&budget_s=5"
