from __future__ import annotations

from dataclasses import replace

from tuning_rows import Rows

from semcache.policy import Override, Policy
from semcache.tuning.bounds import Count
from semcache.tuning.choose import Sample
from semcache.tuning.logs import LogRecord
from semcache.tuning.refit import rows as rows_of
from semcache.tuning.remembered import Remembered
from semcache.tuning.replay import replay, replay_cache
from semcache.tuning.scoring import everywhere
from semcache.tuning.settings import SOFT, Rule, Setting, rules
from semcache.tuning.streams import Stream, asked, looked_up, samples, served, served_by_half, texts, unsure

OWN = Rule(Policy().min_probability)


def recorded(log: list[LogRecord], policy: Policy, embedder: Remembered) -> Sample:
    return samples(list(looked_up(log, policy, embedder)), policy, embedder.fingerprint, [OWN])[OWN]


def records(rows: Rows) -> list[LogRecord]:
    return [LogRecord(({"role": "user", "content": row["text"]},), row.get("cls")) for row in rows]


def test_the_counts_are_those_of_a_replay(log_rows: Rows, embedder: Remembered) -> None:
    """Against the replay's own report. No text of the log occurs twice, so each of its hits is a semantic one."""
    log = records(log_rows)
    log[25] = LogRecord(log[25].messages, "another class")
    for threshold in (0.7, 0.9, 0.97):
        policy = Policy(threshold=threshold)
        with replay_cache(policy, embedder=embedder) as cache:
            report = replay(cache, log).report
        found = served(log, policy, embedder)
        assert found == (report.labelled, report.labelled_hits, report.wrong_hits)
    assert found.requests == 40
    assert served(log, Policy(threshold=0.7), embedder).wrong >= 1


def test_exact_hits_and_unlabelled_records_are_no_evidence(embedder: Remembered) -> None:
    asked = "How do I reset my password?"
    log = records(
        [
            {"text": asked, "cls": "a"},
            {"text": asked, "cls": "b"},  # an exact hit, wrong by its label
            {"text": "How can I reset my password?", "cls": "a"},
            {"text": "How do I reset my password please?"},
            {"text": "Where is the nearest branch?"},
            {"text": "Where is the nearest branch please?", "cls": "c"},  # served from a record without label
        ]
    )
    assert served(log, Policy(threshold=0.8), embedder) == Count(3, 1, 0)
    sample = recorded(log, Policy(), embedder)
    assert sample.count(0.8) == Count(3, 1, 0)


def test_only_the_later_part_is_counted_on_a_cache_that_the_earlier_part_has_filled(
    log_rows: Rows, embedder: Remembered
) -> None:
    log = records(log_rows)
    stream = Stream([], log[20:], log[:20], Policy(), embedder, [OWN])
    whole = served(log, everywhere(Policy(), threshold=0.9), embedder)
    first = served(log[:20], everywhere(Policy(), threshold=0.9), embedder)
    later = stream.held_out(Setting(0.9, OWN))
    assert later == (20, whole.hits - first.hits, whole.wrong - first.wrong)
    assert served_by_half(log, everywhere(Policy(), threshold=0.9), embedder) == (first, later)
    cold = Stream([], log[20:], [], Policy(), embedder, [OWN]).held_out(Setting(0.9, OWN))
    assert cold == served(log[20:], everywhere(Policy(), threshold=0.9), embedder)
    assert cold.hits < later.hits


def test_one_recording_sees_at_least_the_hits_of_a_real_replay(log_rows: Rows, embedder: Remembered) -> None:
    log = records(log_rows)
    sample = recorded(log, Policy(), embedder)
    for threshold in (0.6, 0.8, 0.9, 0.95):
        real = served(log, everywhere(Policy(), threshold=threshold), embedder)
        seen = sample.count(threshold)
        assert seen.requests == real.requests
        assert seen.hits >= real.hits > 0


