from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from semcache.intervals import clopper_pearson, incomplete_beta


@given(st.data(), st.integers(1, 200_000), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(deadline=None)
def test_intervals_agree_with_scipy(data: st.DataObject, trials: int, confidence: float) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = clopper_pearson(successes, trials, confidence)
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert low == pytest.approx(expected.low, rel=1e-7, abs=1e-12)
    assert high == pytest.approx(expected.high, rel=1e-7, abs=1e-12)


@given(st.floats(0.1, 5000), st.floats(0.1, 5000), st.floats(0, 1))
@settings(deadline=None)
def test_incomplete_beta_agrees_with_scipy(a: float, b: float, x: float) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-11)


def test_the_ends_are_closed() -> None:
    assert clopper_pearson(0, 100)[0] == 0.0
    assert clopper_pearson(0, 100)[1] == pytest.approx(1 - 0.025**0.01)
    assert clopper_pearson(100, 100) == (pytest.approx(0.025**0.01), 1.0)


@pytest.mark.parametrize(
    ("successes", "trials", "confidence"), [(1, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)]
)
def test_what_is_no_share_is_refused(successes: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"share|confidence"):
        clopper_pearson(successes, trials, confidence)
