from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import ConfigurationError, InputError
from semcache.policy import Policy
from semcache.testing.upstream import Upstream
from semcache.tuning.baselines import StaticThreshold, VCache, best_within, play_baselines
from semcache.tuning.compare import Best, compare, sweep_steps, swept
from semcache.tuning.findings import answerable, guard_counts, over_time, worst
from semcache.tuning.headroom import survey
from semcache.tuning.judges import Cost, FileJudge, LLMJudge, ask_judge, cost_of, judged, load_judge, unknown_pairs
from semcache.tuning.logs import LogRecord
from semcache.tuning.remembered import Remembered
from semcache.tuning.replay import Replay, replay, replay_cache
from semcache.tuning.vectors import VectorFile

COSINE_ONLY = Policy(threshold=0.9, guards=(), min_probability=0.0)


def asked(text: str, label: str | None = None, **kwargs: Any) -> LogRecord:
    return LogRecord(({"role": "user", "content": text},), label, **kwargs)


def play(records: list[LogRecord], policy: Policy, embedder: Remembered, **kwargs: Any) -> Replay:
    with replay_cache(policy, embedder=embedder, **kwargs) as cache:
        return replay(cache, records)


RESETS = [asked("How do I reset my password?", "reset"), asked("How can I reset my password?", "reset")]


# Time, capacity, namespaces -------------------------------------------------------------------------------------------


def test_entries_expire_in_the_time_of_the_log(embedder: Remembered) -> None:
    records = [asked("Is it raining?", "rain", ts=1_700_000_000.0 + at) for at in (0, 50, 120, 130)]
    found = play(records, Policy(ttl=60.0), embedder)
    assert [one.layer for one in found.played] == [None, "exact", None, "exact"]
    assert [one.answerable for one in found.played] == [False, True, False, True]
    assert play(records, Policy(), embedder).report.books.hits == 3


def test_semantic_answers_expire_too(embedder: Remembered) -> None:
    late = asked("How can I reset my password?", "reset", ts=100.0)
    first = asked("How do I reset my password?", "reset", ts=0.0)
    assert play([first, late], Policy(ttl=200.0, guards=()), embedder).report.books.semantic_hits == 1
    assert play([first, late], Policy(ttl=50.0, guards=()), embedder).report.books.hits == 0


def test_time_never_goes_back(embedder: Remembered) -> None:
    records = [asked("Is it raining?", ts=at) for at in (100.0, 0.0, 155.0)]
    assert [one.layer for one in play(records, Policy(ttl=60.0), embedder).played] == [None, "exact", "exact"]


def test_the_least_recently_used_entry_goes_first(embedder: Remembered) -> None:
    records = [asked(text) for text in ("one", "two", "one", "three", "one", "two")]
    found = play(records, Policy(semantic=False), embedder, max_entries=2)
    assert [one.layer for one in found.played] == [None, None, "exact", None, "exact", None]


def test_namespaces_share_nothing(embedder: Remembered) -> None:
    records = [asked("Is it raining?", namespace=name) for name in ("a", "b", "a", None)]
    assert [one.layer for one in play(records, Policy(), embedder).played] == [None, None, "exact", None]


def test_latency_saved_is_what_the_log_says_less_the_look_up(embedder: Remembered) -> None:
    records = [asked("a", latency_s=9.0), asked("a", latency_s=2.0), asked("a")]
    found = play(records, Policy(semantic=False), embedder)
    saved = found.to_dict()["latency_saved_s"]
    assert saved == pytest.approx(2.0 - found.played[1].seconds)


# Findings -------------------------------------------------------------------------------------------------------------


def test_windows_add_up_to_the_whole(embedder: Remembered) -> None:
    records = [asked(f"{n % 7}", f"{n % 3}") for n in range(100)]
    found = play(records, Policy(semantic=False), embedder)
    windows = over_time(found.played, 9)
    assert len(windows) == 9
    assert [window.first for window in windows] == [sum(w.requests for w in windows[:n]) for n in range(9)]
    assert sum(window.exact_hits for window in windows) == found.report.books.exact_hits == 93
    assert sum(window.wrong_hits for window in windows) == found.report.wrong_hits > 0


@given(size=st.integers(0, 60), windows=st.integers(1, 30))
def test_windows_cut_any_log(size: int, windows: int, embedder: Remembered) -> None:
    played = play([asked("a")], Policy(semantic=False), embedder).played * size
    cut = over_time(played, windows)
    assert sum(window.requests for window in cut) == size
    assert not cut or max(w.requests for w in cut) - min(w.requests for w in cut) <= 1


