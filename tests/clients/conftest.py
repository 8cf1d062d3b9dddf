from __future__ import annotations

from collections.abc import Iterator

import pytest

from semcache import Policy, SemanticCache
from semcache.testing.upstream import Upstream

ANSWERS = {"Is it up?": "Yes. It is up again, and it will stay up all week 🎉."}


@pytest.fixture(scope="package")
def running_upstream() -> Iterator[Upstream]:
    with Upstream(answers=ANSWERS) as upstream:
        yield upstream


@pytest.fixture
def up(running_upstream: Upstream) -> Upstream:
    running_upstream.reset()
    return running_upstream


@pytest.fixture
def exact_cache() -> Iterator[SemanticCache]:
    """The real cache with its exact tier only: these tests are of edges, not of judgement."""
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        yield cache
