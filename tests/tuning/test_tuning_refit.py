from __future__ import annotations

import random
from pathlib import Path

import pytest

from semcache.errors import ConfigurationError
from semcache.policy import Policy
from semcache.scoring import DIRECTIONS, Scoring, shipped
from semcache.tuning.pairs import Pair
from semcache.tuning.prepare import of_pairs
from semcache.tuning.refit import LEAST, Row, refit
from semcache.tuning.remembered import Remembered

FINGERPRINT = shipped().fingerprint
SIGNS = list(DIRECTIONS.values())


def drawn(count: int, chance: object, seed: int = 0) -> list[Row]:
    """Rows of random features, right with the chance that a function of the features tells."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        values = tuple(rng.random() for _ in DIRECTIONS)
        found.append(Row(values, rng.random() < chance(values), str(number)))  # type: ignore[operator]
    return found


def strange(values: tuple[float, ...]) -> float:
    """Traffic in which the shared letters tell everything."""
    return 0.95 if values[list(DIRECTIONS).index("shared_letters")] > 0.5 else 0.05


def test_a_fit_learns_what_the_shipped_model_does_not_know() -> None:
    made = refit(drawn(1000, strange), FINGERPRINT)
    assert made is not None
    fresh = drawn(500, strange, seed=1)

    def right(model: Scoring) -> float:
        return sum((model.of_features(one.values) >= 0.5) == one.right for one in fresh) / len(fresh)

    assert right(made) > 0.8 > right(shipped()) + 0.1


def test_where_the_shipped_model_is_right_it_stays() -> None:
    """Labels drawn by its own probabilities: a fit could only follow the noise."""
    kept = [refit(drawn(1000, shipped().of_features, seed), FINGERPRINT) for seed in range(10)]
    assert kept.count(None) >= 8


def test_no_evidence_for_a_pair_lowers_its_probability() -> None:
    """Though in these data every feature speaks against its own direction."""
    turned = drawn(1000, lambda values: 1.0 - strange(values), seed=2)
    made = refit(turned, "another/embedder")
    assert made is not None
    rng = random.Random(3)
    for _ in range(100):
        values = [rng.random() for _ in DIRECTIONS]
        for place, sign in enumerate(SIGNS):
            more = [*values]
            more[place] += sign * rng.random()
            assert made.of_features(tuple(more)) >= made.of_features(tuple(values))


def test_another_embedder_gets_a_model_of_its_own() -> None:
    made = refit(drawn(1000, strange), "another/embedder")
    assert made is not None
    assert (made.fingerprint, made.trees) == ("another/embedder", ())


def test_the_scoring_of_another_embedder_is_not_kept(embedder: Remembered) -> None:
    made = refit(drawn(1000, strange), "another/embedder")
    pairs = [Pair("How do I pay?", "How can I pay?", True), Pair("Is it open?", "Is it closed?", False)]
    prepared = of_pairs(pairs, Policy(scoring=made), embedder)
    assert (prepared.policy.scoring, prepared.fitted_to) == (None, 0)
    own = Policy(scoring=refit(drawn(1000, strange), embedder.fingerprint))
    assert of_pairs(pairs, own, embedder).policy == own


def test_too_few_rows_or_labels_of_one_kind_only_fit_nothing() -> None:
    assert refit(drawn(LEAST - 1, strange), FINGERPRINT) is None
    assert refit(drawn(LEAST, lambda values: 1.0), FINGERPRINT) is None


def test_a_policy_file_holds_the_model_and_refuses_another_embedder(tmp_path: Path) -> None:
    made = refit(drawn(1000, strange), FINGERPRINT)
    policy = Policy(scoring=made)
    policy.save(tmp_path / "p.toml")
    assert Policy.load(tmp_path / "p.toml") == policy
    assert (tmp_path / "p.toml").stat().st_size < 8_000
    policy.check_embedder(FINGERPRINT)
    with pytest.raises(ConfigurationError, match="made for the embedder"):
        policy.check_embedder("another/embedder")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bias = ", "bias = nan #"),
        ("bias = ", "bias = 'x' #"),
        ("bias = ", "#"),
        ("weights = [", "weights = [1.0, "),
        ("weights = [", "weights = [inf, "),
        ("trees = [", "trees = [[99, 0.5, 0.1, 0.2],"),
        ("trees = [", "trees = [[0, 0.5, 0.1],"),
        ("trees = [", "trees = [[0, nan, 0.1, 0.2],"),
        ('"cosine"', '"cosines"'),
    ],
)
def test_a_damaged_model_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    Policy(scoring=refit(drawn(1000, strange), FINGERPRINT)).save(path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=r"p\.toml: this scoring model"):
        Policy.load(path)