def test_a_veto_is_counted_by_what_it_spared_and_what_it_lost(embedder: Remembered) -> None:
    records = [
        asked("Can I pay 10 pounds by card?", "pay 10"),
        asked("Can I pay 20 pounds by card?", "pay 20"),
        asked("Can I pay 30 pounds by card?", "pay 10"),
    ]
    counts = guard_counts(play(records, Policy(threshold=0.5), embedder).played)
    numbers = counts["numbers"]
    assert (numbers.vetoes, numbers.wrong_spared + numbers.right_lost) == (2, 2)
    assert numbers.wrong_spared >= 1


def test_the_worst_wrong_hits_are_the_most_similar_and_each_pair_is_shown_once(embedder: Remembered) -> None:
    records = [*RESETS, asked("How can I reset my password?", "x"), asked("How do I reset my passwords?", "x")]
    found = play(records, COSINE_ONLY, embedder)
    listed = worst(found.played)
    assert [one.similarity for one in listed] == sorted((one.similarity for one in listed), reverse=True)  # type: ignore[type-var]
    assert {one.record.label for one in listed} == {"x"}
    assert len(worst([*found.played, *found.played])) == len(listed) == found.report.wrong_hits
    assert len(worst(found.played, 1)) == 1


def test_answerable_counts_only_what_is_in_the_cache(embedder: Remembered) -> None:
    records = [asked("a", "x"), asked("b", "x"), asked("c", "y"), asked("d")]
    rate = answerable(play(records, Policy(semantic=False), embedder))
    assert rate.value == pytest.approx(1 / 3)


# Headroom and scopes --------------------------------------------------------------------------------------------------


def test_headroom_and_the_field_that_keeps_answers_apart() -> None:
    records = [
        asked("a", "x", model="m1"),
        asked("b", "x", model="m2"),
        asked("a", "x", model="m1"),
        asked("c", "x", model="m2", params={"temperature": 0.2}),
        asked("d", None, model="m3", namespace="n"),
    ]
    headroom, scopes = survey(records)
    assert (headroom.repeats, headroom.same_scope, headroom.any_scope) == (1, 1, 3)
    assert (headroom.labelled, headroom.requests) == (4, 5)
    assert (scopes.count, scopes.largest, scopes.alone) == (4, 2, 3)
    assert scopes.without == {"model": 3, "namespace": 4, "temperature": 3}
    assert survey([])[1].to_dict()["largest_share"] is None


def test_questions_about_now_are_counted_since_their_answers_do_not_last() -> None:
    headroom, _ = survey([asked("What is the weather today?"), asked("What is a volt?")])
    assert headroom.to_dict()["about_now_rate"] == 0.5
    assert survey([])[0].to_dict()["about_now_rate"] is None


# Comparison and baselines ---------------------------------------------------------------------------------------------


def test_a_sweep_has_both_ends() -> None:
    assert sweep_steps("0.80:0.90:0.05") == (0.8, 0.85, 0.9)
    assert len(sweep_steps("0.80:0.99:0.01")) == 20
    assert sweep_steps("0.9:0.9:1") == (0.9,)


@pytest.mark.parametrize("text", ["", "0.8", "a:b:c", "0.9:0.8:0.1", "0.8:0.9:0", "0:1:0.000001", "0.8:1.2:0.1"])
def test_a_bad_sweep_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match=r"0.80:0.99:0.01|must go up"):
        sweep_steps(text)


def test_policies_are_compared_from_an_empty_cache_each(embedder: Remembered) -> None:
    policies = {"base": COSINE_ONLY, **swept(COSINE_ONLY, (0.5, 0.9, 0.999))}
    found = list(compare(policies, RESETS, embedder))
    assert [one.replay.report.books.semantic_hits for one in found] == [1, 1, 1, 0]
    assert [one.to_dict()["threshold"] for one in found] == [0.9, 0.5, 0.9, 0.999]


def test_a_sweep_over_both_is_every_pair() -> None:
    found = swept(Policy(), (0.8, 0.9), (0.5, 0.95))
    assert list(found) == [f"threshold {t}, probability {p}" for t in (0.8, 0.9) for p in (0.5, 0.95)]
    assert [(one.threshold, one.min_probability) for one in found.values()][1:3] == [(0.8, 0.95), (0.9, 0.5)]
    assert list(swept(Policy(), (), (0.5,))) == ["probability 0.5"]
    assert swept(Policy()) == {}


