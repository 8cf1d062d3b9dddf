"""Any model that the sentence-transformers library runs (extra ``sentence-transformers``)."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from semcache._fork import renew_in_child
from semcache.embedders.base import check_texts, unit_rows
from semcache.errors import EmbedderError, MissingExtraError, SemcacheError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IDENTITY: Final = (".safetensors", ".bin", ".json", ".txt", ".model")
"""Endings of the files that decide what vectors a model folder gives."""


class SentenceTransformerEmbedder:
    """Runs a sentence-transformers model on torch. Any use but ``fingerprint`` of a folder loads the model.

    Args:
        model: A local folder, or the name of a model: a name may be looked up on the model hub, a folder never is.
        device: As torch names it.
        batch_size: Texts in one run.

    A child forked after the model was loaded computes on one thread.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
    """

    inline = True

    def __init__(self, model: str | os.PathLike[str], *, device: str = "cpu", batch_size: int = 32) -> None:
        if find_spec("sentence_transformers") is None:
            raise MissingExtraError("sentence-transformers", "sentence-transformers")
        path = Path(model).expanduser()
        self._folder = path.resolve() if path.is_dir() else None
        self._name = os.fspath(model)
        self._device = device
        self._batch_size = batch_size
        self._lock = threading.RLock()
        self._model: Any = None
        self._encoding = False
        self._forked = False
        self._fingerprint: str | None = None
        self.source = f"sentence-transformers {self._folder or self._name}"
        renew_in_child(self)

    @property
    def dim(self) -> int:
        model = self._load()
        size = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
        return int(size())

    @property
    def fingerprint(self) -> str:
        """Hash of the folder's files; for a name, of the weights and settings that were loaded."""
        if self._fingerprint is None:
            digest = _hash_folder(self._folder) if self._folder else _hash_model(self._load())
            self._fingerprint = f"sentence-transformers/{digest[:24]}"
        return self._fingerprint

    def fits(self, text: str) -> bool:
        try:
            check_texts([text])
        except EmbedderError:
            return False
        model = self._load()
        with self._lock:
            ids = model.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        limit = model.max_seq_length
        unknown = getattr(model.tokenizer, "unk_token_id", None)
        return (limit is None or len(ids) <= limit) and unknown not in ids

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        import numpy as np

        check_texts(texts)
        if not texts:
            return np.empty((0, self.dim), np.float32)
        model = self._load()
        try:
            # The tokenizer changes its own settings on every call and cannot be shared.
            with self._lock:
                rows = self._encode(model, list(texts))
        except Exception as error:
            raise EmbedderError(f"{self.source} failed: {error!r}") from error
        return unit_rows(rows, count=len(texts))

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self._forked = self._model is not None
        if self._encoding:
            # The thread that was inside may have held locks of the tokenizer, which nobody will release here.
            _abandoned.append(self._model)
            self._model, self._encoding = None, False

    def _encode(self, model: Any, texts: list[str]) -> Any:
        self._encoding = True
        try:
            return model.encode(texts, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True)
        finally:
            self._encoding = False

    def _load(self) -> Any:
        with self._lock:
            if self._forked:
                import torch

                # The threads of torch's pool (OpenMP) did not survive the fork, and it would wait for them for ever.
                torch.set_num_threads(1)
                self._forked = False
            if self._model is None:
                try:
                    from sentence_transformers import SentenceTransformer

                    self._model = SentenceTransformer(
                        str(self._folder or self._name),
                        device=self._device,
                        local_files_only=self._folder is not None,
                    )
                except SemcacheError:
                    raise
                except Exception as error:
                    raise EmbedderError(f"cannot load {self.source}: {error}") from error
            return self._model


_abandoned: list[Any] = []


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in IDENTITY:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _hash_model(model: Any) -> str:
    """Of every parameter, the tokenizer and the settings of the modules."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.detach().cpu().contiguous().flatten().view(_bytes()).numpy().tobytes())
    digest.update(repr(sorted(model.tokenizer.get_vocab().items())).encode())
    settings: list[tuple[str, Any]] = [
        (type(module).__name__, getattr(module, "get_config_dict", dict)()) for module in model
    ]
    digest.update(repr((settings, model.max_seq_length, model.default_prompt_name, model.prompts)).encode())
    return digest.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8
