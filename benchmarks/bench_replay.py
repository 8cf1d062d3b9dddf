"""How many requests of a log a replay gets through: ``python -m benchmarks.bench_replay LOG``.

Each replay begins with nothing remembered of any text. Embedding is timed in the first one, loading the model included,
and is no part of the look-ups.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from benchmarks.rows import emit
from semcache.embedders import resolve
from semcache.guards.text import read
from semcache.tuning.logs import read_logs
from semcache.tuning.remembered import Remembered
from semcache.tuning.replay import Replay, replay, replay_cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    records = list(read_logs([str(arguments.log)]))
    embedder = Remembered(resolve())
    played: list[Replay] = []
    for _ in range(arguments.rounds):
        read.cache_clear()
        with replay_cache(embedder=embedder) as cache:
            played.append(replay(cache, records))
    name, first = arguments.log.name, played[0]
    emit("replay.embedded_per_second", first.embedded / first.embedding_s, "1/s", log=name, goal=300)
    rates = [len(records) / one.lookup_s for one in played]
    emit("replay.lookups_per_second", median(rates), "1/s", log=name, best=round(max(rates)), goal=2000)


if __name__ == "__main__":
    main()
