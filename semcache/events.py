"""The closed set of event kinds, and how hooks are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from semcache.types import Event, Outcome

EVENT_KINDS: Final = frozenset(
    {
        "store_error",  # a store failed or ran over its budget
        "store_open",  # its breaker opened: the cache works without it for a while
        "embedder_error",  # the embedder failed or ran over its budget
        "index_error",  # the vector index failed
        "index_rebuilt",  # a snapshot was missing, old or damaged
        "rewrite_error",  # the callable that makes questions stand alone failed
        "judging_error",  # a guard or the scoring raised: nothing was served by meaning
        "verifier_error",  # the verifier failed or was late
        "entry_damaged",  # stored bytes that cannot be read; removed
        "entry_locked",  # encrypted with a key that this process was not given; left as it is
        "collision",  # two requests with one hash: an accident or an attack
        "uncanonical",  # a request without canonical form
        "unstorable",  # an answer that cannot be represented
        "hook_error",  # a user's hook raised
        "audit_error",  # an audit's call or judge failed
        "semantic_off",  # audits have shown a broken budget: the semantic tier of a namespace is off
        "semantic_on",  # it serves again
        "schema_mismatch",  # a stored answer was not served: it does not keep to the JSON schema asked for
        "served_stale",  # the upstream failed, and an expired answer was served
        "prompt_cache_error",  # a prompt was not planned for the provider's cache; it was sent as it is
        "prompt_cache_cold",  # the provider's cache should have held a prefix, and did not
        "budget",  # 50, 80 or 100 % of a day's budget are spent, or calls cannot be counted in it
        "request_log_error",  # the log of questions could not be written; the cache goes on without it
        "ledger_error",  # counters could not be written; they are kept and tried again
    }
)

Hook = Callable[[Outcome], None]
EventHook = Callable[[Event], None]

logger = logging.getLogger("semcache")


def emit(hooks: Iterable[EventHook], event: Event) -> None:
    """Log an event and hand it to the hooks. A hook that raises is logged and changes nothing."""
    assert event.kind in EVENT_KINDS, event.kind
    logger.warning("%s: %s", event.kind, event.message)
    for hook in hooks:
        try:
            hook(event)
        except Exception:
            logger.exception("an event hook failed on %s", event.kind)
