from __future__ import annotations

import numpy as np
import pytest

from semcache.policy import Evidence, Override, Policy
from semcache.tuning.pairs import Pair
from semcache.tuning.refit import Asked
from semcache.tuning.remembered import Remembered
from semcache.tuning.scoring import (
    UNREADABLE,
    Totals,
    count,
    everywhere,
    score,
    similarities,
)
from semcache.tuning.settings import NEVER, PROBABILITIES, SOFT, Levels, Rule, Setting, rules, switched_off
from semcache.types import Candidate

BARS = (0.0, 0.85, 0.95)

PAIRS = [
    Pair("How do I reset my password?", "How can I reset my password?", True),
    Pair("How do I reset my password?", "how do I RESET my password?", True),
    Pair("How do I reset my password?", "How do I never reset my password?", False),
    Pair("Is the branch open at 5 pm?", "Is the branch open at 6 pm?", False),
    Pair("Wie kann ich mein Passwort zurücksetzen?", "Wie kann ich das Passwort zurücksetzen?", True),
    Pair("Is it open today?", "What is the capital of France?", False),
    Pair("word " * 2000, "word " * 2000, True),
    Pair("Where is the nearest branch of the bank?", "Where is the nearest branch?", None),
]


@pytest.mark.parametrize("uncovered", [0.6, 0.97])
def test_a_level_is_the_highest_threshold_that_serves_a_pair(uncovered: float, embedder: Remembered) -> None:
    policy = Policy(uncovered_threshold=uncovered, languages={"de": Override(guards=("language", "wording"))})
    off = ((), ("wording",), SOFT, policy.guards)
    tried = [rule for rule in rules(policy, embedder.fingerprint, switched=off) if rule.min_probability in BARS]
    judges = Levels(policy, embedder.fingerprint, tried)
    found: dict[Rule, list[float]] = {rule: [] for rule in tried}
    for pair, similarity in zip(PAIRS, similarities(PAIRS, embedder), strict=True):
        near = [] if similarity is None else [Candidate(0, pair.b, similarity)]
        for rule, level, chosen in judges.of(pair.a, near, pair.namespace):
            assert (chosen is None) == (level == NEVER)
            found[rule].append(level)
    for rule in tried:
        for threshold in (0.5, 0.7, 0.85, 0.9, 0.95, 0.97, 0.99, 1.0):
            at = Setting(threshold, rule).policy(policy, embedder.fingerprint)
            served = [one.accepted for one in score(PAIRS, at, embedder)]
            assert served == [level >= threshold for level in found[rule]], (rule, threshold)
        assert found[rule][1] == 1.0
        assert found[rule].count(NEVER) >= (1 if rule.without == policy.guards else 3)


def test_every_reason_against_a_pair_is_given(embedder: Remembered) -> None:
    scored = list(score(PAIRS, Policy(threshold=0.999), embedder))
    same, negated, unreadable = scored[1], scored[2], scored[6]
    assert same.accepted
    assert same.reasons == ()
    assert {reason.split(":")[0].split(" ")[0] for reason in negated.reasons} >= {"similarity", "polarity"}
    assert (unreadable.accepted, unreadable.similarity, unreadable.reasons) == (False, None, (UNREADABLE,))
    assert same.to_dict().keys() == {
        "line", "a", "b", "label", "decision", "similarity", "probability", "reasons",
    }  # fmt: skip


