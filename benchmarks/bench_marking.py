"""What planning a miss for the provider's prompt cache costs, by length of the system prompt.

    python -m benchmarks.bench_marking

CPU time of the calling thread, median of 60 misses of a conversation of 22 messages; a store in memory.
"""

from __future__ import annotations

import statistics
import time

from semcache.events import emit
from semcache.marking import Marker
from semcache.stores import MemoryStore
from semcache.types import Event, Prompt, Usage

MODEL = "claude-sonnet-5"
TURNS = [{"role": role, "content": "word " * 40} for role in ("user", "assistant")] * 10 + [
    {"role": "user", "content": "word " * 40}
]


def measure(chars: int) -> tuple[float, float, float]:
    """Median milliseconds of a plan, and of telling a hit what the provider would have read: the first, and repeats."""
    marker = Marker(MemoryStore(), _tell, time.time)
    system = ("You answer questions. " * (chars // 22 + 1))[:chars]
    plans, hits, repeats = [], [], []
    for number in range(60):
        messages = [*TURNS, {"role": "user", "content": f"question {number}"}]
        prompt = Prompt(
            "anthropic", {"model": MODEL, "system": system, "messages": messages}, "api.anthropic.com", MODEL
        )
        started = time.thread_time()
        marked = marker.mark(prompt, None)
        plans.append(time.thread_time() - started)
        assert marked is not None
        marker.reconcile(marked, Usage(chars // 4, 10, cache_read_tokens=chars // 4))
        started = time.thread_time()
        marker.expected(prompt)
        hits.append(time.thread_time() - started)
        started = time.thread_time()
        marker.expected(prompt)
        repeats.append(time.thread_time() - started)
    plan, hit, repeat = (statistics.median(seconds) * 1000 for seconds in (plans, hits, repeats))
    return plan, hit, repeat


def _tell(event: Event) -> None:
    emit((), event)


def main() -> None:
    print(f"{'characters':>10} {'plan, ms':>10} {'hit, ms':>10} {'again, ms':>10}")
    for chars in (5_000, 50_000, 200_000, 800_000):
        print(f"{chars:>10,} {'{:>10.2f} {:>10.2f} {:>10.3f}'.format(*measure(chars))}")


if __name__ == "__main__":
    main()
