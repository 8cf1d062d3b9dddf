"""What is forgotten is gone: from the entries, the files beside them, the free pages, the log, and the server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from click.testing import CliRunner

from semcache import AsyncSemanticCache, ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.cli import main
from semcache.embedders import CallableEmbedder
from semcache.marking import Marker
from semcache.prompt_cache import find_rules, outline
from semcache.prompt_cache.history import PREFIX as HISTORY
from semcache.prompt_cache.history import pool_id
from semcache.prompt_cache.predictions import PREFIX as PREDICTIONS
from semcache.semantic import SNAPSHOT_FROM
from semcache.stores import MemoryStore, Selector, SqliteStore, open_store
from semcache.stores.sealing import new_key
from semcache.testing.store_contract import make_entry
from semcache.types import Prompt, Usage

DIM = 32


def vector_of(text: str) -> np.ndarray:
    vector = np.random.default_rng(list(text.encode())).standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def embedder() -> CallableEmbedder:
    return CallableEmbedder(lambda texts: [vector_of(text) for text in texts], fingerprint="random")


def fill(cache) -> None:
    for tenant in ("acme", "other"):
        for number in range(5):
            with cache.options(tenant=tenant, user=f"{tenant}-user-{number % 2}", tags=(f"{tenant}-tag",)):
                cache.store(f"{tenant} asks {number}", f"{tenant} is told {number}")
    cache.engine.store.mark_wrong(1, 2)


def traces(dump: bytes, tenant: str) -> list[bytes]:
    texts = [f"{tenant} asks {number}" for number in range(5)]
    wanted = [tenant.encode(), *(part for text in texts for part in vector_bytes(text))]
    return [word for word in wanted if word in dump]


def vector_bytes(text: str) -> list[bytes]:
    vector = vector_of(text)
    return [vector.astype("<f2").tobytes()[:16], vector.astype("<f4").tobytes()[:16]]


@pytest.mark.parametrize("key", [None, new_key()], ids=["plain", "encrypted"])
@pytest.mark.parametrize("by", ["api", "cli"])
def test_nothing_is_left_of_a_tenant(place, by, key, monkeypatch) -> None:
    url, dump = place
    if key is not None:
        monkeypatch.setenv("SEMCACHE_KEY", key)
    with SemanticCache.open(url, embedder=embedder()) as cache:
        fill(cache)
        assert key is not None or traces(dump(), "acme"), "else this test shows nothing"
        if by == "api":
            assert cache.forget("acme") == 5
    if by == "cli":
        shown = CliRunner().invoke(main, ["forget", "--store", url, "--tenant", "acme", "--yes"])
        assert (shown.exit_code, shown.stdout) == (0, "5 entries erased\n"), shown.output
    assert traces(dump(), "acme") == []
    with SemanticCache.open(url, embedder=embedder(), tenant="other") as cache:
        with cache.options(user="other-user-0"):
            assert cache.lookup("other asks 0").response == "other is told 0"
        assert cache.engine.store.changes(None, fingerprint="none").wrong_pairs == ((1, 2),)


@pytest.mark.parametrize("key", [None, new_key()], ids=["no key", "another key"])
def test_what_cannot_be_recognised_is_not_said_to_be_forgotten(place, key, monkeypatch) -> None:
    url, _ = place
    right = new_key()
    monkeypatch.setenv("SEMCACHE_KEY", right)
    with SemanticCache.open(url, embedder=embedder()) as cache:
        fill(cache)
    monkeypatch.setenv("SEMCACHE_KEY", key) if key else monkeypatch.delenv("SEMCACHE_KEY")
    command = ["forget", "--store", url, "--tenant", "acme", "--yes"]
    shown = CliRunner().invoke(main, command)
    assert (shown.exit_code, shown.stdout) == (1, "0 entries erased\n")
    assert "Error: there are entries under keys that SEMCACHE_KEY does not name" in shown.stderr
    shown = CliRunner().invoke(main, [*command, "--json"])
    assert (shown.exit_code, json.loads(shown.stdout)) == (1, {"erased": 0, "complete": False})
    monkeypatch.setenv("SEMCACHE_KEY", f"{key} {right}" if key else right)
    shown = CliRunner().invoke(main, [*command, "--json"])
    assert (shown.exit_code, json.loads(shown.stdout)) == (0, {"erased": 5, "complete": True}), shown.stderr


def test_nothing_is_left_of_a_user(place) -> None:
    url, dump = place
    with SemanticCache.open(url, embedder=embedder(), tenant="acme") as cache:
        fill(cache)
        assert cache.forget("acme", user="acme-user-1") == 2
        assert b"acme-user-1" not in dump()
        assert b"acme asks 1" not in dump()
        assert b"acme asks 2" in dump()
        with pytest.raises(ConfigurationError):
            cache.forget("")


async def test_the_async_cache_forgets_too(place) -> None:
    url, dump = place
    async with AsyncSemanticCache.open(url, embedder=embedder()) as cache:
        with cache.options(tenant="acme"):
            await cache.store("acme asks", "acme is told")
        assert await cache.forget("acme") == 1
        assert b"acme" not in dump()


def test_memory_forgets_pairs_too() -> None:
    store = MemoryStore()
    entry, kept = make_entry(tenant="acme"), make_entry()
    for one in (entry, kept):
        store.put(one)
    store.mark_wrong(entry.key.id, kept.key.id)
    store.mark_wrong(1, 2)
    assert store.erase(Selector(tenant="acme")) == 1
    assert store.changes(None, fingerprint="test:4").wrong_pairs == ((1, 2),)


def test_erasing_nothing_in_particular_is_refused(place) -> None:
    url, _ = place
    store = open_store(url)
    with pytest.raises(ConfigurationError, match="nothing is selected"):
        store.erase(Selector())
    store.close()


def test_what_the_index_of_redis_has_lost_is_found(redis_server) -> None:
    with closing(redis_server.client()) as client:
        client.flushall()
        store = open_store(f"{redis_server.url}?budget_s=5&prefix=with*star[x]")
        lost, expired = make_entry("lost", tenant="acme"), make_entry("expired", tenant="acme", ttl=0.001)
        elsewhere = make_entry("elsewhere", tenant="acme")
        for entry in (lost, expired):
            store.put(entry)
        other = open_store(f"{redis_server.url}?budget_s=5&prefix=withXstarx")
        other.put(elsewhere)
        client.hdel(store._index, lost.key.id.to_bytes(8, "little"))
        assert client.hlen(store._index) == 1
        store.erase(Selector(tenant="acme"))
        assert client.hlen(store._index) == 0
        assert store.fetch([lost.key.id]) == [None]
        assert other.fetch([elsewhere.key.id]) != [None], "another store on the server"
        store.close()
        other.close()


def test_files_beside_the_store_go_too(tmp_path) -> None:
    path = tmp_path / "cache [1].db"
    store = SqliteStore(path, budget_s=5)
    store.put(make_entry(tenant="acme"))
    beside = [tmp_path / name for name in ("cache [1].db.index", ".cache [1].db.index.x1.tmp")]
    beside += [tmp_path / f"cache [1].db.damaged-20260101T000000{end}" for end in ("", "-wal")]
    bystander = tmp_path / "cache 1.db.index"
    for file in (*beside, bystander):
        file.write_bytes(b"acme")
    store.erase(Selector(tenant="acme"))
    store.close()
    assert not any(file.exists() for file in beside)
    assert bystander.exists()


def test_a_live_process_does_not_bring_vectors_back_in_its_snapshot(tmp_path) -> None:
    """It was idle while another process forgot, and writes its index on closing."""
    path = tmp_path / "cache.db"
    url = f"sqlite:///{path}?budget_s=5"
    live = SemanticCache.open(url, embedder=embedder())
    for number in range(SNAPSHOT_FROM + 10):
        tenant = "acme" if number < 5 else "other"
        text = f"{tenant} asks {number}"
        live.engine.store.put(
            make_entry(text, tenant=tenant, scope=tenant, vector=vector_of(text), fingerprint="random")
        )
    live.lookup("anything")
    assert live.stats().index_vectors == SNAPSHOT_FROM + 10
    live.engine.semantic.save_snapshot()
    index = tmp_path / "cache.db.index"
    assert any(part in index.read_bytes() for part in vector_bytes("acme asks 3"))
    script = "import sys; from semcache.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "forget", "--store", url, "--tenant", "acme", "--yes"]
    subprocess.run(command, check=True, capture_output=True)
    assert not index.exists()
    live.close()
    assert index.exists()
    for number in range(5):
        assert not any(part in index.read_bytes() for part in vector_bytes(f"acme asks {number}"))


@pytest.mark.parametrize("by", ["api", "cli"])
def test_nothing_is_left_of_what_was_learned_of_a_tenant_s_entries(place, by) -> None:
    """Evidence, audits, shadow mode: their counters name entries by a hash of the question."""
    url, dump = place
    policy = Policy(threshold=-1.0, guards=(), min_probability=0.0, audit_rate=1.0)
    names = []
    with SemanticCache.open(url, embedder=embedder(), policy=policy, judge=lambda *texts: True) as cache:
        for tenant in ("acme", "other"):
            with cache.options(tenant=tenant):
                ask = cache.wrap(lambda prompt: "a secret answer", name="ask")
                ask(f"{tenant} asks 0")
                ask(f"{tenant} asks 1")
                cache.report_right(last_outcome())
                names.append(f"{last_outcome().entry_id:x}".encode())
        assert cache.engine.auditor.wait(10)
        assert all(name in dump() for name in names), "else this test shows nothing"
        if by == "api":
            cache.forget("acme")
    if by == "cli":
        assert CliRunner().invoke(main, ["forget", "--store", url, "--tenant", "acme", "--yes"]).exit_code == 0
    assert f"e|{names[0].decode()}".encode() not in dump()
    assert f"e|{names[1].decode()}".encode() in dump(), "another tenant's"
    assert traces(dump(), "acme") == []
    with SemanticCache.open(url, embedder=embedder()) as cache:
        standing = cache.stats().live["default"]
        assert (standing.reported_right, standing.audited) == (2, 2), "the namespace has still learned it"


@pytest.mark.parametrize("key", [None, new_key()], ids=["plain", "encrypted"])
@pytest.mark.parametrize("mode", ["live", "shadow"])
def test_nothing_is_left_of_what_a_tenant_asked_and_had_verified(place, mode, key, monkeypatch) -> None:
    """A confirmed pair names the question that was asked, which is in no answer's entry."""
    url, dump = place
    if key is not None:
        monkeypatch.setenv("SEMCACHE_KEY", key)
    policy = Policy(
        threshold=0.99, guards=(), mode=mode, audit_rate=1.0, verifier=lambda query, cached: 1.0, verify_from=-1.0
    )
    with SemanticCache.open(url, embedder=embedder(), policy=policy, judge=lambda *texts: False) as cache:
        ask = cache.wrap(lambda prompt: "the answer", name="ask")
        for tenant in ("acme", "other"):
            with cache.options(tenant=tenant, user=f"{tenant}-user-0"):
                ask(f"{tenant} asks 0")
                ask(f"{tenant} wonders")
                outcome = last_outcome()
                assert outcome.hit if mode == "live" else outcome.would_serve
        assert cache.engine.auditor.wait(10)
        assert (b"acme wonders" in dump()) is (key is None), "else this test shows nothing"
        size = cache.stats().store.entries
        assert cache.forget("other", user="other-user-0") == cache.forget("acme") == size // 2 == 2
    assert b"acme" not in dump()
    assert b"other wonders" not in dump()


