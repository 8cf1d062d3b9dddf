"""Questions about now, whose answers go out of date: "what time is it", "the latest news", "open today".

No veto: such a question may be answered from the cache for a short while, see ``Policy.time_bound_ttl``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from semcache.guards.lexicon import time_words
from semcache.guards.text import read

_WORD: Final = re.compile(r"[^\W_]+")

_LONGEST: Final = 500
"""Characters. A longer text brings the material for its answer with it, whose "today" is not the asker's."""

_TIMELESS: Final = "timeless"


@lru_cache(maxsize=256)  # a call asks before it looks and before it stores
def time_bound(text: str) -> str:
    """The words by which a text asks for what holds at the moment of asking; empty if it does not, or is long.

    English, German, French, Spanish, Italian, Portuguese and Dutch; for other languages there are no words yet.
    """
    if len(text) > _LONGEST:
        return ""
    words = tuple(_WORD.findall(text.casefold()))
    for start, end, languages in time_words().find(words, words):
        if "en" in languages or (_TIMELESS not in languages and read(text).language in languages):
            return " ".join(words[start:end])
    return ""
