"""Tests of an extra are collected only where the extra is installed; ``make test-st`` runs them by name."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("sentence_transformers") else ["test_embed_sentence_transformers.py"]
