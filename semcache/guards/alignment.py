"""Which content words of two texts say the same thing."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final

from semcache.guards.lexicon import english, lookalikes, stem, unstemmed, with_e
from semcache.guards.text import Text, Word, made_of

# Endings that derive a word from another without changing what it is about. Those that do are left out: a prisoner is
# not a prison, an employee no employer, and harmless is not harm.
_DERIVED: Final = frozenset(
    {
        *("a", "al", "able", "ably", "ability", "ance", "ancy", "ar", "ary", "at", "ate", "ation", "ational"),
        *("cation", "e", "ed", "en", "ence", "ency", "ent", "es", "ese", "ful", "i", "ia", "ial", "ian", "ib"),
        *("ible", "ic", "ical", "ication", "if", "ific", "ification", "in", "ing", "ion", "ional", "is", "isation"),
        *("ish", "iti", "ition", "ity", "iv", "ive", "iz", "ization", "li", "ly", "ment", "n", "ness", "ous", "s"),
        *("sion", "t", "th", "tion", "tional", "ur", "ure", "y", "an"),
    }
)


def align(a: Text, b: Text) -> tuple[list[Word], list[Word]]:
    """The content words of each text that have no counterpart in the other, in order."""
    return list(without_counterpart(a, b)), list(without_counterpart(b, a))


@lru_cache(maxsize=256)  # several guards and the probability ask the same of a pair
def without_counterpart(a: Text, b: Text) -> tuple[Word, ...]:
    """The content words of a text that have no counterpart in another, in order."""
    stems, folds = b.word_stems, b.present
    left = [
        word
        for word in a.words
        if word.stem not in stems and word.fold not in folds and word.concepts.isdisjoint(b.concepts)
    ]
    if not left:
        return ()
    joined = _joined(b)
    return tuple(word for word in left if word.fold not in joined and not _written_otherwise(word, b))


def _written_otherwise(word: Word, text: Text) -> bool:
    """Whether a word is in a text as two, in a derived form, or with a slip of the fingers."""
    first = word.fold[0]  # nearly all words differ in it, and nothing here crosses that
    for other in text.words:
        if other.fold[0] == first and _similar(word.fold, word.stem, other.fold, other.stem):
            return True
    for fold in text.present:
        if fold[0] == first and (_begins(fold, word.fold, text.present) or _slip_of(word.fold, fold)):
            return True
    return False


def _joined(text: Text) -> frozenset[str]:
    """Neighbouring tokens written as one word ("check in", "checkin"), and as an acronym of three to five words."""
    known: frozenset[str] | None = made_of(text).get("joined")
    if known is None:
        folds = text.folds
        pairs = {first + second for first, second in pairwise(folds)}
        letters = "".join(fold[0] for fold in folds)
        acronyms = {letters[i : i + n] for n in (3, 4, 5) for i in range(len(letters) - n + 1)}
        made_of(text)["joined"] = known = frozenset(pairs | acronyms)
    return known


def _begins(part: str, word: str, folds: frozenset[str]) -> bool:
    """Whether a token is the first half of a word, and the second is there too."""
    return word.startswith(part) and 2 <= len(part) <= len(word) - 2 and word[len(part) :] in folds


def _slip_of(word: str, fold: str) -> bool:
    """Whether a word is a slip of a function word ("wehn")."""
    return fold in english().function and _similar(word, word, fold, fold)


@lru_cache(maxsize=65536)
def _similar(a: str, stem_a: str, b: str, stem_b: str) -> bool:
    """Whether two words with different stems are one: derived from each other, or a typing error."""
    return derived(stem_a, stem_b) or mistyped(a, b)


def derived(a: str, b: str) -> bool:
    """Whether two stems share their root and differ by common endings ("deliver", "delivery")."""
    if frozenset((a, b)) in english().apart:
        return False
    a, b = _root(a), _root(b)
    if a == b:  # a "plane" and a "plan"
        return False
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    if n < 4:
        return False
    # The root may lose its last letters to both endings ("activat", "activation").
    return any(_ends(a, cut) and _ends(b, cut) for cut in range(n, max(3, n - 3), -1))


def _root(stemmed: str) -> str:
    """A stem without the "e" that only short ones keep."""
    root = stemmed.removesuffix("e")
    return root if with_e(root) == stemmed else stemmed


def _ends(word: str, cut: int) -> bool:
    """Whether a word is its first letters and a common ending, the last letter doubled or not ("cancel-lation")."""
    rest = word[cut:]
    return not rest or rest in _DERIVED or (rest[0] == word[cut - 1] and rest[1:] in _DERIVED)


def mistyped(a: str, b: str) -> bool:
    """Whether one word is the other with a slip of the fingers.

    Two words that are spelled right are never slips of each other ("infection", "injection"). Beside an ordinary word
    one edit is a slip. Of two words that are in no list only exchanged or doubled letters are, and in a long word a
    wrong vowel: "Jansen" and "Hansen" are two people.
    """
    edit = slip(a, b)
    if not edit or (_spelled(a) and _spelled(b)):
        return False
    return edit in ("swap", "double") or (edit == "vowel" and len(a) > 6) or _ordinary(a) or _ordinary(b)


def slip(a: str, b: str) -> str:
    """The slip of the fingers that could have made one word of the other, whatever words they are; empty if none.

    ``swap`` (neighbours exchanged), ``double`` (a letter doubled or not), ``vowel`` (one for another), ``other``. In
    words of four letters only the first is taken for one.
    """
    if a == b or min(len(a), len(b)) < 4 or abs(len(a) - len(b)) > 1:
        return ""
    edit = _edit(a, b)
    return edit if edit == "swap" or max(len(a), len(b)) > 4 else ""


def _ordinary(word: str) -> bool:
    known = english().known
    return word in known or stem(word) in known


def _spelled(word: str) -> bool:
    """Whether a word is right as it stands. Of words that no slip makes another one, only ours are known."""
    return _ordinary(word) or not lookalikes().isdisjoint((word, *unstemmed(stem(word))))


def _edit(a: str, b: str) -> str:
    """The one edit between two words, or nothing if they are farther apart."""
    if len(a) > len(b):
        a, b = b, a
    at = 0
    while at < len(a) and a[at] == b[at]:
        at += 1
    if len(a) < len(b):
        if a[at:] != b[at + 1 :]:
            return ""
        return "double" if b[at] == b[at - 1] else "other"
    if a[at + 1 :] == b[at + 1 :]:
        return "vowel" if {a[at], b[at]} <= set("aeiou") and at + 1 < len(a) else "other"
    if a[at + 2 :] == b[at + 2 :] and a[at : at + 2] == b[at : at + 2][::-1]:
        return "swap"
    return ""
