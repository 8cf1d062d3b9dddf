"""Several policies on one log: each is replayed as a whole, on vectors that are made once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semcache.tuning.replay import Progress, Replay, replay, replay_cache
from semcache.tuning.scoring import everywhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from semcache.embedders import Embedder
    from semcache.policy import Policy
    from semcache.tuning.logs import LogRecord
    from semcache.types import Event

_MOST_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Compared:
    """A policy and its replay. About half a kilobyte a request."""

    name: str
    policy: Policy
    replay: Replay

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: what is worth comparing."""
        figures = self.replay.to_dict()
        kept = (
            "requests",
            "hits",
            "exact_hits",
            "semantic_hits",
            "hit_rate",
            "labelled",
            "labelled_hits",
            "wrong_hits",
            "false_hit_rate",
            "false_hit_rate_ci95",
            "unsafe_served_rate",
            "unsafe_served_rate_ci95",
            "tokens_saved",
            "usd_saved",
            "latency_saved_s",
        )
        return {"name": self.name, "threshold": self.policy.threshold, **{name: figures[name] for name in kept}}


def sweep_steps(text: str) -> tuple[float, ...]:
    """Thresholds from ``LOW:HIGH:STEP``, both ends included.

    Raises:
        ValueError: It is not of that form, or not within -1 and 1, or has more than a thousand steps.
    """
    try:
        low, high, step = (float(part) for part in text.split(":"))
    except ValueError:
        raise ValueError(f"{text!r} is not LOW:HIGH:STEP, like 0.80:0.99:0.01") from None
    if not (-1.0 <= low <= high <= 1.0 and step > 0.0 and (high - low) / step < _MOST_STEPS):
        raise ValueError(f"{text!r} must go up from LOW to HIGH within -1 and 1, in at most {_MOST_STEPS} steps")
    return tuple(round(low + step * n, 6) for n in range(int((high - low) / step + 1e-9) + 1))


def swept(policy: Policy, thresholds: Sequence[float]) -> dict[str, Policy]:
    """A policy at each threshold, everything else as it is, by name."""
    return {f"threshold {threshold:g}": everywhere(policy, threshold=threshold) for threshold in thresholds}


def compare(
    policies: Mapping[str, Policy],
    records: Sequence[LogRecord],
    embedder: Embedder | None,
    *,
    max_entries: int | None = None,
    on_event: Callable[[Event], None] | None = None,
    progress: Progress = lambda phase, done: None,
) -> Iterator[Compared]:
    """Replay the records under each policy, from an empty cache each time.

    Args:
        embedder: Should remember vectors, as :class:`~semcache.tuning.remembered.Remembered` does. ``None`` takes the
            installed one where a policy needs it.
        max_entries: Capacity of the cache; ``None`` for no bound.

    Raises:
        ConfigurationError: A policy was made for another embedder.
    """
    for name, policy in policies.items():
        with replay_cache(policy, embedder=embedder, max_entries=max_entries, on_event=on_event) as cache:
            yield Compared(name, policy, replay(cache, records, progress))
