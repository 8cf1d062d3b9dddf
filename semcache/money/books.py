"""The books: counts, tokens and money of a set of calls.

Every call is in the books once, under one of seven headings: exact hit, semantic hit, stale, collapsed, miss, bypass,
refused (by a budget). Its tokens and money are in one line:

- *exact*, *semantic*, *stale*, *collapsed*: the call was spared (by another caller's in flight, if collapsed). Money is
  what it would have cost at that moment, the discount of the provider's prompt cache taken off;
- *spent*: the provider was called (miss, bypass). Money is what that cost.

Two lines tell what the provider's prompt cache did to the calls in *spent*, against their list price: *reads* saved so
much, *writes* cost a premium, so their money is negative. Three are what the cache itself had to pay for: *embedding*,
*verifier*, *audit* (calls in the background that check answers). So with all calls priced, to the micro-dollar,

    paid (spent + embedding + verifier + audit) + net saved = without the cache

where *net saved* is the lines of spared calls, reads and writes less the three, and *without the cache* is the list
price of the calls made and what the spared ones would have cost. The line *shadow* stands beside all this: what hits
that were found and withheld would have saved (their calls are booked as the misses they were).

A call whose usage or price is unknown counts as *unpriced* in its line, and money of a line that holds nothing else is
``None``, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from semcache.types import Outcome, Usage, WouldServe

if TYPE_CHECKING:
    from semcache.money.prices import ModelPrice

Overhead = Literal["embedding", "verifier", "audit"]
"""What the cache itself pays for."""

_COUNTS: Final = ("misses", "refused", "stored", "latency_saved_ms", "shadow_exact_hits", "shadow_semantic_hits")
_HITS: Final = ("exact", "semantic", "stale")
_SPARED: Final = (*_HITS, "collapsed")
_PROMPT_CACHE: Final = ("reads", "writes")
_OVERHEAD: Final = ("embedding", "verifier", "audit")
_LINES: Final = (*_SPARED, "spent", *_PROMPT_CACHE, *_OVERHEAD, "shadow")
_TALLIES: Final = ("bypass", "priced")
_NAMES_KEPT: Final = 64


class _Told:
    """Shows only what is not nothing: of dozens of counts most are."""

    __slots__ = ()

    def __repr__(self) -> str:
        values = ((spec.name, getattr(self, spec.name)) for spec in fields(self))  # type: ignore[arg-type]
        told = (f"{name}={value!r}" for name, value in values if value not in (0, {}, Line()))
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(slots=True, repr=False)
class Line(_Told):
    """Calls with their tokens and money.

    Args:
        calls: How many calls.
        tokens: Input and output tokens of the calls whose usage is known.
        unmetered: How many of ``calls`` are not in ``tokens``.
        estimated: How many of ``calls`` are in ``tokens`` by an estimate (:mod:`semcache.money.estimates`).
        usd_micro: Millionths of a dollar of the calls whose price is known.
        unpriced: How many of ``calls`` are not in ``usd_micro``.
        owed_calls: How many calls have a usage, and a model of which no price is known.
        owed_input, owed_output, owed_read, owed_write, owed_write_long: Tokens of those calls, as in
            :class:`~semcache.types.Usage`.
    """

    calls: int = 0
    tokens: int = 0
    unmetered: int = 0
    estimated: int = 0
    usd_micro: int = 0
    unpriced: int = 0
    owed_calls: int = 0
    owed_input: int = 0
    owed_output: int = 0
    owed_read: int = 0
    owed_write: int = 0
    owed_write_long: int = 0

    def enter(self, usage: Usage | None, usd_micro: int | None) -> None:
        """Add one call; ``None`` is what is not known of it."""
        self.calls += 1
        if usage is None:
            self.unmetered += 1
        else:
            self.tokens += usage.total
            self.estimated += usage.estimated
        if usd_micro is not None:
            self.usd_micro += usd_micro
            return
        self.unpriced += 1
        if usage is not None:
            self.owed_calls += 1
            self.owed_input += usage.input_tokens
            self.owed_output += usage.output_tokens
            self.owed_read += usage.cache_read_tokens
            self.owed_write += usage.cache_write_tokens
            self.owed_write_long += usage.cache_write_long_tokens

    def merge(self, other: Line) -> None:
        """Add all that another one counts."""
        for name in Line.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def owed(self) -> Usage:
        """Tokens of the calls of which only the price is unknown."""
        return Usage(
            self.owed_input,
            self.owed_output,
            self.owed_read,
            self.owed_write,
            cache_write_long_tokens=self.owed_write_long,
        )

    @property
    def known_tokens(self) -> int | None:
        """Tokens, or ``None`` if there are calls and the usage of none is known."""
        return None if self.calls and self.unmetered >= self.calls else self.tokens

    @property
    def usd(self) -> Decimal | None:
        """Dollars, or ``None`` if there are calls and the price of none is known."""
        return None if self.calls and self.unpriced >= self.calls else Decimal(self.usd_micro).scaleb(-6)


_OWED: Final = tuple(part for part in Line.__slots__ if part.startswith("owed_"))


@dataclass(slots=True, repr=False)
class Books(_Told):
    """The counts of some set of calls; the lines are described above.

    Args:
        latency_saved_ms: How much sooner hits and stale answers came than the calls that made them; it falls when the
            look-up takes longer than the call.
        bypassed: Bypasses by reason.
        priced: Calls of which the money is known, by the id of the price (:class:`~semcache.money.prices.ModelPrice`).
    """

    misses: int = 0
    refused: int = 0
    stored: int = 0
    latency_saved_ms: int = 0
    shadow_exact_hits: int = 0
    shadow_semantic_hits: int = 0
    bypassed: dict[str, int] = field(default_factory=dict)
    priced: dict[str, int] = field(default_factory=dict)
    exact: Line = field(default_factory=Line)
    semantic: Line = field(default_factory=Line)
    stale: Line = field(default_factory=Line)
    collapsed: Line = field(default_factory=Line)
    spent: Line = field(default_factory=Line)
    reads: Line = field(default_factory=Line)
    writes: Line = field(default_factory=Line)
    embedding: Line = field(default_factory=Line)
    verifier: Line = field(default_factory=Line)
    audit: Line = field(default_factory=Line)
    shadow: Line = field(default_factory=Line)

    @property
    def exact_hits(self) -> int:
        return self.exact.calls

    @property
    def semantic_hits(self) -> int:
        return self.semantic.calls

    @property
    def hits(self) -> int:
        return self.exact.calls + self.semantic.calls

    @property
    def bypasses(self) -> int:
        return sum(self.bypassed.values())

    @property
    def requests(self) -> int:
        return sum(self._line(name).calls for name in _SPARED) + self.misses + self.bypasses + self.refused

    @property
    def hit_rate(self) -> float | None:
        """Hits per request, or ``None`` without requests."""
        return self.hits / self.requests if self.requests else None

    @property
    def saved(self) -> Line:
        """All that the cache answered: the lines exact, semantic and stale together."""
        return self._sum(_HITS)

    @property
    def prompt_cache(self) -> Line:
        """What the provider's prompt cache took off the calls made, premiums counted: reads and writes together."""
        return self._sum(_PROMPT_CACHE)

    @property
    def overhead(self) -> Line:
        """What the cache itself paid for: embedding, verifier and audits together."""
        return self._sum(_OVERHEAD)

    @property
    def paid_usd_micro(self) -> int:
        """All that was paid, as far as it is known."""
        return self.spent.usd_micro + self.overhead.usd_micro

    @property
    def net_usd_micro(self) -> int:
        """All that was saved less what the cache itself paid for, as far as it is known."""
        return self._sum((*_SPARED, *_PROMPT_CACHE)).usd_micro - self.overhead.usd_micro

    @property
    def without_usd_micro(self) -> int:
        """What the same calls would have cost without any cache, as far as it is known."""
        return self.paid_usd_micro + self.net_usd_micro

    @property
    def unpriced(self) -> Line:
        """Calls, spared or made, whose usage is known and whose model has no known price; with their tokens."""
        whole = self._sum((*_SPARED, "spent", *_OVERHEAD))
        return Line(whole.owed_calls, whole.owed.total)

    def enter(self, outcome: Outcome) -> None:
        """Book one call, which the ledger has priced."""
        status = outcome.status
        self.stored += outcome.stored
        if outcome.would_serve is not None:
            self._withheld(outcome.would_serve)
        if outcome.refused:
            self.refused += 1
            return
        if outcome.price_id is not None:
            _count(self.priced, outcome.price_id)
        if outcome.collapsed:
            self.collapsed.enter(outcome.usage, outcome.usd_micro)
        elif status in ("hit", "stale"):
            line = self.stale if status == "stale" else self.semantic if outcome.layer == "semantic" else self.exact
            line.enter(outcome.usage, outcome.usd_micro)
            if outcome.upstream_latency_s is not None:
                took = outcome.seconds.get("total", 0.0)
                self.latency_saved_ms += round((outcome.upstream_latency_s - took) * 1000)
        else:
            if status == "bypass":
                # What follows the colon may quote the request: what callers send must not multiply the counters.
                _count(self.bypassed, outcome.reason.partition(":")[0])
            else:
                self.misses += 1
            self._spend(outcome)

    def _spend(self, outcome: Outcome) -> None:
        usage, usd_micro = outcome.usage, outcome.usd_micro
        self.spent.enter(usage, usd_micro)
        if usage is None:
            return
        moved = (usage.cache_read_tokens, usage.cache_write_tokens)
        for line, tokens, saved in zip((self.reads, self.writes), moved, outcome.prompt_cache_usd_micro, strict=True):
            if tokens:
                line.calls += 1
                line.tokens += tokens
                line.usd_micro += saved
                line.unpriced += usd_micro is None

    def _withheld(self, would: WouldServe) -> None:
        if would.layer == "semantic":
            self.shadow_semantic_hits += 1
        else:
            self.shadow_exact_hits += 1
        self.shadow.enter(would.usage, would.usd_micro)

    def settle(self, price: ModelPrice) -> None:
        """Put a price on calls that had none when they were booked, once for all of a line.

        Their lengths are not known one by one any more, so a dearer rate for long ones is left out, and a provider that
        caches by itself is not thought of.
        """
        for name in (*_SPARED, "spent", *_OVERHEAD, "shadow"):
            line, base = self._line(name), price._replace(longer=(), caches_from=None)
            if not line.owed_calls:
                continue
            if name in (*_SPARED, "spent"):  # as when they are booked: neither a withheld hit nor overhead counts
                _count(self.priced, price.id, line.owed_calls)
            if name == "spent":
                cost = base.split(line.owed)
                line.usd_micro += cost.usd_micro
                self.reads.usd_micro += cost.reads
                self.writes.usd_micro += cost.writes
                self.reads.unpriced = self.writes.unpriced = 0
            else:
                line.usd_micro += base.again(line.owed) if name in (*_SPARED, "shadow") else base.cost(line.owed)
            line.unpriced -= line.owed_calls
            for part in _OWED:
                setattr(line, part, 0)

    def _line(self, name: str) -> Line:
        line: Line = getattr(self, name)
        return line

    def _sum(self, names: tuple[str, ...]) -> Line:
        total = Line()
        for name in names:
            total.merge(self._line(name))
        return total

    def counters(self) -> Iterator[tuple[str, int]]:
        """Name and value of all that is not zero."""
        for name in _COUNTS:
            if value := getattr(self, name):
                yield name, value
        for name in _LINES:
            line = self._line(name)
            for part in Line.__slots__:
                if value := getattr(line, part):
                    yield f"{name}.{part}", value
        for tally, counts in zip(_TALLIES, (self.bypassed, self.priced), strict=True):
            for name, value in counts.items():
                yield f"{tally}.{name}", value

    def add(self, name: str, value: int) -> None:
        """Add to one counter; a name of a later version is left alone."""
        head, _, tail = name.partition(".")
        if head in _TALLIES:
            counts = self.bypassed if head == "bypass" else self.priced
            counts[tail] = counts.get(tail, 0) + value
        elif head in _LINES and tail in Line.__slots__:
            line = self._line(head)
            setattr(line, tail, getattr(line, tail) + value)
        elif name in _COUNTS:
            setattr(self, name, getattr(self, name) + value)

    def merge(self, other: Books) -> None:
        """Add all that another one counts."""
        for name, value in other.counters():
            self.add(name, value)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; tokens and dollars are ``None`` where they are not known."""
        lines = {name: self._line(name) for name in _LINES}
        lines |= {"saved": self.saved, "prompt_cache": self.prompt_cache, "overhead": self.overhead}
        calls = self._sum((*_SPARED, "spent"))
        nothing_known = calls.usd is None
        return {
            "requests": self.requests,
            "hits": self.hits,
            "exact_hits": self.exact_hits,
            "semantic_hits": self.semantic_hits,
            "stale": self.stale.calls,
            "collapsed": self.collapsed.calls,
            "misses": self.misses,
            "bypasses": self.bypasses,
            "bypassed": dict(sorted(self.bypassed.items())),
            "refused": self.refused,
            "stored": self.stored,
            "shadow_exact_hits": self.shadow_exact_hits,
            "shadow_semantic_hits": self.shadow_semantic_hits,
            "audit_calls": self.audit.calls,
            "hit_rate": self.hit_rate,
            **{f"tokens_{name}": line.known_tokens for name, line in lines.items()},
            **{f"usd_{name}": None if line.usd is None else float(line.usd) for name, line in lines.items()},
            "usd_paid": None if nothing_known else self.paid_usd_micro / 1e6,
            "usd_net_saved": None if nothing_known else self.net_usd_micro / 1e6,
            "usd_without_cache": None if nothing_known else self.without_usd_micro / 1e6,
            "unpriced": calls.unpriced + self.overhead.unpriced,
            "estimated": calls.estimated,
            "priced_by": dict(sorted(self.priced.items())),
            "latency_saved_s": self.latency_saved_ms / 1000,
        }


def _count(counts: dict[str, int], name: str, by: int = 1) -> None:
    if name not in counts and len(counts) >= _NAMES_KEPT:
        name = "other"
    counts[name] = counts.get(name, 0) + by
