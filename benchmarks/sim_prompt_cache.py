"""``python -m benchmarks.sim_prompt_cache``: what the prompt-cache planner costs beside fixed choices.

Replays misses (what a response cache in front lets through) against a model of each provider's prompt cache and counts
what their input costs, in plain input tokens. Rules and price multiples are those of the package's data file. Model of
a provider:

- a request's marks write the prefixes that they end, for the write multiple of their lifetime; prefixes below the
  model's minimum are ignored;
- the longest warm prefix that ends at a mark (Anthropic, Bedrock: at a mark or up to 20 blocks before one) is read;
- a mark for another lifetime reads what is warm all the same, and does not change for how long that is kept;
- an entry can be read once the answer to the request that wrote it has begun (median 1.5 s), and until its lifetime has
  passed since the start of the request that wrote or last read it. No entry is lost before that.

The best fixed choice is picked with hindsight, separately for each scenario. It includes marking nothing.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from benchmarks.prompt_traffic import CHARS, DAY, HOUR, SHORT, Miss, scenarios
from semcache.prompt_cache import Boundary, History, Outline, Rules, find_rules, note, plan, seen
from semcache.prompt_cache.rules import SECONDS, as_of

LOOKBACK = 20
TAIL = 200
"""Tokens of the last message, which varies."""


class Model(NamedTuple):
    """A model at a provider that takes marks."""

    title: str
    api: str
    host: str
    name: str

    @property
    def rules(self) -> Rules:
        rules = find_rules(self.api, self.host, self.name)
        assert rules is not None
        return rules


MODELS = (
    Model("claude-sonnet-5", "anthropic", "api.anthropic.com", "claude-sonnet-5"),
    Model("claude-fable-5-2", "anthropic", "api.anthropic.com", "claude-fable-5-2"),
    Model("opus-4-6, Bedrock", "bedrock", "bedrock-runtime.eu-west-1.amazonaws.com", "anthropic.claude-opus-4-6-v1"),
    Model("gpt-6-sol, Responses", "openai_responses", "api.openai.com", "gpt-6-sol"),
    Model("gpt-6.1-sol, Chat", "openai_chat", "api.openai.com", "gpt-6.1-sol"),
)


class Automatic(NamedTuple):
    """A model whose provider caches by itself and charges no writes, so that nothing is to be decided.

    Args:
        minimum: Tokens.
        read: Price of a cached token, in plain input tokens.
        kept: Seconds for which a prefix is taken to be kept; the providers promise less.
        seen: Requests that must have had a prefix before it is found (DeepSeek: two).
    """

    name: str
    minimum: int
    read: float
    kept: float
    seen: int


AUTOMATIC = (
    Automatic("gpt-5-mini", 1024, 0.1, DAY, 1),
    Automatic("gemini-3.8-flash", 4096, 0.1, HOUR, 1),
    Automatic("deepseek-v4-flash", 0, 0.02, 6 * HOUR, 2),
)


class Prompt(NamedTuple):
    """A miss as one provider takes it. ``places``: position of each boundary's block; ``chars``: of all parts."""

    at: float
    ready: float
    outline: Outline
    places: Sequence[int]
    chars: int


def as_prompt(miss: Miss, rules: Rules) -> Prompt:
    bounds, places, prefix, chars, place = [], [], 0, 0, 0
    for part in miss.parts:
        prefix = hash((prefix, part.name)) & (2**63 - 1)
        chars += part.tokens * CHARS
        place += part.blocks
        # OpenAI takes no breakpoint on the assistant's output.
        if part.role != "assistant" or rules.style != "breakpoints":
            bounds.append(Boundary((place,), prefix, chars, "head" if part.role == "system" else "turns"))
            places.append(place)
    return Prompt(miss.at, miss.ready, Outline(tuple(bounds), None, False), places, chars)


# -- providers --------------------------------------------------------------------------------------------------------


Marks = Sequence[tuple[int, str]]


class Entry(NamedTuple):
    ready: float
    dead: float
    ttl: str


