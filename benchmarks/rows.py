"""One benchmark result is one JSON object on a line, with the commit and the machine it was measured on."""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO


@functools.cache
def provenance() -> dict[str, Any]:
    """Commit, machine and day of a measurement."""

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent)
        return run.stdout.strip()

    return {
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else ""),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def emit(name: str, value: float | None, unit: str, *, out: TextIO = sys.stdout, **more: Any) -> None:
    """Write one row. ``goal`` among ``more`` is what the project promises for it."""
    rounded = None if value is None else float(f"{value:.4g}")
    print(json.dumps({"name": name, "value": rounded, "unit": unit, **more, **provenance()}), file=out, flush=True)


def put_table(path: Path, table: str) -> None:
    """Put a table between the marks ``<!-- table -->`` and ``<!-- /table -->`` of a page, in place of what is there.

    Raises:
        ValueError: The page has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- /table -->")
    if not (begin and end):
        raise ValueError(f"{path} has no marks for a table")
    path.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")


def p50_us(call: Callable[[], object], *, n: int = 2000, warm: int = 50) -> float:
    """Median microseconds of one call."""
    for _ in range(warm):
        call()
    times = []
    for _ in range(n):
        started = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1000


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
