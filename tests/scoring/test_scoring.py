from __future__ import annotations

import importlib.resources
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.errors import ConfigurationError
from semcache.scoring import DIRECTIONS, Scoring, decisive, features, shipped

SHARE = st.floats(0.0, 1.0)
COUNT = st.integers(0, 6).map(float)
FLAG = st.sampled_from([0.0, 1.0])
RANGES = {
    "cosine": SHARE,
    **dict.fromkeys(("query_covered", "cached_covered", "shared_tokens", "shared_pairs", "shared_letters"), SHARE),
    "length": SHARE,
    "same_question": FLAG,
}
VALUES = st.tuples(*(RANGES.get(name, COUNT) for name in DIRECTIONS))


@settings(max_examples=200, deadline=None)
@given(values=VALUES, more=VALUES)
def test_no_evidence_for_a_pair_lowers_its_probability(values, more):
    model = shipped()
    for at, direction in enumerate(DIRECTIONS.values()):
        pick = max if direction > 0 else min
        better = (*values[:at], pick(values[at], more[at]), *values[at + 1 :])
        assert model.of_features(better) >= model.of_features(values)


@settings(max_examples=100, deadline=None)
@given(a=st.text(max_size=60), b=st.text(max_size=60), cosine=st.floats(-1.0, 1.0))
def test_any_two_texts_have_a_probability(a, b, cosine):
    assert 0.0 < shipped().probability(a, b, cosine) < 1.0


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60))
def test_a_text_is_wholly_covered_by_itself(text):
    values = dict(zip(DIRECTIONS, features(text, text, 1.0), strict=True))
    values.pop("shared")
    assert {name for name, value in values.items() if value != float(DIRECTIONS[name] > 0)} == set()


@pytest.mark.parametrize(
    ("query", "cached", "expected"),
    [
        ("reset my password", "reset my password please", {"query_covered": 1.0, "cached_covered": 1.0}),
        ("cancel my order", "cancel my order on the website", {"added": 1.0, "query_covered": 1.0}),
        ("cancel my order", "complete cancel my order", {"added": 0.0, "added_weak": 1.0}),
        ("how can I pay", "when can I pay", {"same_question": 0.0, "length": 1.0}),
        ("where can I pay", "how do I pay", {"same_question": 1.0}),
        ("enable roaming", "how do I enable roaming", {"same_question": 1.0}),
        ("roaming is slow", "why is roaming slow", {"same_question": 0.0}),
        ("5 GB of data in Rome", "5 GB in Rome", {"shared": 2.0, "added": 1.0}),
    ],
)
def test_what_is_seen_of_a_pair(query, cached, expected):
    values = dict(zip(DIRECTIONS, features(query, cached, 0.9), strict=True))
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("guard", "query", "cached", "veto"),
    [
        ("wording", "cancel my order", "cancel my order on the website", False),
        ("wording", "cancel my order on the website", "cancel my order", False),
        ("wording", "cancel my order", "collect my order", True),
        ("wording", "who sings yesterday", "who wrote yesterday", True),
        ("wording", "flights in winter", "flights in winter bergen", True),
        ("wording", "my card is not working", "my card", False),
        ("question", "how do I pay", "when do I pay", True),
        ("numbers", "3 days", "4 days", True),
    ],
)
def test_which_objections_no_probability_outweighs(guard, query, cached, veto):
    assert decisive(guard, query, cached) is veto


def test_words_added_count_against_a_pair():
    plain = shipped().probability("How do I cancel my order?", "How can I cancel an order?", 0.92)
    fuller = shipped().probability("How do I cancel my order?", "How do I cancel my order on the website?", 0.92)
    assert plain > fuller


def test_far_from_each_other_two_kinds_of_question_are_not_one_question():
    near, far = (shipped().probability("Is it possible to renew it?", "Renew it", cosine) for cosine in (0.95, 0.85))
    assert (near > 0.5, far > 0.5) == (True, True)
    near, far = (shipped().probability("Is renewal open?", "Renewal is open", cosine) for cosine in (0.95, 0.85))
    assert (near > 0.5, far < 0.5) == (True, True)


def test_a_model_of_other_features_is_refused():
    with pytest.raises(ConfigurationError, match="other features"):
        Scoring.of({"features": ["cosine"], "fingerprint": "m", "bias": 0.0, "trees": []})


def test_a_model_adds_up_its_leaves():
    step = [0, 0.5, -1.0, 1.0]
    model = Scoring.of({"features": list(DIRECTIONS), "fingerprint": "m", "bias": 0.0, "trees": [step, step]})
    low, high = (model.of_features((cosine, *(0.0,) * (len(DIRECTIONS) - 1))) for cosine in (0.5, 0.6))
    assert (low, high) == pytest.approx((0.1192, 0.8808), abs=1e-4)


def test_what_is_shipped_says_where_it_comes_from_and_is_small():
    raw = importlib.resources.files("semcache").joinpath("data", "scoring", "minilm.json").read_bytes()
    document = json.loads(raw)
    assert len(raw) < 20_000
    assert all(word not in " ".join(document["data"]) for word in ("qqp", "mqp", "covidq", "sharegpt", "nq", "sgd"))
    assert document["pairs"] > 0
    assert document["date"]


def test_scoring_needs_no_numpy():
    code = (
        "import sys; from semcache.scoring import shipped; shipped().probability('a b', 'a c', 0.9); "
        "sys.exit(any(name in sys.modules for name in ('numpy', 'sklearn', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
