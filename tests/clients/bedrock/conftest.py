"""Clients of the local upstream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from bedrock_calls import ACCESS_KEY, SECRET, Make
from botocore.config import Config

from semcache.testing.upstream import Upstream


@pytest.fixture
def make(up: Upstream) -> Iterator[Make]:
    made = []

    def client(**options: Any) -> Any:
        settings = {"retries": {"total_max_attempts": 1}, **options.pop("config", {})}
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET}
        given = {"region_name": "us-east-1", "endpoint_url": up.bedrock_url, **keys, **options}
        made.append(boto3.client("bedrock-runtime", config=Config(**settings), **given))
        return made[-1]

    yield client
    for one in made:
        one.close()
