"""Files that are only added to, so that a run that was interrupted can go on where it stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from semcache.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self


class Appended(ABC):
    """A file for a ``with`` block, made where there is none. One process at a time.

    Raises:
        InputError: The file cannot be written, or holds something else.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = fspath(path)

    def __enter__(self) -> Self:
        try:
            self._file: BinaryIO = open(self._path, "a+b")
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", path=self._path) from error
        try:
            self._file.seek(0)
            self._resume()
        except InputError:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @abstractmethod
    def _resume(self) -> None:
        """Read what is there, from the start, and cut off what a crash tore.

        Raises:
            InputError: It is of something else.
        """
