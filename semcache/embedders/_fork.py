"""Objects with locks and threads start afresh in a forked child."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    def after_fork(self) -> None:
        """Replace locks, threads and sockets that only the parent may use. Runs in the child, before anything else."""


_live: weakref.WeakSet[Forkable] = weakref.WeakSet()


def track(item: Forkable) -> None:
    """Call ``item.after_fork`` in every child forked while ``item`` is alive."""
    _live.add(item)


def _after_fork() -> None:
    for item in list(_live):
        item.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
