"""Caches on every kind of store, with the real embedder."""

from __future__ import annotations

import pytest

from semcache.testing.servers import RedisServer


@pytest.fixture(scope="module")
def redis_server():
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request, tmp_path):
    """A fresh store that other caches and processes can open by its URL (memory excepted)."""
    if request.param == "memory":
        return "memory://"
    return shared_url(request, request.param, tmp_path)


@pytest.fixture(params=["sqlite", "redis"])
def lasting_url(request, tmp_path):
    return shared_url(request, request.param, tmp_path)


def shared_url(request, kind, tmp_path):
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'cache.sqlite'}?budget_s=5"
    server = request.getfixturevalue("redis_server")
    # What is tested here is not the time budget, which a busy machine may pass.
    return f"{server.url}?prefix={tmp_path.name}&budget_s=5"
