"""Encryption at rest: nothing to read without the key, and a wrong key is a miss."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache import ConfigurationError, Policy, SemanticCache
from semcache.embedders import CallableEmbedder
from semcache.errors import EntryDamaged
from semcache.semantic import SNAPSHOT_FROM
from semcache.stores import RedisStore, Selector, SqliteStore, open_store
from semcache.stores.sealing import KEY_VARIABLE, Keyring, Locked, new_key
from semcache.testing.store_contract import SharedStoreContract, as_stored, make_entry

OLD, NEW, OTHER = new_key(), new_key(), new_key()
VECTOR = np.linspace(0.11, 0.93, 64, dtype=np.float32)


class TestSealedSqlite(SharedStoreContract):
    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: SqliteStore(tmp_path / "store.db", budget_s=5, key=OLD)

    def spoil(self, store, id):
        with closing(sqlite3.connect(store.path)) as db, db:
            db.execute("UPDATE entries SET data = substr(data, 1, length(data) - 1) WHERE id = ?", (id,))


class TestSealedRedis(SharedStoreContract):
    @pytest.fixture
    def reopen(self, redis_server):
        with closing(redis_server.client()) as client:
            client.flushall()
        return lambda: RedisStore(redis_server.url, budget_s=5, key=lambda: OLD)

    def spoil(self, store, id):
        assert store._client.setrange(store._key(id), 40, b"spoilt")


# The bytes


@given(st.integers(0, 2**63 - 1), st.binary(max_size=200))
def test_what_was_sealed_opens(id, data) -> None:
    assert Keyring(OLD).open(id, Keyring(OLD).seal(id, data)) == data


@given(st.binary(max_size=50), st.data())
def test_any_change_is_damage(data, draw) -> None:
    ring = Keyring(OLD)
    sealed = bytearray(ring.seal(5, data))
    at = draw.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(EntryDamaged):
        ring.open(5, bytes(sealed))
    with pytest.raises(EntryDamaged):
        ring.open(5, ring.seal(5, data)[: draw.draw(st.integers(0, len(sealed) - 1))])


def test_a_sealed_entry_opens_in_its_own_slot_only() -> None:
    ring = Keyring(OLD)
    with pytest.raises(EntryDamaged, match="changed"):
        ring.open(6, ring.seal(5, b"data"))


def test_equal_entries_are_sealed_differently() -> None:
    ring = Keyring(OLD)
    assert len({ring.seal(5, b"data") for _ in range(100)}) == 100


def test_keys_are_rotated() -> None:
    sealed = Keyring(OLD).seal(5, b"data")
    both = Keyring(f"{NEW}, {OLD}")
    assert both.open(5, sealed) == b"data"
    with pytest.raises(Locked):
        Keyring(NEW).open(5, sealed)
    assert Keyring(NEW).open(5, both.seal(5, b"more")) == b"more"


@pytest.mark.parametrize("bad", ["", "  ", "hunter2", OLD[:-4], f"{OLD},x", "ü" * 44], ids=range(6))
def test_what_is_no_key_is_refused_and_not_shown(bad) -> None:
    with pytest.raises(ConfigurationError, match="key") as refusal:
        Keyring(bad)
    assert not bad.strip() or bad not in str(refusal.value)


# In the stores


def put(url, key, text="the question", **more):
    entry = make_entry(text, scope="the scope", vector=VECTOR, **more)
    store = open_store(url, key=key)
    store.put(entry)
    store.close()
    return entry


def test_nothing_can_be_read_without_the_key(place) -> None:
    url, dump = place
    words = ("question", "the scope", "the tenant", "the namespace", "the tag", "some-model")
    visible = (*(word.encode() for word in words), VECTOR.astype("<f2").tobytes()[:32], VECTOR.tobytes()[:32])
    facts = {"tenant": "the tenant", "namespace": "the namespace", "tags": ("the tag",), "ttl": 60}
    put(url, None, **facts)
    assert [word for word in visible if word not in dump()] == [VECTOR.tobytes()[:32]]
    open_store(url).erase(Selector(everything=True))
    put(url, OLD, **facts)
    assert [word for word in visible if word in dump()] == []


@pytest.mark.parametrize("other", [None, OTHER], ids=["no key", "another key"])
def test_a_wrong_key_is_a_miss_and_one_event_and_destroys_nothing(place, other) -> None:
    url, _ = place
    entries = [put(url, OLD, f"question {i}") for i in range(3)]
    store = open_store(url, key=other)
    events = []
    store.on_event = events.append
    assert [store.get(entry.key) for entry in entries] == [None] * 3
    assert store.fetch([entry.key.id for entry in entries]) == [None] * 3
    changes = store.changes(None, fingerprint=entries[0].fingerprint)
    assert changes is not None
    assert len(changes.ids) == 0
    assert [event.kind for event in events] == ["entry_locked"]
    store.close()
    reader = open_store(url, key=OLD)
    assert reader.fetch([entry.key.id for entry in entries]) == [as_stored(entry) for entry in entries]
    reader.close()


def test_plain_entries_are_not_served_by_a_store_with_a_key(place) -> None:
    """Who can write to the store but has no key could forge them."""
    url, _ = place
    entry = put(url, None)
    store = open_store(url, key=OLD)
    events = []
    store.on_event = events.append
    assert store.get(entry.key) is None
    assert [event.kind for event in events] == ["entry_damaged"]
    store.close()


def test_a_sealed_entry_is_of_no_use_in_another_tenants_scope(tmp_path) -> None:
    """One who writes the file without the key cannot hand a tenant's answers to another tenant."""
    store = SqliteStore(tmp_path / "store.db", key=OLD, budget_s=5)
    events = []
    store.on_event = events.append
    entries = {tenant: make_entry(scope=f"of {tenant}", tenant=tenant) for tenant in ("ours", "theirs")}
    for entry in entries.values():
        store.put(entry)
    with closing(sqlite3.connect(store.path)) as db, db:
        (theirs,) = db.execute("SELECT head FROM entries WHERE id = ?", (entries["theirs"].key.id,)).fetchone()
        db.execute("UPDATE entries SET head = ?", (theirs,))
    assert store.fetch([entries["ours"].key.id]) == [None]
    assert [event.kind for event in events] == ["entry_damaged"]
    assert store.get(entries["theirs"].key) == as_stored(entries["theirs"])


