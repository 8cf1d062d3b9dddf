"""Misses that reach a provider, for ``sim_prompt_cache``: when they come, and which prefixes they share."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from semcache.tuning.logs import in_time_order, read_logs

CHARS = 4
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
START = 1_700_000_000.0


class Part(NamedTuple):
    """A piece of a prompt at whose end a boundary lies. ``name`` tells it from others; it may be several blocks."""

    name: object
    tokens: int
    role: Literal["system", "user", "assistant"] = "user"
    blocks: int = 1


class Miss(NamedTuple):
    """A request that reaches the provider: when, what comes before its last message, how long until it is answered."""

    at: float
    parts: Sequence[Part]
    ready: float


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


def behind_cache(gap: float, n: int, rng: random.Random) -> Iterator[float]:
    """Misses of a response cache that fills: one request in twenty is new, the others are of 3,000 questions."""
    now, kept, known = START, 0, set()
    questions = list(itertools.accumulate(1 / (rank + 1) for rank in range(3_000)))
    while kept < n:
        now += rng.expovariate(1 / gap)
        question = -kept - 1 if rng.random() < 0.05 else rng.choices(range(3_000), cum_weights=questions)[0]
        if question not in known:
            known.add(question)
            kept += 1
            yield now


def from_log(path: Path) -> Iterator[tuple[float, Sequence[Part]]]:
    """The misses of a log, equal prompts being served from the cache. A log without system prompts gets one."""
    known: set[str] = set()
    for record in in_time_order(list(read_logs([path]))):
        text = json.dumps(record.messages, sort_keys=True, default=str)
        if record.ts is not None and text not in known:
            known.add(text)
            yield record.ts, [_as_part(message) for message in record.messages[:-1]] or [PROMPT]


def _as_part(message: Mapping[str, object]) -> Part:
    text, role = json.dumps(message.get("content"), default=str), message.get("role")
    if role == "assistant":
        return Part(text, len(text) // CHARS, "assistant")
    return Part(text, len(text) // CHARS, "system" if role in ("system", "developer") else "user")


# -- prompts ----------------------------------------------------------------------------------------------------------


PROMPT = Part(1, 5_000, "system")


def static(times: Sequence[float], rng: random.Random) -> Iterator[tuple[float, Sequence[Part]]]:
    """Tools and a system prompt, the same for all."""
    return ((at, [Part(0, 800, "system"), PROMPT]) for at in times)


def documents(times: Sequence[float], rng: random.Random) -> Iterator[tuple[float, Sequence[Part]]]:
    """A system prompt, then one of 300 documents, some far more popular than others."""
    weights = [1 / (rank + 1) for rank in range(300)]
    chosen = rng.choices(range(300), weights, k=len(times))
    return ((at, [PROMPT, Part(1000 + d, 8_000)]) for at, d in zip(times, chosen, strict=True))


def one_shots(times: Sequence[float], rng: random.Random) -> Iterator[tuple[float, Sequence[Part]]]:
    """A document that never comes back behind a system prompt that does."""
    return ((at, [PROMPT, Part(10_000 + i, 8_000)]) for i, at in enumerate(times))


def fan_outs(times: Sequence[float], rng: random.Random) -> Iterator[tuple[float, Sequence[Part]]]:
    """Twelve requests at once about a document that never comes back: nothing of it can be read yet."""
    for i, at in enumerate(times[: len(times) // 12]):
        for late in sorted(rng.uniform(0, 0.5) for _ in range(12)):
            yield at + late, [PROMPT, Part(10_000 + i, 8_000)]


def chats(
    times: Sequence[float],
    rng: random.Random,
    gap: float = 90.0,
    more: Sequence[tuple[int, int]] = ((150, 1), (600, 1)),
) -> Iterator[tuple[float, Sequence[Part]]]:
    """Conversations of about six turns, ``gap`` seconds apart, begun at the given times.

    ``more``: tokens and blocks of what the user and the assistant add in a turn.
    """
    for chat, at in enumerate(times[: len(times) // 4]):
        parts = [PROMPT]
        while True:
            yield at, tuple(parts)
            if rng.random() < 1 / 6:
                break
            for role, (tokens, blocks) in zip(("user", "assistant"), more, strict=True):
                parts.append(Part((chat, len(parts)), tokens, role, blocks))  # type: ignore[arg-type]
            at += rng.expovariate(1 / gap) + 5


def agents(times: Sequence[float], rng: random.Random) -> Iterator[tuple[float, Sequence[Part]]]:
    """Conversations of large turns, each of more blocks than a provider looks back."""
    return chats(times, rng, 30.0, ((2_000, 12), (800, 12)))


Maker = Callable[[], list[Miss]]
SHORT = ", first "
"""In the name of a scenario that is the beginning of another."""


def scenarios(n: int, log: Path, seed: int) -> dict[str, Maker]:
    """By name, what makes each scenario: ``n`` misses and more, or as many as the log has."""
    gaps = {"10 s": 10.0, "3 min": 3 * MINUTE, "15 min": 15 * MINUTE, "30 min": 30 * MINUTE}
    gaps |= {"75 min": 75 * MINUTE, "3 h": 3 * HOUR, "20 h": 20 * HOUR}
    traffic: dict[str, Callable[[random.Random], Iterator[float]]] = {
        f"Poisson {name}": functools.partial(poisson, gap, n) for name, gap in gaps.items()
    }
    traffic["bursts of 20"] = lambda rng: bursty(20.0, 5 * HOUR, 20, n, rng)
    traffic["bursts of 3"] = lambda rng: bursty(60.0, 16 * HOUR, 3, n, rng)
    traffic["diurnal 4 min"] = lambda rng: diurnal(4 * MINUTE, n, rng)
    traffic["diurnal 40 min"] = lambda rng: diurnal(40 * MINUTE, n, rng)
    traffic["busy, then rare"] = lambda rng: changing(n, rng)
    traffic["filling cache 20 s"] = lambda rng: behind_cache(20.0, n, rng)

    def make(name: str, shape: Callable[..., Iterator[tuple[float, Sequence[Part]]]]) -> list[Miss]:
        rng = random.Random(f"{seed} {name} {shape.__name__}")
        return _with_answers(shape(list(traffic[name](rng)), rng), rng)

    made: dict[str, Maker] = {f"{name}, one prompt": functools.partial(make, name, static) for name in traffic}
    mixed = ("Poisson 10 s", "Poisson 3 min", "Poisson 75 min", "bursts of 20", "diurnal 4 min", "filling cache 20 s")
    for shape in (documents, one_shots, chats):
        made |= {f"{name}, {shape.__name__.replace('_', '-')}": functools.partial(make, name, shape) for name in mixed}
    for shape in (agents, fan_outs):
        names = ("Poisson 10 s", "Poisson 3 min", "Poisson 75 min")
        made |= {f"{name}, {shape.__name__.replace('_', '-')}": functools.partial(make, name, shape) for name in names}
    made["log"] = lambda: _with_answers(from_log(log), random.Random(seed))
    gaps_of = {"one prompt": ("10 s", "3 min", "15 min"), "documents": ("10 s", "3 min"), "chats": ("10 s",)}
    for name in (f"Poisson {gap}, {shape}" for shape, of in gaps_of.items() for gap in of):
        made |= {f"{name}{SHORT}{hours} h": functools.partial(_first, hours, made[name]) for hours in (1, 3)}
    return made


def _first(hours: int, make: Maker) -> list[Miss]:
    """What comes within so many hours, by a planner that knows nothing yet."""
    misses = make()
    return [miss for miss in misses if miss.at < START + hours * HOUR]


def _with_answers(sent: Iterator[tuple[float, Sequence[Part]]], rng: random.Random) -> list[Miss]:
    misses = [Miss(at, parts, rng.lognormvariate(math.log(1.5), 0.5)) for at, parts in sent]
    return sorted(misses, key=lambda miss: miss.at)
