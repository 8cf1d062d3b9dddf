"""``python -m benchmarks.sim_prompt_cache``: what the prompt-cache planner costs beside fixed choices.

Replays misses against a model of each provider's prompt cache and counts what their input costs, in plain input
tokens. Rules and price multiples are those of the package's data file. Model of a provider:

- a request's marks write the prefixes that they end, for the write multiple of their lifetime; prefixes below the
  model's minimum are ignored;
- the longest warm prefix that ends at a mark (Anthropic: at a mark or up to 20 places before one) is read;
- an entry can be read ``READY`` seconds after the request that wrote it began, and until its lifetime has passed
  since the start of the request that wrote or last read it. No entry is lost before that.

The best fixed choice is picked with hindsight, separately for each scenario. It includes marking nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from semcache.prompt_cache import Boundary, History, Outline, Rules, find_rules, note, plan, seen
from semcache.prompt_cache.rules import SECONDS, as_of

READY = 2.0
LOOKBACK = 20
TAIL = 200
"""Tokens of the last message, which varies."""
CHARS = 4
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
START = 1_700_000_000.0

MODELS = (
    ("anthropic", "https://api.anthropic.com", "claude-sonnet-5"),
    ("anthropic", "https://api.anthropic.com", "claude-fable-5-2"),
    ("openai_responses", "https://api.openai.com", "gpt-6-sol"),
    ("openai_chat", "https://api.openai.com", "gpt-6.1-sol"),
)


class Miss(NamedTuple):
    """A request that reaches the provider: when, and its shared prefixes."""

    at: float
    outline: Outline


class Scenario(NamedTuple):
    name: str
    misses: list[Miss]


class Result(NamedTuple):
    """Input cost relative to marking nothing."""

    model: str
    scenario: str
    planner: float
    best: float
    best_name: str
    always: float
    automatic: float

    @property
    def over_best(self) -> float:
        return self.planner / self.best


Marks = Sequence[tuple[int, str]]


class Provider:
    """One provider's prompt cache."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._multiple = dict(rules.writes)
        self._lookback = 0 if rules.style == "breakpoints" else LOOKBACK
        self._entries: dict[int, tuple[float, float, str]] = {}  # ready at, dead at, lifetime

    def charge(self, miss: Miss, marks: Marks, tail: str = "") -> float:
        """Cost of one request's input. ``tail``: lifetime of a mark behind the varying message, if there is one."""
        now, bounds = miss.at, miss.outline.boundaries
        marks = [(i, ttl) for i, ttl in marks if bounds[i].chars >= self._rules.minimum * CHARS]
        ends = [i for i, _ in marks] + ([len(bounds)] if tail else [])
        read = 0
        for end in ends:
            for i in range(min(end, len(bounds) - 1), max(end - self._lookback, 0) - 1, -1):
                entry = self._entries.get(bounds[i].prefix)
                if entry is not None and entry[0] <= now < entry[1]:
                    self._entries[bounds[i].prefix] = (entry[0], now + SECONDS[entry[2]], entry[2])
                    read = max(read, bounds[i].chars)
                    break
        cost, covered = read * self._rules.read, read
        for i, ttl in marks:
            if bounds[i].chars > covered:
                cost += (bounds[i].chars - covered) * self._multiple[ttl]
                covered = bounds[i].chars
                self._entries[bounds[i].prefix] = (now + READY, now + SECONDS[ttl], ttl)
        rest = bounds[-1].chars - covered + TAIL * CHARS
        return cost + rest * (self._multiple[tail] if tail else 1.0)


def run_fixed(rules: Rules, misses: list[Miss], choose: Callable[[Outline], Marks], tail: str = "") -> float:
    """Cost of the same choice for every request."""
    provider = Provider(rules)
    return sum(provider.charge(miss, choose(miss.outline), tail) for miss in misses)


def run_planner(rules: Rules, misses: list[Miss]) -> float:
    """Cost when the planner decides, from an empty history."""
    provider, history, cost = Provider(rules), History(), 0.0
    for miss in misses:
        history.see(seen(miss.outline), miss.at)
        decided = plan(miss.outline, rules, history, miss.at)
        note(decided, history, miss.at)
        marks = [(miss.outline.boundaries.index(point.boundary), point.ttl) for point in decided.points]
        cost += provider.charge(miss, marks)
    return cost


