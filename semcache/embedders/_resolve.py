"""From what a user gave (an object, a function, a name, a path, nothing) to an embedder."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, cast

from semcache.embedders import _model
from semcache.embedders.base import Embedder
from semcache.embedders.function import CallableEmbedder
from semcache.embedders.onnx import OnnxEmbedder
from semcache.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import TypeAlias

    EmbedderSpec: TypeAlias = Embedder | Callable[[list[str]], object] | str | PathLike[str] | None


def resolve(spec: EmbedderSpec = None) -> Embedder:
    """The embedder that ``spec`` stands for; :func:`source_of` says which was taken.

    In this order:

    - an object with ``embed`` and ``fits`` is the embedder;
    - a function of a module, from a list of texts to a matrix, is wrapped, with its name as fingerprint;
    - a folder runs on onnxruntime if that is possible, else on sentence-transformers;
    - ``"all-MiniLM-L6-v2"``, or the name of a package that carries its weights, means the installed package;
    - any other name is given to sentence-transformers, which may look it up on the model hub;
    - ``None`` is the first installed package with weights, and never the hub.

    Raises:
        ConfigurationError: Nothing can be made of it; the message names the command or argument that helps.
    """
    if spec is None:
        return OnnxEmbedder()
    if isinstance(spec, str | PathLike):
        return _from_name(fspath(spec))
    if callable(getattr(spec, "embed", None)) and callable(getattr(spec, "fits", None)):
        return cast(Embedder, spec)
    if callable(spec):
        return _from_function(spec)
    raise ConfigurationError(
        f"an embedder is an Embedder, a function, a model name or a folder, not {type(spec).__name__}"
    )


def source_of(embedder: Embedder) -> str:
    """Where an embedder's vectors come from, in words, for a person."""
    return str(getattr(embedder, "source", f"object {type(embedder).__qualname__}"))


def _from_function(function: Callable[[list[str]], object]) -> Embedder:
    # The name of a method, a closure or an object says nothing of the model behind it, and two models under one
    # fingerprint would compare their vectors with each other.
    if not isinstance(function, FunctionType) or "<" in function.__qualname__ or function.__closure__:
        raise ConfigurationError(
            f"{function!r} has no name that identifies its model; "
            "give CallableEmbedder(function, fingerprint='name and version of the model')"
        )
    return CallableEmbedder(function, fingerprint=f"function/{function.__module__}.{function.__qualname__}")


def _from_name(name: str) -> Embedder:
    if "://" in name:
        raise ConfigurationError("an address is no model; give RemoteEmbedder(base_url, model)")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder)
    if name.removeprefix("sentence-transformers/") == _model.MINILM:
        return OnnxEmbedder()
    if any(name == package.distribution for package in _model.PACKAGES):
        return OnnxEmbedder(name)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ConfigurationError(f"there is no model folder {name}")
    from semcache.embedders.sentence_transformers import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(name)


def _from_folder(folder: Path) -> Embedder:
    try:
        return OnnxEmbedder(folder)
    except ConfigurationError as unsuitable:
        from semcache.embedders.sentence_transformers import SentenceTransformerEmbedder

        try:
            return SentenceTransformerEmbedder(folder)
        except ConfigurationError:
            raise unsuitable from None
