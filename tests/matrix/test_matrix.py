"""The matrix: every client, sync and async, plain and streamed, whatever it asks for, hit, missed or failed.

Where LiteLLM is installed its rows are run, elsewhere all others: it needs an environment of its own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from matrix_cells import ROWS, Cell, cells
from matrix_face import Driver, said, shown

from semcache import ConfigurationError, Policy, SemanticCache, last_outcome
from semcache.testing.upstream import Upstream

WITH_LITELLM = find_spec("litellm") is not None
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else importing it fetches a list of prices
DRIVERS = import_module("matrix_litellm" if WITH_LITELLM else "matrix_sdks")
HERE = tuple(row for row in ROWS if row.own_environment == WITH_LITELLM)

# LiteLLM's own, on import and in its logging threads.
_OF_LITELLM = [f"ignore::{kind}" for kind in ("DeprecationWarning", "ResourceWarning", "UserWarning")]
pytestmark = [pytest.mark.filterwarnings(one) for one in _OF_LITELLM if WITH_LITELLM]

QUESTION = "How do I reset my password?"
REWORDED = "How can I reset my password?"
UNRELATED = "Which floors does the harbour lift stop at?"


@pytest.fixture(scope="module")
def running_upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def up(running_upstream: Upstream) -> Upstream:
    running_upstream.reset()
    return running_upstream


@pytest.fixture(scope="module")
def cache() -> Iterator[SemanticCache]:
    """One for all cells, each of which is a tenant of its own: embedding begins with loading a model."""
    with SemanticCache(store="memory://", policy=Policy(embed_budget_s=10)) as cache:
        yield cache


@pytest.fixture
async def driver(cell: Cell, up: Upstream) -> AsyncIterator[Driver]:
    driver: Driver = getattr(DRIVERS, cell.row.driver)(up, cell.is_async)
    yield driver
    await driver.close()


@pytest.mark.parametrize("cell", list(cells(HERE)), ids=str)
async def test_what_the_caller_sees(cell: Cell, driver: Driver, up: Upstream, cache: SemanticCache) -> None:
    bare, client = driver.client(), cache.wrap(driver.client(), upstream="matrix")
    stored = UNRELATED if cell.situation in ("miss", "error") else QUESTION
    asked = REWORDED if cell.situation == "semantic" else QUESTION
    with cache.options(tenant=str(cell)):
        first = await attempt(cell, driver, client, stored)
        assert status() == ("miss", None, True)
        before = up.calls()
        got = await attempt(cell, driver, client, asked, fails=cell.situation == "error")
        assert up.calls() - before == (cell.tier is None)
    if cell.tier:
        assert status() == ("hit", cell.tier, False)
        assert got == first
    else:
        assert status() == ("miss", None, cell.situation != "error")
    assert metered() == (cell.situation != "error")
    without = await attempt(cell, driver, bare, stored if cell.tier else asked, fails=cell.situation == "error")
    assert said(got) == said(without)


async def attempt(cell: Cell, driver: Driver, client: Any, text: str, *, fails: bool = False) -> Any:
    """What the caller of one call sees: an answer, or an exception."""
    if not fails:
        return shown(await driver.ask(client, text, cell.content, cell.stream))
    driver.up.fail_next(500)
    with pytest.raises(Exception, match=r".") as caught:
        await driver.ask(client, text, cell.content, cell.stream)
    error = caught.value
    return type(error).__module__, type(error).__qualname__, [getattr(error, n, None) for n in ("status_code", "code")]


def status() -> tuple[str, str | None, bool]:
    outcome = last_outcome()
    assert outcome is not None
    return outcome.status, outcome.layer, outcome.stored


def metered() -> bool:
    outcome = last_outcome()
    return outcome is not None and outcome.usage is not None and outcome.usage.output_tokens > 0


@pytest.mark.parametrize("row", [row for row in HERE if not row.is_async], ids=lambda row: row.driver)
async def test_an_async_client_that_is_not_supported_is_refused(row: Any, up: Upstream, cache: SemanticCache) -> None:
    driver = getattr(DRIVERS, row.driver)(up, True)
    with pytest.raises(ConfigurationError, match="async"):
        cache.wrap(driver.client())
    await driver.close()