class Provider:
    """One provider's prompt cache."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._multiple = dict(rules.writes)
        self._lookback = 0 if rules.style == "breakpoints" else LOOKBACK
        self._entries: dict[int, Entry] = {}

    def charge(self, prompt: Prompt, marks: Marks) -> float:
        """Cost of one request's input.

        Raises:
            ValueError: The provider would refuse the request: too many marks, or a longer lifetime after a shorter one.
        """
        now, bounds = prompt.at, prompt.outline.boundaries
        lives = [SECONDS[ttl] for _, ttl in marks]
        if len(marks) > self._rules.points or (self._rules.longest_first and lives != sorted(lives, reverse=True)):
            raise ValueError(f"refused: {marks}")
        marks = [(i, ttl) for i, ttl in marks if bounds[i].chars >= self._rules.minimum * CHARS]
        read = max((self._read(prompt, i) for i, _ in marks), default=0)
        cost, covered = read * self._rules.read, read
        for i, ttl in marks:
            if bounds[i].chars > covered:
                cost += (bounds[i].chars - covered) * self._multiple[ttl]
                covered = bounds[i].chars
                old = self._entries.get(bounds[i].prefix)
                ready = min(now + prompt.ready, old.ready if old is not None and now < old.dead else math.inf)
                self._entries[bounds[i].prefix] = Entry(ready, now + SECONDS[ttl], ttl)
        return cost + prompt.chars - covered + TAIL * CHARS

    def _read(self, prompt: Prompt, last: int) -> int:
        """Length of the longest warm prefix that a mark at boundary ``last`` finds."""
        bounds = prompt.outline.boundaries
        for i in range(last, -1, -1):
            if prompt.places[i] < prompt.places[last] - self._lookback:
                break
            entry = self._entries.get(bounds[i].prefix)
            if entry is not None and entry.ready <= prompt.at < entry.dead:
                self._entries[bounds[i].prefix] = entry._replace(dead=prompt.at + SECONDS[entry.ttl])
                return bounds[i].chars
        return 0


def run_fixed(rules: Rules, prompts: Sequence[Prompt], choose: Callable[[Outline], Marks]) -> float:
    """Cost of the same choice for every request."""
    provider = Provider(rules)
    return sum(provider.charge(prompt, choose(prompt.outline)) for prompt in prompts)


def run_planner(rules: Rules, prompts: Sequence[Prompt]) -> float:
    """Cost when the planner decides, from an empty history."""
    provider, history, cost = Provider(rules), History(), 0.0
    for prompt in prompts:
        history.see(seen(prompt.outline), prompt.at)
        decided = plan(prompt.outline, rules, history, prompt.at)
        note(decided, history, prompt.at)
        marks = [(prompt.outline.boundaries.index(point.boundary), point.ttl) for point in decided.points]
        cost += provider.charge(prompt, marks)
    return cost


def fixed_choices(rules: Rules) -> Iterator[tuple[str, Callable[[Outline], Marks]]]:
    """Every choice that a person might write into a configuration: which ends, for how long."""

    def choice(system: str, everything: str) -> Callable[[Outline], Marks]:
        def marks(outline: Outline) -> Marks:
            if not outline.boundaries:
                return []
            head = max((i for i, b in enumerate(outline.boundaries) if b.kind == "head"), default=0)
            last = len(outline.boundaries) - 1
            chosen = ({head: system} if system else {}) | ({last: everything} if everything else {})
            return list(chosen.items())

        return marks

    lives = [ttl for ttl, _ in rules.writes]
    yield "none", choice("", "")
    for i, short in enumerate(lives):
        yield f"{short} system", choice(short, "")
        yield f"{short} all", choice("", short)
        for long in lives[i:]:
            yield f"{long} system, {short} all", choice(long, short)


def run_automatic(model: Automatic, misses: Sequence[Miss]) -> float:
    """Cost relative to the list price where the provider caches by itself."""
    entries: dict[int, tuple[int, float, float]] = {}  # requests that had it, ready, dead
    cost = total = 0.0
    for miss in misses:
        read = prefix = tokens = 0
        for part in miss.parts:
            prefix, tokens = hash((prefix, part.name)), tokens + part.tokens
            had, ready, dead = entries.get(prefix, (0, math.inf, 0.0))
            if miss.at >= dead:
                had, ready = 0, math.inf
            if had >= model.seen and ready <= miss.at and tokens >= model.minimum:
                read = tokens
            entries[prefix] = had + 1, min(ready, miss.at + miss.ready), miss.at + model.kept
        total += tokens + TAIL
        cost += tokens + TAIL - read * (1 - model.read)
    return cost / total


# -- report -----------------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """Input cost relative to marking nothing."""

    model: str
    scenario: str
    planner: float
    best: float
    best_name: str
    always: float

    @property
    def over_best(self) -> float:
        return self.planner / self.best


def compare(model: Model, scenario: str, misses: Sequence[Miss]) -> Result:
    """One model in one scenario."""
    rules = model.rules
    prompts = [as_prompt(miss, rules) for miss in misses]
    costs = {name: run_fixed(rules, prompts, choose) for name, choose in fixed_choices(rules)}
    none, short = costs["none"], rules.writes[0].ttl
    best = min(costs, key=costs.__getitem__)
    planner = run_planner(rules, prompts)
    always = costs[f"{short} all"]
    return Result(model.title, scenario, planner / none, costs[best] / none, best, always / none)


def run(name: str, misses: int, log: Path, seed: int) -> tuple[list[Result], list[float]]:
    """One scenario on all models."""
    made = scenarios(misses, log, seed)[name]()
    return [compare(model, name, made) for model in MODELS], [run_automatic(model, made) for model in AUTOMATIC]


def report(rows: Sequence[tuple[list[Result], list[float]]]) -> str:
    """Markdown."""
    head = ["misses", *(model.title for model in MODELS), *(model.name for model in AUTOMATIC)]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for results, automatic in rows:
        cells = [f"{r.planner:.3f} / {r.best:.3f} / {r.always:.3f}" for r in results]
        cells += [f"{cost:.3f}" for cost in automatic]
        lines.append(f"| {results[0].scenario} | {' | '.join(cells)} |")
    every = [result for results, _ in rows for result in results]
    whole = [result for result in every if SHORT not in result.scenario]
    short = [result for result in every if SHORT in result.scenario]
    lines += ["", f"Rules as of {as_of()}. {_worst(whole)}"]
    if short:
        lines.append(f"Of the beginnings: {_worst(short)}")
    return "\n".join(lines)


def _worst(results: Sequence[Result]) -> str:
    best, none = max(results, key=lambda r: r.over_best), max(results, key=lambda r: r.planner)
    return (
        f"Worst planner / best: {best.over_best:.3f} ({best.model}, {best.scenario}, against "
        f"`{best.best_name}`). Worst planner / none: {none.planner:.3f} ({none.model}, {none.scenario})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sim_prompt_cache", description=__doc__)
    parser.add_argument("--misses", type=int, default=3000, help="misses in a scenario")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--log", type=Path, help="a log with times, see docs/replay.md; default: the package's own")
    parser.add_argument("--write", type=Path, help="put the table between the marks in this file")
    options = parser.parse_args()
    log = options.log or Path(str(resources.files("semcache").joinpath("data/demo/support_log.jsonl")))
    one = functools.partial(run, misses=options.misses, log=log, seed=options.seed)
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(one, scenarios(options.misses, log, options.seed)))
    shown = report(rows)
    print(shown)
    if options.write:
        text = options.write.read_text(encoding="utf-8")
        before, begin, rest = text.partition("<!-- table -->\n")
        _, end, after = rest.partition("<!-- /table -->")
        if not end:
            sys.exit(f"{options.write}: no <!-- table --> and <!-- /table -->")
        options.write.write_text(before + begin + shown + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
