"""Batch files through the cache, with a real provider for what is sent."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semcache import Policy, SemanticCache
from semcache.batch import Merged, Split, merge, split
from semcache.cli import main
from semcache.embedders import CallableEmbedder
from semcache.errors import ConfigurationError, InputError
from semcache.testing.upstream import Fault, Upstream

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def running() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def up(running: Upstream) -> Upstream:
    running.reset()
    return running


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        yield cache


def chat(custom_id: str, text: str, **extra: Any) -> Json:
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": text}], **extra}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def response(custom_id: str, text: str, **extra: Any) -> Json:
    body = {"model": "gpt-5-mini", "input": text, "store": False, **extra}
    return {"custom_id": custom_id, "method": "POST", "url": RESPONSES, "body": body}


def embedding(custom_id: str, text: str, **extra: Any) -> Json:
    body = {"model": "text-embedding-3-small", "input": text, "dimensions": 4, **extra}
    return {"custom_id": custom_id, "method": "POST", "url": EMBEDDINGS, "body": body}


def write(path: Path, rows: Sequence[Json]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answered(up: Upstream, rows: Sequence[Json]) -> list[Json]:
    """What a batch of these requests gives, in another order than theirs, as the provider's may be."""
    return [_answer(up, number, row) for number, row in reversed(list(enumerate(rows)))]


def _answer(up: Upstream, number: int, row: Json) -> Json:
    # No provider's answer depends on who asks; the local one's does.
    body = {name: value for name, value in row["body"].items() if name != "user"}
    request = urllib.request.Request(
        up.openai_url.removesuffix("/v1") + row["url"],
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as reply:
            status, body = reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        status, body = error.code, json.loads(error.read())
    result = {"status_code": status, "request_id": f"req_{number}", "body": body}
    return {"id": f"batch_req_{number}", "custom_id": row["custom_id"], "response": result, "error": None}


def gist(result: Json) -> Any:
    """The part of a result that is the answer: other parts, such as ids and times, differ between two equal calls."""
    body = result["response"]["body"]
    if "choices" in body:
        return body["choices"][0]["message"]["content"]
    return body["data"] if "data" in body else body.get("output", body)[0]["content"] if "output" in body else body


class Run:
    """The files of one batch, and the two steps over them."""

    def __init__(self, folder: Path, cache: SemanticCache) -> None:
        self.cache = cache
        self.source, self.hits, self.rest = (folder / f"{name}.jsonl" for name in ("in", "hits", "rest"))
        self.results, self.out = folder / "results.jsonl", folder / "out.jsonl"

    def split(self, rows: Sequence[Json], **options: Any) -> Split:
        write(self.source, rows)
        return split(self.cache, self.source, hits=self.hits, rest=self.rest, **options)

    def merge(self, results: Sequence[Json] = (), **options: Any) -> Merged:
        write(self.results, results)
        return merge(self.cache, self.source, hits=self.hits, results=[self.results], out=self.out, **options)

    def through(self, up: Upstream, rows: Sequence[Json]) -> tuple[Split, Merged]:
        found = self.split(rows)
        return found, self.merge(answered(up, read(self.rest)))


@pytest.fixture
def run(tmp_path: Path, cache: SemanticCache) -> Run:
    return Run(tmp_path, cache)


@pytest.mark.parametrize("make", [chat, response, embedding])
def test_a_second_batch_sends_only_what_is_new(make: Any, run: Run, up: Upstream) -> None:
    rows = [make("a", "one"), make("b", "two"), make("c", "one")]
    found, done = run.through(up, rows)
    assert (found.sent, found.copies, found.exact_hits) == (2, 1, 0)
    assert (done.fresh, done.copies, done.hits, done.stored) == (2, 1, 0, 2)
    first = read(run.out)
    assert [result["custom_id"] for result in first] == ["a", "b", "c"]
    found, done = run.through(up, [*rows, make("d", "three")])
    assert (found.sent, found.exact_hits) == (1, 3)
    assert (done.fresh, done.hits) == (1, 3)
    assert up.calls() == 3
    assert [gist(result) for result in read(run.out)[:3]] == [gist(result) for result in first]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([chat, response, embedding]),
            st.sampled_from(["one", "two", "dr\u2028ei", "vier 🎉"]),
            st.sampled_from([{}, {"user": "u"}, {"n": 2}, {"temperature": 2}, {"seed": 7}]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 8),
)
def test_the_two_steps_give_what_sending_everything_gives(
    tmp_path: Path, running: Upstream, drawn: list[tuple[Any, str, Json]], before: int
) -> None:
    rows = [make(f"id {number}", text, **extra) for number, (make, text, extra) in enumerate(drawn)]
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        run = Run(tmp_path, cache)
        run.out.unlink(missing_ok=True)
        run.through(running, rows[:before])
        found, done = run.through(running, rows)
    expected = {result["custom_id"]: gist(result) for result in answered(running, rows)}
    out = read(run.out)
    assert [result["custom_id"] for result in out] == [row["custom_id"] for row in rows]
    assert {result["custom_id"]: gist(result) for result in out} == expected
    assert found.requests == done.requests == len(rows)
    assert found.sent == len(read(run.rest)) == done.fresh + done.failed
    assert not done.missing


