"""Several policies on one log: each is replayed as a whole, on vectors that are made once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from semcache.tuning.baselines import BaselineCount, BaselineRun, StaticThreshold, best_within
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
        policy = self.policy
        return {
            "name": self.name,
            "threshold": policy.threshold,
            "min_probability": policy.min_probability,
            "answers": policy.answers,
            **{name: figures[name] for name in kept},
        }


def sweep_steps(text: str) -> tuple[float, ...]:
    """Values from ``LOW:HIGH:STEP``, both ends included.

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


def swept(policy: Policy, thresholds: Sequence[float] = (), probabilities: Sequence[float] = ()) -> dict[str, Policy]:
    """A policy at each threshold, or with each least probability, or with every pair of both; all else as it is."""
    found: dict[str, Policy] = {}
    for threshold, probability in product(thresholds or (None,), probabilities or (None,)):
        rules = {"threshold": threshold, "min_probability": probability}
        set_ = {name: value for name, value in rules.items() if value is not None}
        if set_:
            name = ", ".join(f"{name.removeprefix('min_')} {value:g}" for name, value in set_.items())
            found[name] = everywhere(policy, **set_)
    return found


class Best(NamedTuple):
    """What hits most among all that was replayed and kept a false-hit rate. Picked on the log itself, both sides alike.

    Args:
        false_hit_rate: The greatest one allowed.
        policy: ``None`` if none keeps it.
        cosine: The same of the cosine thresholds without guards; ``None`` if none keeps it, or none was played.
    """

    false_hit_rate: float
    policy: Compared | None
    cosine: BaselineCount | None

    @classmethod
    def within(cls, rate: float, policies: Iterable[Compared], baselines: BaselineRun | None) -> Best:
        """The best of both at a false-hit rate, as observed."""
        kept = [
            (one.replay.report.labelled_hits, -place, one)
            for place, one in enumerate(policies)
            if one.replay.report.labelled_hits
            and one.replay.report.wrong_hits <= rate * one.replay.report.labelled_hits
        ]
        cosines = [] if baselines is None else [one for one in baselines.counts if one.family == StaticThreshold.family]
        return cls(rate, max(kept)[2] if kept else None, best_within(cosines, rate))

    @property
    def hit_rate(self) -> float | None:
        """That of the policy, of labelled requests; ``None`` if no policy keeps the rate."""
        if self.policy is None:
            return None
        report = self.policy.replay.report
        return report.labelled_hits / report.labelled

    @property
    def ratio(self) -> float | None:
        """Hits of the policy for one of plain cosine."""
        if self.hit_rate is None or self.cosine is None:
            return None
        return self.hit_rate * self.cosine.count.requests / self.cosine.count.hits

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "max_false_hit_rate": self.false_hit_rate,
            "policy": None if self.policy is None else self.policy.name,
            "hit_rate": self.hit_rate,
            "cosine": None if self.cosine is None else self.cosine.to_dict(),
            "ratio": self.ratio,
        }


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
