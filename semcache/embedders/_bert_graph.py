"""Writes the ONNX graph of a BERT encoder without its weights, so that any ``model.safetensors`` runs without torch.

onnxruntime takes the weights from memory, by name (``SessionOptions.add_external_initializers``). The graph uses
standard operators only (opset 20, which brought Gelu), and the names of the tensors are those of the hub's files.

Sources: Devlin et al. 2018, arXiv:1810.04805 (the model); ``onnx/onnx.proto`` of ONNX 1.16 (field numbers);
the Protocol Buffers encoding guide (wire format).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from semcache.errors import ConfigurationError

OPSET: Final = 20
IR_VERSION: Final = 9
FLOAT: Final = 1
INT64: Final = 7
EXTERNAL: Final = 1
MASKED: Final = -1e9
"""Added to the attention of padding; its softmax is 0 in float32."""


class BertConfig(NamedTuple):
    """The numbers of ``config.json`` that shape the graph."""

    layers: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> BertConfig:
        """Read a parsed ``config.json``.

        Raises:
            ConfigurationError: The architecture is none that the graph can express, or a number is missing.
        """
        expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for name, value in expected.items():
            if config.get(name, value) != value or "model_type" not in config:
                raise ConfigurationError(
                    f"model.safetensors runs for BERT encoders only ({name} = {value!r}, here {config.get(name)!r}); "
                    "export the model to onnx/model.onnx, or use SentenceTransformerEmbedder"
                )
        try:
            read = cls(
                layers=config["num_hidden_layers"],
                heads=config["num_attention_heads"],
                hidden=config["hidden_size"],
                intermediate=config["intermediate_size"],
                vocabulary=config["vocab_size"],
                positions=config["max_position_embeddings"],
                types=config.get("type_vocab_size", 2),
                epsilon=config.get("layer_norm_eps", 1e-12),
            )
        except KeyError as error:
            raise ConfigurationError(f"config.json lacks {error}") from error
        if read.hidden % read.heads:
            raise ConfigurationError(f"hidden_size {read.hidden} is no multiple of {read.heads} attention heads")
        return read


def tensor_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that the graph asks for."""
    d, wide = config.hidden, config.intermediate
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocabulary, d),
        "embeddings.position_embeddings.weight": (config.positions, d),
        "embeddings.token_type_embeddings.weight": (config.types, d),
        **_affine("embeddings.LayerNorm", (d,)),
    }
    for layer in range(config.layers):
        at = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes |= _affine(f"{at}.attention.self.{part}", (d, d))
        shapes |= _affine(f"{at}.attention.output.dense", (d, d))
        shapes |= _affine(f"{at}.attention.output.LayerNorm", (d,))
        shapes |= _affine(f"{at}.intermediate.dense", (wide, d))
        shapes |= _affine(f"{at}.output.dense", (d, wide))
        shapes |= _affine(f"{at}.output.LayerNorm", (d,))
    return shapes


