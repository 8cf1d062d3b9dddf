"""Whether an exception says that the upstream failed, rather than that it refused the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcache.errors import BudgetExceeded, SemcacheError


def is_outage(error: Exception) -> bool:
    """False for a status 4xx, whichever SDK raised it, and for what semcache raises itself.

    An exception without a status is an outage: a time-out, a lost connection, or anything else that a function raises
    instead of an answer. So is a budget that leaves callers to what the cache has.
    """
    if isinstance(error, BudgetExceeded):
        return error.cache_only
    status = _status(error)
    return not isinstance(error, SemcacheError) and (status is None or not 400 <= status < 500)


def _status(error: Any) -> int | None:
    """The HTTP status in an exception of openai, anthropic, litellm (``status_code``), google-genai (``code``), httpx
    (``response.status_code``) or botocore (``response``, a mapping)."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        response = response.get("ResponseMetadata") or {}
        found = [response.get("HTTPStatusCode")]
    else:
        found = [getattr(error, "status_code", None), getattr(error, "code", None)]
        found.append(getattr(response, "status_code", None))
    return next((status for status in found if isinstance(status, int)), None)