def test_the_command_asks_first(tmp_path) -> None:
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    store.put(make_entry(tenant="acme"))
    store.close()
    runner = CliRunner()
    arguments = ["forget", "--store", f"sqlite://{path}", "--tenant", "acme"]
    assert runner.invoke(main, arguments, input="n\n").exit_code == 1
    assert '"erased": 1' in runner.invoke(main, [*arguments, "--yes", "--json"]).stdout
    assert runner.invoke(main, ["forget", "--store", f"sqlite://{path}", "--yes"]).exit_code == 2


SYSTEM = "You answer questions about the lifts of acme. " * 400
ASKED = {"model": "claude-haiku-4-5", "system": SYSTEM, "messages": [{"role": "user", "content": "hi"}]}
PROMPT = Prompt("anthropic", ASKED, "api.anthropic.com", "claude-haiku-4-5")
RULES = find_rules("anthropic", PROMPT.host, PROMPT.model)


def prompt_counters(store) -> tuple[set[str], set[str]]:
    """The numbers that stand for prompts in what a store counts of them, and what it counts in general."""
    names = [name.split("|") for prefix in (HISTORY, PREDICTIONS) for name in store.counters(prefix)]
    general = {"", f"{pool_id('head'):016x}"}
    return {prefix for _, prefix, *_ in names} - general, {prefix for _, prefix, *_ in names} & general


