from __future__ import annotations

import dataclasses

import pytest

from semcache import ConfigurationError, SemanticCache, last_outcome
from semcache.guards import GUARDS
from semcache.judging import judge
from semcache.policy import Evidence, Override, Policy, admit, ttl_for
from semcache.types import Candidate, Request

NEAR = Candidate(1, "How can I reset my password?", 0.95)
FAR = Candidate(2, "What are your opening hours?", 0.2)
TRAP = Candidate(3, "How do I not reset my password?", 0.97)
QUERY = "How do I reset my password?"


def request(**fields: object) -> Request:
    return Request("function", {}, "hello", **fields)  # type: ignore[arg-type]


def decide(policy: Policy, *candidates: Candidate, text: str = QUERY, **more: object):
    return judge(policy, text, candidates, rules=policy.rules(more.pop("namespace", "default")), **more)  # type: ignore[arg-type]


def test_admit_gives_the_codecs_reason():
    assert admit(Policy(), request(bypass="n is 2")) == "n is 2"
    assert admit(Policy(), request()) == ""


def test_admit_refuses_a_temperature_above_the_limit():
    assert admit(Policy(), request(temperature=1.0)) == ""
    assert admit(Policy(), request(temperature=1.2)) == "temperature: 1.2 above 1"
    assert admit(Policy(max_temperature=2.0), request(temperature=1.2)) == ""


def test_the_first_candidate_without_reasons_is_served():
    decision = decide(Policy(), TRAP, NEAR, FAR)
    assert (decision.verdict, decision.chosen) == ("serve", NEAR)
    assert decision.judged[0].reasons == ("polarity: negations: 0 / 1",)
    assert [one.candidate for one in decision.judged] == [TRAP, NEAR]


def test_nothing_near_enough_is_a_rejection_with_its_reason():
    decision = decide(Policy(threshold=0.9), FAR)
    assert decision.verdict == "reject"
    assert decision.reason == "similarity 0.200 below 0.900"
    assert decide(Policy()).reason == "no candidate"


def test_a_pair_reported_wrong_never_matches_again():
    decision = decide(Policy(), NEAR._replace(wrong_before=True, similarity=1.0))
    assert decision.verdict == "reject"
    assert decision.reason == "reported wrong before"


def test_guards_are_asked_only_of_near_candidates_unless_explaining():
    assert decide(Policy(), FAR).judged[0].verdicts == ()
    explained = decide(Policy(), FAR, explain=True).judged[0]
    assert [verdict.guard for verdict in explained.verdicts] == list(GUARDS)
    assert len(explained.reasons) > 1


def test_explain_judges_what_comes_after_the_chosen_one_too():
    decision = decide(Policy(), NEAR, TRAP, explain=True)
    assert decision.chosen == NEAR
    assert len(decision.judged) == 2
    assert decision.judged[1].reasons


def test_only_the_named_guards_veto():
    assert decide(Policy(guards=()), TRAP).verdict == "serve"
    assert decide(Policy(guards=("numbers",)), TRAP).verdict == "serve"
    assert decide(Policy(guards=("polarity",)), TRAP).verdict == "reject"


@pytest.mark.parametrize(
    ("asked", "verdict", "bar"), [(0.5, "serve", 0.9), (0.94, "serve", 0.94), (0.99, "reject", 0.99)]
)
def test_a_caller_can_raise_the_bar_but_not_lower_it(asked, verdict, bar):
    decision = decide(Policy(threshold=0.9), NEAR, min_similarity=asked)
    assert (decision.verdict, decision.threshold) == (verdict, bar)


def test_the_same_text_passes_whatever_its_case_and_ending_even_at_a_bar_of_one():
    shout = Candidate(4, "  HOW DO I RESET MY PASSWORD!!", 0.9996)
    assert decide(Policy(), shout, min_similarity=1.0).verdict == "serve"
    assert decide(Policy(), shout._replace(similarity=0.5)).verdict == "reject"


def test_a_language_without_word_lists_needs_more_similarity():
    asked, stored = "비밀번호를 어떻게 바꾸나요?", "어떻게 비밀번호를 바꾸나요?"
    policy = Policy(threshold=0.8, uncovered_threshold=0.95)
    assert decide(policy, Candidate(1, stored, 0.94), text=asked).threshold == 0.95
    assert decide(policy, Candidate(1, stored, 0.94), text=asked).verdict == "reject"
    assert decide(policy, Candidate(1, stored, 0.96), text=asked).verdict == "serve"
    only_code = dataclasses.replace(policy, guards=("code",))
    assert decide(only_code, Candidate(1, stored, 0.94), text=asked).verdict == "serve"


def sure(query: str, cached: str) -> float:
    return 1.0


def test_the_grey_zone_goes_to_the_verifier():
    policy = Policy(threshold=0.98, verifier=sure, verify_from=0.9)
    decision = decide(policy, NEAR)
    assert (decision.verdict, decision.chosen) == ("verify", NEAR)
    assert policy.search_from(policy.rules("default")) == 0.9


