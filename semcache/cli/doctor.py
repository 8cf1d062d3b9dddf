"""``semcache doctor``."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal, NamedTuple

import click

from semcache._version import __version__
from semcache.cli._common import console, json_option, must_exist, print_json, safe, store_option

REQUIRED: Final = {
    "numpy": "numpy",
    "faiss-cpu": "faiss",
    "onnxruntime": "onnxruntime",
    "tokenizers": "tokenizers",
    "redis": "redis",
    "xxhash": "xxhash",
    "orjson": "orjson",
}
"""Distributions that the cache cannot do without, with the module that each must bring."""

EXTRAS: Final = {
    "sentence-transformers": "sentence-transformers",
    "openai": "openai",
    "anthropic": "anthropic",
    "google-genai": "gemini",
    "boto3": "bedrock",
    "litellm": "litellm",
    "genai-prices": "prices",
    "hiredis": "hiredis",
    "cryptography": "encryption",
    "jsonschema-rs": "schema",
    "pyarrow": "parquet",
    "matplotlib": "report",
}
"""Optional distributions, with the extra of this package that installs each."""


class Check(NamedTuple):
    """One finding. ``absent`` is something optional that is not installed: nothing is wrong."""

    name: str
    status: Literal["ok", "absent", "broken"]
    detail: str


@click.command()
@store_option
@click.option("--embedder", help="A model name or path; default: the installed weights.")
@json_option
def doctor(store_url: str, embedder: str | None, as_json: bool) -> None:
    """Check the store, the index, the embedder and the installed versions.

    Exit code 1 when something is broken.
    """
    checks = [
        Check("semcache", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"),
        *(_try(name, partial(_package, name, module)) for name, module in REQUIRED.items()),
        *(_extra(name, extra) for name, extra in EXTRAS.items()),
        _try("store", partial(_store, store_url)),
        _try("index", _index),
        _try("embedder", partial(_embedder, embedder)),
        _try("prices", _prices),
    ]
    broken = any(check.status == "broken" for check in checks)
    if as_json:
        print_json({"ok": not broken, "checks": [check._asdict() for check in checks]})
    else:
        _show(checks)
    sys.exit(1 if broken else 0)


def _try(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except Exception as error:  # a broken part must not hide the findings on the others
        kind = "" if str(error) else type(error).__name__
        return Check(name, "broken", f"{kind}{error}")


def _package(name: str, module: str) -> str:
    import_module(module)
    return version(name)


def _extra(name: str, extra: str) -> Check:
    try:
        return Check(name, "ok", version(name))
    except PackageNotFoundError:
        return Check(name, "absent", f"optional; pip install 'semcache-llm[{extra}]'")


def _store(url: str) -> str:
    from semcache.money.ledger import Ledger
    from semcache.stores import open_store

    must_exist(url)
    store = open_store(url)
    try:
        started = time.perf_counter()
        store.ping()
        answered = time.perf_counter() - started
        size = store.stats()
        calls = Ledger(store).report().totals.requests
    finally:
        store.close()
    return (
        f"{size.kind} {size.location}: {size.entries:,} entries, {calls:,} calls booked, ping {answered * 1e3:.1f} ms"
    )


def _index() -> str:
    import numpy as np
    import semcache_indexes

    index = semcache_indexes.create("ladder", 8)
    try:
        index.add([1, 2], np.eye(8, dtype=np.float32)[:2], [7, 7])
        found = [match.id for match in index.search(np.eye(8, dtype=np.float32)[1], partition=7, k=1)]
        if found != [2]:
            raise RuntimeError(f"a search for vector 2 of 2 found {found}")
        return f"{index.stats().kind}: adds and finds"
    finally:
        index.close()


def _embedder(spec: str | None) -> str:
    import numpy as np

    from semcache.embedders import resolve, source_of

    embedder = resolve(spec)
    started = time.perf_counter()
    vectors = embedder.embed(["How do I reset my password?", "How can I reset my password?", "It rains in Oslo."])
    took = time.perf_counter() - started
    if vectors.shape != (3, embedder.dim) or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        raise RuntimeError(f"the vectors are not unit vectors of length {embedder.dim}")
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    if near <= far:
        raise RuntimeError(f"a paraphrase scores {near:.3f}, an unrelated text {far:.3f}: wrong weights or tokenizer")
    return f"{source_of(embedder)}; {embedder.fingerprint}; first vectors in {took * 1e3:.0f} ms"


def _prices() -> str:
    from semcache.money.prices import as_of

    return f"own table of {as_of()}"


def _show(checks: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    marks: dict[str, Any] = {
        "ok": Text("ok", "green"),
        "absent": Text("–", "dim"),
        "broken": Text("BROKEN", "bold red"),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column()
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(marks[check.status], check.name, safe(check.detail))
    console().print(table)
