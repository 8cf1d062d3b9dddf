from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from semcache.cache import SemanticCache
from semcache.cli import COMMANDS, main
from semcache.cli.doctor import EXTRAS
from semcache.cli.stats import BAR_WIDTH, bars
from semcache.money.books import Books, Line
from semcache.money.ledger import Ledger
from semcache.money.rows import PREFIX
from semcache.stores import SqliteStore
from semcache.types import Reply, Request, Usage
from semcache.wire.openai_chat import OpenAIChat

QUESTIONS = ["How do I reset my password?", "What does a replacement card cost?", "How do I reset my password?"]
HOSTILE = "Is \r[31mthis[/red] [bold]safe\t?"


def chat(text: str, model: str = "gpt-5-mini") -> Request:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return OpenAIChat().parse(body, upstream="test", headers={})


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with two scopes of a real cache's making: 3 calls to one model, 1 to another."""
    path = tmp_path_factory.mktemp("store") / "semcache.db"
    with SemanticCache(store=f"sqlite://{path}") as cache:
        for text in QUESTIONS:
            cache.engine.run(chat(text), lambda: Reply(None, b'{"a":1}', Usage(1000, 500)))
        with cache.options(namespace="billing", tenant="acme", tags=("blue",)):
            cache.engine.run(chat(HOSTILE, "own[model]"), lambda: Reply(None, b'{"a":1}'))
    return path


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> str:
    """The URL of a copy of that store."""
    copied = shutil.copy(filled, tmp_path / "copy.db")
    return f"sqlite://{copied}"


def run(*args: str, code: int = 0, **kwargs: Any) -> Result:
    result = CliRunner().invoke(main, args, **kwargs)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def run_json(*args: str, code: int = 0) -> Any:
    return json.loads(run(*args, "--json", code=code).stdout)


def error_line(result: Result) -> str:
    """The one line on stderr."""
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    return line


# The group -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_has_help(name: str) -> None:
    command = getattr(importlib.import_module(f"semcache.cli.{name}"), name)
    assert isinstance(command, click.Command)
    assert "Usage: main" in run(name, "--help").stdout


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"demo"}))
def test_the_short_help_of_the_group_is_the_commands_own(name: str) -> None:
    command = getattr(importlib.import_module(f"semcache.cli.{name}"), name)
    assert " ".join(command.help.split("\n\n")[0].split()) == COMMANDS[name]


def test_the_group_lists_its_commands_and_version() -> None:
    listed = " ".join(run("--help").stdout.split())
    for name, short in COMMANDS.items():
        assert f"{name} {short}" in listed
    assert "semcache, version " in run("--version").stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    assert "No such command 'stat'" in run("stat", code=2).stderr


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("sqlite:////nonexistent/semcache.db", 2, "no such file"),
        ("ftp://example.org", 2, "not a store"),
        ("redis://127.0.0.1:1", 1, "127.0.0.1:1"),
    ],
)
@pytest.mark.parametrize("command", [("stats",), ("explain", "hello"), ("invalidate", "--all", "--yes")])
def test_a_store_that_is_not_there_costs_one_line(command: tuple[str, ...], url: str, code: int, says: str) -> None:
    line = error_line(run(*command, "--store", url, code=code))
    assert line.startswith("Error: ")
    assert says in line


def test_the_store_may_come_from_the_environment(store: str) -> None:
    result = run("stats", "--json", env={"SEMCACHE_STORE": store})
    assert json.loads(result.stdout)["totals"]["requests"] == 4


# stats ---------------------------------------------------------------------------------------------------------------


def test_stats_as_json(store: str) -> None:
    found = run_json("stats", "--store", store)
    assert found["store"]["kind"] == "sqlite"
    assert found["store"]["entries"] == 3
    totals = found["totals"]
    assert (totals["requests"], totals["exact_hits"], totals["misses"]) == (4, 1, 3)
    assert (totals["tokens_saved"], totals["usd_saved"], totals["usd_spent"]) == (1500, 0.00125, 0.0025)
    assert [(row["namespace"], row["model"]) for row in found["rows"]] == [
        ("billing", "own[model]"),
        ("default", "gpt-5-mini"),
    ]
    assert found["rows"][0]["usd_spent"] is None
    assert run_json("stats", "--store", store, "--namespace", "billing")["totals"]["requests"] == 1


def test_stats_as_a_table(store: str) -> None:
    shown = run("stats", "--store", store).stdout
    assert "own[model]" in shown
    assert "Without any cache: " in shown
    assert re.search(r"exact hits +1 +1,500 +\$0\.0012", shown)
    assert "Not in the money: 1 calls" in shown
    assert "1 of 4 (25%)" in shown
    assert "stale" not in shown