def test_similarities_are_cosines_in_the_order_of_the_pairs(embedder: Remembered) -> None:
    vectors = embedder.embed([text for pair in PAIRS[:6] for text in (pair.a, pair.b)])
    expected = [float(a @ b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    done: list[int] = []
    found = list(similarities(PAIRS * 130, embedder, done.append))
    assert found[:6] == pytest.approx(expected, abs=1e-6)
    assert found[6] is None
    assert found == found[:8] * 130
    assert sum(done) == len(found)


def test_a_namespace_is_judged_by_its_own_rules(embedder: Remembered) -> None:
    policy = Policy(
        threshold=0.9,
        namespaces={"off": Override(semantic=False), "high": Override(threshold=1.0), "unlike": Override()},
    )
    pairs = [Pair(PAIRS[0].a, PAIRS[0].b, True, namespace=name) for name in ("default", "off", "high", "unlike")]
    scored = list(score(pairs, policy, embedder))
    assert [one.accepted for one in scored] == [True, False, False, True]
    assert scored[1].reasons == ("exact tier only",)
    judges = Levels(policy, embedder.fingerprint, [Rule(0.0)])
    near = [Candidate(0, PAIRS[0].b, 0.99)]
    assert [next(judges.of(PAIRS[0].a, near, name))[1] for name in ("default", "off")] == [0.99, NEVER]


def test_a_category_and_a_language_are_judged_by_their_own_rules(embedder: Remembered) -> None:
    policy = Policy(categories={"c": Override(semantic=False)}, languages={"de": Override(semantic=False)})
    pairs = [Pair(PAIRS[0].a, PAIRS[0].b), Pair(PAIRS[0].a, PAIRS[0].b, category="c"), PAIRS[4]]
    assert [one.reasons for one in score(pairs, policy, embedder)][1:] == [("exact tier only",)] * 2
    judges = Levels(policy, embedder.fingerprint, [Rule(0.0)])
    near = [Candidate(0, PAIRS[0].b, 0.99)]
    assert [next(judges.of(PAIRS[0].a, near, "default", one))[1] for one in (None, "c")] == [0.99, NEVER]


def test_a_setting_switches_guards_off_wherever_a_policy_names_them() -> None:
    policy = Policy(
        guards=("numbers", "wording"),
        namespaces={"a": Override(guards=("wording", "order"), threshold=0.6)},
        languages={"de": Override(guards=("wording",), ttl=5.0)},
    )
    made = Setting(0.8, Rule(0.9, without=("wording",))).everywhere(policy)
    assert (made.guards, made.threshold, made.min_probability) == (("numbers",), 0.8, 0.9)
    assert made.namespaces == {"a": Override(guards=("order",))}
    assert made.languages == {"de": Override(guards=(), ttl=5.0)}


def test_the_guard_that_is_most_often_wrong_goes_first() -> None:
    def asked(query: str, stored: str, right: bool) -> Asked:
        return Asked(query, [(Candidate(0, stored, 0.9), right)], query)

    reset, reads = "How do I reset my password?", "dog bites man"
    found = [
        asked(reset, "How do I reset my passphrase token?", True),
        asked(reset, "How do I reset my router?", True),
        asked(reset, "How do I reset my clock?", False),
        asked(reads, "man bites dog", False),
        asked(reset, "How do I never reset my router?", True),  # a firm guard objects: it is no answer to count
        Asked(reset, [], "nothing near"),
    ]
    assert switched_off(found, ["polarity"], SOFT) == ((), ("wording",), ("wording", "order"))
    assert switched_off(found, ["polarity"], ("order", "shape")) == ((), ("order",))
    assert switched_off([], ["polarity"], SOFT) == ((),)


def test_a_probability_is_asked_only_where_a_guard_has_looked(embedder: Remembered) -> None:
    guards = ("numbers", "wording")
    found = rules(Policy(guards=guards), embedder.fingerprint, switched=((), ("wording",), guards))
    assert [rule for rule in found if rule.without == guards] == [Rule(0.0, None, guards)]
    assert len([rule for rule in found if rule.without == ("wording",)]) == len(set(PROBABILITIES))
    assert rules(Policy(), "another/embedder", switched=((), SOFT)) == (Rule(0.0), Rule(0.0, None, SOFT))
    assert (
        str(Setting(0.8, Rule(0.9, None, SOFT[:2]))) == "threshold 0.8, probability 0.9, without wording and question"
    )


def test_totals(embedder: Remembered) -> None:
    scored = list(
        score(PAIRS, Policy(threshold=0.5, min_probability=0.0, guards=(), uncovered_threshold=0.5), embedder)
    )
    totals = Totals.of(scored)
    assert (totals.pairs, totals.positives, totals.negatives) == (8, 4, 3)
    assert (totals.right, totals.wrong, totals.accepted_unlabelled, totals.accepted) == (3, 2, 1, 6)
    assert totals.recall.value == 3 / 4
    assert totals.false_accept_rate.value == 2 / 3
    assert totals.false_hit_rate.value == 2 / 5
    assert totals.to_dict()["false_accept_rate_ci95"] == list(totals.false_accept_rate[1:])
    assert count(scored) == (7, 5, 2)
    nothing = Totals.of([]).to_dict()
    assert (nothing["recall"], nothing["recall_ci95"]) == (None, None)


def test_a_policy_at_a_threshold_keeps_its_guards_and_what_is_switched_off() -> None:
    policy = Policy(
        threshold=0.9,
        semantic=False,
        namespaces={
            "a": Override(threshold=0.8, guards=("numbers",), ttl=5.0, semantic=True),
            "b": Override(semantic=False),
        },
        evidence=Evidence("e"),
    )
    tried = everywhere(policy, threshold=0.7)
    assert (tried.threshold, tried.semantic, tried.evidence) == (0.7, True, None)
    assert tried.namespaces == {"a": Override(guards=("numbers",), ttl=5.0), "b": Override(semantic=False)}


def test_a_text_is_embedded_once(embedder: Remembered) -> None:
    asked: list[str] = []

    class Counting(Remembered):
        def embed(self, texts):  # type: ignore[no-untyped-def]
            asked.extend(texts)
            return super().embed(texts)

    outer = Remembered(Counting(embedder))
    assert (outer.dim, outer.fingerprint, outer.inline) == (embedder.dim, embedder.fingerprint, embedder.inline)
    first = outer.embed(["x?", "y?", "x?"])
    outer.remember(["z?", "x?"])
    assert np.array_equal(outer.embed(["y?", "x?"]), first[[1, 0]])
    assert asked == ["x?", "y?", "z?"]
    assert outer.embed([]).shape == (0, embedder.dim)
