from __future__ import annotations

import pytest
from tiny_cross_encoder import write_folder

from semcache.testing.verifier_contract import VerifierContract
from semcache.verifiers import FunctionVerifier, LLMVerifier, OnnxCrossEncoder, Verifier


def overlap(query: str, cached: str) -> float:
    ours, theirs = set(query.split()), set(cached.split())
    return len(ours & theirs) / len(ours | theirs)


class TestFunctionVerifier(VerifierContract):
    @pytest.fixture
    def verifier(self) -> Verifier:
        return FunctionVerifier(overlap)


class TestLLMVerifier(VerifierContract):
    @pytest.fixture
    def verifier(self) -> Verifier:
        return LLMVerifier(lambda prompt: "Yes." if prompt.count("password") > 1 else "no")


class TestOnnxCrossEncoder(VerifierContract):
    @pytest.fixture
    def verifier(self, tmp_path) -> Verifier:
        return OnnxCrossEncoder(write_folder(tmp_path / "model"))
