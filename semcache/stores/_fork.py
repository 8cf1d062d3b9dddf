"""Holding stores still while the process forks."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    def before_fork(self) -> None:
        """Bring the state to rest and keep other threads out of it."""

    def after_fork(self) -> None:
        """Let threads in again; runs in the parent and in the child."""


_registered: weakref.WeakSet[Forkable] = weakref.WeakSet()
_held: list[Forkable] = []


def hold_over_fork(one: Forkable) -> None:
    """Call ``before_fork`` and ``after_fork`` of ``one`` around every fork of this process, while it lives."""
    _registered.add(one)


def _before() -> None:
    for one in list(_registered):
        one.before_fork()
        _held.append(one)


def _after() -> None:
    while _held:
        _held.pop().after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
