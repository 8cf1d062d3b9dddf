"""What the manual methods of a cache take, as the records that the cache works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from semcache.errors import ConfigurationError
from semcache.messages import is_messages, split_last_user_text
from semcache.types import Outcome, Reply, Request, Usage

if TYPE_CHECKING:
    from semcache.stores.base import Selector

Asked = Request | Outcome | str | Sequence[Mapping[str, Any]]
"""A request, an outcome that carries one, a prompt, or a list of messages."""


def as_request(asked: Asked) -> Request:
    """A request from what the manual API takes."""
    if isinstance(asked, Request):
        return asked
    if isinstance(asked, Outcome):
        if asked.request is None:
            raise ConfigurationError("this outcome carries no request")
        return asked.request
    if isinstance(asked, str):
        return Request("manual", {}, asked)
    if is_messages(asked):
        split = split_last_user_text(asked)
        return Request("manual", {"messages": split.messages}, split.text, exact_only=split.exact_only or None)
    raise ConfigurationError(
        f"a request is a Request, an Outcome, a string, or a list of messages, not {type(asked).__qualname__}"
    )


def as_reply(response: Any, usage: Usage | None) -> Reply:
    """A reply from what was got elsewhere.

    Raises:
        ConfigurationError: It is not JSON-like.
    """
    try:
        return Reply(response, orjson.dumps(response), usage)
    except orjson.JSONEncodeError as error:
        raise ConfigurationError(f"a response must be JSON-like: {error}") from error


def served_by(outcome: Outcome) -> int:
    """The entry that answered a call.

    Raises:
        ConfigurationError: None did.
    """
    if outcome.status not in ("hit", "stale") or outcome.entry_id is None:
        raise ConfigurationError(f"only an answer that the cache served can be reported, not a {outcome.status}")
    return outcome.entry_id


def as_selector(
    id: int | None, tag: str | None, namespace: str | None, tenant: str | None, scope: int | None, everything: bool
) -> Selector:
    """A selector by the arguments of ``invalidate``."""
    from semcache.stores.base import Selector

    return Selector(
        ids=None if id is None else (id,),
        tag=tag,
        namespace=namespace,
        tenant=tenant,
        scope_id=scope,
        everything=everything,
    )