def fixed_choices(rules: Rules) -> Iterator[tuple[str, Callable[[Outline], Marks]]]:
    """Every choice that a person might write into a configuration: which ends, for how long."""

    def head(outline: Outline) -> int:
        return max((i for i, b in enumerate(outline.boundaries) if b.kind == "head"), default=0)

    def last(outline: Outline) -> int:
        return len(outline.boundaries) - 1

    def choice(system: str, everything: str) -> Callable[[Outline], Marks]:
        def marks(outline: Outline) -> Marks:
            chosen = ({head(outline): system} if system else {}) | ({last(outline): everything} if everything else {})
            return list(chosen.items())

        return marks

    lives = [ttl for ttl, _ in rules.writes]
    yield "none", choice("", "")
    for i, short in enumerate(lives):
        yield f"{short} system", choice(short, "")
        yield f"{short} all", choice("", short)
        for long in lives[i:]:
            yield f"{long} system, {short} all", choice(long, short)


def compare(api: str, host: str, model: str, scenario: Scenario) -> Result:
    """One row of the table."""
    rules = find_rules(api, host, model)
    assert rules is not None
    costs = {name: run_fixed(rules, scenario.misses, choose) for name, choose in fixed_choices(rules)}
    none, short = costs["none"], rules.writes[0].ttl
    best = min(costs, key=costs.__getitem__)
    automatic = run_fixed(rules, scenario.misses, lambda outline: [], tail=short)
    planner = run_planner(rules, scenario.misses)
    always = costs[f"{short} all"]
    return Result(model, scenario.name, planner / none, costs[best] / none, best, always / none, automatic / none)


# -- traffic ----------------------------------------------------------------------------------------------------------


def poisson(gap: float, n: int, rng: random.Random) -> Iterator[float]:
    now = START
    for _ in range(n):
        now += rng.expovariate(1 / gap)
        yield now


def bursty(inside: float, quiet: float, length: int, n: int, rng: random.Random) -> Iterator[float]:
    """Bursts of geometric length with mean ``length``; mean gaps ``inside`` and ``quiet``."""
    now = START
    for _ in range(n):
        now += rng.expovariate(1 / (quiet if rng.random() < 1 / length else inside))
        yield now


def diurnal(gap: float, n: int, rng: random.Random) -> Iterator[float]:
    """A day's rate from nearly nothing to twice the mean, by thinning."""
    now, kept = START, 0
    while kept < n:
        now += rng.expovariate(2 / gap)
        if rng.random() < (1 - math.cos(2 * math.pi * now / DAY)) / 2:
            kept += 1
            yield now


def changing(n: int, rng: random.Random) -> Iterator[float]:
    """Busy for a while, then rare: what was learned is wrong afterwards."""
    now = START
    for i in range(n):
        now += rng.expovariate(1 / (MINUTE if i * 3 < n else 14 * HOUR))
        yield now


def from_log(lines: Sequence[str]) -> list[float]:
    """Times of the misses of a log: lines with ``ts`` and ``text``, repeated texts served from the cache."""
    records = [json.loads(line) for line in lines if line.strip()]
    times, known = [], set()
    for record in sorted(records, key=lambda record: record["ts"]):
        if record["text"] not in known:
            known.add(record["text"])
            times.append(float(record["ts"]))
    return times


def _bounds(*parts: tuple[object, int, str]) -> Outline:
    found, chars, prefix = [], 0, 0
    for name, tokens, kind in parts:
        chars += tokens * CHARS
        prefix = hash((prefix, name)) & (2**63 - 1)
        found.append(Boundary((), prefix, chars, "head" if kind == "head" else "turns"))
    return Outline(tuple(found), None, False)


def static(times: Sequence[float], rng: random.Random) -> list[Miss]:
    """One system prompt for all."""
    outline = _bounds((1, 800, "head"), (2, 5_000, "head"))
    return [Miss(at, outline) for at in times]


def documents(times: Sequence[float], rng: random.Random) -> list[Miss]:
    """A system prompt, then one of 300 documents, some far more popular than others."""
    weights = [1 / (rank + 1) for rank in range(300)]
    chosen = rng.choices(range(300), weights, k=len(times))
    return [
        Miss(t, _bounds((1, 5_000, "head"), (1000 + d, 8_000, "turns"))) for t, d in zip(times, chosen, strict=True)
    ]


