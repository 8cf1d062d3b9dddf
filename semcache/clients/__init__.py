"""Edges: what a caller has, with the cache before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from semcache.errors import ConfigurationError

if TYPE_CHECKING:
    from semcache.engine import Engine

T = TypeVar("T")


def wrap(target: T, engine: Engine, *, name: str | None, upstream: str | None, provider: str | None = None) -> T:
    """See :meth:`semcache.SemanticCache.wrap`."""
    if _is_sdk_client(target):
        from semcache.clients.http import wrap_client

        return wrap_client(target, engine, upstream=upstream, provider=provider)
    if _is_genai_client(target):
        from semcache.clients.genai import wrap_genai

        return wrap_genai(target, engine, upstream=upstream)
    if _is_boto_client(target):
        from semcache.clients.bedrock import wrap_bedrock

        return wrap_bedrock(target, engine, upstream=upstream, provider=provider)
    if _is_from("litellm", target):
        from semcache.clients.litellm_calls import wrap_litellm

        return wrap_litellm(target, engine, upstream=upstream, provider=provider)
    if _is_from("instructor", target):
        from semcache.clients.instructor_client import wrap_instructor

        return wrap_instructor(target, engine, upstream=upstream)
    if callable(target) and not isinstance(target, type):
        from semcache.clients.functions import wrap_function

        return cast(T, wrap_function(target, engine, name))
    raise ConfigurationError(
        f"cannot wrap {type(target).__module__}.{type(target).__qualname__}: give a function "
        "f(prompt, **params) or f(messages, **params), an OpenAI, Anthropic, google-genai or instructor client, "
        "a boto3 client of bedrock-runtime, litellm.completion, litellm.acompletion or a litellm.Router"
    )


def _is_sdk_client(target: object) -> bool:
    """Whether a target is an instance of an SDK's client class (or of a subclass of one)."""
    return not isinstance(target, type) and any(
        base.__module__.partition(".")[0] in {"openai", "anthropic"} and hasattr(base, "with_options")
        for base in type(target).__mro__
    )


def _is_genai_client(target: object) -> bool:
    return any(
        base.__module__ == "google.genai.client" and base.__qualname__ == "Client" for base in type(target).__mro__
    )


def _is_boto_client(target: object) -> bool:
    return any(
        base.__module__ == "botocore.client" and base.__qualname__ == "BaseClient" for base in type(target).__mro__
    )


def _is_from(package: str, target: object) -> bool:
    """Whether a target is a function or method of a package, or an instance of one of its classes."""
    homes = (target, *type(target).__mro__)
    return any(str(getattr(home, "__module__", "")).partition(".")[0] == package for home in homes)
