"""How well it was predicted what a provider reads from its prompt cache, as counters that processes add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, NamedTuple

PREFIX: Final = "marks1|"
"""Start of every counter's name; the number is the version of the encoding."""


@dataclass(slots=True)
class Counts:
    """Sums over the calls of a model, or over those with one head (tools and system prompt).

    Args:
        calls: Misses that went to a provider whose prompt cache is known.
        marked: Those of them that carried cache points.
        expected: Tokens that should have been read from the provider's cache, as estimated before each call.
        read: Tokens that the provider says were.
        written: Tokens that the provider says were written to it.
        cold: Calls whose prefix should have been there, and of which less than half was.
    """

    calls: int = 0
    marked: int = 0
    expected: int = 0
    read: int = 0
    written: int = 0
    cold: int = 0


class Predicted(NamedTuple):
    """The counts of one model.

    Args:
        prefixes: By hash of the head (16 hex digits), the calls that should have read from the provider's cache.
    """

    model: str
    counts: Counts
    prefixes: Mapping[str, Counts]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        prefixes = {prefix: asdict(counts) for prefix, counts in self.prefixes.items()}
        return {"model": self.model, **asdict(self.counts), "prefixes": prefixes}


_FIELDS: Final = tuple(field.name for field in fields(Counts))


def count_name(model: str, prefix: int | None, name: str) -> str:
    """The counter of one number; ``prefix`` is ``None`` for the whole model."""
    return f"{PREFIX}{'' if prefix is None else f'{prefix:016x}'}|{name}|{model}"


def decode(counters: Mapping[str, int]) -> list[Predicted]:
    """The counts of all models, busiest first; names that this version does not write are skipped."""
    found: dict[str, dict[str, Counts]] = {}
    for counter, value in counters.items():
        if not counter.startswith(PREFIX):
            continue
        prefix, name, model = counter.removeprefix(PREFIX).split("|", 2)
        if name in _FIELDS:
            counts = found.setdefault(model, {}).setdefault(prefix, Counts())
            setattr(counts, name, getattr(counts, name) + value)
    rows = [Predicted(model, by_prefix.pop("", Counts()), by_prefix) for model, by_prefix in found.items()]
    return sorted(rows, key=lambda row: -row.counts.calls)


def lines(rows: list[Predicted], *, worst: int = 3) -> Iterator[str]:
    """What a person wants to know: a line a model, and one for each of its ``worst`` prefixes."""
    for model, counts, prefixes in rows:
        yield (
            f"{model}: {counts.marked:,} of {counts.calls:,} misses marked; {counts.read:,} tokens read from the "
            f"provider's cache, {counts.expected:,} expected; {counts.written:,} written."
        )
        missed = [(prefix, of) for prefix, of in prefixes.items() if of.cold]
        for prefix, of in sorted(missed, key=lambda item: item[1].read - item[1].expected)[:worst]:
            yield (
                f"  prefix {prefix}: {of.cold:,} times not there; {of.read:,} tokens read, {of.expected:,} expected."
            )
