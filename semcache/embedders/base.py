"""What every embedder promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors.

    Contract (each line is a test in ``semcache.testing.embedder_contract``):

    - ``embed`` returns float32 [n, dim], L2-normalised and finite, in the order of the texts; n may be 0.
    - A text has the same vector (cosine >= 0.9999) alone and in any batch.
    - ``fingerprint`` is equal for equal weights, tokenizer, pooling and window, in every process, and differs
      otherwise.
    - ``fits`` is false for a text that the model would cut off; such a text is kept to the exact tier.
    - Building one loads no weights; the first use does. Safe for threads, usable after fork.
    - Trouble raises ``EmbedderError``.
    """

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Identity of the vectors, like ``"all-MiniLM-L6-v2/onnx/8199be6f699a/mean/256"``."""

    def fits(self, text: str) -> bool: ...

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...