@pytest.mark.parametrize("key", [None, new_key()], ids=["plain", "encrypted"])
@pytest.mark.parametrize("by", ["api", "api without prompts", "cli"])
def test_prompts_are_forgotten_with_any_tenant(place, by, key, monkeypatch) -> None:
    url, dump = place
    if key is not None:
        monkeypatch.setenv("SEMCACHE_KEY", key)
    with SemanticCache.open(url, policy=Policy(semantic=False)) as cache:
        marker = cache.engine.performer.marker
        for read in (0, 4000):
            marked = marker.mark(PROMPT, "acme")
            marker.reconcile(marked, Usage(input_tokens=4000, cache_read_tokens=read, cache_write_tokens=4000 - read))
        marker.shared.sync()
        prompts, _ = prompt_counters(cache.engine.store)
        assert len(prompts) == 1
        guessed = f"{outline('anthropic', ASKED, partition=marker._partition(PROMPT, RULES)).head:016x}"
        assert prompts == {guessed}
        if by == "api":
            cache.forget("acme")
            marker.shared.sync()
            assert marker.expected(PROMPT) is None
    if by == "api without prompts":
        with SemanticCache.open(url, policy=Policy(semantic=False), prompt_cache=False) as cache:
            cache.forget("acme")
    if by == "cli":
        assert CliRunner().invoke(main, ["forget", "--store", url, "--tenant", "acme", "--yes"]).exit_code == 0
    assert guessed.encode() not in dump()
    with closing(open_store(url)) as store:
        assert prompt_counters(store) == (set(), {"", f"{pool_id('head'):016x}"})


def test_who_guesses_a_prompt_finds_it_in_no_encrypted_store(tmp_path) -> None:
    def counted(name: str, key: str | None = None) -> set[str]:
        with closing(SqliteStore(tmp_path / name, key=key, budget_s=5)) as store:
            marker = Marker(store, lambda event: pytest.fail(event.message), time.time)
            marker.mark(PROMPT, None)
            marker.close()
            return prompt_counters(store)[0]

    assert counted("a") == counted("b")
    assert len(counted("a") | counted("c", new_key()) | counted("d", new_key())) == 3
