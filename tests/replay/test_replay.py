from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from semcache.cache import SemanticCache
from semcache.cli import main
from semcache.money.ledger import Ledger
from semcache.policy import Policy
from semcache.stores import MemoryStore, SqliteStore
from semcache.tuning.logs import LogRecord
from semcache.tuning.replay import STRETCH, TENANT, Replay, replay
from semcache.types import Usage

STABLE_KEYS = {
    "requests",
    "hits",
    "exact_hits",
    "semantic_hits",
    "collapsed",
    "hit_rate",
    "wrong_hits",
    "false_hit_rate",
    "unsafe_served_rate",
    "tokens_saved",
    "usd_saved",
    "latency_ms",
}


def asked(text: str, label: str | None = None, **kwargs: Any) -> LogRecord:
    return LogRecord(({"role": "user", "content": text},), label, **kwargs)


def play(records: list[LogRecord], policy: Policy | None = None) -> Replay:
    with SemanticCache(store=MemoryStore(), policy=policy, ledger=Ledger(MemoryStore()), tenant=TENANT) as cache:
        return replay(cache, records)


def run(*args: str, code: int = 0) -> Any:
    result = CliRunner().invoke(main, ["replay", *args, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result.stderr


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_hit_is_wrong_exactly_when_the_class_of_the_answer_is_another() -> None:
    """Repeats of one text, labelled differently: what the cache does with them is certain."""
    same = "What is the daily limit?"
    found = play(
        [
            asked(same, "limit"),
            asked(same, "limit"),
            asked(same, "other"),
            asked(same, None),
            asked("Where is the nearest branch?", "branch"),
        ]
    ).report
    assert (found.books.exact_hits, found.books.misses) == (3, 2)
    assert (found.labelled, found.labelled_hits, found.wrong_hits) == (4, 2, 1)
    assert found.false_hit_rate.value == 0.5
    assert found.unsafe_served_rate.value == 0.25


def test_semantic_hits_come_from_the_real_embedder() -> None:
    records = [asked("How do I reset my password?", "reset"), asked("How can I reset my password?", "reset")]
    found = play(records, Policy(threshold=0.9))
    assert (found.report.books.semantic_hits, found.report.wrong_hits) == (1, 0)
    assert found.embedded == 2
    assert found.embedding_s > 0
    assert play(records, Policy(semantic=False)).report.books.hits == 0


def test_the_same_last_words_in_two_conversations_never_meet() -> None:
    def turn(before: str, label: str) -> LogRecord:
        messages = ({"role": "user", "content": before}, {"role": "assistant", "content": "Sure?"})
        return LogRecord((*messages, {"role": "user", "content": "Yes, do it."}), label)

    records = [turn("Cancel my card.", "cancel"), turn("Close my account.", "close"), turn("Cancel my card.", "cancel")]
    found = play(records).report
    assert (found.books.exact_hits, found.books.semantic_hits, found.wrong_hits) == (1, 0, 0)


def test_models_do_not_share_answers() -> None:
    assert play([asked("hi", model="a"), asked("hi", model="b")]).report.books.hits == 0


def test_savings_are_what_the_log_says_the_call_did_cost() -> None:
    call = {"model": "gpt-5-mini", "usage": Usage(1000, 500)}
    found = play([asked("Is it raining?", **call), asked("Is it raining?", **call)]).to_dict()
    assert (found["tokens_saved"], found["tokens_spent"]) == (1500, 1500)
    assert (found["usd_saved"], found["usd_spent"]) == (0.00125, 0.00125)


def test_what_is_not_known_is_null() -> None:
    found = play([asked("Is it raining?"), asked("Is it raining?")]).to_dict()
    assert found["hits"] == 1
    for key in ("wrong_hits", "false_hit_rate", "unsafe_served_rate", "tokens_saved", "usd_saved", "latency_saved_s"):
        assert found[key] is None, key


def test_a_log_longer_than_one_stretch_keeps_its_order() -> None:
    records = [asked(f"{n % 600}", f"{n % 600}") for n in range(STRETCH + 100)]
    told = {"embedding": 0, "replaying": 0}
    with SemanticCache(
        store=MemoryStore(), policy=Policy(threshold=0.9999), ledger=Ledger(MemoryStore()), tenant=TENANT
    ) as cache:

        def progress(phase: Any, done: int) -> None:
            told[phase] += done

        found = replay(cache, records, progress).report
    assert told == {"embedding": len(records), "replaying": len(records)}
    assert found.books.requests == len(records)
    assert found.books.exact_hits == len(records) - 600
    assert found.wrong_hits == 0


def test_the_command_prints_the_stable_keys(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl.gz"
    rows = [{"q": "Where is my card?", "intent": "card", "t": f"2026-11-{day}"} for day in (19, 20, 21)]
    log.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    found = run(str(log), "--text-field", "q", "--class-field", "intent", "--ts-field", "t")
    assert found.keys() >= STABLE_KEYS
    assert (found["requests"], found["exact_hits"], found["wrong_hits"]) == (3, 2, 0)
    assert (found["hit_rate"], found["false_hit_rate"], found["unsafe_served_rate"]) == (2 / 3, 0, 0)
    assert found["span_seconds"] == 2 * 86_400
    assert found["latency_ms"]["exact_hit"]["p50"] > 0
    assert run(str(log), "--text-field", "q", "--limit", "2")["requests"] == 2


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    log = write(tmp_path / "log", *[{"text": "Where is my card?", "cls": "card"}] * 3)
    shown = CliRunner().invoke(main, ["replay", log]).stdout
    for word in ("false-hit rate", "unsafe-served rate", "p99", "a second", "1 texts"):
        assert word in shown


def test_several_logs_are_one_stream(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"text": "a", "cls": "x"})
    two = write(tmp_path / "two", {"text": "a", "cls": "x"}, {"text": "a", "cls": "x"})
    assert run(one, two)["exact_hits"] == 2


def test_a_store_that_is_named_is_used_and_its_books_are_not_touched(tmp_path: Path) -> None:
    log = write(tmp_path / "log", {"text": "a", "cls": "x"}, {"text": "something else", "cls": "y"})
    url = f"sqlite://{tmp_path}/s.db"
    with SemanticCache(store=url) as cache:
        cache.store("a", "real traffic")
        booked = cache.stats().ledger.totals.requests
    assert run(log, "--store", url)["hits"] == 0
    assert run(log, "--store", url)["exact_hits"] == 2
    store = SqliteStore(tmp_path / "s.db")
    assert store.stats().entries == 3
    assert Ledger(store).report().totals.requests == booked
    store.close()


@pytest.mark.parametrize("content", ["", "{}\n"])
def test_input_that_cannot_be_used_stores_nothing(tmp_path: Path, content: str) -> None:
    good = write(tmp_path / "good", {"text": "a"})
    bad = tmp_path / "bad"
    bad.write_text(content)
    said = run(good, str(bad), "--store", f"sqlite://{tmp_path}/s.db", code=2)
    assert str(bad) in said
    assert not (tmp_path / "s.db").exists()


def test_a_policy_file_rules_the_replay(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("semantic = false\n")
    log = write(tmp_path / "log", {"text": "Where is my card?"}, {"text": "where is my card"})
    assert run(log, "--policy", str(policy))["embedding"]["texts"] == 0
    policy.write_text("no such thing")
    assert "policy.toml" in run(log, "--policy", str(policy), code=2)
