from __future__ import annotations

from collections.abc import Iterator

import pytest

from semcache.testing.upstream import Upstream


@pytest.fixture(scope="module")
def running() -> Iterator[Upstream]:
    with Upstream(answers={"Is the lift working?": "Yes, the lift is working again."}) as upstream:
        yield upstream


@pytest.fixture
def up(running: Upstream) -> Upstream:
    running.reset()
    return running
