"""A function to wrap, which says how often it was called."""

from __future__ import annotations


class Upstream:
    """A function that counts its calls and answers each with a new number."""

    def __init__(self):
        self.calls = 0

    def ask(self, prompt, **params):
        self.calls += 1
        return f"answer {self.calls} to {prompt}"
