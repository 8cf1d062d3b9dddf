"""The cache for clients of Google's ``google-genai`` SDK, sync and async, of the Developer API and of Vertex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from semcache.clients.http import AsyncCacheTransport, CacheTransport

if TYPE_CHECKING:
    from semcache.engine import Engine

Client = TypeVar("Client")


def wrap_genai(client: Client, engine: Engine, *, upstream: str | None = None) -> Client:
    """A copy of a ``google.genai.Client`` whose calls go through the cache, ``client.aio`` too.

    The copy is made by the SDK's own constructor from the settings of the original, with HTTP clients that forward
    through the original's (``HttpOptions.httpx_client``, ``httpx_async_client``). ``client`` is not changed.

    Args:
        upstream: A stable label for who answers, instead of the URL: clients with one label share answers.
    """
    given: Any = client
    api = given._api_client  # the SDK has no public name for it
    options = api._http_options.model_copy(
        update={
            "headers": dict(api._http_options.headers or {}),
            "httpx_client": CacheTransport(api._httpx_client, engine, upstream=upstream).client(),
            "httpx_async_client": AsyncCacheTransport(api._async_httpx_client, engine, upstream=upstream).client(),
        }
    )
    wrapped: Any = type(given)(
        vertexai=api.vertexai,
        api_key=api.api_key,
        credentials=api._credentials,
        project=api.project,
        location=api.location,
        http_options=options,
    )
    # The original closes its connections when it is collected, and they are the ones in use.
    wrapped._semcache_original = given
    result: Client = wrapped
    return result
