"""What every embedder promises, and the few rules that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from semcache.errors import EmbedderError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors.

    Contract (each line is a test in ``semcache.testing.embedder_contract``):

    - ``embed`` returns float32 [n, dim], L2-normalised and finite, in the order of the texts; n may be 0.
    - A text has the same vector (cosine >= 0.9999) alone and in any batch.
    - ``fingerprint`` is equal for equal weights, tokenizer, pooling and window, in every process, and differs
      otherwise.
    - ``fits`` is false for a text that the model would not read in full: one that it would cut off, or one with
      characters for which it has no token. Two such texts can differ where the model is blind and still have one
      vector, so they are kept to the exact tier.
    - Building one loads no weights; the first use does. Safe for threads, usable after fork.
    - Trouble raises ``EmbedderError``.

    An embedder whose ``embed`` computes in this process and cannot stall may say so with an attribute
    ``inline = True``: a solitary caller then runs it in its own thread (see ``EmbeddingQueue``).
    """

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Identity of the vectors, like ``"all-MiniLM-L6-v2/onnx/8199be6f699a/07eced375cec/mean/256"``."""

    def fits(self, text: str) -> bool: ...

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


def utf8_length(text: str) -> int | None:
    """Length in bytes of UTF-8, or ``None`` for a text that has none (it holds a lone surrogate)."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def check_texts(texts: Sequence[str]) -> None:
    """Raise EmbedderError if one of the texts cannot be written as UTF-8."""
    if any(utf8_length(text) is None for text in texts):
        raise EmbedderError("a text holds a lone surrogate: it is not Unicode and cannot be embedded")


def unit_rows(rows: object, *, count: int, dim: int | None = None) -> Vectors:
    """What a model gave for ``count`` texts as float32 [count, dim] of unit length.

    Raises:
        EmbedderError: The shape is another, or a row is zero or not finite.
    """
    import numpy as np

    try:
        matrix = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EmbedderError(f"the embedder returned no matrix of numbers: {error}") from error
    if matrix.ndim != 2 or len(matrix) != count or dim not in (None, matrix.shape[1]):
        expected = f"[{count}, {'dim' if dim is None else dim}]"
        raise EmbedderError(f"the embedder returned shape {list(matrix.shape)}, expected {expected}")
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))[:, None]
    if not np.isfinite(norms).all() or not norms.all():
        raise EmbedderError("the embedder returned a vector that is zero or not finite")
    unit: Vectors = matrix / norms
    return unit
