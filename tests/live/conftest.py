"""Stores for caches that learn while they work, with the real embedder."""

from __future__ import annotations

import pytest

from semcache.testing.servers import RedisServer


@pytest.fixture(scope="package")
def redis_server():
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def lasting_url(request, tmp_path):
    """A fresh store that other caches and processes can open by its URL."""
    # What is tested here is not the time budget, which a busy machine may pass.
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cache.sqlite'}?budget_s=5"
    server = request.getfixturevalue("redis_server")
    return f"{server.url}?prefix={tmp_path.name}&budget_s=5"
