"""An embedder that never embeds a text twice: tuning judges the same texts under many thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from semcache.embedders.queue import BULK

if TYPE_CHECKING:
    from semcache.embedders import Embedder
    from semcache.embedders.base import Vectors


class Around:
    """An embedder before another one: the same vectors, got in another way."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.inline = bool(getattr(embedder, "inline", False))

    @property
    def dim(self) -> int:
        return self._embedder.dim

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    def fits(self, text: str) -> bool:
        return self._embedder.fits(text)


class Remembered(Around):
    """Another embedder with a memory, of 4 * dim bytes a text and without an end: for one run, not for a server."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(embedder)
        self._vectors: dict[str, Vectors] = {}

    def remember(self, texts: Iterable[str], progress: Callable[[int], object] = lambda done: None) -> None:
        """Embed those of the texts that are new; ``progress`` is told how many more are done."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        for start in range(0, len(new), BULK):
            chunk = new[start : start + BULK]
            self._vectors.update(zip(chunk, self._embedder.embed(chunk), strict=True))
            progress(len(chunk))

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.remember(texts)
        if not texts:
            return np.empty((0, self.dim), np.float32)
        return np.stack([self._vectors[text] for text in texts])
