"""Plans each miss for the provider's prompt cache, and holds what was expected against what the provider says."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final

import orjson
import xxhash

from semcache.prompt_cache import (
    annotate,
    find_rules,
    head_of,
    names_marks,
    note,
    outline,
    places,
    plan,
    seen,
    thread_of,
)
from semcache.prompt_cache.changes import what_changed
from semcache.prompt_cache.history import pool_id
from semcache.prompt_cache.planner import CHARS_PER_TOKEN
from semcache.prompt_cache.rules import SECONDS
from semcache.shared_history import SharedHistory
from semcache.steps import Marked
from semcache.types import Event, Mark, Marks

if TYPE_CHECKING:
    from semcache.prompt_cache import Outline, Rules
    from semcache.stores.base import Store
    from semcache.types import Prompt, Usage

_MODELS: Final = 256
"""Models that are remembered: their names are the callers' to choose."""
_OUTLINES: Final = 512
"""Prompts of hits whose outline is kept."""
_HEADS: Final = 4
"""Recent heads of one model that a new one is compared with."""
_QUIET_S: Final = 3600.0
"""Seconds between two warnings of one kind about one model, and for which it gets no marks after it refused some."""
_LEARN: Final = 0.2


@dataclass(slots=True)
class _Known:
    """What is remembered of one model.

    Args:
        heads: When the last ones were sent, and what they were.
        told: When it was warned of, by kind.
        warm_until: When the last mark made here will have run out.
        taken: When the provider last took marks, by their :func:`~semcache.prompt_cache.places`.
        refused_at: When it last refused some.
    """

    chars_per_token: float | None = None
    heads: OrderedDict[int, tuple[float, list[Any]]] = field(default_factory=OrderedDict)
    told: dict[str, float] = field(default_factory=dict)
    warm_until: float = 0.0
    taken: dict[tuple[str, ...], float] = field(default_factory=dict)
    refused_at: float = -inf

    def may_tell(self, kind: str, now: float) -> bool:
        return now - self.told.get(kind, -_QUIET_S) >= _QUIET_S

    def learn(self, chars_per_token: float) -> None:
        known = self.chars_per_token or chars_per_token
        self.chars_per_token = min(max(known + _LEARN * (chars_per_token - known), 0.5), 16.0)


