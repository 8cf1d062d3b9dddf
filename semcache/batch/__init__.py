"""Batch files of OpenAI's format: hits are answered here, and only the rest is sent.

::

    with SemanticCache() as cache:
        split(cache, "in.jsonl", hits="hits.jsonl", rest="rest.jsonl")
        ...  # send rest.jsonl as a batch, fetch results.jsonl
        merge(cache, "in.jsonl", hits="hits.jsonl", results=["results.jsonl"], out="out.jsonl")

What comes out has one line for each line of the input, in its order, as the provider would have written it. Both steps
may be done again: they read their inputs, and replace what they write in one step.
"""

from __future__ import annotations

from semcache.batch.merge import Merged, merge
from semcache.batch.split import Split, split

__all__ = ["Merged", "Split", "merge", "split"]
