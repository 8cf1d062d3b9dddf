"""Forks: state is brought to rest before, and locks, threads and sockets start afresh in the child."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Has state that a child cannot take over."""

    def after_fork(self) -> None:
        """Replace locks, threads and sockets that only the parent may use. Runs in the child, before anything else."""


class Holdable(Protocol):
    """Has state that a child may take over if no thread was in the middle of it."""

    def before_fork(self) -> None:
        """Bring the state to rest and keep other threads out of it."""

    def after_fork(self) -> None:
        """Let threads in again; runs in the parent and in the child."""


_renewed: weakref.WeakSet[Renewable] = weakref.WeakSet()
_holdable: weakref.WeakSet[Holdable] = weakref.WeakSet()
_held: list[Holdable] = []


def renew_in_child(item: Renewable) -> None:
    """Call ``item.after_fork`` in every child forked while ``item`` is alive."""
    _renewed.add(item)


def hold_over_fork(item: Holdable) -> None:
    """Call ``before_fork`` and ``after_fork`` of ``item`` around every fork of this process, while it lives."""
    _holdable.add(item)


def _before() -> None:
    for item in list(_holdable):
        item.before_fork()
        _held.append(item)


def _after_in_parent() -> None:
    while _held:
        _held.pop().after_fork()


def _after_in_child() -> None:
    _after_in_parent()
    for item in list(_renewed):
        item.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
