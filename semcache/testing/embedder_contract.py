"""The contract of :class:`~semcache.embedders.base.Embedder` as tests.

Subclass :class:`EmbedderContract` in a test module and say how the embedder is made::

    class TestMyEmbedder(EmbedderContract):
        @pytest.fixture
        def definition(self) -> str:
            return "from mine import MyEmbedder; embedder = MyEmbedder()"

The definition is source text because some promises are about fresh processes.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder

TEXTS = (
    "How do I reset my password?",
    "x",
    "Why was my card charged twice for the same order, and when will I see the refund on my statement?",
    "What is the capital of France?",
    "How do I reset my password on the phone app?",
    "Can you explain, step by step and with an example that a beginner can follow, how compound interest on a "
    "savings account is worked out when the rate changes in the middle of the year?",
    "",
    "naïve café, São Paulo",
)

QUICK_FORK_S = 60.0
"""Seconds until a forked child counts as hung."""


class EmbedderContract:
    """Every test is one promise."""

    heavy: ClassVar[tuple[str, ...]] = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers")
    """Modules that building the embedder must not import."""

    texts: ClassVar[tuple[str, ...]] = TEXTS
    """Short texts that fit."""

    @pytest.fixture
    def definition(self) -> str:
        """Python source that binds ``embedder``."""
        raise NotImplementedError

    @pytest.fixture
    def embedder(self, definition: str) -> Embedder:
        return _build(definition)

    def test_rows_are_finite_unit_float32_in_order(self, embedder: Embedder) -> None:
        import numpy as np

        rows = embedder.embed(self.texts)
        assert rows.dtype == np.float32
        assert rows.shape == (len(self.texts), embedder.dim)
        assert np.isfinite(rows).all()
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        backwards = embedder.embed(self.texts[::-1])
        np.testing.assert_allclose(backwards[::-1], rows, atol=0.02)

    def test_no_texts_make_no_rows(self, embedder: Embedder) -> None:
        assert embedder.embed([]).shape == (0, embedder.dim)

    def test_a_text_has_one_vector_alone_and_in_any_batch(self, embedder: Embedder) -> None:
        import numpy as np

        alone = np.concatenate([embedder.embed([text]) for text in self.texts])
        for batch in (self.texts, self.texts[::-1], self.texts * 5, self.texts[:2]):
            rows = embedder.embed(batch)
            expected = np.stack([alone[self.texts.index(text)] for text in batch])
            assert np.einsum("ij,ij->i", rows, expected).min() >= 0.9999

    def test_different_texts_have_different_vectors(self, embedder: Embedder) -> None:
        import numpy as np

        rows = embedder.embed(self.texts)
        assert (rows @ rows.T - np.eye(len(rows)) * 2).max() < 0.999

    def test_the_fingerprint_is_the_same_in_a_fresh_process(self, definition: str) -> None:
        first = _build(definition).fingerprint
        assert first
        assert first == _build(definition).fingerprint
        assert first == in_fresh_process(f"{definition}\nprint(embedder.fingerprint)")

    def test_building_loads_nothing(self, definition: str) -> None:
        code = f"{definition}\nimport sys\nprint(sorted(set({self.heavy!r}) & set(sys.modules)))"
        assert in_fresh_process(code) == "[]"

    def test_short_texts_fit_and_huge_ones_do_not(self, embedder: Embedder) -> None:
        assert [text for text in self.texts if text and not embedder.fits(text)] == []
        assert not embedder.fits("word " * 100_000)

    def test_the_last_word_of_the_longest_text_that_fits_is_read(self, embedder: Embedder) -> None:
        import numpy as np

        low, high = 1, 100_000
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if embedder.fits("we " * middle) else (low, middle)
        start = "we " * (low - 2)
        assert embedder.fits(f"{start}sun")
        sun, tax = embedder.embed([f"{start}sun", f"{start}tax"])
        assert np.abs(sun - tax).max() > 1e-5

    def test_threads_share_it(self, embedder: Embedder) -> None:
        import numpy as np

        expected = embedder.embed(self.texts)

        def work(turn: int) -> float:
            at = turn % len(self.texts)
            return float(embedder.embed([self.texts[at]])[0] @ expected[at])

        with ThreadPoolExecutor(8) as pool:
            assert min(pool.map(work, range(64))) >= 0.9999
        assert np.isfinite(expected).all()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_can_use_it(self, embedder: Embedder) -> None:
        """While another thread of the parent is inside of it, and may hold its locks."""
        import numpy as np

        expected = embedder.embed(self.texts[:1])
        stop = threading.Event()
        busy = threading.Thread(target=_keep_busy, args=(embedder, self.texts, stop))
        busy.start()
        try:
            answers = [in_forked_child(lambda: embedder.embed(self.texts[:1]).tobytes()) for _ in range(5)]
        finally:
            stop.set()
            busy.join()
        for answer in answers:
            assert float(np.frombuffer(answer, np.float32) @ expected[0]) >= 0.9999

    def test_a_text_that_is_not_unicode_is_trouble(self, embedder: Embedder) -> None:
        assert not embedder.fits("lone \ud800 surrogate")
        with pytest.raises(EmbedderError):
            embedder.embed(["fine", "lone \ud800 surrogate"])


def _build(definition: str) -> Embedder:
    names: dict[str, Any] = {"__name__": "embedder_definition"}
    exec(definition, names)
    embedder: Embedder = names["embedder"]
    return embedder


def in_fresh_process(code: str) -> str:
    """What ``code`` prints in a new interpreter that finds the same modules."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def _keep_busy(embedder: Embedder, texts: tuple[str, ...], stop: threading.Event) -> None:
    while not stop.is_set():
        embedder.embed(texts)


def in_forked_child(work: Callable[[], bytes]) -> bytes:
    """What ``work`` returns in a forked child (a few kB at most). A child that hangs or fails fails the test."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, work())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], QUICK_FORK_S)
        answer = os.read(reader, 1 << 16) if ready else b""
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ready, "the forked child hangs"
    assert answer, "the forked child failed"
    return answer
