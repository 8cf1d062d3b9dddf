"""The graph without weights, against BERT written in numpy; and the safetensors reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.embedders import OnnxEmbedder, _safetensors
from semcache.embedders._bert_graph import BertConfig, bert_graph, tensor_shapes
from semcache.errors import ConfigurationError, EmbedderError

TEXTS = ["how reset password", "we", "sun tax we: how? word 42"]


@settings(max_examples=20, deadline=None)
@given(
    layers=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 4]),
    size=st.sampled_from([3, 8]),
    texts=st.lists(st.lists(st.integers(5, 100), min_size=1, max_size=9), min_size=1, max_size=3),
)
def test_the_graph_computes_what_the_paper_says(
    tmp_path_factory: pytest.TempPathFactory, layers: int, heads: int, size: int, texts: list[list[int]]
) -> None:
    from semcache.embedders._model import read_folder
    from semcache.embedders.onnx import _Runner

    folder = tmp_path_factory.mktemp("bert") / "model"
    tiny_bert.write_folder(folder, layers=layers, heads=heads, hidden=heads * size)
    model = read_folder(folder)
    assert model.config is not None
    weights = tiny_bert.weights(model.config)
    pooled = _Runner.load(model, threads=1).run(texts, pad_id=0)
    for row, ids in zip(pooled, texts, strict=True):
        expected = tiny_bert.forward(model.config, weights, ids).mean(axis=0)
        np.testing.assert_allclose(row, expected, atol=2e-4)


@pytest.mark.parametrize(("kind", "atol"), [("F32", 1e-4), ("F64", 1e-4), ("F16", 0.02), ("BF16", 0.1)])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_every_number_format_and_pooling(tmp_path: Path, kind: str, atol: float, pooling: str) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16, pooling=pooling, kind=kind)
    embedder = OnnxEmbedder(folder)
    config = BertConfig.read(json.loads((folder / "config.json").read_text()))
    weights = tiny_bert.weights(config)
    for text, row in zip(TEXTS, embedder.embed(TEXTS), strict=True):
        states = tiny_bert.forward(config, weights, embedder._tokens().encode(text))
        expected = states.mean(axis=0) if pooling == "mean" else states[0]
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=atol)


def test_weights_saved_under_a_head_are_found(tmp_path: Path) -> None:
    plain = tiny_bert.write_folder(tmp_path / "a", layers=1, heads=2, hidden=16)
    prefixed = tiny_bert.write_folder(tmp_path / "b", layers=1, heads=2, hidden=16)
    tensors = _safetensors.read(plain / "model.safetensors")
    renamed = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    tiny_bert.write_safetensors(prefixed / "model.safetensors", renamed)
    np.testing.assert_allclose(OnnxEmbedder(plain).embed(TEXTS), OnnxEmbedder(prefixed).embed(TEXTS))


def test_a_missing_or_misshapen_tensor_is_named(tmp_path: Path) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16)
    tensors = dict(_safetensors.read(folder / "model.safetensors"))
    del tensors["encoder.layer.0.output.dense.bias"]
    tiny_bert.write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(EmbedderError, match=r"encoder\.layer\.0\.output\.dense\.bias \[16\], has none"):
        OnnxEmbedder(folder).embed(["x"])


@pytest.mark.parametrize("keep", [0, 4, 9, 200, -1])
def test_a_torn_file_is_trouble(tmp_path: Path, keep: int) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:keep])
    with pytest.raises(EmbedderError, match=r"model\.safetensors"):
        OnnxEmbedder(folder).embed(["x"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type = 'bert'"),
        ({"hidden_act": "relu"}, "hidden_act = 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"num_attention_heads": 3}, "no multiple of 3"),
    ],
)
def test_other_architectures_are_refused_when_built(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConfigurationError, match=message):
        OnnxEmbedder(folder)


def test_the_graph_is_the_same_every_time() -> None:
    config = BertConfig.read(tiny_bert.config_json(layers=2, heads=2, hidden=16))
    assert bert_graph(config) == bert_graph(config)
    assert len(tensor_shapes(config)) == 5 + 2 * 16