def test_the_rest_is_byte_for_byte_what_came_in(run: Run) -> None:
    line = b'{"custom_id":"a",  "method":"POST","url":"/v1/chat/completions","body":{"x":1e400,"model":"m"}}'
    run.source.write_bytes(b"\n" + line + b"\r\n\n")
    split(run.cache, run.source, hits=run.hits, rest=run.rest)
    assert run.rest.read_bytes() == line + b"\n"


def test_errors_are_passed_on_to_copies_too_and_never_stored(run: Run, up: Upstream) -> None:
    rows = [chat("a", "one"), chat("b", "one"), chat("c", "two")]
    run.split(rows)
    up.script([None, Fault(status=429)])
    done = run.merge(answered(up, read(run.rest)))
    assert (done.failed, done.fresh, done.stored) == (2, 1, 1)
    out = read(run.out)
    assert [result["response"]["status_code"] for result in out] == [429, 429, 200]
    assert [result["custom_id"] for result in out] == ["a", "b", "c"]
    found, done = run.through(up, rows)
    assert (found.sent, found.copies, found.exact_hits, done.failed) == (1, 1, 1, 0)


def test_what_expired_stands_as_the_provider_says(run: Run) -> None:
    run.split([chat("a", "one")])
    expired = {"id": "batch_req_1", "custom_id": "a", "response": None, "error": {"code": "batch_expired"}}
    assert run.merge([expired]).failed == 1
    assert read(run.out) == [expired]


def test_a_second_try_goes_before_the_error_of_the_first(run: Run, up: Upstream) -> None:
    run.split([chat("a", "one")])
    sent = read(run.rest)
    good = answered(up, sent)
    up.fail_next(500)
    bad = answered(up, sent)
    for results in ([*good, *bad], [*bad, *good]):
        done = run.merge(results)
        assert (done.fresh, done.failed) == (1, 0)


def test_an_answer_that_may_not_be_kept_is_passed_on(run: Run, up: Upstream) -> None:
    run.split([chat("a", "one")])
    up.script([Fault(finish="length")])
    done = run.merge(answered(up, read(run.rest)))
    assert (done.fresh, done.stored) == (1, 0)
    assert run.split([chat("a", "one")]).sent == 1


def test_missing_results_are_named_and_can_be_given_later(run: Run, up: Upstream) -> None:
    run.split([chat("a", "one"), chat("b", "two"), chat("c", "two")])
    results = answered(up, read(run.rest))
    done = run.merge([result for result in results if result["custom_id"] == "a"])
    assert done.missing == ["b", "c"]
    assert [result["custom_id"] for result in read(run.out)] == ["a"]
    assert run.merge(results).missing == []
    assert [result["custom_id"] for result in read(run.out)] == ["a", "b", "c"]
    books = run.cache.stats().ledger.totals
    assert (books.misses, books.collapsed.calls, books.spent.calls) == (2, 1, 2), "the first is booked once"


def test_doing_it_again_changes_nothing(run: Run, up: Upstream) -> None:
    rows = [chat("a", "one"), chat("b", "one"), embedding("c", "two")]
    run.through(up, rows)
    run.split(rows)
    done = run.merge()
    before, books = run.out.read_bytes(), run.cache.stats().ledger.totals.to_dict()
    again = run.merge()
    assert again == done
    assert run.out.read_bytes() == before
    assert run.cache.stats().ledger.totals.to_dict() == books


