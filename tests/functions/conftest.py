"""The cache that these tests wrap functions with."""

import pytest

from semcache import Policy, SemanticCache


@pytest.fixture
def cache():
    with SemanticCache(store="memory://", policy=Policy(semantic=False)) as cache:
        yield cache
