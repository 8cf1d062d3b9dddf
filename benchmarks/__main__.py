"""``python -m benchmarks [NAME…]``: run the benchmarks that need no data of their own, one after another."""

from __future__ import annotations

import runpy
import sys

NAMES = ("cache", "embedding", "indexes")


def main() -> None:
    chosen = sys.argv[1:] or list(NAMES)
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        sys.exit(f"no benchmark is called {unknown[0]!r}; there are: {', '.join(NAMES)}")
    for name in chosen:
        sys.argv = [f"bench_{name}"]
        runpy.run_module(f"benchmarks.bench_{name}", run_name="__main__")


if __name__ == "__main__":
    main()
