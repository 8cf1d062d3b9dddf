"""What a running cache was asked, written down so that ``semcache replay`` and ``tune`` can read it."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from semcache import ConfigurationError, Policy, SemanticCache
from semcache.tuning.logs import read_logs
from semcache.tuning.replay import replay, replay_cache

BANK = {"role": "system", "content": "You are the support bot of a bank."}
RESET, RESET_AGAIN, OTHER = "How do I reset my password?", "how do i reset my password", "Where is the nearest branch?"
KEY = "My key is sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD, is it safe?"


def ask(messages: list[dict[str, Any]], *, model: str = "small") -> str:
    return f"{model}: {len(messages)}"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def replayed(path: Path) -> Any:
    with replay_cache(Policy()) as cache:
        return replay(cache, list(read_logs([path]))).report


def asked(text: str) -> list[dict[str, Any]]:
    return [BANK, {"role": "user", "content": text}]


def test_a_replay_of_the_log_does_what_the_cache_did(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    with SemanticCache("memory://", request_log=path) as cache:
        wrapped = cache.wrap(ask, name="ask")
        for text in (RESET, RESET, RESET_AGAIN, OTHER):
            wrapped(asked(text))
        wrapped(asked(RESET), model="large")
        with cache.options(tenant="other"):
            wrapped(asked(RESET))
        live = cache.stats().ledger.totals
    assert [(row["status"], row["layer"]) for row in rows(path)] == [
        ("miss", None), ("hit", "exact"), ("hit", "semantic"), ("miss", None), ("miss", None), ("miss", None),
    ]  # fmt: skip
    report = replayed(path)
    assert report.books.requests == live.requests == 6
    assert (report.books.exact_hits, report.books.semantic_hits) == (1, 1)


def test_the_scope_is_a_digest_and_the_file_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    with SemanticCache("memory://", tenant="acme", request_log=path) as cache:
        cache.wrap(ask, name="ask")(asked(RESET))
    text = path.read_text()
    assert RESET in text
    assert "support bot" not in text
    assert "acme" not in text
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_secrets_and_calls_past_the_cache_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    with SemanticCache("memory://", request_log=path) as cache:
        wrapped = cache.wrap(ask, name="ask")
        wrapped(asked(KEY))
        wrapped([{"role": "system", "content": KEY}, {"role": "user", "content": OTHER}])
        with cache.options(bypass=True):
            wrapped(asked(OTHER))
        wrapped(asked(RESET))
    assert [row["body"]["messages"][-1]["content"] for row in rows(path)] == [RESET]


def test_what_only_the_exact_tier_answers_is_a_digest_that_it_answers_in_a_replay(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    tool = [{"role": "user", "content": OTHER}, {"role": "tool", "tool_call_id": "1", "content": "12 High Street"}]
    with SemanticCache("memory://", request_log=path) as cache:
        wrapped = cache.wrap(ask, name="ask")
        wrapped(tool)
        wrapped(tool)
        wrapped([tool[0], {**tool[1], "content": "14 High Street"}])
    assert "High Street" not in path.read_text()
    books = replayed(path).books
    assert (books.requests, books.exact_hits, books.semantic_hits) == (3, 1, 0)


def test_lines_of_many_threads_and_caches_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    policy = Policy(semantic=False)
    with (
        SemanticCache("memory://", policy=policy, request_log=path) as one,
        SemanticCache("memory://", policy=policy, request_log=path) as other,
    ):
        functions = [cache.wrap(ask, name="ask") for cache in (one, other)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: functions[n % 2](asked(f"question {n} " + "x" * 5000)), range(200)))
    assert sorted(int(row["body"]["messages"][0]["content"].split()[1]) for row in rows(path)) == list(range(200))


def test_a_stream_is_logged_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    with SemanticCache("memory://", request_log=path) as cache:

        @cache.wrap
        def words(prompt: str) -> Any:
            yield from prompt.split()

        stream = words(RESET)
        next(stream)
        assert not path.read_text()
        list(stream)
        assert len(rows(path)) == 1


def test_a_full_disk_costs_the_log_and_one_event(tmp_path: Path) -> None:
    events: list[Any] = []
    with SemanticCache("memory://", request_log="/dev/full") as cache:
        cache.on_event(events.append)
        wrapped = cache.wrap(ask, name="ask")
        assert wrapped(asked(RESET)) == wrapped(asked(RESET)) == "small: 2"
    assert [event.kind for event in events] == ["request_log_error"]


def test_a_line_of_a_closed_log_is_written_into_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    cache = SemanticCache("memory://", policy=Policy(semantic=False), request_log=tmp_path / "asked.jsonl")
    cache.on_event(events.append)
    log, other = cache.engine.request_log, tmp_path / "other"
    assert log is not None
    with cache, contextlib.ExitStack() as stack:

        def closed_meanwhile(ctx: Any) -> dict[str, Any]:
            log.close()
            stack.enter_context(other.open("w"))  # takes the number that is free now
            return {"text": RESET}

        monkeypatch.setattr("semcache.request_log._row", closed_meanwhile)
        cache.wrap(ask, name="ask")(asked(RESET))
    assert other.read_text() == ""
    assert events == []


def test_a_log_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"request_log: .* cannot be written: Is a directory"):
        SemanticCache("memory://", request_log=tmp_path)