def bert_graph(config: BertConfig) -> bytes:
    """An ONNX model: int64 [n, l] ``input_ids``, ``attention_mask`` and ``token_type_ids`` to ``last_hidden_state``.

    The output is float32 [n, l, hidden]. Between the reshapes a text's tokens lie in one matrix [n * l, hidden], since
    Gemm takes the weights transposed, as they are stored.
    """
    graph = _Graph()
    graph.node("Shape", ["input_ids"], "sizes")
    graph.node(
        "Concat", ["sizes", graph.ints("head_sizes", [config.heads, config.hidden // config.heads])], "split", axis=0
    )
    graph.node("Concat", ["sizes", graph.ints("hidden_size", [config.hidden])], "whole", axis=0)
    graph.ints("rows", [-1, config.hidden])
    graph.scalar("scale", (config.hidden // config.heads) ** -0.5)
    _mask(graph)
    state = _embeddings(graph, config)
    for layer in range(config.layers):
        state = _layer(graph, config, f"encoder.layer.{layer}", state)
    graph.node("Reshape", [state, "whole"], "last_hidden_state")
    for name, shape in tensor_shapes(config).items():
        graph.weight(name, shape)
    return graph.model("last_hidden_state", config.hidden)


def _mask(graph: _Graph) -> None:
    graph.node("Cast", ["attention_mask"], "present", to=FLOAT)
    graph.node("Sub", [graph.scalar("one", 1.0), "present"], "absent")
    graph.node("Mul", ["absent", graph.scalar("masked", MASKED)], "penalty")
    graph.node("Unsqueeze", ["penalty", graph.ints("head_and_query", [1, 2])], "mask")


def _embeddings(graph: _Graph, config: BertConfig) -> str:
    at = "embeddings"
    graph.node("Gather", [f"{at}.word_embeddings.weight", "input_ids"], "words")
    graph.node("Gather", [f"{at}.token_type_embeddings.weight", "token_type_ids"], "types")
    graph.node("Shape", ["input_ids"], "length", start=1)
    graph.node("Slice", [f"{at}.position_embeddings.weight", graph.ints("zero", [0]), "length", "zero"], "positions")
    graph.node("Add", ["words", "types"], "typed")
    graph.node("Add", ["typed", "positions"], "placed")
    graph.node("Reshape", ["placed", "rows"], "embedded")
    return graph.normalise(f"{at}.LayerNorm", "embedded", config.epsilon)


def _layer(graph: _Graph, config: BertConfig, at: str, state: str) -> str:
    def heads(part: str, order: list[int]) -> str:
        projected = graph.affine(f"{at}.attention.self.{part}", state)
        split = graph.node("Reshape", [projected, "split"], f"{projected}.split")
        return graph.node("Transpose", [split], f"{projected}.heads", perm=order)

    query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
    products = graph.node("MatMul", [query, key], f"{at}.products")
    scaled = graph.node("Mul", [products, "scale"], f"{at}.scaled")
    scores = graph.node("Add", [scaled, "mask"], f"{at}.scores")
    weights = graph.node("Softmax", [scores], f"{at}.weights", axis=-1)
    mixed = graph.node("MatMul", [weights, value], f"{at}.mixed")
    joined = graph.node("Transpose", [mixed], f"{at}.joined", perm=[0, 2, 1, 3])
    context = graph.node("Reshape", [joined, "rows"], f"{at}.context")

    attended = graph.affine(f"{at}.attention.output.dense", context)
    residual = graph.node("Add", [attended, state], f"{at}.attention.sum")
    middle = graph.normalise(f"{at}.attention.output.LayerNorm", residual, config.epsilon)
    wide = graph.affine(f"{at}.intermediate.dense", middle)
    active = graph.node("Gelu", [wide], f"{at}.active")
    narrow = graph.affine(f"{at}.output.dense", active)
    residual = graph.node("Add", [narrow, middle], f"{at}.sum")
    return graph.normalise(f"{at}.output.LayerNorm", residual, config.epsilon)


def _affine(name: str, weight: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


class _Graph:
    """Collects the parts of a GraphProto. Methods that make a value return its name."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: float | list[int]) -> str:
        self._nodes.append(
            b"".join(
                [
                    *(_field(1, name) for name in inputs),
                    _field(2, output),
                    _field(3, output),
                    _field(4, operator),
                    *(_field(5, _attribute(name, value)) for name, value in attributes.items()),
                ]
            )
        )
        return output

    def affine(self, name: str, value: str) -> str:
        return self.node("Gemm", [value, f"{name}.weight", f"{name}.bias"], f"{name}.out", transB=1)

    def normalise(self, name: str, value: str, epsilon: float) -> str:
        inputs = [value, f"{name}.weight", f"{name}.bias"]
        return self.node("LayerNormalization", inputs, f"{name}.out", epsilon=float(epsilon))

    def ints(self, name: str, values: Sequence[int]) -> str:
        raw = struct.pack(f"<{len(values)}q", *values)
        self._tensors.append(_field(1, len(values)) + _field(2, INT64) + _field(8, name) + _field(9, raw))
        return name

    def scalar(self, name: str, value: float) -> str:
        self._tensors.append(_field(2, FLOAT) + _field(8, name) + _field(9, struct.pack("<f", value)))
        return name

    def weight(self, name: str, shape: Sequence[int]) -> None:
        """A tensor whose values come from outside; the location is demanded by the format and never opened."""
        location = _field(1, "location") + _field(2, "weights")
        dims = b"".join(_field(1, size) for size in shape)
        tail = _field(8, name) + _field(13, location) + _field(14, EXTERNAL)
        self._tensors.append(dims + _field(2, FLOAT) + tail)

    def model(self, output: str, hidden: int) -> bytes:
        names = ("input_ids", "attention_mask", "token_type_ids")
        graph = b"".join(
            [
                *(_field(1, node) for node in self._nodes),
                _field(2, "bert"),
                *(_field(5, tensor) for tensor in self._tensors),
                *(_field(11, _value(name, INT64, ["n", "l"])) for name in names),
                _field(12, _value(output, FLOAT, ["n", "l", hidden])),
            ]
        )
        return _field(1, IR_VERSION) + _field(7, graph) + _field(8, _field(1, "") + _field(2, OPSET))


def _attribute(name: str, value: float | list[int]) -> bytes:
    if isinstance(value, list):
        return _field(1, name) + b"".join(_field(8, item) for item in value) + _field(20, 7)
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    return _field(1, name) + _field(2, value) + _field(20, 1)


def _value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(2 if isinstance(size, str) else 1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def _field(number: int, value: float | str | bytes) -> bytes:
    """One protobuf field: int as varint, float as fixed 32 bits, text and bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value & (1 << 64) - 1)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