@pytest.mark.parametrize(
    "candidate",
    [NEAR._replace(similarity=0.89), NEAR._replace(wrong_before=True), TRAP],
    ids=["far", "wrong", "vetoed"],
)
def test_the_verifier_is_not_asked_about_what_is_out_anyway(candidate):
    policy = Policy(threshold=0.98, verifier=sure, verify_from=0.9)
    assert decide(policy, candidate).verdict == "reject"


def test_the_callers_bar_holds_in_the_grey_zone_too():
    policy = Policy(threshold=0.98, verifier=sure, verify_from=0.9)
    assert decide(policy, NEAR, min_similarity=0.96).verdict == "reject"


def test_a_namespace_overrides_what_it_names_and_inherits_the_rest():
    policy = Policy(
        threshold=0.9,
        ttl=60.0,
        namespaces={"faq": Override(threshold=0.96, ttl=5.0, guards=()), "live": Override(semantic=False)},
    )
    assert (policy.rules("faq").threshold, policy.rules("live").threshold) == (0.96, 0.9)
    assert (ttl_for(policy.rules("faq"), request()), ttl_for(policy.rules("live"), request())) == (5.0, 60.0)
    assert (policy.rules("faq").guards, policy.rules("live").guards) == ((), tuple(GUARDS))
    assert (policy.rules("faq").semantic, policy.rules("live").semantic) == (True, False)
    assert decide(policy, NEAR, namespace="faq").verdict == "reject"
    assert decide(policy, TRAP, namespace="faq").verdict == "serve"


def test_any_semantic_counts_the_namespaces():
    assert Policy().any_semantic
    assert not Policy(semantic=False).any_semantic
    assert Policy(semantic=False, namespaces={"faq": Override(semantic=True)}).any_semantic


def test_evidence_binds_a_policy_to_its_embedder():
    Policy().check_embedder("any")
    policy = Policy(evidence=Evidence("minilm/1"))
    policy.check_embedder("minilm/1")
    with pytest.raises(ConfigurationError, match=r"'minilm/1', not 'bge/1'"):
        policy.check_embedder("bge/1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": 1.5}, "threshold of the policy must lie between -1 and 1"),
        ({"threshold": float("nan")}, "threshold"),
        ({"ttl": 0.0}, "ttl of the policy"),
        ({"k": 0}, "k must be at least 1"),
        ({"guards": ("number",)}, "no guard is called 'number'"),
        ({"max_temperature": -1.0}, "max_temperature"),
        ({"embed_budget_s": -1.0}, "embed_budget_s"),
        ({"verifier": sure}, "verify_from"),
        ({"verify_from": 2.0}, "verify_from"),
        ({"verify_at_least": 1.1}, "verify_at_least"),
        ({"uncovered_threshold": 3.0}, "uncovered_threshold"),
        ({"namespaces": {"faq": Override(threshold=2.0)}}, "threshold of the namespace 'faq'"),
        ({"namespaces": {"faq": Override(guards=("x",))}}, "no guard is called 'x'"),
    ],
)
def test_values_that_cannot_work_are_refused_at_once(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        Policy(**fields)


def test_the_most_particular_word_on_a_rule_counts():
    policy = Policy(
        namespaces={"faq": Override(threshold=0.96, ttl=5.0)},
        categories={"refunds": Override(threshold=0.97, semantic=False)},
        languages={"de": Override(threshold=0.98)},
    )
    assert policy.rules("faq", "refunds", "de") == policy.rules("faq")._replace(threshold=0.98, semantic=False)
    assert policy.rules("faq", "refunds", "en").threshold == 0.97
    assert policy.rules("faq", "unknown").threshold == 0.96
    assert policy.rules("other") == Policy().rules("default")


def test_a_category_and_a_language_have_their_rules_in_calls():
    policy = Policy(categories={"refunds": Override(semantic=False)}, languages={"de": Override(ttl=60.0)})
    with SemanticCache("memory://", policy=policy) as cache:
        answer = cache.wrap(lambda prompt: prompt.upper(), name="answer")
        answer("How do I reset my password?")
        with cache.options(category="refunds"):
            answer("how do i reset my password")
            assert last_outcome().reason == "exact tier only"
        answer("how do I reset my password?!")
        assert last_outcome().layer == "semantic"
        answer("Wie kann ich das Passwort für mein Konto ändern?")
        assert last_outcome().ttl_s == pytest.approx(60.0)


def test_what_is_wrong_with_an_override_is_said_with_its_name():
    with pytest.raises(ConfigurationError, match=r"threshold of the category 'refunds'"):
        Policy(categories={"refunds": Override(threshold=2.0)})
    with pytest.raises(ConfigurationError, match=r"ttl of the language 'de'"):
        Policy(languages={"de": Override(ttl=0.0)})


@pytest.mark.parametrize("name", ["english", "EN", "e1 ", "zh-CN"])
def test_a_language_that_no_question_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="ISO 639-1"):
        Policy(languages={name: Override(threshold=0.98)})
