"""Whether a failure says that the upstream is in trouble, or that it refused the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from semcache.errors import BudgetExceeded, SemcacheError

_TIMED_OUT: Final = 408
"""RFC 9110, section 15.5.9. LiteLLM gives it to its own time-outs, too."""


def is_trouble(status: int) -> bool:
    """Whether an HTTP status says that the upstream failed: 5xx, or a time-out."""
    return status >= 500 or status == _TIMED_OUT


def is_refusal(status: int) -> bool:
    """Whether an HTTP status says that a body is not what the upstream takes. Bedrock has 403 for cache points that it
    does not take."""
    return status in (400, 403, 422)


def is_outage(error: Exception) -> bool:
    """False for a status 4xx other than a time-out, whichever SDK raised it, and for what semcache raises itself.

    An exception without a status is an outage: a time-out, a lost connection, or anything else that a function raises
    instead of an answer. So is a budget that leaves callers to what the cache has. The status may be that of the
    exception that this one was raised from, as where a function gives up its own retries.
    """
    if isinstance(error, BudgetExceeded):
        return error.cache_only
    status = _first_status(error)
    return not isinstance(error, SemcacheError) and (status is None or not 400 <= status < 500 or is_trouble(status))


def refusal(error: Exception) -> str | None:
    """What an exception says of a body that the upstream refused; ``None`` if it was raised for something else."""
    return str(error) if is_refusal(_first_status(error) or 0) else None


def _first_status(error: Exception) -> int | None:
    return next(filter(None, map(_status, _chain(error))), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those behind it, once each."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _status(error: Any) -> int | None:
    """The HTTP status in an exception of openai, anthropic, litellm (``status_code``), google-genai and urllib
    (``code``), aiohttp (``status``), httpx and requests (``response.status_code``) or botocore (``response``, a
    mapping)."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        response = response.get("ResponseMetadata") or {}
        found = [response.get("HTTPStatusCode")]
    else:
        found = [getattr(error, name, None) for name in ("status_code", "code", "status")]
        found.append(getattr(response, "status_code", None))
    return next((status for status in found if isinstance(status, int)), None)
