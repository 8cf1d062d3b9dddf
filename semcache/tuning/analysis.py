"""All that a replay command learns of a log, in one record: what the reports are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from semcache.tuning.compare import Best
from semcache.tuning.findings import findings

if TYPE_CHECKING:
    from semcache.tuning.baselines import BaselineRun
    from semcache.tuning.compare import Compared
    from semcache.tuning.headroom import Headroom, Scopes
    from semcache.tuning.replay import Replay


FALSE_HIT_RATES: Final = (0.01, 0.02, 0.05)
"""At which the best are told."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is known of a log.

    Args:
        logs: Names of the files.
        policies: At least one; the first is the one that is reported in full.
        baselines: ``None`` where they were not asked for.
    """

    logs: Sequence[str]
    policies: Sequence[Compared]
    headroom: Headroom
    scopes: Scopes
    baselines: BaselineRun | None = None

    @property
    def replay(self) -> Replay:
        """That of the first policy."""
        return self.policies[0].replay

    @property
    def best(self) -> list[Best]:
        """What hits most at each of :data:`FALSE_HIT_RATES`; nothing where only one thing was played."""
        if self.baselines is None and len(self.policies) < 2:
            return []
        return [Best.within(rate, self.policies, self.baselines) for rate in FALSE_HIT_RATES]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the keys of :class:`~semcache.tuning.replay.Replay`, which are stable, and more."""
        return {
            **self.replay.to_dict(),
            **findings(self.replay),
            "headroom": self.headroom.to_dict(),
            "scopes": self.scopes.to_dict(),
            "policies": [one.to_dict() for one in self.policies],
            "best": [one.to_dict() for one in self.best],
            "baselines": None if self.baselines is None else [one.to_dict() for one in self.baselines.counts],
        }
