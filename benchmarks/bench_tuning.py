"""What ``semcache tune`` makes of logs, beside plain cosine tuned alike: the table of ``docs/tuning.md``.

    python -m benchmarks.bench_tuning --data DIR [--vectors DIR] [--orders 3] [--requests 6000]

Each set is put into several random orders; the earlier half of each is fitted on, the later one is the test, as the
command does it. Plain cosine is the same procedure with one rule: no guard, no probability.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.rows import provenance
from semcache.embedders import resolve
from semcache.intervals import clopper_pearson
from semcache.policy import Policy
from semcache.tuning.bounds import Budget, Count
from semcache.tuning.choose import Choice, Samples, choose
from semcache.tuning.logs import LogRecord
from semcache.tuning.prepare import Space, of_log
from semcache.tuning.remembered import Remembered
from semcache.tuning.settings import Setting
from semcache.tuning.tune import Part
from semcache.tuning.vectors import VectorFile

SETS: Final = {
    "banking77": "intents/banking77.jsonl.gz",
    "clinc150": "intents/clinc150.jsonl.gz",
    "covidq": "faq/covidq.jsonl.gz",
}
REPLAYS: Final = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, help="keep embeddings in this folder between runs")
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--requests", type=int, default=6000, help="at most so many of each set")
    parser.add_argument("--rate", type=float, default=0.02, help="budget of wrong hits per hit")
    arguments = parser.parse_args()
    budget = Budget(arguments.rate)
    print(f"<!-- {json.dumps(provenance())} -->")
    print("| log | order | tuned | hits | FH | all guards may go | hits | FH | plain cosine | hits | FH |")
    print("| --- | ---: | --- | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: |")
    for name in arguments.sets:
        records = _records(arguments.data / SETS[name], arguments.requests)
        with ExitStack() as stack:
            embedder = resolve()
            if arguments.vectors is not None:
                embedder = stack.enter_context(VectorFile(embedder, arguments.vectors / f"{name}.vectors"))
            remembered = Remembered(embedder)
            for order in range(1, arguments.orders + 1):
                random.Random(order).shuffle(records)
                cells = (_cells(choice, budget) for choice in _choices(records, remembered, budget))
                print("|", name, "|", order, "|", " | ".join(cells), "|", flush=True)


def _records(path: Path, most: int) -> list[LogRecord]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    random.Random(0).shuffle(rows)
    return [LogRecord(({"role": "user", "content": row["text"]},), row["cls"]) for row in rows[:most]]


def _choices(records: Sequence[LogRecord], embedder: Remembered, budget: Budget) -> Iterator[Choice]:
    """Of the default space, of that with all guards off besides, and of plain cosine."""
    part: Part = of_log(records, Policy(), embedder, space=Space(switch_off="all")).parts["default"]
    bare = Policy().guards

    @cache
    def held_out(setting: Setting) -> Count:
        return part.held_out(setting)

    fit = part.fit
    guarded: Samples = {rule: sample for rule, sample in fit.items() if rule.without != bare}
    cosine: Samples = {rule: sample for rule, sample in fit.items() if rule.without == bare}
    for space in (guarded, fit, cosine):
        yield choose(space, held_out, budget, max_tests=REPLAYS)


def _cells(choice: Choice, budget: Budget) -> str:
    chosen = choice.chosen
    count = choice.best.count
    low, high = (100 * end for end in clopper_pearson(count.wrong, count.hits)) if count.hits else (0.0, 100.0)
    rate = f"{count.wrong}/{count.hits} ({low:.1f}–{high:.1f})"
    if chosen is None:
        return f"none; {_short(choice.best.setting)} | 0 % | {rate}"
    return f"{_short(chosen.setting)} | {100 * count.hits / count.requests:.1f} % | {rate}"


def _short(setting: Setting) -> str:
    bar = f", {setting.rule.min_probability:g}" if setting.rule.min_probability else ""
    off = len(setting.rule.without)
    return f"{setting.threshold:g}{bar}" + (f", −{off}" if off else "")


if __name__ == "__main__":
    main()
