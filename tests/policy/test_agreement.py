"""Near questions with one answer vouch for it; those with several hold it back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache import ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.agreement import CONTESTED, shares
from semcache.judging import judge
from semcache.policy import Override
from semcache.types import Candidate

CLOSED = Policy(answers="closed")

CARD = ("where is my card", "my card has not come yet", "is my card on its way", "when will my card come to me")


def candidates(*rows, answer="card"):
    """Rows of (text, similarity) or (text, similarity, answer)."""
    return [Candidate(n, row[0], row[1], answer=row[2] if len(row) > 2 else answer) for n, row in enumerate(rows)]


def decide(text, found, policy=CLOSED, **options):
    return judge(policy, text, found, rules=policy.rules("default"), **options)


def test_four_that_agree_serve_what_no_wording_would():
    found = candidates(*((text, 0.8) for text in CARD))
    decision = decide("is my plastic coming", found)
    assert decision.verdict == "serve"
    assert decision.chosen == found[0]
    assert decision.agreement > 0.8
    assert decide("is my plastic coming", found, Policy()).verdict == "reject"


def test_two_that_agree_serve_only_what_their_words_cover():
    found = candidates(("where is my card", 0.8), ("has my order come yet", 0.8))
    assert decide("where is my order", found).verdict == "serve"
    assert decide("where is my refund", found).verdict == "reject"


def test_one_question_is_no_agreement():
    assert decide("my card, where is it", candidates(("where is my card", 0.85))).verdict == "reject"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("wake me at 7", "wake me at 8"),
        ("do not wake me", "wake me"),
        ("send 5 euros to Anna", "send 5 euros to Berta"),
        ("convert euros to dollars", "convert dollars to euros"),
    ],
)
def test_no_number_of_them_outweighs_a_firm_guard(text, stored):
    found = candidates(*((f"{stored}{end}", 0.97) for end in ("", " please", "!", " now please", " thanks")))
    assert decide(text, found).verdict == "reject"


def test_a_contested_answer_is_not_served_however_near():
    sure = ("how do I reset my password", 0.97)
    others = [(f"how do I reset my {thing}", 0.95, thing) for thing in ("pin", "username", "phone")]
    assert decide("how can I reset my password", candidates(sure)).verdict == "serve"
    decision = decide("how can I reset my password", candidates(sure, *others))
    assert decision.verdict == "reject"
    assert "agreement" in decision.reason


@pytest.mark.parametrize("doubt", ["too_old", "barred"])
def test_what_may_not_be_served_itself_has_no_vote(doubt):
    found = [one._replace(**{doubt: True}) for one in candidates(*((text, 0.8) for text in CARD))]
    assert shares(found) == {}
    assert decide("is my plastic coming", found).verdict == "reject"
    one_left = [found[0]._replace(**{doubt: False}), *found[1:]]
    assert decide("is my plastic coming", one_left).verdict == "reject"


def test_one_question_stored_again_and_again_is_one_voice():
    found = candidates(*((f"{text}{end}", 0.8) for text in CARD[:1] for end in ("", "?", "!", " ?", ".")))
    assert decide("is my plastic coming", found).verdict == "reject"


def test_no_bar_is_so_low_that_a_reported_answer_passes():
    found = candidates(*((text, 0.8) for text in CARD))
    found[2] = found[2]._replace(wrong_before=True)
    assert decide("is my plastic coming", found, Policy(answers="closed", min_agreement=0.0)).verdict == "reject"


def test_the_same_words_are_served_whatever_the_others_say():
    others = [(f"how do I reset my {thing}", 0.99, thing) for thing in ("pin", "username", "phone")]
    found = candidates(("How do I reset my password?", 1.0), *others)
    assert decide("how do I reset my password", found).chosen == found[0]


def test_an_answer_reported_wrong_for_this_question_has_no_votes():
    found = candidates(*((text, 0.8) for text in CARD))
    found[2] = found[2]._replace(wrong_before=True)
    assert decide("is my plastic coming", found).verdict == "reject"


def test_a_caller_s_own_bar_holds():
    found = candidates(*((text, 0.8) for text in CARD))
    assert decide("is my plastic coming", found, min_similarity=0.81).verdict == "reject"


def test_another_embedder_has_no_votes_and_an_unknown_language_neither():
    found = candidates(*((text, 0.8) for text in CARD))
    assert decide("is my plastic coming", found, embedder="another").verdict == "reject"
    assert decide("карта ещё не пришла", found).verdict == "reject"


def test_a_namespace_may_have_closed_answers_of_its_own():
    policy = Policy(namespaces={"routing": Override(answers="closed", min_agreement=0.9)})
    assert (policy.rules("default").answers, policy.rules("routing").answers) == ("free", "closed")
    assert policy.rules("routing").min_agreement == 0.9
    assert policy.search_from(policy.rules("default")) == policy.threshold
    assert policy.search_from(policy.rules("routing")) == 0.5
    assert policy.reach(policy.rules("routing")) == 10


def test_what_it_cannot_be_is_said():
    with pytest.raises(ConfigurationError, match="answers of the policy"):
        Policy(answers="fixed")
    with pytest.raises(ConfigurationError, match="min_agreement"):
        Policy(min_agreement=1.5)


voters = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 99),
        st.just("text"),
        st.floats(-1, 1),
        st.booleans(),
        st.booleans(),
        answer=st.sampled_from(["a", "b", "c", None]),
    ),
    max_size=10,
)


@given(voters, st.randoms())
def test_shares_are_of_one_whole_and_do_not_depend_on_the_order(found, random):
    counted = shares(found)
    assert sum(counted.values()) < 1.0
    shuffled = found[:]
    random.shuffle(shuffled)
    assert shares(shuffled) == pytest.approx(counted)


@given(voters, st.floats(0.5, 1))
def test_one_more_voice_for_an_answer_raises_its_share_and_no_other(found, similarity):
    found = [one._replace(wrong_before=False) for one in found]
    before, after = shares(found), shares([*found, Candidate(7, "text", similarity, answer="a")])
    assert after["a"] > before.get("a", 0.0)
    assert all(after[answer] < share for answer, share in before.items() if answer != "a")


def test_a_router_learns_from_its_own_answers():
    """Real texts through the real embedder: a classifier whose answers are labels."""
    asked = []

    def route(prompt):
        asked.append(prompt)
        return "delivery" if "card" in prompt else "other"

    with SemanticCache("memory://", policy=CLOSED) as cache:
        cached = cache.wrap(route)
        for text in (*CARD, "has my card been sent", "track my card"):
            cached(text)
        before = len(asked)
        assert cached("where can I see my card come") == "delivery"
        outcome = last_outcome()
        assert outcome.layer == "semantic"
        assert outcome.decision.agreement > CONTESTED
        assert len(asked) == before
        assert cached("what is the capital of France") == "other"
        assert not last_outcome().hit
