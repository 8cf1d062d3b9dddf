from __future__ import annotations

import gzip
import json
import tracemalloc
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import InputError
from semcache.tuning.logs import Fields, LogRecord, in_time_order, read_logs
from semcache.types import Usage


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def one(tmp_path: Path, row: object, fields: Fields | None = None) -> LogRecord:
    (record,) = read_logs([write(tmp_path / "log.jsonl", row)], fields or Fields())
    return record


def refused(path: Path, fields: Fields | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        list(read_logs([path], fields or Fields()))
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    return caught.value


def test_a_text_is_one_user_message(tmp_path: Path) -> None:
    row = {"text": "Where is my card?", "cls": "card", "ts": 12.5, "model": "gpt-5-mini", "id": 7}
    assert one(tmp_path, row) == LogRecord((user("Where is my card?"),), "card", 12.5, "gpt-5-mini")


def test_messages_are_a_request_and_the_answer_at_the_end_is_not(tmp_path: Path) -> None:
    system, answer = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Hi!"}
    row = {"messages": [system, user("hi"), answer, user("and now?"), answer, answer]}
    assert one(tmp_path, row).messages == (system, user("hi"), answer, user("and now?"))


def test_a_request_of_openai_s_responses_api_is_read_as_sent(tmp_path: Path) -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Where do you live?"}]}
    asked = {"role": "user", "content": [{"type": "input_text", "text": "In Bonn. Where can I vote?"}]}
    details = {"input_tokens_details": {"cached_tokens": 8}, "output_tokens": 5, "total_tokens": 17}
    response = {
        "object": "response",
        "created_at": 1700000000,
        "output": [said],
        "usage": {"input_tokens": 12, **details},
    }
    params = {"instructions": "Be brief.", "text": {"format": {"type": "text"}}}
    body = {"model": "gpt-5-mini", "input": "Where can I vote?", **params}
    assert one(tmp_path, {"body": body, "response": {"status_code": 200, "body": response}}) == LogRecord(
        (user("Where can I vote?"),),
        ts=1700000000.0,
        model="gpt-5-mini",
        usage=Usage(12, 5, 8),
        params=params,
        answer="Where do you live?",
    )
    longer = one(tmp_path, {"body": {**body, "input": [user("Where can I vote?"), said, asked]}})
    assert longer.messages == (
        user("Where can I vote?"),
        {"role": "assistant", "content": [{"type": "text", "text": "Where do you live?"}]},
        {"role": "user", "content": [{"type": "text", "text": "In Bonn. Where can I vote?"}]},
    )
    assert one(tmp_path, {"text": "not this", "input": "a note"}).messages == (user("not this"),)
    called = {"type": "function_call", "name": "f", "arguments": "{}"}
    error = refused(write(tmp_path / "log.jsonl", {"body": {**body, "input": [called, asked]}}))
    assert "each of 'input' must be an object with a role" in str(error)


@pytest.mark.parametrize("ts", [1_700_000_000_000, "1700000000000"])
def test_milliseconds_are_not_taken_for_seconds(tmp_path: Path, ts: object) -> None:
    assert "looks like milliseconds" in str(refused(write(tmp_path / "log.jsonl", {"text": "a", "ts": ts})))


def test_notes_of_the_log_never_reach_the_request_but_the_last_one_may_label_it(tmp_path: Path) -> None:
    row = {"messages": [{**user("hi"), "cls": "a"}, {**user("bye"), "key": "b", "state": [1]}]}
    assert one(tmp_path, row) == LogRecord((user("hi"), user("bye")), "b")
    assert one(tmp_path, {**row, "cls": "of the record"}).label == "of the record"


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"cls": "a", "key": "b"}, "a"),
        ({"key": "b"}, "b"),
        ({"cls": 3}, "3"),
        ({"cls": None, "key": "b"}, None),
        ({}, None),
    ],
)
def test_the_answer_class(tmp_path: Path, row: dict[str, Any], label: str | None) -> None:
    assert one(tmp_path, {"text": "t", **row}).label == label


@pytest.mark.parametrize(
    ("ts", "seconds"),
    [
        (1_700_000_000, 1_700_000_000.0),
        ("1700000000.5", 1_700_000_000.5),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000.0),
        ("2023-11-14 22:13:20", 1_700_000_000.0),
        (None, None),
    ],
)
def test_time_stamps(tmp_path: Path, ts: object, seconds: float | None) -> None:
    assert one(tmp_path, {"text": "t", "ts": ts}).ts == seconds


def test_usage_in_our_names_and_in_openais(tmp_path: Path) -> None:
    ours = {"input_tokens": 5, "output_tokens": 3, "cache_read_tokens": 2}
    assert one(tmp_path, {"text": "t", "usage": ours}).usage == Usage(5, 3, 2)
    theirs = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert one(tmp_path, {"text": "t", "usage": theirs}).usage == Usage(5, 3)