def test_stats_look_back_so_many_days(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    database = SqliteStore(path)
    today = (datetime.now(timezone.utc).date() - date(1970, 1, 1)).days
    database.add_counters({f"{PREFIX}{today - ago}|default|-|exact.calls": 1 for ago in range(30)})
    database.close()
    assert run_json("stats", "--store", f"sqlite://{path}")["totals"]["hits"] == 14
    assert run_json("stats", "--store", f"sqlite://{path}", "--days", "1")["totals"]["hits"] == 1


def test_stats_of_a_store_without_calls(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "s.db").close()
    assert "No calls are booked" in run("stats", "--store", f"sqlite://{tmp_path}/s.db").stdout


def test_bars_are_as_long_as_the_calls_of_their_day() -> None:
    first = date(2026, 11, 20)
    days = {
        first: Books(exact=Line(calls=30), semantic=Line(calls=10), misses=40, spent=Line(calls=40)),
        first + timedelta(days=1): Books(exact=Line(calls=10), misses=10, spent=Line(calls=10)),
        first + timedelta(days=2): Books(),
    }
    full, quarter, none = bars(days)
    assert full == f"2026-11-20 {'█' * 15}{'▓' * 5}{'░' * 20} 40 of 80 (50%)"
    assert quarter == f"2026-11-21 {'█' * 5}{'░' * 5}{' ' * 30} 10 of 20 (50%)"
    assert none == f"2026-11-22 {' ' * BAR_WIDTH} 0 of 0"


# explain -------------------------------------------------------------------------------------------------------------


def test_explain_finds_the_same_question_in_its_own_scope(store: str) -> None:
    first, second = run_json("explain", QUESTIONS[0], "--store", store)["scopes"]
    assert (first["status"], first["exact"], first["model"], first["entries"]) == ("hit", True, "gpt-5-mini", 2)
    assert (second["status"], second["exact"]) == ("miss", False)
    assert (second["namespace"], second["tenant"], second["model"]) == ("billing", "acme", "own[model]")


def test_explain_tells_what_is_held_against_each_candidate(store: str) -> None:
    text = "Do you ship to Norway on Sundays?"
    (scope, _) = run_json("explain", text, "--store", store)["scopes"]
    assert (scope["status"], scope["exact"]) == ("miss", False)
    assert scope["reason"]
    assert {candidate["text"] for candidate in scope["candidates"]} <= {*QUESTIONS, HOSTILE}
    for candidate in scope["candidates"]:
        assert candidate["similarity"] < scope["threshold"]
        assert candidate["reasons"]
        assert candidate["agreement"] is None  # answers are in free wording here
    similarities = [candidate["similarity"] for candidate in scope["candidates"]]
    assert similarities == sorted(similarities, reverse=True)


def test_explain_changes_and_books_nothing(store: str) -> None:
    before = run_json("stats", "--store", store)
    run("explain", QUESTIONS[0], "--store", store)
    assert run_json("stats", "--store", store) == before


def test_explain_as_text_is_safe_for_a_terminal(store: str) -> None:
    shown = run("explain", "Is this safe?", "--store", store).stdout
    assert "[31mthis[/red] [bold]safe" in shown
    assert "\r" not in shown
    assert "\t" not in shown
    assert "own[model], billing, acme; 1 entry" in shown


def test_explain_asks_so_many_scopes(store: str) -> None:
    assert len(run_json("explain", "x", "--store", store, "--scopes", "1")["scopes"]) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Is sk-proj-abcdefghijklmnop0123456789 my key?", "secret: API key"),
        ("Is this hidden\u200b?", "hidden characters"),
        ("word " * 2000, "the embedder cannot read the whole text"),
    ],
)
def test_explain_embeds_nothing_that_the_cache_would_not(store: str, text: str, reason: str, monkeypatch) -> None:
    from semcache.embedders.queue import EmbeddingQueue

    embedded: list[str] = []
    embed = EmbeddingQueue.embed
    monkeypatch.setattr(EmbeddingQueue, "embed", lambda self, text: embedded.append(text) or embed(self, text))
    told = run_json("explain", text, "--store", store)
    assert (told["reason"], told["scopes"]) == (reason, [])
    assert reason in run("explain", text, "--store", store).stdout
    assert embedded == []
    assert run_json("explain", QUESTIONS[0], "--store", store)["reason"] == ""
    assert QUESTIONS[0] in embedded


def test_what_explain_finds_wrong_can_be_reported(store: str) -> None:
    text = "How can I reset my password?"
    scope = next(one for one in run_json("explain", text, "--store", store)["scopes"] if one["status"] == "hit")
    entry = hex(scope["candidates"][0]["entry_id"])
    assert run("report", "right", text, entry, "--store", store).stdout == "Noted.\n"
    assert run_json("report", "wrong", text, entry, "--store", store)["layer"] == "semantic"
    live = run_json("stats", "--store", store)["live"][scope["namespace"]]
    assert (live["reported_right"], live["reported_wrong"]) == (1, 1)
    again = run_json("explain", text, "--store", store)["scopes"]
    assert all(one["entry_id"] != int(entry, 16) for seen in again for one in seen["candidates"])
    assert run("report", "wrong", text, entry, "--store", store, code=2).exit_code == 2
    with SemanticCache.open(store) as cache:
        pairs = cache.engine.store.changes(None, fingerprint="any").wrong_pairs
    assert any(int(entry, 16) in pair for pair in pairs)


