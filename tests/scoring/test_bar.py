"""How the policy uses the probability."""

from __future__ import annotations

import pytest

from semcache.errors import ConfigurationError
from semcache.judging import judge
from semcache.policy import Override, Policy
from semcache.scoring import shipped
from semcache.types import Candidate, Decision

QUERY = "How do I cancel my order?"
SAME = Candidate(1, "How can I cancel an order?", 0.93)
REPLACED = Candidate(2, "How do I collect my order?", 0.93)
FULLER = Candidate(3, "How do I cancel my website order?", 0.97)
NEGATED = Candidate(4, "How do I not cancel my order?", 0.97)


def decide(policy: Policy, candidate: Candidate, *, text: str = QUERY, **more: object) -> Decision:
    return judge(policy, text, [candidate], rules=policy.rules("default"), **more)  # type: ignore[arg-type]


def test_a_hit_says_how_probable_it_is():
    decision = decide(Policy(), SAME)
    assert decision.verdict == "serve"
    assert decision.probability == decision.judged[0].probability == shipped().probability(QUERY, SAME.text, 0.93)


def test_a_bar_above_the_probability_rejects_and_says_so():
    decision = decide(Policy(min_probability=0.995), FULLER)
    assert decision.verdict == "reject"
    assert decision.reason.startswith("probability 0.")
    assert "wording: none / website" in decision.reason


def test_added_words_are_evidence_where_a_probability_is_asked_for_and_a_veto_elsewhere():
    assert decide(Policy(min_probability=0.5), FULLER).verdict == "serve"
    assert decide(Policy(min_probability=0.0), FULLER).reason.startswith("wording: ")


def test_a_replaced_word_is_a_veto_whatever_the_probability():
    assert decide(Policy(min_probability=0.01), REPLACED).reason == "wording: cancel / collect"


def test_a_veto_stands_whatever_the_probability():
    decision = decide(Policy(min_probability=0.01), NEGATED, explain=True)
    assert decision.reason.startswith("polarity: ")
    assert decision.judged[0].probability is None


def test_the_same_text_needs_no_probability():
    assert decide(Policy(min_probability=1.0), Candidate(5, "how do i cancel my order", 0.9999)).verdict == "serve"


def test_another_embedders_similarities_are_not_scored():
    decision = decide(Policy(min_probability=0.5), FULLER, embedder="another/1")
    assert decision.reason.startswith("wording: ")
    assert decide(Policy(min_probability=0.5), FULLER, embedder=shipped().fingerprint).verdict == "serve"


def test_a_language_without_lists_is_not_scored():
    decision = decide(Policy(), Candidate(6, "주문을 어떻게 취소하나요?", 0.98), text="어떻게 주문을 취소하나요?")
    assert (decision.verdict, decision.probability) == ("serve", None)


def test_a_namespace_may_have_a_bar_of_its_own():
    policy = Policy(min_probability=0.5, namespaces={"faq": Override(min_probability=0.995)})
    assert judge(policy, QUERY, [FULLER], rules=policy.rules("faq")).verdict == "reject"
    assert judge(policy, QUERY, [FULLER], rules=policy.rules("default")).verdict == "serve"


def test_what_is_near_but_doubtful_goes_to_the_verifier():
    policy = Policy(min_probability=0.995, verifier=lambda query, cached: 1.0, verify_from=0.8)
    assert decide(policy, FULLER).verdict == "verify"
    assert decide(policy, FULLER._replace(similarity=0.81)).verdict == "verify"
    assert decide(policy, FULLER._replace(similarity=0.79)).verdict == "reject"
    assert decide(policy, NEGATED).verdict == "reject"
    assert decide(policy, REPLACED).verdict == "verify"


@pytest.mark.parametrize("bar", [-0.1, 1.1, float("nan")])
def test_a_bar_that_is_no_probability_is_refused(bar):
    with pytest.raises(ConfigurationError, match="min_probability of the policy"):
        Policy(min_probability=bar)
    with pytest.raises(ConfigurationError, match="namespace 'faq'"):
        Policy(namespaces={"faq": Override(min_probability=bar)})
