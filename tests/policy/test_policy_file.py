from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.errors import ConfigurationError
from semcache.guards import GUARDS
from semcache.policy import Evidence, Override, Policy
from semcache.policy_file import dumps

NAMES = st.lists(st.sampled_from(sorted(GUARDS)), unique=True).map(tuple)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
COSINE = st.floats(-1.0, 1.0)
SECONDS = st.floats(0.001, 1e9)
OVERRIDE = st.builds(
    Override,
    threshold=st.none() | COSINE,
    guards=st.none() | NAMES,
    ttl=st.none() | SECONDS,
    semantic=st.none() | st.booleans(),
    answers=st.sampled_from([None, "free", "closed"]),
    min_agreement=st.none() | st.floats(0.0, 1.0),
)
EVIDENCE = st.builds(
    Evidence,
    fingerprint=TEXT,
    data=st.lists(TEXT, max_size=3).map(tuple),
    date=TEXT,
    hits=st.integers(0, 10**9),
    wrong_hits=st.integers(0, 10**9),
    max_false_hit_rate=st.none() | st.floats(0.0, 1.0),
    confidence=st.none() | st.floats(0.0, 1.0),
    note=TEXT,
)
POLICY = st.builds(
    Policy,
    threshold=COSINE,
    min_probability=st.floats(0.0, 1.0),
    uncovered_threshold=COSINE,
    guards=NAMES,
    semantic=st.booleans(),
    verify_from=st.none() | COSINE,
    verify_at_least=st.floats(0.0, 1.0),
    ttl=st.none() | SECONDS,
    max_temperature=st.floats(0.0, 2.0) | st.just(float("inf")),
    k=st.integers(1, 100),
    collapse_wait_s=SECONDS,
    embed_budget_s=SECONDS,
    namespaces=st.dictionaries(TEXT, OVERRIDE, max_size=3),
    categories=st.dictionaries(TEXT, OVERRIDE, max_size=2),
    languages=st.dictionaries(st.sampled_from(["en", "de", ""]), OVERRIDE, max_size=2),
    evidence=st.none() | EVIDENCE,
)


@settings(max_examples=120, deadline=None)
@given(policy=POLICY)
def test_a_saved_policy_loads_as_an_equal_one(tmp_path_factory, policy):
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.save(path)
    assert Policy.load(path) == policy


def test_every_default_is_written_so_that_a_later_default_changes_no_old_file():
    assert "threshold = " in dumps(Policy())
    assert "guards = " in dumps(Policy())


def test_a_written_file_reads_well(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(
        'threshold = 0.9\nttl = 60\n\n[namespaces."my shop"]\nsemantic = false\n\n'
        '[evidence]\nfingerprint = "m/1"\ndata = ["log"]\n'
    )
    policy = Policy.load(path)
    assert (policy.threshold, policy.ttl) == (0.9, 60.0)
    assert policy.namespaces == {"my shop": Override(semantic=False)}
    assert policy.evidence == Evidence("m/1", ("log",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treshold = 0.9", "unknown key 'treshold'; did you mean 'threshold'"),
        ("[namespace.faq]\nttl = 1", "unknown key 'namespace'; did you mean 'namespaces'"),
        ("[namespaces.faq]\ntlt = 1", "unknown key 'namespaces.faq.tlt'; did you mean 'ttl'"),
        ('[evidence]\nfingerprint = "x"\nhit = 1', "unknown key 'evidence.hit'; did you mean 'hits'"),
        ("[evidence]\nhits = 1", "evidence.fingerprint is missing"),
        ('threshold = "high"', "threshold must be a number, not 'high'"),
        ("threshold = true", "threshold must be a number"),
        ("threshold = nan", "threshold must be a number"),
        ("k = 2.5", "k must be a whole number"),
        ("semantic = 1", "semantic must be true or false"),
        ('guards = "numbers"', "guards must be a list of strings"),
        ('guards = ["nombres"]', "no guard is called 'nombres'"),
        ("threshold = 7", "threshold of the policy must lie between"),
        ("namespaces = 3", "namespaces must be a table"),
        ("threshold = ", "policy.toml"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_key(tmp_path, text, message):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Policy.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        Policy.load(tmp_path / "none.toml")


def test_a_verifier_is_not_lost_silently(tmp_path):
    with pytest.raises(ConfigurationError, match="verifier"):
        Policy(verifier=lambda query, cached: 1.0, verify_from=0.9).save(tmp_path / "policy.toml")
