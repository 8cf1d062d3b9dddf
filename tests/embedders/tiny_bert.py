"""A BERT with random weights, as a folder in the hub's format and as plain numpy: the oracle of the ONNX graph."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from semcache.embedders._bert_graph import BertConfig, tensor_shapes

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "how", "reset", "password", "word", "we", "sun", "tax")
VOCABULARY = (
    *WORDS,
    *map(chr, range(33, 127)),
    *(f"##{chr(code)}" for code in range(97, 123)),
    *(f"##{i}" for i in range(10)),
)
WINDOW = 256


def config_json(*, layers: int, heads: int, hidden: int) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": hidden,
        "intermediate_size": hidden * 2,
        "vocab_size": len(VOCABULARY),
        "max_position_embeddings": WINDOW,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }


def weights(config: BertConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Gains near 1, everything else normal: large enough that no part of the model can be left out unseen."""
    random = np.random.default_rng(seed)
    made = {}
    for name, shape in tensor_shapes(config).items():
        values = random.normal(0, 0.5 if "embeddings" in name else 0.3, shape)
        made[name] = (values + 1 if name.endswith("LayerNorm.weight") else values).astype(np.float32)
    return made


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], kind: str = "F32") -> None:
    raw = {name: _encode(tensor, kind) for name, tensor in tensors.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, data in raw.items():
        header[name] = {"dtype": kind, "shape": list(tensors[name].shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(raw.values()))


def _encode(tensor: np.ndarray, kind: str) -> bytes:
    if kind == "BF16":
        return (np.ascontiguousarray(tensor).view(np.uint32) >> 16).astype("<u2").tobytes()
    return tensor.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[kind]).tobytes()


def write_folder(
    folder: Path, *, layers: int, heads: int, hidden: int, pooling: str = "mean", kind: str = "F32"
) -> Path:
    config = config_json(layers=layers, heads=heads, hidden=hidden)
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "cls"})
    )
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    write_safetensors(folder / "model.safetensors", weights(BertConfig.read(config)), kind)
    return folder


def forward(config: BertConfig, w: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """Token states of one text, float64 [l, hidden]; straight from the paper's formulas."""

    def affine(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{name}.weight"].astype(float).T + w[f"{name}.bias"]

    def normalise(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.epsilon)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    table = "embeddings.{}_embeddings.weight"
    x = w[table.format("word")][ids] + w[table.format("position")][: len(ids)] + w[table.format("token_type")][0]
    x = normalise("embeddings.LayerNorm", x.astype(float))
    size = config.hidden // config.heads
    for layer in range(config.layers):
        at = f"encoder.layer.{layer}"
        q, k, v = (affine(f"{at}.attention.self.{part}", x) for part in ("query", "key", "value"))
        heads = []
        for head in range(config.heads):
            cut = slice(head * size, (head + 1) * size)
            scores = np.exp(q[:, cut] @ k[:, cut].T / math.sqrt(size))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, cut])
        x = normalise(f"{at}.attention.output.LayerNorm", x + affine(f"{at}.attention.output.dense", np.hstack(heads)))
        wide = affine(f"{at}.intermediate.dense", x)
        active = wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))) / 2
        x = normalise(f"{at}.output.LayerNorm", x + affine(f"{at}.output.dense", active))
    return x
