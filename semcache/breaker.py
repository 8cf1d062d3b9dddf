"""A circuit breaker, so that a dead or stalled helper costs its time budget once and then nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Breaker:
    """Counts failures; opens after ``failures`` in a row and stays open for ``cooldown_s``.

    While open, :meth:`allow` says no at once. When the cooldown has passed, one caller at a time is let through as
    a probe: its success closes the breaker, its failure doubles the cooldown up to ``max_cooldown_s``.

    Args:
        failures: Failures in a row that open it.
        cooldown_s: First cooldown, seconds.
        max_cooldown_s: Upper bound of the cooldown, seconds.
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(
        self,
        *,
        failures: int = 1,
        cooldown_s: float = 1.0,
        max_cooldown_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._first_cooldown = cooldown_s
        self._max_cooldown = max_cooldown_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._cooldown = cooldown_s
        self._retry_at: float | None = None

    @property
    def open(self) -> bool:
        """Whether calls are being refused (a probe may be due)."""
        return self._retry_at is not None

    def allow(self) -> bool:
        """Whether the caller may try now. A caller that is let through must report success or failure."""
        if self._retry_at is None:
            return True
        with self._lock:
            if self._retry_at is None:
                return True
            now = self._clock()
            if now < self._retry_at:
                return False
            # Others stay out while this caller probes; a probe that never reports frees the slot after a cooldown.
            self._retry_at = now + self._cooldown
            return True

    def success(self) -> None:
        if self._failures or self._retry_at is not None:
            with self._lock:
                self._failures = 0
                self._cooldown = self._first_cooldown
                self._retry_at = None

    def failure(self) -> bool:
        """Report a failure; true if this one opened the breaker."""
        with self._lock:
            self._failures += 1
            if self._failures < self._limit:
                return False
            opened = self._retry_at is None
            if not opened:
                self._cooldown = min(self._cooldown * 2, self._max_cooldown)
            self._retry_at = self._clock() + self._cooldown
            return opened