def test_deleting_finds_the_names_under_every_key(place) -> None:
    url, _ = place
    for key in (None, OLD, NEW):
        put(url, key, f"under {key}", tenant="t", namespace="n", tags=("x", "y"))
        put(url, key, f"other under {key}", tenant="u", namespace="n", tags=("x",))
    store = open_store(url, key=f"{NEW} {OLD}")
    assert store.delete(Selector(tenant="t", tag="x", namespace="other")) == 0
    assert store.delete(Selector(tenant="t", tag="x", namespace="n")) == 3
    assert store.delete(Selector(tag="x")) == 3
    store.close()


def test_the_key_comes_from_the_environment(place, monkeypatch) -> None:
    url, _ = place
    entry = put(url, OLD)
    monkeypatch.setenv(KEY_VARIABLE, f"{NEW},{OLD}")
    store = open_store(url)
    assert store.get(entry.key) == as_stored(entry)
    store.close()
    monkeypatch.setenv(KEY_VARIABLE, "no key")
    with pytest.raises(ConfigurationError, match="base64"):
        open_store(url)


def test_a_cache_on_a_sealed_store_hits_in_both_tiers(place, monkeypatch) -> None:
    url, dump = place
    monkeypatch.setenv(KEY_VARIABLE, OLD)
    same = CallableEmbedder(lambda texts: [[1.0, 0.0]] * len(texts), fingerprint="all alike")
    with SemanticCache.open(url, embedder=same) as cache:
        cache.store("How do I reset my password?", "by mail")
    with SemanticCache.open(url, embedder=same) as cache:
        assert cache.lookup("How do I reset my password?").outcome.layer == "exact"
        assert cache.lookup("How can I reset my password?").outcome.layer == "semantic"
    assert b"password" not in dump()
    assert b"by mail" not in dump()


def test_masks_are_shared_by_those_who_have_the_key(place, monkeypatch) -> None:
    url, _ = place
    monkeypatch.setenv(KEY_VARIABLE, OLD)
    secret = "4111 1111 1111 " + "1111"
    for expected in (None, "yes"):
        with SemanticCache.open(url, policy=Policy(semantic=False, secrets="redact")) as cache:
            assert cache.lookup(f"Is {secret} valid?").response == expected
            cache.store(f"Is {secret} valid?", "yes")


def test_a_sealed_store_has_no_snapshot_and_removes_an_old_one(tmp_path) -> None:
    path = tmp_path / "cache.db"
    rng = np.random.default_rng(0)

    def embed(texts):
        vectors = rng.standard_normal((len(texts), 8)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def fill(store):
        entries = [make_entry(f"q{i}", vector=embed([""])[0], fingerprint="fp") for i in range(SNAPSHOT_FROM + 1)]
        for entry in entries:
            store.put(entry)
        with SemanticCache(store=store, embedder=CallableEmbedder(embed, fingerprint="fp")) as cache:
            cache.lookup("anything")
            assert cache.stats().index_vectors == SNAPSHOT_FROM + 1

    fill(SqliteStore(path, budget_s=5))
    assert (tmp_path / "cache.db.index").exists()
    SqliteStore(path, key=OLD).close()
    assert not (tmp_path / "cache.db.index").exists()
    path.unlink()
    fill(SqliteStore(path, budget_s=5, key=OLD))
    assert not (tmp_path / "cache.db.index").exists()


def test_cryptography_is_imported_for_a_key_only(tmp_path) -> None:
    script = """
import sys
from semcache.stores import SqliteStore
SqliteStore(sys.argv[1]).close()
assert "cryptography" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "s.db")], check=True)
