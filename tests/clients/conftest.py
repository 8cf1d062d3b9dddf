from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from semcache import Policy, SemanticCache
from semcache.testing.upstream import Upstream

# LiteLLM wants an older OpenAI SDK than the other tests: `make test-litellm` has an environment of its own.
collect_ignore = (
    [] if find_spec("litellm") else ["test_sdk_litellm.py", "test_sdk_litellm_marks.py", "test_sdk_instructor.py"]
)
# Otherwise importing LiteLLM fetches a list of prices.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

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