class Marker:
    """The planner of one cache, with what it remembers. Safe for threads.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, store: Store, emit: Callable[[Event], None], clock: Callable[[], float]) -> None:
        self._emit = emit
        self._clock = clock
        # Else whoever reads an encrypted store could confirm a guessed prompt by its hash.
        self._salt = (getattr(store, "mask_key", None) or b"").hex()
        self.shared = SharedHistory(store, emit)
        self._models: OrderedDict[str, _Known] = OrderedDict()
        self._outlines: OrderedDict[tuple[str, bytes], Outline | None] = OrderedDict()

    def after_fork(self) -> None:
        self.shared.after_fork()

    def forget(self) -> None:
        """Forget all prompts, here and in the store.

        Raises:
            StoreError: The store cannot be read or written.
        """
        with self.shared.lock:
            self._models.clear()
            self._outlines.clear()
        self.shared.forget()

    def close(self) -> None:
        self.shared.close()

    def mark(self, prompt: Prompt, tenant: str | None) -> Marked | None:
        """Decide on a prompt that is about to be sent; ``None`` where no prompt cache is known, or it refuses marks.

        Never raises: trouble is an event, and the prompt is sent as it is.
        """
        try:
            rules = find_rules(prompt.api, prompt.host, prompt.model, vendor=prompt.provider)
            if rules is None:
                return None
            known = self._models.get(_model(prompt, rules))
            if known is not None and self._clock() - known.refused_at < _QUIET_S:
                return None
            return self._mark(prompt, rules, tenant)
        except Exception as error:
            self._emit(Event("prompt_cache_error", f"a prompt was not planned, and is sent as it is: {error}", error))
            return None

    def expected(self, prompt: Prompt) -> int | None:
        """Tokens of a prompt that is not sent which the provider should have read; ``None`` if it cannot be told."""
        try:
            rules = find_rules(prompt.api, prompt.host, prompt.model, vendor=prompt.provider)
            if rules is None or not rules.writes:
                return None
            now, model = self._clock(), _model(prompt, rules)
            known = self._models.get(model)
            if known is None or known.warm_until < now:
                return None  # nothing was marked here of late; a hit is not held up to find what others marked
            sketch = self._outline_of_hit(prompt, self._partition(prompt, rules))
            if sketch is None or sketch.marked:
                return None
            with self.shared.lock:
                return self._warm_tokens(sketch, known.chars_per_token or CHARS_PER_TOKEN, now)
        except Exception as error:
            self._emit(Event("prompt_cache_error", f"what a provider's cache would do was not told: {error}", error))
            return None

    def _outline_of_hit(self, prompt: Prompt, partition: str) -> Outline | None:
        """What hits comes again and again: it is taken apart once, and known by a hash of its bytes after that."""
        try:
            key = partition, xxhash.xxh3_128_digest(orjson.dumps(prompt.body))
        except TypeError:  # integers beyond 64 bits, half a surrogate pair
            return outline(prompt.api, prompt.body, partition=partition)
        with self.shared.lock:
            if key in self._outlines:
                self._outlines.move_to_end(key)
                return self._outlines[key]
        sketch = outline(prompt.api, prompt.body, partition=partition)
        with self.shared.lock:
            self._outlines[key] = sketch
            if len(self._outlines) > _OUTLINES:
                self._outlines.popitem(last=False)
        return sketch

    def reconcile(self, marked: Marked, usage: Usage | None) -> None:
        """The provider has answered a prompt, and says what it read and wrote. Never raises."""
        try:
            self._reconcile(marked, usage)
        except Exception as error:
            self._emit(Event("prompt_cache_error", f"what a provider's cache did was not counted: {error}", error))

    def refused(self, marked: Marked, said: str) -> bool:
        """The provider will not have a prompt with these marks, and says why; whether they are why.

        A deployment may know less of them than the rules of its vendor say. Where the error does not tell, and no marks
        in these places were taken of late, they may be why: the next prompts get none.
        """
        named = names_marks(said, marked.plan, marked.body or {})
        with self.shared.lock:
            known = self._known(marked.model)
            taken_at = min(known.taken.get(place, -inf) for place in places(marked.plan))
            doubtful = named or marked.at - taken_at >= _QUIET_S
            if doubtful:
                known.refused_at = marked.at
        if doubtful:
            what = "cache points were refused" if named else "a prompt was refused, perhaps for its cache points"
            self._emit(Event("prompt_cache_error", f"{marked.model}: {what}; it gets none for the next hour"))
        return named

    # Before the call ----------------------------------------------------------------------------------------------

    def _mark(self, prompt: Prompt, rules: Rules, tenant: str | None) -> Marked:
        model, now = _model(prompt, rules), self._clock()
        sketch = outline(prompt.api, prompt.body, partition=self._partition(prompt, rules))
        changed = "" if sketch is None else self._surprise(model, prompt, rules, sketch, now)
        with self.shared.lock:
            if sketch is not None:
                if _has_key(prompt, rules) and sketch.head is not None:
                    thread = thread_of(prompt.api, prompt.body)
                    sketch = _of_shard(sketch, self.shared.send(sketch.head, thread, now))
                self.shared.history.see(seen(sketch), now)
                self.shared.touch(boundary.prefix for boundary in sketch.boundaries)
                self.shared.touch(pool_id(kind) for kind in {boundary.kind for boundary in sketch.boundaries})
            ratio = self._known(model).chars_per_token or CHARS_PER_TOKEN
            decided = plan(sketch, rules, self.shared.history, now, tenant=tenant, chars_per_token=ratio)
            expected = 0
            if sketch is not None and decided.points:  # without a mark nothing is read
                expected = self._warm_tokens(sketch, ratio, now, reach=decided.points[-1].boundary.chars)
        self.shared.sync_soon()
        if changed:
            message = f"{model}: a prompt like one of a moment ago is new to the provider's cache: {changed}"
            self._emit(Event("prompt_cache_cold", message))
        points = tuple(Mark(point.ttl, round(point.boundary.chars / ratio)) for point in decided.points)
        body = annotate(prompt.body, decided)
        return Marked(
            None if body == prompt.body else body,
            Marks(points, decided.reason),
            model,
            decided,
            sketch.head if sketch is not None and expected else None,
            expected,
            now,
        )

    def _warm_tokens(self, sketch: Outline, ratio: float, now: float, reach: float = inf) -> int:
        """Tokens of the longest prefix of up to ``reach`` characters that the provider should have."""
        for boundary in reversed(sketch.boundaries):
            if boundary.chars <= reach and self.shared.history.warm(boundary.prefix, now) is not None:
                return round(boundary.chars / ratio)
        return 0

    def _surprise(self, model: str, prompt: Prompt, rules: Rules, sketch: Outline, now: float) -> str:
        """What changed in a head that was sent a moment ago, and that the provider would else have read again."""
        chars = max((boundary.chars for boundary in sketch.boundaries if boundary.kind == "head"), default=0)
        if sketch.head is None or chars < rules.minimum * CHARS_PER_TOKEN:
            return ""
        with self.shared.lock:
            known = self._known(model)
            if not known.may_tell("changed", now):
                return ""
            _, head = known.heads.pop(sketch.head, (0.0, None))
            others = []
            if head is None:
                head = head_of(prompt.api, prompt.body)
                others = [old for at, old in known.heads.values() if now - at < _LEAST_S]
            known.heads[sketch.head] = now, head
            if len(known.heads) > _HEADS:
                known.heads.popitem(last=False)
        changed = next((said for old in reversed(others) if (said := what_changed(old, head))), "")
        if changed:
            known.told["changed"] = now
        return changed

    # After it -----------------------------------------------------------------------------------------------------

    def _reconcile(self, marked: Marked, usage: Usage | None) -> None:
        points, expected = marked.plan.points, marked.expected
        read, written = (0, 0) if usage is None else (usage.cache_read_tokens, usage.cache_write_tokens)
        cold = read < expected / 2
        with self.shared.lock:
            known = self._known(marked.model)
            if usage is None or read or written:  # else the provider took no notice of the marks: too short a prefix
                note(marked.plan, self.shared.history, marked.at)
                self.shared.touch(point.boundary.prefix for point in points)
                for point in points:
                    known.warm_until = max(known.warm_until, marked.at + SECONDS[point.ttl])
            if marked.body is not None:
                known.taken.update(dict.fromkeys(places(marked.plan), marked.at))
            if usage is None:
                return
            if points and read + written:
                known.learn(points[-1].boundary.chars / (read + written))
            counts = {"expected": expected, "read": read, "written": written, "cold": int(cold)}
            counts |= {"calls": 1, "marked": int(bool(points))}
            self.shared.count(marked.model, None, counts)
            if marked.head is not None:
                self.shared.count(marked.model, marked.head, counts)
        if cold and known.may_tell("cold", marked.at):
            known.told["cold"] = marked.at
            message = (
                f"{marked.model}: about {expected:,} tokens should have been read from the provider's cache, and "
                f"{read:,} were, though nothing in that prefix had changed: it was dropped early, or kept by another "
                "account or machine"
            )
            self._emit(Event("prompt_cache_cold", message))

    def _partition(self, prompt: Prompt, rules: Rules) -> str:
        # Tenants are not kept apart: the provider's cache belongs to the account that they share.
        return f"{rules.vendor} {prompt.host} {prompt.model} {self._salt}"

    def _known(self, model: str) -> _Known:
        """To be called under the lock."""
        known = self._models.setdefault(model, _Known())
        self._models.move_to_end(model)
        if len(self._models) > _MODELS:
            self._models.popitem(last=False)
        return known


_LEAST_S: Final = min(SECONDS.values())


def _model(prompt: Prompt, rules: Rules) -> str:
    return f"{rules.vendor}/{prompt.model}"


def _has_key(prompt: Prompt, rules: Rules) -> bool:
    """Whether it is sent with a ``prompt_cache_key`` of ours."""
    return rules.style in ("breakpoints", "key") and "prompt_cache_key" not in prompt.body


def _of_shard(sketch: Outline, shard: int) -> Outline:
    """The same prefixes as they are known under another key, where the provider keeps them once more."""
    if shard == 0:
        return sketch

    def moved(prefix: int) -> int:
        return int(xxhash.xxh3_64_intdigest(b"%x|%d" % (prefix, shard)))

    boundaries = tuple(b._replace(prefix=moved(b.prefix)) for b in sketch.boundaries)
    return sketch._replace(boundaries=boundaries, head=None if sketch.head is None else moved(sketch.head))
