"""Questions to a bank, and an upstream that counts its calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

RESET = "How do I reset my password?"
RESET_AGAIN = "how do I reset my password"
OTHER = "What is the boiling point of nitrogen?"
ANSWER = "Press 'forgot password'."


class Upstream:
    """Answers every question with ``answer``, or what is set there."""

    def __init__(self, answer: str = ANSWER):
        self.answer = answer
        self.calls = 0
        self._lock = threading.Lock()

    def ask(self, prompt, **params):
        with self._lock:
            self.calls += 1
        return self.answer

    async def aask(self, prompt, **params):
        return self.ask(prompt)

    def stream(self, prompt):
        self.ask(prompt)
        yield from self.answer.split()

    async def astream(self, prompt):
        for word in self.stream(prompt):
            yield word


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)
