"""What a log would allow: repeats that any cache could answer, and those that its scopes keep apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from semcache.context import user_turns
from semcache.guards.time_bound import time_bound
from semcache.tuning.replay import request_of

if TYPE_CHECKING:
    from semcache.tuning.logs import LogRecord

_MISSING: Final = object()


@dataclass(frozen=True)
class Headroom:
    """Requests that an earlier one of the log could answer: what no cache that serves right answers can exceed.

    Entries never expire here; what the cache of a replay really held is in the replay.

    Args:
        requests: All of them.
        labelled: Those with an answer class.
        repeats: Requests of which an earlier one has the same text in the same scope: the exact tier's part.
        same_scope: Labelled requests of which an earlier one in the same scope has the class.
        any_scope: The same, whatever the scope.
        about_now: Requests about now ("the weather today"), whose answers live for ``Policy.time_bound_ttl`` at most.
    """

    requests: int
    labelled: int
    repeats: int
    same_scope: int
    any_scope: int
    about_now: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. Shares of nothing are ``None``."""
        return {
            "exact_repeats": self.repeats,
            "exact_repeat_rate": _share(self.repeats, self.requests),
            "answerable": self.same_scope if self.labelled else None,
            "answerable_rate": _share(self.same_scope, self.labelled),
            "answerable_without_scopes_rate": _share(self.any_scope, self.labelled),
            "about_now": self.about_now,
            "about_now_rate": _share(self.about_now, self.requests),
        }


@dataclass(frozen=True)
class Scopes:
    """How a log falls apart into scopes, which share no answers.

    Args:
        count: Scopes.
        largest: Requests of the largest.
        alone: Requests that are the only one of their scope, and so can never hit.
        requests: All requests.
        without: For each field of the scope that varies, by effect: how many scopes there were without it.
    """

    count: int
    largest: int
    alone: int
    requests: int
    without: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "count": self.count,
            "largest": self.largest,
            "largest_share": _share(self.largest, self.requests),
            "alone": self.alone,
            "alone_share": _share(self.alone, self.requests),
            "without_field": self.without,
        }


def survey(records: Sequence[LogRecord]) -> tuple[Headroom, Scopes]:
    """Both, from one reading of the log in its order."""
    names: set[str] = set()
    scopes: list[dict[str, bytes]] = []
    texts: list[str | None] = []
    about_now = 0
    for record in records:
        request = request_of(record)
        about_now += any(map(time_bound, user_turns(request)))
        scopes.append({"namespace": orjson.dumps(record.namespace), **_fields(request.scope)})
        names.update(scopes[-1])
        texts.append(request.text)
    whole = [tuple(sorted(scope.items())) for scope in scopes]
    labels = [record.label for record in records]
    headroom = Headroom(
        requests=len(records),
        labelled=sum(label is not None for label in labels),
        repeats=_repeats(zip(whole, texts, strict=True)),
        same_scope=_repeats((scope, label) for scope, label in zip(whole, labels, strict=True) if label is not None),
        any_scope=_repeats(label for label in labels if label is not None),
        about_now=about_now,
    )
    return headroom, _scopes(scopes, whole, sorted(names))


def _fields(scope: Mapping[str, Any]) -> dict[str, bytes]:
    """The fields of a scope; those of the body one by one."""
    body = scope.get("body")
    flat = {**scope, **body} if isinstance(body, Mapping) else scope
    return {
        name: orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        for name, value in flat.items()
        if name != "body" or flat is scope
    }


def _scopes(scopes: Sequence[dict[str, bytes]], whole: Sequence[Hashable], names: Iterable[str]) -> Scopes:
    sizes = Counter(whole)
    kinds: dict[Hashable, dict[str, bytes]] = dict(zip(whole, scopes, strict=True))
    without: dict[str, int] = {}
    for name in names:
        if len({scope.get(name, _MISSING) for scope in kinds.values()}) > 1:
            without[name] = len({tuple(sorted(i for i in scope.items() if i[0] != name)) for scope in kinds.values()})
    return Scopes(
        count=len(sizes),
        largest=max(sizes.values(), default=0),
        alone=sum(1 for size in sizes.values() if size == 1),
        requests=len(whole),
        without=dict(sorted(without.items(), key=lambda item: item[1])),
    )


def _repeats(items: Iterable[Hashable]) -> int:
    counts = Counter(items)
    return counts.total() - len(counts)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