@pytest.mark.parametrize("step", ["split", "merge"])
def test_an_interrupted_step_leaves_the_old_files_and_can_be_done_again(step: str, run: Run, up: Upstream) -> None:
    rows = [chat("a", "one"), chat("b", "two"), chat("c", "three")]
    run.through(up, rows[:1])
    run.split(rows)
    results = answered(up, read(run.rest))
    before = {path: path.read_bytes() for path in run.source.parent.iterdir() if path != run.results}

    seen = iter([False, True])

    def interrupt(done: int) -> None:
        if next(seen):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.split(rows, progress=interrupt) if step == "split" else run.merge(results, progress=interrupt)
    assert {path: path.read_bytes() for path in run.source.parent.iterdir() if path != run.results} == before
    done = run.merge(results)
    assert (done.hits, done.fresh, done.missing) == (1, 2, [])
    books = run.cache.stats().ledger.totals
    assert (books.exact_hits, books.misses) == (1, 3)


def test_results_to_nothing_are_named(run: Run, up: Upstream) -> None:
    run.split([chat("a", "one")])
    results = answered(up, [*read(run.rest), chat("stranger", "two")])
    assert run.merge(results).strangers == ["stranger"]
    assert [result["custom_id"] for result in read(run.out)] == ["a"]


def test_a_file_that_was_made_from_another_input_is_refused(run: Run, up: Upstream) -> None:
    run.through(up, [chat("a", "one")])
    run.split([chat("a", "one")])
    write(run.source, [chat("a", "two")])
    with pytest.raises(InputError, match="another request"):
        run.merge()
    run.split([chat("a", "new"), chat("b", "new")])
    results = answered(up, read(run.rest))
    write(run.source, [chat("a", "new"), chat("b", "other")])
    with pytest.raises(InputError, match="'b' was another request"):
        run.merge(results)


def test_a_batch_shares_answers_with_wrapped_clients(run: Run, up: Upstream) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=up.openai_url, api_key="k", max_retries=0) as client:
        wrapped = run.cache.wrap(client, upstream="prod")
        answer = wrapped.chat.completions.create(**chat("a", "one")["body"])
        found = run.split([chat("a", "one"), chat("b", "two")], upstream="prod")
        assert (found.exact_hits, found.sent) == (1, 1)
        run.merge(answered(up, read(run.rest)), upstream="prod")
        assert gist(read(run.out)[0]) == answer.choices[0].message.content
        before = up.calls()
        wrapped.chat.completions.create(**chat("b", "two")["body"])
        assert up.calls() == before


def test_questions_of_the_same_meaning_are_hits(tmp_path: Path, up: Upstream) -> None:
    asked = "How do I reset my password?"
    with SemanticCache(store="memory://") as cache:
        run = Run(tmp_path, cache)
        run.through(up, [chat("a", asked)])
        found = run.split([chat("b", "How can I reset my password?")])
        assert (found.semantic_hits, found.sent) == (1, 0)
        run.merge()
        books = cache.stats().ledger.totals
        assert (books.semantic_hits, books.saved.calls) == (1, 1)


SECRET = "Is sk-proj-0123456789abcdefghijklmnopqrstuvwxyz0123456789ABCD still good?"


