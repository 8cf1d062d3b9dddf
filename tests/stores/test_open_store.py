"""A store from its URL."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from semcache import Policy, SemanticCache
from semcache.errors import ConfigurationError
from semcache.stores import MemoryStore, RedisStore, SqliteStore, open_store


def test_memory() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)


@pytest.mark.parametrize("slashes", ["//", "///"])
def test_sqlite_with_a_path(tmp_path: Path, slashes: str) -> None:
    path = tmp_path / "with space & ümlaut" / "store.db"
    store = open_store(f"sqlite:{slashes}{str(path).replace(' ', '%20')}")
    assert isinstance(store, SqliteStore)
    assert store.path == path
    assert path.exists()


def test_a_path_is_an_sqlite_file(tmp_path: Path) -> None:
    with SemanticCache(tmp_path / "store.db", policy=Policy(semantic=False)) as cache:
        assert isinstance(cache.engine.store, SqliteStore)
        assert cache.engine.store.path == tmp_path / "store.db"


@pytest.mark.parametrize(
    ("given", "said"), [(42, "42"), ("cache.db", "a string without a scheme"), ("ftp://u:secret@host", "ftp://…")]
)
def test_what_is_no_store_is_said(given: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"not a store: {said}; known forms are a pathlib.Path"):
        SemanticCache(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", [None, "sqlite://", "sqlite:///"])
def test_the_default_file_is_under_the_users_data(
    url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert store.path == tmp_path / "semcache" / "semcache.db"
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("redis://somebody:secret@cache.test:7000/3?prefix=shop", "redis://cache.test:7000/3"),
        ("rediss://:secret@cache.test/0", "rediss://cache.test/0"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_redis_is_not_contacted_and_its_password_not_shown(url: str, location: str) -> None:
    store = open_store(url)
    assert isinstance(store, RedisStore)
    assert store._location == location


def test_the_prefix_is_taken_from_the_url() -> None:
    store = open_store("redis://cache.test/0?prefix=shop&socket_keepalive=true")
    assert isinstance(store, RedisStore)
    assert store._key(255) == "shop:2:ff"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///tmp/x",
        "postgres://u:secret@h/db",
        "sqlite://relative/path.db",
        "memory://somewhere",
        "redis://host:notaport/0",
        "redis://host/0?prefix=",
        "redis://host/0?prefix={x}",
        "redis://host/0?decode_responses=true",
        "redis://host/0?no_such_option=1",
    ],
)
def test_what_names_no_store_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        open_store(url)
    assert "secret" not in str(refusal.value)


def test_the_refusal_says_what_there_is() -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///absolute/path.*redis://host:port/db"):
        open_store("mongodb://host")


def test_naming_the_stores_imports_none_of_their_drivers() -> None:
    script = "import sys, semcache.stores; assert not {'redis', 'sqlite3', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_a_url_can_set_the_time_budget(tmp_path: Path) -> None:
    for url in (f"sqlite://{tmp_path}/store.db?budget_s=0.7", "redis://127.0.0.1:1/0?prefix=p&budget_s=0.7"):
        store = open_store(url)
        assert store.budget_s == 0.7  # type: ignore[attr-defined]
        store.close()


@pytest.mark.parametrize(
    "url", ["sqlite:///x?budget_s=soon", "redis://127.0.0.1:1/0?budget_s=", "sqlite:///x?budget_s=0"]
)
def test_a_budget_that_is_no_time_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="budget_s"):
        open_store(url)
