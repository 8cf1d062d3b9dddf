"""Who answers a call of LiteLLM, found out as LiteLLM does: from arguments, its settings and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from semcache.clients.http import reports_usage
from semcache.prompt_cache.rules import litellm_provider
from semcache.types import Prompt


class Answerer(NamedTuple):
    """Who answers a call.

    Args:
        label: A stable name, part of the scope.
        model: By which the call is priced.
        reports_usage: Whether it is known to report the usage of a stream when asked to.
        prompt_cache: Whose prompt cache LiteLLM is known to hand marks on to; its ``body`` is empty.
    """

    label: str
    model: str | None
    reports_usage: bool = False
    prompt_cache: Prompt | None = None


class _Route(NamedTuple):
    """What LiteLLM makes of a model's name. ``address``: as far as it is known, without a trailing path."""

    provider: str
    address: str
    model: str


# Arguments. litellm 1.106.2, 2026-11-21.
FALLBACKS: Final = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
"""Who is asked when a call has failed."""
_ENDPOINT: Final = "aws_bedrock_runtime_endpoint"
_REGIONS: Final = ("aws_region_name", "vertex_location")


def answered_by(label: str | None, vendor: str | None, arguments: Mapping[str, Any]) -> Answerer:
    """Who answers ``litellm.completion``.

    Args:
        label: The user's name for it.
        vendor: The user's word on whose prompt cache is behind the base URL.
    """
    given = arguments.get("model")
    alone = not any(map(arguments.get, FALLBACKS))  # a fallback may be a provider that refuses what is added
    try:
        route = _route(arguments)
        known = _prompt_cache(route, vendor, arguments) if alone else None
    except Exception:  # LiteLLM says so itself when it is called
        return Answerer(label or f"litellm {given}", given)
    host = _host(route)
    alias = "" if route.model == given else f" {route.model}"
    asks = route.provider == "openai" and alone and reports_usage(host)
    return Answerer(label or f"litellm {route.provider} {route.address}{alias}", route.model, asks, known)


def prompt_cache(vendor: str | None, arguments: Mapping[str, Any]) -> Prompt | None:
    """Whose prompt cache is behind a call, as a prompt without a body; ``None`` where LiteLLM is not known to hand
    marks on, or places its own.

    Raises:
        Exception: LiteLLM knows no provider of this model.
    """
    return _prompt_cache(_route(arguments), vendor, arguments)


def _prompt_cache(route: _Route, vendor: str | None, arguments: Mapping[str, Any]) -> Prompt | None:
    import litellm

    known = litellm_provider(route.provider)
    if known is None or getattr(litellm, "enable_anthropic_prompt_caching", False):
        return None
    endpoint = arguments.get(_ENDPOINT) or os.environ.get(_ENDPOINT.upper())
    host = _host(route) or urlsplit(str(endpoint or "")).hostname
    if not host:
        # The provider's own address, which LiteLLM makes of the region: prompt caches are apart by it, too.
        vendor = vendor or known.vendor
        host = next((str(arguments[name]) for name in _REGIONS if arguments.get(name)), "")
    return Prompt(known.api, {}, host, route.model, vendor)


def _route(arguments: Mapping[str, Any]) -> _Route:
    import litellm

    given = arguments.get("model")
    model = litellm.model_alias_map.get(given, given)
    base = arguments.get("api_base") or arguments.get("base_url")
    _, provider, _, known = litellm.get_llm_provider(
        model=model, custom_llm_provider=arguments.get("custom_llm_provider"), api_base=base
    )
    variables = (f"{provider.upper()}_{name}" for name in ("BASE_URL", "API_BASE"))
    found = base or known or litellm.api_base or next(filter(None, map(os.environ.get, variables)), "")
    where = urlsplit(str(found))
    host = f"[{where.hostname}]" if ":" in (where.hostname or "") else where.hostname
    # Without user, password and query, which may be credentials.
    return _Route(provider, f"{where.scheme}://{host}:{where.port}{where.path}" if found else "", model)


def _host(route: _Route) -> str:
    if not route.address:
        return "api.openai.com" if route.provider == "openai" else ""
    return urlsplit(route.address).hostname or ""