def test_the_best_is_what_hits_most_at_a_rate_beside_plain_cosine(embedder: Remembered) -> None:
    records = [*RESETS, asked("How do I close my account?", "close"), asked("How can I close my account?", "other")]
    played = list(compare(swept(COSINE_ONLY, (0.5, 0.8, 0.999)), records, embedder))
    baselines = play_baselines(records, embedder, [StaticThreshold(0.8), StaticThreshold(0.999)])
    report = played[1].replay.report
    assert (report.labelled_hits, report.wrong_hits) == (2, 1)
    half = Best.within(0.5, played[1:], baselines)
    assert (half.policy, half.hit_rate, half.ratio) == (played[1], 0.5, 1.0)
    assert half.cosine is not None
    assert (half.cosine.parameter, half.to_dict()["policy"]) == (0.8, "threshold 0.8")
    none = Best.within(0.1, played, baselines)
    assert none == (0.1, None, None)
    assert none.to_dict()["ratio"] is None
    assert Best.within(0.5, played, None).ratio is None


def test_a_static_threshold_does_what_the_cache_without_guards_does(
    embedder: Remembered, log_records: list[LogRecord]
) -> None:
    thresholds = (0.6, 0.8, 0.9, 0.97)
    run = play_baselines(log_records, embedder, [StaticThreshold(t) for t in thresholds])
    for one in run.counts:
        policy = Policy(threshold=one.parameter, guards=(), min_probability=0.0)
        report = play(log_records, policy, embedder).report
        assert (one.count.hits, one.count.wrong) == (report.books.hits, report.wrong_hits), one
    assert len(run.nearest) == len(run.right) == len(log_records) - 1


def test_baselines_keep_scopes_apart(embedder: Remembered) -> None:
    records = [asked("Is it raining?", "r", model=model) for model in ("a", "b", "a")]
    run = play_baselines(records, embedder, [StaticThreshold(0.5)])
    assert run.counts[0].count == (3, 1, 0)


def test_best_within_takes_the_most_hits_that_keep_the_rate(embedder: Remembered, log_records: list[LogRecord]) -> None:
    counts = play_baselines(log_records, embedder, [StaticThreshold(t / 100) for t in range(50, 100, 5)]).counts
    best = best_within(counts, 0.05)
    assert best is not None
    assert best.count.wrong <= 0.05 * best.count.hits
    assert all(one.count.hits <= best.count.hits or one.count.wrong > 0.05 * one.count.hits for one in counts)
    assert best_within([], 0.05) is None


@pytest.mark.parametrize("insert_always", [False, True])
def test_vcache_keeps_its_bound_where_its_model_holds(insert_always: bool) -> None:
    """One entry, and requests whose answers are right as a logistic curve of their cosine says."""
    import random

    draw = random.Random(7)
    for bound in (0.05, 0.2):
        policy = VCache(bound, insert_always=insert_always, seed=1)
        wrong = served = 0
        for _ in range(4000):
            similarity = draw.uniform(0.5, 1.0)
            right = draw.random() < 1 / (1 + 2.718281828 ** (-30 * (similarity - 0.75)))
            if policy.serves(0, similarity):
                served += 1
                wrong += not right
            else:
                assert policy.learn(0, similarity, right) is (insert_always or not right)
        assert wrong / 4000 <= bound
        assert served > 800


def test_vcache_asks_until_it_knows_an_entry() -> None:
    policy = VCache(0.5)
    for _ in range(4):
        assert not policy.serves(1, 1.0)
        policy.learn(1, 0.95, True)
    assert any(policy.serves(1, 1.0) for _ in range(20))
    assert not policy.serves(2, 1.0)


# Vectors on disk ------------------------------------------------------------------------------------------------------


class Counting:
    """The real embedder, and how many texts it was asked for."""

    def __init__(self, inner: Remembered, fingerprint: str | None = None) -> None:
        self._inner = inner
        self.dim = inner.dim
        self.fingerprint = fingerprint or inner.fingerprint
        self.asked = 0

    def fits(self, text: str) -> bool:
        return self._inner.fits(text)

    def embed(self, texts: Any) -> Any:
        self.asked += len(texts)
        return self._inner.embed(texts)


