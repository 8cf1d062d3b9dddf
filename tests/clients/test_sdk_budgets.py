"""A budget that is used up, as SDK clients see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Literal

import pytest
from sdk_clients import SDKS, Sdk, close_clients

from semcache import Budget, Policy, SemanticCache, last_outcome
from semcache.testing.upstream import Upstream


@pytest.fixture(autouse=True)
async def no_open_client() -> AsyncIterator[None]:
    yield
    await close_clients()


@pytest.fixture(params=["raise", "cache-only"])
def on_exceed(request: pytest.FixtureRequest) -> Literal["raise", "cache-only"]:
    mode: Literal["raise", "cache-only"] = request.param
    return mode


@pytest.fixture
def cache(on_exceed: Literal["raise", "cache-only"]) -> Iterator[SemanticCache]:
    budget = Budget("0.000001", on_exceed=on_exceed)
    with SemanticCache("memory://", policy=Policy(semantic=False), budgets=budget) as cache:
        yield cache


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
async def test_a_miss_over_budget_is_the_sdks_own_error_at_once(
    sdk: Sdk, streamed: bool, up: Upstream, cache: SemanticCache, on_exceed: str
) -> None:
    client = cache.wrap(sdk.client(up, max_retries=3))
    first = await sdk.ask(client)
    with pytest.raises(sdk.module.APIStatusError) as caught:
        await (sdk.tell if streamed else sdk.ask)(client, "Something else?")
    assert caught.value.status_code == (402 if on_exceed == "raise" else 504)
    assert "all namespaces may cost" in str(caught.value)
    assert caught.value.body is not None
    outcome = last_outcome()
    assert outcome is not None
    assert outcome.refused
    assert cache.stats().ledger.totals.refused == 1, "it was not tried again"
    assert await sdk.ask(client) == first
    assert up.calls() == 1