def test_fields_may_have_other_names(tmp_path: Path) -> None:
    row = {"q": "t", "intent": "i", "when": 3, "text": "not this", "cls": "nor this", "messages": "nor these"}
    assert one(tmp_path, row, Fields("q", "intent", "when")) == LogRecord((user("t"),), "i", 3.0)


@pytest.mark.parametrize("fields", [Fields(text="q"), Fields(label="q"), Fields(ts="q")])
def test_a_field_that_was_named_must_be_there(tmp_path: Path, fields: Fields) -> None:
    error = refused(write(tmp_path / "log", {"text": "t", "cls": "c"}), fields)
    assert "no field 'q'; the line has text, cls" in str(error)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ('{"text": "\\ud800"}', "not JSON"),
        ("[1]", "expected a JSON object, got a list"),
        ('"text"', "got a string"),
        ("NaN", "not JSON"),
        ("{}", "no field 'text'; the line has none"),
        ('{"text": 3}', "'text' must be a string, got a number"),
        ('{"text": null}', "got null"),
        ('{"messages": "hi"}', "'messages' must be a list"),
        ('{"messages": []}', "holds no request"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "holds no request"),
        ('{"messages": ["hi"]}', "object with a role"),
        ('{"messages": [{"content": "hi"}]}', "object with a role"),
        ('{"messages": [{"role": "user", "content": 3}]}', "content must be a string or a list"),
        ('{"text": "t", "cls": ["a"]}', "answer class must be a string or a number"),
        ('{"text": "t", "model": 3}', "'model' must be a string"),
        ('{"text": "t", "ts": "yesterday"}', "'ts' must be Unix seconds or ISO 8601, got 'yesterday'"),
        ('{"text": "t", "ts": "nan"}', "'ts' must be"),
        ('{"text": "t", "ts": []}', "'ts' must be"),
        ('{"text": "t", "usage": 3}', "'usage' must be an object"),
        ('{"text": "t", "usage": {"total": 3}}', "'usage' must have whole"),
        ('{"text": "t", "usage": {"input_tokens": -3}}', "'usage' must have whole"),
        ('{"text": "t", "usage": {"input_tokens": 1.5}}', "'usage' must have whole"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, says: str) -> None:
    path = write(tmp_path / "log.jsonl", {"text": "fine"}, "", line, {"text": "fine"})
    error = refused(path)
    assert error.line == 3
    assert f"{path}:3: " in str(error)
    assert says in str(error)


def test_bytes_that_are_not_utf8_are_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "latin1.jsonl"
    path.write_bytes(b'{"text": "ok"}\n{"text": "caf\xe9"}\n')
    assert refused(path).line == 2


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_an_empty_log_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    assert "the log is empty" in str(refused(path))


def test_a_log_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    assert "No such file" in str(refused(tmp_path / "absent.jsonl"))
    assert "directory" in str(refused(tmp_path))


def test_gzip_is_seen_by_content_and_not_by_name(tmp_path: Path) -> None:
    packed = tmp_path / "packed.jsonl"
    packed.write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "b"}'))
    plain = write(tmp_path / "plain.gz", {"text": "c"})
    assert [r.messages[0]["content"] for r in read_logs([packed, plain])] == ["a", "b", "c"]


@pytest.mark.parametrize("cut", [-1, -9, 60])
def test_a_torn_gzip_is_an_input_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "torn.jsonl.gz"
    rows = b"".join(b'{"text": "%d and some"}\n' % n for n in range(200))
    path.write_bytes(gzip.compress(rows)[:cut])
    assert "cannot be read" in str(refused(path))


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    assert len(list(read_logs([path]))) == 2


def test_unicode_line_separators_do_not_end_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", json.dumps({"text": "a\u2028b\u0085c"}, ensure_ascii=False))
    (record,) = read_logs([path])
    assert record.messages[0]["content"] == "a\u2028b\u0085c"