def one_shots(times: Sequence[float], rng: random.Random) -> list[Miss]:
    """A document that never comes back behind a system prompt that does."""
    return [Miss(at, _bounds((1, 5_000, "head"), (10_000 + i, 8_000, "turns"))) for i, at in enumerate(times)]


def chats(times: Sequence[float], rng: random.Random) -> list[Miss]:
    """Conversations of about six turns, a turn a minute and a half, begun at the given times."""
    misses = []
    for chat, begun in enumerate(times[: len(times) // 4]):
        at = begun
        turns: list[tuple[object, int, str]] = []
        while True:
            misses.append(Miss(at, _bounds((1, 5_000, "head"), *turns)))
            if rng.random() < 1 / 6:
                break
            turns += [((chat, len(turns)), 150, "turns"), ((chat, len(turns) + 1), 600, "turns")]
            at += rng.expovariate(1 / 90.0) + 5
    return sorted(misses, key=lambda miss: miss.at)


def scenarios(n: int, log: Sequence[str], seed: int = 7) -> Iterator[Scenario]:
    """All scenarios, ``n`` misses each but for the log."""
    gaps = {"10 s": 10.0, "3 min": 3 * MINUTE, "15 min": 15 * MINUTE, "30 min": 30 * MINUTE}
    gaps |= {"75 min": 75 * MINUTE, "3 h": 3 * HOUR, "20 h": 20 * HOUR}
    traffic: dict[str, Callable[[random.Random], Iterator[float]]] = {
        f"Poisson {name}": partial(poisson, gap, n) for name, gap in gaps.items()
    }
    traffic["bursts of 20"] = lambda rng: bursty(20.0, 5 * HOUR, 20, n, rng)
    traffic["bursts of 3"] = lambda rng: bursty(60.0, 16 * HOUR, 3, n, rng)
    traffic["diurnal 4 min"] = lambda rng: diurnal(4 * MINUTE, n, rng)
    traffic["diurnal 40 min"] = lambda rng: diurnal(40 * MINUTE, n, rng)
    traffic["busy, then rare"] = lambda rng: changing(n, rng)
    for name, make in traffic.items():
        rng = random.Random(f"{seed} {name}")
        yield Scenario(f"{name}, one prompt", static(list(make(rng)), rng))
    for shape in (documents, one_shots, chats):
        for name in ("Poisson 10 s", "Poisson 3 min", "Poisson 75 min", "bursts of 20", "diurnal 4 min"):
            rng = random.Random(f"{seed} {name} {shape.__name__}")
            yield Scenario(f"{name}, {shape.__name__.replace('_', '-')}", shape(list(traffic[name](rng)), rng))
    yield Scenario("log, one prompt", static(from_log(log), random.Random(seed)))


# -- report -----------------------------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = [
        "| model | misses | planner | best fixed choice, by hindsight | planner / best | always mark | automatic |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.model} | {r.scenario} | {r.planner:.3f} | {r.best:.3f} ({r.best_name}) | {r.over_best:.3f} "
        f"| {r.always:.3f} | {r.automatic:.3f} |"
        for r in results
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sim_prompt_cache", description=__doc__)
    parser.add_argument("--misses", type=int, default=3000, help="misses in a scenario")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--log", type=Path, help="JSON Lines with ts and text; default: the package's demo log")
    parser.add_argument("--write", type=Path, help="put the table between the marks in this file")
    options = parser.parse_args()
    log = options.log or resources.files("semcache").joinpath("data/demo/support_log.jsonl")
    lines = log.read_text(encoding="utf-8").splitlines()
    cases = list(scenarios(options.misses, lines, options.seed))
    results = [compare(*model, case) for model in MODELS for case in cases]
    shown = table(results)
    print(shown)
    worst_best = max(results, key=lambda r: r.over_best)
    worst_none = max(results, key=lambda r: r.planner)
    print(
        f"\nrules as of {as_of()}; {len(results)} rows; worst planner / best {worst_best.over_best:.3f} "
        f"({worst_best.model}, {worst_best.scenario}); worst planner / none {worst_none.planner:.3f} "
        f"({worst_none.model}, {worst_none.scenario})",
        file=sys.stderr,
    )
    if options.write:
        text = options.write.read_text(encoding="utf-8")
        before, begin, rest = text.partition("<!-- table -->\n")
        _, end, after = rest.partition("<!-- /table -->")
        options.write.write_text(before + begin + shown + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
