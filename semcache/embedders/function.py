"""A plain function as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from semcache.embedders.base import check_texts, unit_rows, utf8_length
from semcache.errors import ConfigurationError, EmbedderError, SemcacheError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SAFE_BYTES: Final = 510
"""No text of so few bytes passes a window of 512 tokens, the smallest in common use: a token is at least one byte."""


class CallableEmbedder:
    """Calls ``function`` with a list of texts for a matrix of as many rows, and makes the rows unit vectors.

    Args:
        function: ``function(list_of_texts) -> [n, dim]`` of numbers, as an array or nested lists.
        fingerprint: Identity of its vectors: change it whenever the model behind the function changes.
        dim: Length of the vectors; asked of the function when it is needed and was not given.
        max_bytes: Longest text, in bytes of UTF-8, that the model is known to read in full. Longer ones are kept to
            the exact tier.
        inline: The function computes in this process and cannot stall.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        function: Callable[[list[str]], object],
        *,
        fingerprint: str,
        dim: int | None = None,
        max_bytes: int = SAFE_BYTES,
        inline: bool = False,
    ) -> None:
        if not callable(function):
            raise ConfigurationError(f"{function!r} cannot be called")
        if not fingerprint:
            raise ConfigurationError("the fingerprint is empty; give the name and version of the model")
        self._function = function
        self._dim = dim
        self._max_bytes = max_bytes
        self.fingerprint = fingerprint
        self.inline = inline
        self.source = f"function {getattr(function, '__qualname__', type(function).__qualname__)}"

    @property
    def dim(self) -> int:
        if self._dim is None:
            self.embed(["dimension"])
        assert self._dim is not None
        return self._dim

    def fits(self, text: str) -> bool:
        length = utf8_length(text)
        return length is not None and length <= self._max_bytes

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        check_texts(texts)
        if not texts:
            import numpy as np

            return np.empty((0, self.dim), np.float32)
        try:
            rows = self._function(list(texts))
        except SemcacheError:
            raise
        except Exception as error:
            raise EmbedderError(f"{self.source} failed: {error!r}") from error
        matrix = unit_rows(rows, count=len(texts), dim=self._dim)
        self._dim = matrix.shape[1]
        return matrix
