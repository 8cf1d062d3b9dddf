"""Second opinions on candidates that the policy would not serve by itself."""

from __future__ import annotations

from semcache.verifiers.base import FunctionVerifier, TextPair, Verifier, resolve
from semcache.verifiers.cross_encoder import OnnxCrossEncoder, SentenceTransformersCrossEncoder
from semcache.verifiers.desk import VerifierDesk
from semcache.verifiers.kept import KeptVerdicts
from semcache.verifiers.llm import LLMVerifier

__all__ = [
    "FunctionVerifier",
    "KeptVerdicts",
    "LLMVerifier",
    "OnnxCrossEncoder",
    "SentenceTransformersCrossEncoder",
    "TextPair",
    "Verifier",
    "VerifierDesk",
    "resolve",
]