def test_vectors_survive_and_a_torn_row_is_made_again(tmp_path: Path, embedder: Remembered) -> None:
    path, texts = tmp_path / "vectors", ["a", "b", "c", "\ud800"][:3]
    with VectorFile(Counting(embedder), path) as first:
        made = first.embed([*texts, "a"])
    path.write_bytes(path.read_bytes()[:-5])
    counting = Counting(embedder)
    with VectorFile(counting, path) as second:
        assert len(second) == 2
        assert (second.embed([*texts, "a"]) == made).all()
        assert counting.asked == 1
        assert second.embed([]).shape == (0, embedder.dim)
    counting.asked = 0
    with VectorFile(counting, path) as third:
        assert (third.embed(texts) == made[:3]).all()
    assert counting.asked == 0


def test_a_file_of_another_embedder_or_kind_is_refused(tmp_path: Path, embedder: Remembered) -> None:
    path = tmp_path / "vectors"
    with VectorFile(embedder, path) as file:
        file.embed(["a"])
    before = path.read_bytes()
    with pytest.raises(InputError, match="another file"), VectorFile(Counting(embedder, "other"), path):
        pass
    assert path.read_bytes() == before
    path.write_text('{"a": 1}\n')
    with pytest.raises(InputError, match="no file of vectors"), VectorFile(embedder, path):
        pass
    with pytest.raises(InputError, match="cannot be written"), VectorFile(embedder, tmp_path):
        pass


# Judges ---------------------------------------------------------------------------------------------------------------


UNLABELLED = [asked(record.messages[0]["content"]) for record in RESETS] + [asked("How do I reset my password?")]
PAIR = ("How can I reset my password?", "How do I reset my password?")


def test_a_judge_grades_semantic_hits_and_nothing_else(embedder: Remembered) -> None:
    found = play(UNLABELLED, COSINE_ONLY, embedder)
    assert (found.report.books.semantic_hits, found.report.books.exact_hits) == (1, 1)
    assert unknown_pairs([found, found]) == [PAIR]
    for said, wrong in ((0.2, 1), (0.7, 0), (False, 1), (True, 0)):
        report = judged(found, ask_judge(lambda a, b, said=said: said, [PAIR])).report
        assert (report.labelled, report.labelled_hits, report.wrong_hits) == (3, 2, wrong)
    report = judged(found, ask_judge(lambda a, b: None, [PAIR])).report
    assert (report.labelled, report.labelled_hits) == (2, 1)
    assert found.report.labelled == 0


def test_labels_of_the_log_come_before_the_judge(embedder: Remembered) -> None:
    found = play(RESETS, COSINE_ONLY, embedder)
    assert unknown_pairs([found]) == []
    assert judged(found, {}).report.to_dict() == found.report.to_dict()


def test_a_file_judge_knows_pairs_in_both_orders(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"a": "One?", "b": "Two", "label": 0}) + "\n")
    judge = FileJudge([path])
    assert judge("one", "two?") is False
    assert judge("two", "one") is False
    assert judge("one", "three") is None


def test_a_model_behind_a_wrapped_client_judges(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    from semcache.cache import SemanticCache
    from semcache.verifiers.llm import prompt_for

    right, wrong = ("How can I pay?", "How do I pay?"), ("Can I pay?", "Can't I pay?")
    answers = {prompt_for(*pair): said for pair, said in ((right, "Yes."), (wrong, "no"))}
    with (
        Upstream(answers=answers) as upstream,
        SemanticCache("memory://", policy=Policy(semantic=False)) as cache,
        openai.OpenAI(api_key="k", base_url=upstream.openai_url) as client,
    ):
        wrapped = cache.wrap(client)

        def ask(prompt: str) -> str:
            messages = [{"role": "user", "content": prompt}]
            made = wrapped.chat.completions.create(model="gpt-5-mini", messages=messages)
            return str(made.choices[0].message.content)

        judge = LLMJudge(ask, "gpt-5-mini")
        for _ in range(2):
            assert ask_judge(judge, [right, wrong]) == {right: True, wrong: False}
        assert upstream.calls() == 2
    cost = cost_of(judge, [right, wrong])
    assert cost.calls == 2
    assert cost.tokens is not None
    assert cost.usd_micro is not None
    assert 0 < cost.usd_micro < cost.tokens
    assert cost_of(LLMJudge(ask, "no-such-model"), [right]).usd_micro is None
    assert cost_of(lambda a, b: 1.0, [right]) == Cost(1)


@pytest.mark.parametrize("name", ["nonsense", "no.such.module:f", "json:nothing", "json:__name__", ""])
def test_a_judge_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        load_judge(name)
