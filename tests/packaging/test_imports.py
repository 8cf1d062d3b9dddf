"""What importing the package costs, and what it offers."""

import subprocess
import sys

import pytest

import semcache

HEAVY = [
    "numpy",
    "faiss",
    "onnxruntime",
    "tokenizers",
    "torch",
    "redis",
    "sqlite3",
    "openai",
    "anthropic",
    "botocore",
    "rich",
    "httpx",
    "httpx2",
]


def loaded_after(statement):
    code = f"import sys; {statement}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize(
    "statement",
    [
        "import semcache",
        "from semcache import SemanticCache, Policy, Ledger, last_outcome",
        "from semcache.cli import main",
    ],
)
def test_importing_brings_nothing_heavy(statement):
    assert loaded_after(statement) == []


def test_an_exact_hit_needs_neither_numpy_nor_a_model():
    statement = (
        "import semcache; cache = semcache.SemanticCache(store='memory://', policy=semcache.Policy(semantic=False)); "
        "cache.store('hi', 'ho'); assert cache.lookup('hi').response"
    )
    assert loaded_after(statement) == []


def test_every_public_name_exists_and_nothing_else_is_exported():
    names = [getattr(semcache, name) for name in semcache.__all__]
    assert len(names) == len(set(semcache.__all__))
    assert sorted(dir(semcache)) == sorted(semcache.__all__)
    assert set(semcache._HOME) | {"__version__"} == set(semcache.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        semcache.nonsense  # noqa: B018
