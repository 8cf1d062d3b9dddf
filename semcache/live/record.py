"""What is known of a namespace and of its entries, as plain counters that processes add to. Pure.

The name of a counter is ``live1|namespace|field``, or ``live1|namespace|e|entry|right`` and ``…|wrong`` for the record
of one entry (its id in hexadecimal). Namespaces beyond a bound share one record. Audits are counted by *epoch*: an
epoch begins when a namespace is first audited or when its semantic tier is switched on again, since a bet that has been
won cannot be held twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from semcache.live.anytime import interval

PREFIX: Final = "live1|"
"""Start of every counter's name; the number is the version of the encoding."""

OTHERS: Final = "*"
"""Under this name stands the one record of all namespaces that have none of their own."""

BAR: Final = 0.25
"""An entry whose expected rate of wrong hits is above it no longer answers by meaning."""

MAX_SLACK: Final = 0.02
"""How far below the threshold an entry with the best of records may answer, cosine."""

CONFIRMED: Final = 10
"""Right verdicts from which on an entry may answer a little below the threshold."""

_OWN_WEIGHT: Final = 4.0
"""What the namespace says of an entry weighs as much as so many verdicts on the entry itself."""

_FIRST_GUESS: Final = (1.0, 50.0)
"""Wrong ones among so many verdicts: what is thought of a namespace before anything is known of it."""


class Verdicts(NamedTuple):
    """How often an entry was found right and wrong for a question that it answered by meaning."""

    right: int = 0
    wrong: int = 0

    def plus(self, other: Verdicts) -> Verdicts:
        return Verdicts(self.right + other.right, self.wrong + other.wrong)

    @property
    def weight(self) -> tuple[int, int]:
        """What is lost with this record: the least is forgotten first."""
        return self.wrong, self.right


@dataclass(frozen=True)
class Standing:
    """How one namespace stands.

    Args:
        audited: Audited hits of this epoch that the judge found right or wrong.
        wrong: Those that it found wrong.
        off: Whether the semantic tier is switched off: the audits have shown a broken budget.
        clean: While it is off, would-be hits found right in a row.
        unknown: Audits of all epochs of which the judge could not tell.
        agreed: Audits of all epochs that found an equal answer, in caches without a judge of their own.
        failed: Audits of all epochs whose call or judge raised.
        dropped: Audits of all epochs that found the queue full.
        reported_right: What ``report_right`` was told.
        reported_wrong: What ``report_wrong`` was told.
    """

    audited: int = 0
    wrong: int = 0
    off: bool = False
    clean: int = 0
    unknown: int = 0
    agreed: int = 0
    failed: int = 0
    dropped: int = 0
    reported_right: int = 0
    reported_wrong: int = 0

    @property
    def false_hit_rate(self) -> float | None:
        """Share of wrong ones among the audited semantic hits; ``None`` without any."""
        return self.wrong / self.audited if self.audited else None

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Bounds of the true rate that hold at all times at once; ``None`` while nothing was audited."""
        return interval(self.audited, self.wrong, confidence) if self.audited else None

    @property
    def reason(self) -> str:
        """Why the semantic tier is off; empty if it is on."""
        if not self.off:
            return ""
        return f"semantic tier off: {self.wrong:,} of {self.audited:,} audited hits were wrong"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. The keys are stable."""
        bounds = self.interval()
        return {**asdict(self), "false_hit_rate": self.false_hit_rate, "false_hit_rate_cs95": bounds and list(bounds)}


@dataclass
class Record:
    """The counters of one namespace; ``total`` is the sum over ``entries``."""

    counts: dict[str, int] = field(default_factory=dict)
    entries: dict[int, Verdicts] = field(default_factory=dict)
    total: Verdicts = field(default_factory=Verdicts)

    def add(self, name: str, value: int) -> None:
        """Add to one counter; ``name`` is what follows the namespace."""
        head, _, rest = name.partition("|")
        if head != "e":
            self.counts[name] = self.counts.get(name, 0) + value
            return
        id, _, which = rest.partition("|")
        more = Verdicts(right=value) if which == "right" else Verdicts(wrong=value)
        self.entries[int(id, 16)] = self.entries.get(int(id, 16), Verdicts()).plus(more)
        self.total = self.total.plus(more)

    @property
    def epoch(self) -> int:
        """How often the tier has been switched on again. Two processes that do so at once count as one."""
        epoch = 0
        while self.counts.get(f"resumed.{epoch}", 0) > 0:
            epoch += 1
        return epoch

    @property
    def standing(self) -> Standing:
        epoch = self.epoch
        lasting = ("unknown", "agreed", "failed", "dropped", "reported_right", "reported_wrong")
        return Standing(
            audited=self.counts.get(f"audited.{epoch}", 0),
            wrong=self.counts.get(f"wrong.{epoch}", 0),
            off=self.counts.get(f"off.{epoch}", 0) > 0,
            clean=max(0, self.counts.get(f"clean.{epoch}", 0)),
            **{name: self.counts.get(name, 0) for name in lasting},
        )

    @property
    def expected_wrong(self) -> float:
        """The rate of wrong hits expected of an entry of which nothing is known."""
        return (self.total.wrong + _FIRST_GUESS[0]) / (sum(self.total) + _FIRST_GUESS[1])


class Weight(NamedTuple):
    """What an entry's own record means for its next hit.

    Args:
        barred: It no longer answers by meaning.
        slack: How far below the threshold it may answer, cosine, at most ``MAX_SLACK``.
    """

    barred: bool = False
    slack: float = 0.0


def weigh(verdicts: Verdicts, expected: float) -> Weight:
    """An entry's own record on top of its namespace's.

    Empirical Bayes with a Beta prior: the entry begins as the namespace's mean, with the weight of ``_OWN_WEIGHT``
    verdicts, and its own verdicts are added. One wrong verdict of a new entry, in a namespace that is wrong in 2 % of
    hits, makes 0.22; two make 0.35.

    Args:
        expected: The namespace's rate of wrong hits, in (0, 1).
    """
    right, wrong = max(0, verdicts.right), max(0, verdicts.wrong)  # a report taken back may outlive its record
    mean = (_OWN_WEIGHT * expected + wrong) / (_OWN_WEIGHT + right + wrong)
    if wrong and mean > BAR:
        return Weight(barred=True)
    if right < CONFIRMED:
        return Weight()
    return Weight(slack=MAX_SLACK * max(0.0, 1.0 - mean / expected))


def counter(namespace: str, name: str) -> str:
    """The full name of a counter."""
    return f"{PREFIX}{quote(namespace, safe='', errors='replace')}|{name}"


def entry_counters(namespace: str, ids: Iterable[int]) -> Iterator[str]:
    """The names of all counters of some entries."""
    for id in ids:
        for which in Verdicts._fields:
            yield counter(namespace, f"e|{id:x}|{which}")


def decode(counters: Mapping[str, int]) -> dict[str, Record]:
    """The records that counters make, by namespace."""
    records: dict[str, Record] = {}
    for full, value in counters.items():
        quoted, _, name = full.removeprefix(PREFIX).partition("|")
        record = records.get(quoted)
        if record is None:
            record = records[quoted] = Record()
        record.add(name, value)
    return {unquote(quoted): record for quoted, record in records.items()}