def test_csv_by_name_with_quotes_and_line_ends_inside(tmp_path: Path) -> None:
    content = '\ufefftext,cls,ts,model\r\n"a, ""b""\nc",x,3,\r\nd,,,gpt-5\r\n'.encode()
    for name, data in (("log.csv", content), ("log.CSV.gz", gzip.compress(content))):
        path = tmp_path / name
        path.write_bytes(data)
        assert list(read_logs([path])) == [
            LogRecord((user('a, "b"\nc'),), "x", 3.0),
            LogRecord((user("d"),), None, None, "gpt-5"),
        ]


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b"text,cls\na,b\nc\n", 3, "more or fewer cells"),
        (b"text,cls\na,b,c\n", 2, "more or fewer cells"),
        (b"question,cls\na,b\n", 2, "no field 'text'"),
        (b'text,cls\n"a,b\n', 2, "not CSV"),
        (b"text\ncaf\xe9\n", None, "not CSV in UTF-8"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, line: int | None, says: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    error = refused(path)
    assert says in str(error)
    assert line is None or error.line == line


def test_reading_takes_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.gz"
    line = json.dumps({"text": "x" * 1000}).encode() + b"\n"
    with gzip.open(path, "wb", compresslevel=1) as out:
        for _ in range(20_000):
            out.write(line)
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_logs([path]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 2 * 2**20


@given(st.lists(st.tuples(st.text(), st.none() | st.text()), min_size=1, max_size=20))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str | None]]) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    write(path, *({"text": text, "cls": label} for text, label in rows))
    found = [(r.messages[0]["content"], r.label) for r in read_logs([path])]
    assert found == rows


def test_a_batch_line_is_the_body_that_was_sent(tmp_path: Path) -> None:
    body = {"model": "gpt-5-mini", "temperature": 0.5, "messages": [user("hi")]}
    row = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body, "cls": "greeting"}
    expected = LogRecord((user("hi"),), "greeting", model="gpt-5-mini", params={"temperature": 0.5})
    assert one(tmp_path, row) == expected
    assert one(tmp_path, {"body": json.dumps(body), "cls": "greeting"}) == expected


def test_a_request_log_tells_what_came_back(tmp_path: Path) -> None:
    response = {
        "created": 1_700_000_000,
        "model": "gpt-5-mini-2026-01-01",
        "choices": [{"message": {"role": "assistant", "content": "Hello!"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}},
    }
    found = one(tmp_path, {"request": {"messages": [user("hi")]}, "response": response, "latency_s": "0.5"})
    assert found == LogRecord(
        (user("hi"),), None, 1_700_000_000.0, "gpt-5-mini-2026-01-01", Usage(9, 4, 2), {}, "Hello!", 0.5
    )
    batch = {"body": {"messages": [user("hi")]}, "response": {"status_code": 200, "body": response}, "latency_s": 0.5}
    assert one(tmp_path, batch) == found


def test_an_answer_is_a_class_only_where_its_field_is_named(tmp_path: Path) -> None:
    row = {"text": "t", "reply": "See  the FAQ.", "team": 7, "took": 2, "meta": {"llm": "m"}}
    fields = Fields(answer="reply", namespace="team", latency="took", model="meta.llm")
    found = one(tmp_path, row, fields)
    assert (found.label, found.answer, found.namespace) == ("see the faq", "See  the FAQ.", "7")
    assert (found.latency_s, found.model) == (2.0, "m")
    assert one(tmp_path, {**row, "cls": "c"}, fields).label == "c"
    assert one(tmp_path, row).label is None


def test_counts_of_a_table_may_stand_in_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    messages = json.dumps([user("a")]).replace('"', '""')
    path.write_text(f'messages,prompt_tokens,completion_tokens\n"{messages}",12,3\n')
    assert list(read_logs([path])) == [LogRecord((user("a"),), usage=Usage(12, 3))]


@pytest.mark.parametrize("name", ["log.parquet", "renamed.jsonl"])
def test_parquet_is_seen_by_content(tmp_path: Path, name: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    when = datetime(2023, 11, 14, 22, 13, 20)
    rows = [
        {"messages": [{"role": "user", "content": "a", "name": None}], "cls": "x", "ts": when, "prompt_tokens": 5},
        {"messages": [{"role": "user", "content": "b", "name": "bo"}], "cls": None, "ts": None, "prompt_tokens": None},
    ]
    table = arrow.Table.from_pylist(rows)
    at = table.schema.get_field_index("ts")
    nanoseconds = arrow.array([1_700_000_000_000_000_001, None], arrow.timestamp("ns"))
    path = tmp_path / name
    parquet.write_table(table.set_column(at, "ts", nanoseconds), path)
    assert list(read_logs([path])) == [
        LogRecord((user("a"),), "x", 1_700_000_000.0, usage=Usage(5, 0)),
        LogRecord(({**user("b"), "name": "bo"},)),
    ]
    path.write_bytes(path.read_bytes()[:-20])
    assert "Parquet" in str(refused(path))


@given(st.lists(st.none() | st.integers(0, 5), min_size=1))
def test_time_orders_a_log_only_if_every_record_has_one(times: list[int | None]) -> None:
    records = [LogRecord((), str(place), ts) for place, ts in enumerate(times)]
    ordered = in_time_order(records)
    assert sorted(r.label or "" for r in ordered) == sorted(r.label or "" for r in records)
    keys = [(r.ts, int(r.label or 0)) for r in ordered]
    assert keys == (sorted(keys) if None not in times else [(r.ts, int(r.label or 0)) for r in records])  # type: ignore[type-var]
