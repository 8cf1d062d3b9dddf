"""Cross-encoders: models that read both texts together. On onnxruntime, or through sentence-transformers."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from semcache._fork import renew_in_child
from semcache.errors import ConfigurationError, MissingExtraError, VerifierError
from semcache.verifiers.base import TextPair

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_GRAPHS: Final = ("onnx/model.onnx", "model.onnx")
_SAME: Final = ("entailment", "duplicate", "paraphrase", "equivalent", "same", "is_duplicate")


class OnnxCrossEncoder:
    """A cross-encoder from a folder in the hub's format: ``onnx/model.onnx`` (or ``model.onnx``), ``tokenizer.json``,
    ``config.json``.

    A model of one output gives its sigmoid; one of several, such as an NLI model, the softmax of ``label``. Each pair
    is read in both orders and the lesser probability counts: "the same answer serves both" has no direction, and
    entailment in one alone is "more general", not "the same". What its numbers are worth depends on what it was
    trained for: a model of search relevance is no judge of sameness.

    Args:
        folder: The model.
        label: Which output means "the same", as ``config.json`` calls it; found by itself among the usual names.
        window: Most tokens of a pair; a longer one is not scored, since what is cut off may be what differs. A graph
            that was exported for one length sets a limit of its own.
        threads: Of onnxruntime.

    Raises:
        ConfigurationError: A file is missing, or no output is known to mean "the same".
    """

    def __init__(
        self, folder: str | PathLike[str], *, label: str | None = None, window: int = 512, threads: int = 1
    ) -> None:
        path = Path(folder).expanduser()
        graph = next((path / name for name in _GRAPHS if (path / name).is_file()), None)
        missing = [name for name in ("tokenizer.json", "config.json") if not (path / name).is_file()]
        if graph is None or missing:
            raise ConfigurationError(f"{path} lacks {', '.join(missing) or ' or '.join(_GRAPHS)}")
        self._graph, self._tokenizer_file = graph, path / "tokenizer.json"
        self._column = _column(json.loads((path / "config.json").read_text(encoding="utf-8")), label)
        self._window = window
        self._thread_count = threads
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()
        renew_in_child(self)

    @property
    def fingerprint(self) -> str:
        """The folder's name, the size of the graph, and which output is read."""
        name = self._tokenizer_file.parent.name
        return f"{name}/onnx/{self._graph.stat().st_size}/{self._column}/{self._window}"

    def score(self, pairs: Sequence[TextPair]) -> list[float]:
        """The lesser probability of both orders.

        Raises:
            VerifierError: A pair is too long, or the model cannot be run.
        """
        return [min(self._score(query, cached), self._score(cached, query)) for query, cached in pairs]

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._loaded = None

    def _score(self, first: str, second: str) -> float:
        import numpy as np

        tokenizer, session = self._load()
        inputs = session.get_inputs()
        length = inputs[0].shape[1]
        fixed = isinstance(length, int)  # a name, or nothing, where it takes any
        window = min(self._window, length) if fixed else self._window
        encoded = tokenizer.encode(first, second)
        if len(encoded.ids) > window:
            raise VerifierError(f"a pair of {len(encoded.ids)} tokens, of which the verifier reads {window}")
        if fixed:
            encoded.pad(length)
        given = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        try:
            logits = session.run(None, {item.name: np.array([given[item.name]], np.int64) for item in inputs})[0]
        except Exception as error:  # onnxruntime raises many classes, all derived from Exception alone
            raise VerifierError(f"the cross-encoder failed: {error}") from error
        return _probability(np.asarray(logits, np.float64).ravel(), self._column)

    def _load(self) -> tuple[Any, Any]:
        with self._lock:
            if self._loaded is None:
                try:
                    self._loaded = self._open()
                except Exception as error:
                    raise VerifierError(f"cannot load the cross-encoder {self._graph}: {error}") from error
            return self._loaded

    def _open(self) -> tuple[Any, Any]:
        import onnxruntime
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._tokenizer_file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # "[SEP]" in a user's text is text
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._thread_count
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(self._graph), options, providers=["CPUExecutionProvider"])
        return tokenizer, session


class SentenceTransformersCrossEncoder:
    """A ``CrossEncoder`` of sentence-transformers (extra of that name) with one output. Read in both orders.

    Args:
        model: A local folder, or a name, which may be looked up on the model hub.
        device: As torch names it.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(self, model: str | PathLike[str], *, device: str = "cpu") -> None:
        if find_spec("sentence_transformers") is None:
            raise MissingExtraError("sentence-transformers", "sentence-transformers")
        self._name = str(model)
        self._device = device
        self._model: Any = None
        self._lock = threading.Lock()
        renew_in_child(self)

    @property
    def fingerprint(self) -> str:
        """The model's name."""
        return f"{self._name}/sentence-transformers"

    def score(self, pairs: Sequence[TextPair]) -> list[float]:
        """The lesser probability of both orders.

        Raises:
            VerifierError: The model has several outputs.
        """
        if not pairs:
            return []
        with self._lock:
            import torch
            from sentence_transformers import CrossEncoder

            if self._model is None:
                self._model = CrossEncoder(self._name, device=self._device)
            if self._model.num_labels != 1:
                raise VerifierError(
                    f"{self._name} has {self._model.num_labels} outputs: export it for OnnxCrossEncoder"
                )
            both = [*pairs, *((cached, query) for query, cached in pairs)]
            scores = self._model.predict(both, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False)
        half = len(pairs)
        return [float(min(a, b)) for a, b in zip(scores[:half], scores[half:], strict=True)]

    def after_fork(self) -> None:
        self._lock = threading.Lock()


def _column(config: dict[str, Any], label: str | None) -> int | None:
    """Which output means "the same"; ``None`` for a model of one output."""
    names = {str(name).lower(): int(at) for at, name in config.get("id2label", {}).items()}
    if label is not None:
        if label.lower() not in names:
            raise ConfigurationError(f"the model has no label {label!r}, but {', '.join(names) or 'none at all'}")
        return names[label.lower()]
    if len(names) == 1 or config.get("num_labels") == 1:
        return None
    found = next((names[name] for name in _SAME if name in names), None)
    if found is None:
        raise ConfigurationError(f'say which label means "the same": {", ".join(names) or "config.json names none"}')
    return found


def _probability(logits: Floats, column: int | None) -> float:
    import numpy as np

    if column is None:
        return float(1.0 / (1.0 + np.exp(-logits[0])))
    powers = np.exp(logits - logits.max())
    return float(powers[column] / powers.sum())
