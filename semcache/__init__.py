"""A semantic cache for LLM calls that would rather miss than be wrong.

>>> import semcache
>>> cache = semcache.SemanticCache()
>>> ask = cache.wrap(ask)                   # a function, or an OpenAI or Anthropic client
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from semcache._version import __version__

if TYPE_CHECKING:
    from semcache.cache import AsyncSemanticCache, CacheStats, Lookup, SemanticCache
    from semcache.errors import BudgetExceeded, ConfigurationError, SemcacheError
    from semcache.flow import Explanation
    from semcache.keys import Difference
    from semcache.money.budgets import Budget, BudgetState
    from semcache.money.ledger import Ledger
    from semcache.money.prices import Prices
    from semcache.options import Options
    from semcache.policy import Policy
    from semcache.served import last_outcome
    from semcache.types import Decision, Event, Outcome, Request, Usage

_HOME = {
    "AsyncSemanticCache": "cache",
    "Budget": "money.budgets",
    "BudgetExceeded": "errors",
    "BudgetState": "money.budgets",
    "CacheStats": "cache",
    "ConfigurationError": "errors",
    "Decision": "types",
    "Difference": "keys",
    "Event": "types",
    "Explanation": "flow",
    "Ledger": "money.ledger",
    "Lookup": "cache",
    "Options": "options",
    "Outcome": "types",
    "Policy": "policy",
    "Prices": "money.prices",
    "Request": "types",
    "SemanticCache": "cache",
    "SemcacheError": "errors",
    "Usage": "types",
    "last_outcome": "served",
}

__all__ = [
    "AsyncSemanticCache",
    "Budget",
    "BudgetExceeded",
    "BudgetState",
    "CacheStats",
    "ConfigurationError",
    "Decision",
    "Difference",
    "Event",
    "Explanation",
    "Ledger",
    "Lookup",
    "Options",
    "Outcome",
    "Policy",
    "Prices",
    "Request",
    "SemanticCache",
    "SemcacheError",
    "Usage",
    "__version__",
    "last_outcome",
]


def __getattr__(name: str) -> Any:
    # Names are imported on first use: a command line tool that only wants the version should not pay for the rest.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