class Embedded:
    """An embedder that knows in which batches texts have come."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.down = False

    def __call__(self, texts: list[str]) -> Any:
        if self.down:
            raise ConnectionError("no embedder")
        self.batches.append(list(texts))
        vectors = np.random.default_rng(0).standard_normal((len(texts), 8)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_what_is_new_is_embedded_together_and_once(tmp_path: Path, up: Upstream) -> None:
    embedded = Embedded()
    with SemanticCache(store="memory://", embedder=CallableEmbedder(embedded, fingerprint="test")) as cache:
        run = Run(tmp_path, cache)
        rows = [chat(str(number), f"question {number % 40}") for number in range(60)]
        rows += [chat("secret", SECRET), embedding("vector", "question 1")]
        found, done = run.through(up, rows)
        assert (found.copies, found.sent, done.fresh, done.stored) == (20, 42, 42, 41)
        texts = [text for batch in embedded.batches for text in batch]
        assert sorted(texts) == sorted(f"question {number}" for number in range(40))
        assert len(embedded.batches) <= 3
        assert run.split(rows).exact_hits == 61
        assert len(embedded.batches) <= 3, "what is a hit needs no vector"


def test_without_its_embedder_the_exact_tier_answers(tmp_path: Path, up: Upstream) -> None:
    embedded = Embedded()
    with SemanticCache(store="memory://", embedder=CallableEmbedder(embedded, fingerprint="test")) as cache:
        run = Run(tmp_path, cache)
        embedded.down = True
        rows = [chat(str(number), f"question {number}") for number in range(3)]
        found, done = run.through(up, rows)
        assert (found.sent, done.fresh, done.stored) == (3, 3, 3)
        assert run.split(rows).exact_hits == 3


def test_files_have_the_mode_that_they_would_have(run: Run) -> None:
    run.split([chat("a", "one")])
    plain = run.source.stat().st_mode
    assert (run.hits.stat().st_mode, run.rest.stat().st_mode) == (plain, plain)
    run.hits.chmod(0o600)
    run.split([chat("a", "one")])
    assert (run.hits.stat().st_mode & 0o777, run.rest.stat().st_mode) == (0o600, plain)


def test_the_books_are_at_the_price_of_a_batch(run: Run, up: Upstream) -> None:
    _, done = run.through(up, [chat("a", "one"), chat("b", "one")])
    usage = read(run.out)[0]["response"]["body"]["usage"]
    # gpt-5-mini: 0.25 and 2.00 dollars a million, half of that in a batch.
    micro = round((usage["prompt_tokens"] * 0.25 + usage["completion_tokens"] * 2.0) / 2)
    assert (done.spent.usd_micro, done.saved.usd_micro) == (micro, micro)
    run.split([chat("a", "one")])
    run.merge()
    books = run.cache.stats().ledger.totals
    assert (books.spent.usd_micro, books.collapsed.usd_micro, books.saved.usd_micro) == (micro, micro, micro)


def test_other_endpoints_go_through_untouched(run: Run) -> None:
    rows = [{"custom_id": name, "method": "POST", "url": "/v1/moderations", "body": {"input": "x"}} for name in "ab"]
    found = run.split(rows)
    assert (found.sent, found.uncached) == (2, {"no codec: /v1/moderations": 2})
    results = [{"id": "1", "custom_id": n, "response": {"status_code": 200, "body": {"ok": n}}} for n in "ba"]
    done = run.merge(results)
    assert (done.fresh, done.stored) == (2, 0)
    assert [gist(result) for result in read(run.out)] == [{"ok": "a"}, {"ok": "b"}]
    assert run.cache.stats().ledger.totals.bypassed == {"no codec": 2}


def test_who_sends_a_copy_does_not_learn_whose_it_is(run: Run, up: Upstream) -> None:
    run.through(up, [response("a", "one", metadata={"who": "ann"}), response("b", "one", metadata={"who": "bob"})])
    first, second = (result["response"]["body"] for result in read(run.out))
    assert first["metadata"] == {"who": "ann"}
    assert not second["metadata"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "in.jsonl:2: not a JSON object"),
        ("[1]", "in.jsonl:2: not a JSON object"),
        ('{"method": "POST", "url": "/v1/x", "body": {"a": 1}}', "in.jsonl:2: custom_id must be a string"),
        ('{"custom_id": "b", "method": "POST", "url": "/v1/x", "body": []}', "in.jsonl:2: body must be an object"),
        (json.dumps(chat("a", "two")), "in.jsonl:2: custom_id 'a' is that of line 1 too"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_nothing_is_written(line: str, message: str, run: Run) -> None:
    run.source.write_text(json.dumps(chat("a", "one")) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        split(run.cache, run.source, hits=run.hits, rest=run.rest)
    assert os.listdir(run.source.parent) == ["in.jsonl"]


@pytest.mark.parametrize("line", ["{", '{"custom_id": "a"}', '{"response": {}, "custom_id": 7}'])
def test_a_result_that_cannot_be_used_is_named_and_nothing_is_written(line: str, run: Run) -> None:
    run.split([chat("a", "one")])
    run.results.write_text(line, encoding="utf-8")
    with pytest.raises(InputError, match=r"results\.jsonl:1"):
        merge(run.cache, run.source, hits=run.hits, results=[run.results], out=run.out)
    assert not run.out.exists()


def test_files_must_not_be_one(run: Run) -> None:
    write(run.source, [chat("a", "one")])
    with pytest.raises(ConfigurationError, match="source and hits are one file"):
        split(run.cache, run.source, hits=run.source, rest=run.rest)
    with pytest.raises(ConfigurationError, match="hits and rest are one file"):
        split(run.cache, run.source, hits=run.hits, rest=run.hits)
    run.split([chat("a", "one")])
    with pytest.raises(ConfigurationError, match="hits and out are one file"):
        merge(run.cache, run.source, hits=run.hits, out=run.hits)
    with pytest.raises(ConfigurationError, match="hits and results are one file"):
        merge(run.cache, run.source, hits=run.hits, results=[run.hits], out=run.out)


def test_where_a_file_cannot_be_replaced(run: Run, tmp_path: Path) -> None:
    write(run.source, [chat("a", "one")])
    with pytest.raises(ConfigurationError, match="no folder"):
        split(run.cache, run.source, hits=tmp_path / "none" / "hits", rest=run.rest)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="not a plain file"):
        split(run.cache, run.source, hits=tmp_path / "pipe", rest=run.rest)
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "pipe"]


def test_a_mark_of_byte_order_is_no_part_of_a_line(run: Run, up: Upstream) -> None:
    mark = b"\xef\xbb\xbf"
    run.source.write_bytes(mark + json.dumps(chat("a", "one")).encode())
    assert split(run.cache, run.source, hits=run.hits, rest=run.rest).sent == 1
    run.results.write_bytes(mark + json.dumps(answered(up, read(run.rest))[0]).encode())
    merge(run.cache, run.source, hits=run.hits, results=[run.results], out=run.out)
    assert read(run.out)[0]["custom_id"] == "a"


def command(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["batch", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_the_commands(tmp_path: Path, up: Upstream) -> None:
    source, hits, rest, results, out = (tmp_path / f"{n}.jsonl" for n in ("in", "hits", "rest", "results", "out"))
    store = ("--store", f"sqlite://{tmp_path}/semcache.db")
    write(source, [chat("a", "one"), chat("b", "one"), chat("c", "two", n=2)])
    told = command("split", source, "--hits", hits, "--rest", rest, *store).stdout
    assert "3 requests" in told
    assert "1 equal to another one here" in told
    assert "1 of them not for the cache: n>1" in told
    write(results, answered(up, read(rest)))
    missing = command("merge", source, "--hits", hits, "-o", out, *store, code=2)
    assert "Error: 3 requests (a, b, c) without a result" in missing.stderr
    told = command("merge", source, "--hits", hits, "--results", results, "-o", out, *store).stdout
    assert "2 answered by the batch, 1 stored" in told
    assert "at batch price" in told
    found = json.loads(command("split", source, "--hits", hits, "--rest", rest, "--json", *store).stdout)
    assert (found["exact_hits"], found["sent"], found["copies"]) == (2, 1, 0)
    assert found["usd_saved"] > 0
    done = json.loads(
        command("merge", source, "--hits", hits, "--results", results, "-o", out, "--json", *store).stdout
    )
    # "a" has a result that was paid for, and "b" a hit.
    assert (done["fresh"], done["hits"], done["missing"]) == (2, 1, [])
    source.write_text("nonsense", encoding="utf-8")
    broken = command("split", source, "--hits", hits, "--rest", rest, *store, code=2)
    assert "in.jsonl:1: not a JSON object" in broken.stderr


def test_a_file_in_place_of_a_command_is_answered(tmp_path: Path, up: Upstream) -> None:
    source, out, results = (tmp_path / f"{name}.jsonl" for name in ("in", "out", "results"))
    store = ("--store", f"sqlite://{tmp_path}/semcache.db")
    write(source, [chat("a", "one"), chat("b", "one")])
    told = command("-o", out, source, *store).stdout
    assert f"then: semcache batch {source} -o {out} --results FILE" in told
    assert not out.exists()
    write(results, answered(up, read(tmp_path / "out.rest.jsonl")))
    command(source, "-o", out, "--results", results, *store)
    first = read(out)
    assert [line["custom_id"] for line in first] == ["a", "b"]
    done = json.loads(command(source, "-o", out, "--json", *store).stdout)  # all is known now: one run is enough
    assert (done["hits"], done["missing"]) == (2, [])
    assert "does not exist" in command("splt", "-o", out, code=2).stderr
