"""Every embedder of the base install against the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from embedding_server import serve
from tiny_bert import write_folder

from semcache.testing.embedder_contract import EmbedderContract


class TestOnnxDefault(EmbedderContract):
    @pytest.fixture
    def definition(self) -> str:
        return "from semcache.embedders import OnnxEmbedder\nembedder = OnnxEmbedder()"


class TestOnnxFromSafetensors(EmbedderContract):
    """A tiny BERT with random weights, through the graph that is written here."""

    @pytest.fixture
    def definition(self, tmp_path: Path) -> str:
        folder = write_folder(tmp_path / "model", layers=2, heads=2, hidden=32)
        return f"from semcache.embedders import OnnxEmbedder\nembedder = OnnxEmbedder({str(folder)!r})"


class TestRemote(EmbedderContract):
    texts = tuple(text for text in EmbedderContract.texts if text)

    @pytest.fixture
    def definition(self) -> Iterator[str]:
        with serve() as server:
            yield (
                "from semcache.embedders import RemoteEmbedder\n"
                f"embedder = RemoteEmbedder({server.url!r}, 'letters', timeout_s=30)"
            )


class TestCallable(EmbedderContract):
    heavy = ("onnxruntime", "tokenizers", "torch", "transformers")

    @pytest.fixture
    def definition(self) -> str:
        here = str(Path(__file__).parent)
        return (
            f"import sys; sys.path.append({here!r})\n"
            "from embedding_server import vectors\n"
            "from semcache.embedders import CallableEmbedder\n"
            "embedder = CallableEmbedder(vectors, fingerprint='letters/1')"
        )