def test_doctor_knows_every_extra() -> None:
    extras = set(metadata("semcache-llm").get_all("Provides-Extra"))
    assert extras - {"all", "dev"} <= set(EXTRAS.values())


def test_explain_in_an_empty_store(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "s.db").close()
    url = f"sqlite://{tmp_path}/s.db"
    assert "has no entry" in run("explain", "x", "--store", url).stdout
    assert run_json("explain", "x", "--store", url)["scopes"] == []


# invalidate ----------------------------------------------------------------------------------------------------------


def entries(url: str) -> int:
    found: int = run_json("stats", "--store", url)["store"]["entries"]
    return found


def test_invalidate_by_tag_namespace_and_tenant(store: str) -> None:
    assert run_json("invalidate", "--store", store, "--tag", "green") == {"deleted": 0}
    assert run_json("invalidate", "--store", store, "--namespace", "billing", "--tenant", "other") == {"deleted": 0}
    assert run("invalidate", "--store", store, "--tag", "blue", "--tenant", "acme").stdout == "1 entry deleted\n"
    assert entries(store) == 2


@pytest.mark.parametrize("form", [str, hex])
def test_invalidate_by_the_ids_that_explain_prints(store: str, form: Callable[[int], str]) -> None:
    near, _ = run_json("explain", "How can I reset my password?", "--store", store)["scopes"]
    ids = [form(candidate["entry_id"]) for candidate in near["candidates"]]
    assert run_json("invalidate", "--store", store, "--id", ids[0]) == {"deleted": 1}
    assert entries(store) == 2
    assert run_json("invalidate", "--store", store, "--scope", form(near["scope_id"])) == {"deleted": 1}
    assert entries(store) == 1


def test_invalidate_all_asks_first_and_keeps_the_books(store: str) -> None:
    refused = run("invalidate", "--store", store, "--all", input="n\n", code=1)
    assert "Delete all 3 entries" in refused.stderr
    run("invalidate", "--store", store, "--all", input="", code=1)
    assert entries(store) == 3
    assert run("invalidate", "--store", store, "--all", input="y\n").stdout == "3 entries deleted\n"
    assert run_json("invalidate", "--store", store, "--all", "--yes") == {"deleted": 0}
    assert run_json("stats", "--store", store)["totals"]["requests"] == 4


@pytest.mark.parametrize("args", [(), ("--all", "--tag", "blue"), ("--id", "twelve"), ("--id", "-1")])
def test_invalidate_refuses_what_it_does_not_understand(store: str, args: tuple[str, ...]) -> None:
    run("invalidate", "--store", store, "--yes", *args, code=2)
    assert entries(store) == 3


# doctor --------------------------------------------------------------------------------------------------------------


def test_doctor_finds_nothing_broken(store: str) -> None:
    found = run_json("doctor", "--store", store)
    assert found["ok"] is True
    checks = {check["name"]: check for check in found["checks"]}
    assert {check["status"] for check in found["checks"]} <= {"ok", "absent"}
    assert "3 entries, 4 calls booked" in checks["store"]["detail"]
    assert "all-MiniLM-L6-v2" in checks["embedder"]["detail"]
    assert checks["numpy"]["detail"][0].isdigit()
    shown = run("doctor", "--store", store).stdout
    assert "BROKEN" not in shown
    assert "embedder" in shown


def test_doctor_names_all_that_is_broken_and_exits_1(tmp_path: Path) -> None:
    damaged = tmp_path / "folder"
    damaged.mkdir()
    found = run_json("doctor", "--store", "redis://127.0.0.1:1", "--embedder", str(damaged), code=1)
    assert found["ok"] is False
    broken = {check["name"]: check["detail"] for check in found["checks"] if check["status"] == "broken"}
    assert broken.keys() == {"store", "embedder"}
    assert "127.0.0.1:1" in broken["store"]
    assert "BROKEN  store" in run("doctor", "--store", "redis://127.0.0.1:1", code=1).stdout


def test_doctor_makes_no_store(tmp_path: Path) -> None:
    run("doctor", "--store", f"sqlite://{tmp_path}/s.db", code=1)
    assert list(tmp_path.iterdir()) == []


def test_the_books_that_stats_reads_are_those_of_the_ledger(store: str) -> None:
    database = SqliteStore(store.removeprefix("sqlite://"))
    try:
        assert Ledger(database).report().to_dict()["totals"] == run_json("stats", "--store", store)["totals"]
    finally:
        database.close()
