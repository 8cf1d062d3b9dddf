"""Texts to unit vectors: the protocol, four embedders, and the queue that the cache talks to."""

from __future__ import annotations

from semcache.embedders._resolve import resolve, source_of
from semcache.embedders.base import Embedder
from semcache.embedders.function import CallableEmbedder
from semcache.embedders.onnx import OnnxEmbedder
from semcache.embedders.queue import EmbeddingQueue
from semcache.embedders.remote import RemoteEmbedder
from semcache.embedders.sentence_transformers import SentenceTransformerEmbedder

__all__ = [
    "CallableEmbedder",
    "Embedder",
    "EmbeddingQueue",
    "OnnxEmbedder",
    "RemoteEmbedder",
    "SentenceTransformerEmbedder",
    "resolve",
    "source_of",
]