def test_each_rule_sees_about_the_hits_of_a_real_replay_under_it(log_rows: Rows, embedder: Remembered) -> None:
    """Exactly those, where nothing that was served would have been nearer to what came later."""
    log = records(log_rows)
    looked = list(looked_up(log, Policy(), embedder))
    tried = rules(Policy(), embedder.fingerprint, closed=True)
    seen = samples(looked, Policy(), embedder.fingerprint, tried)
    assert list(seen) == list(tried)
    for rule in tried:
        real = served(log, Setting(0.8, rule).policy(Policy(), embedder.fingerprint), embedder)
        assert seen[rule].count(0.8).wrong == real.wrong == 0
        assert 0 < real.hits <= seen[rule].count(0.8).hits
    closed = seen[Rule(OWN.min_probability, 0.7)].count(0.995)
    assert closed.hits > seen[OWN].count(0.995).hits  # neighbours vouch whatever the threshold


def test_a_second_look_finds_all_but_the_record_itself(log_rows: Rows, embedder: Remembered) -> None:
    """Each of forty texts then has as many neighbours as the last of them, and none is its own."""
    log = records([*log_rows, log_rows[0]])
    first, again = looked_up(log, Policy(), embedder), looked_up(log, Policy(), embedder, warm=True)
    assert [one.record for one in again] == [one.record for one in first]
    assert first[0].candidates == ()
    assert not first[39].exact
    assert again[40].exact
    for one in again[:40]:
        assert one.candidates[0].similarity > 0.8
        assert one.text not in [candidate.text for candidate in one.candidates]
        assert one.given.keys() == {candidate.entry_id for candidate in one.candidates}
        assert one.given[one.candidates[0].entry_id] == one.record.label


def test_rows_for_a_fit_are_labelled_neighbours_without_a_firm_veto(embedder: Remembered) -> None:
    log = records(
        [
            {"text": "How do I reset my password?", "cls": "a"},
            {"text": "How do I reset my own password?", "cls": "a"},
            {"text": "How do I reset my old password?", "cls": "b"},
            {"text": "How do I never reset my password?", "cls": "c"},
            {"text": "When do I reset my password?", "cls": "d"},
            {"text": "How do I reset my password, please?"},
        ]
    )
    questions = list(asked(looked_up(log, Policy(), embedder)))
    assert [one.group for one in questions] == ["a", "a", "b", "c", "d"]
    found = list(rows_of(questions, Policy().guards))
    assert [(one.right, one.group) for one in found[:2]] == [(True, "a"), (False, "b")]
    assert not {"c", "d"} & {one.group for one in found}
    assert all(0.5 < one.values[0] < 1.0 for one in found)
    softer = list(rows_of(questions, [name for name in Policy().guards if name not in SOFT]))
    assert {one.group for one in softer} == {"a", "b", "d"}


def test_a_namespace_has_its_own_rules(log_rows: Rows, embedder: Remembered) -> None:
    policy = Policy(threshold=0.9, namespaces={"off": Override(semantic=False)})
    on, off = ([replace(record, namespace=name) for record in records(log_rows)] for name in ("on", "off"))
    alone = served(on, policy, embedder)
    assert alone.hits > 0
    assert served(off, policy, embedder) == Count(40, 0, 0)
    mixed = [record for pair in zip(off, on, strict=True) for record in pair]
    assert served(mixed, policy, embedder) == alone + Count(40, 0, 0)
    assert recorded(off, policy, embedder).count(0.5).hits == 0


def test_unsure_pairs_are_what_was_asked_and_what_was_stored(embedder: Remembered) -> None:
    log = records(
        [
            {"text": "How do I reset my password?"},
            {"text": "How can I reset my password?", "cls": "a"},
            {"text": "Hi, how can I reset my password?", "cls": "b"},
            {"text": "What is the capital of France?"},
        ]
    )
    pairs = unsure([replace(record, namespace="n") for record in log], Policy(), embedder)
    assert [pair.a for pair in pairs] == ["How can I reset my password?", "Hi, how can I reset my password?"]
    assert pairs[0].b == "How do I reset my password?"
    assert pairs[0].right is None
    assert {pair.namespace for pair in pairs} == {"n"}


def test_texts_are_those_that_a_replay_embeds(embedder: Remembered) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}
    turns = (
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "Q?"},
    )
    log = [*records([{"text": "word " * 2000}]), LogRecord((image,)), LogRecord(turns)]
    assert texts(log, embedder) == ["Q?"]
