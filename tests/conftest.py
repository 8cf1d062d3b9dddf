"""What every test starts from, so that none fails for where, when or beside what it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

PATIENCE_S = 20.0
_DAY_S, _LAST_S = 86_400, 30

if find_spec("hypothesis") is not None:  # LiteLLM's environment is without
    from hypothesis import HealthCheck, settings

    # The same examples in each run, however long one takes. Others: pytest --hypothesis-profile=default
    slow = [HealthCheck.too_slow]
    settings.register_profile("steady", derandomize=True, deadline=None, database=None, suppress_health_check=slow)
    settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="session")
def patience() -> Iterator[None]:
    """A busy machine passes the budgets that a cache keeps by default. Tests of a budget name their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semcache.stores.DEFAULT_BUDGET_S", PATIENCE_S)
        patch.setattr("semcache.semantic.WARM_WAIT_S", PATIENCE_S)
        yield


@pytest.fixture(autouse=True)
def one_day() -> None:
    """Books and budgets are of a day (UTC): a test that begins in its last seconds would see it end."""
    left = _DAY_S - time.time() % _DAY_S
    if left < _LAST_S:
        time.sleep(left)
