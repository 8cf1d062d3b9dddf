"""A text as the guards see it: read once, kept in a bounded memo, and shared by all guards."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, NamedTuple

from semcache.guards.asks import Ask, read_asks
from semcache.guards.lexicon import Found, Lexicon, Pole, english, foreign_words, language_words, stem
from semcache.guards.particles import closed_up
from semcache.guards.quantities import Quantity, read_quantities

Kind = Literal["word", "number", "code", "symbol"]

_BLOCK: Final = re.compile(r"```.*?```|~~~.*?~~~|`[^`\n]+`", re.DOTALL)
_TOKEN: Final = re.compile(
    r"""
    [ ]?(?P<plain>[A-Za-z][a-z]*(?![^\s,?!]))   # most words: these and a space need not be held against what follows
  | (?P<dotted>(?<![\w.])(?:[A-Za-z]\.)+[A-Za-z]\.?(?![^\s,;:!?)]))   # U.S., a.m.
  | (?P<code>
        (?:https?://|www\.)[^\s<>"']*[\w/]                         # link
      | (?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+             # mail address
      | (?<![\w/.])(?:~|\.{1,2})?/(?:[\w.@-]+/){0,64}[\w.@-]*\w     # path
      | [A-Za-z]:\\[^\s"']+                                       # path on Windows
      | (?<![\w.])[A-Za-z]\w*(?:\.\w+)*\(\)                                 # call()
      | [@\#][^\W\d]\w*                                           # handle, tag
      | (?<![\w-])--[A-Za-z][\w-]*|(?<![\w-])-[A-Za-z]\b           # option
      | \d+(?:\.\d+)?(?:\s?[-+*/^=×÷]\s?\d+(?:\.\d+)?)+(?![\w%])  # sum, range, fraction, season, date
      | \d+(?:\.\d+){2,}                                          # version, address
      | (?<!_)_*[^\W_]+(?:_+[^\W_]+)+                                   # snake_case
      | [^\W\d_]+\.(?:com|org|net|io|dev|app|pdf|docx?|xlsx?|csv|json|xml|html?)\b      # site, file
      | [^\W\d_]+\.(?:py|js|ts|txt|png|jpe?g|mp[34]|zip|exe|md|sql|ya?ml|sh)\b
      | \d+(?:\.\d+)?[^\W\d_]\w*                                   # 48a, 5pm
      | [^\W\d_]+-?\d\w*(?:[.-]\w*\d\w*)*                         # A380, gpt-4, covid-19
      | [A-Za-z](?:\+\+|\#)(?!\w)                                 # C++, C#
      | [a-z]+(?:[A-Z][a-z]+)+\b                                  # camelCase
    )
  | (?P<number>(?:(?<![^\s(])-)?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|(?:(?<![^\s(])-)?\d+(?:[.:]\d+)?)
  | (?P<word>[^\W\d_]+(?:'[^\W\d_]+)*)
  | (?P<sign>
        (?:(?<=\b[A-Z])|(?<=\bAB))[+-](?![\w+-])|(?<=[a-z])\+(?![\w+])           # B+, O-, Disney+
      | [*~|\\§±√∞≈≠≤≥\u2190-\u23ff\u25a0-\u27bf\u2900-\u2bff\U0001f000-\U0001faff]+|&&   # operators, arrows, emoji
    )
  | (?P<symbol>[$£€¥₹%°.!?;:\n&^=<>+]|(?<=[\w)]\s)-(?=\s\d))
    """,
    re.VERBOSE,
)
_LETTER_DASH_DIGIT: Final = re.compile(r"([^\W\d_])-(\d)")
_ALIKE: Final = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": " ", "‑": "-"})
_NUMBERED: Final = frozenset({"version", "aged"})
"""Stems that say nothing before a number: "version 3.12", "aged 18"."""
_IDLE: Final = _NUMBERED | {"person", "fail"}
"""Stems that may say nothing, by what stands beside them."""
_LONGEST: Final = 64
"""Characters of a number that is read as one. Longer ones are codes: Python reads no more than 4,300 digits."""
_MODEL: Final = re.compile(r"([a-z]{2,})-?(\d{1,64})")
_NUMBER_SIGN: Final = re.compile(r"\b[Nn]o\.\s?(?=\d)")
_PLUS: Final = re.compile(r"(?<=\d)\+(?![\w+])")
_VERSION: Final = re.compile(r"v(\d{1,32}(?:\.\d{1,32})*)")
_GLUED: Final = re.compile(r"(\d{1,32}(?:\.\d{1,32})?)([^\W\d_]+)")
_SUFFIXES: Final = frozenset({"am", "pm", "st", "nd", "rd", "th", "k", "m", "mn", "bn"})
_END: Final = frozenset(".!?;:\n")
_ACRONYMS: Final = frozenset({"us", "it", "who", "id"})  # in capitals these are no pronouns
_CITED: Final = re.compile(r'"[^"\n]+"|:\s*[^\W\d_]+(?:\s[^\W\d_]+){0,3}[.!?\s]*$')
_EDGE: Final = " \t\r\n.,;:!?…。？！、،؟"
_TAILS: Final = {"re": "are", "ve": "have", "ll": "will", "d": "would", "m": "am"}


_REMEMBERED: Final = 8192
"""Texts."""


class Token(NamedTuple):
    """A word, number, code or symbol.

    ``starts`` tells that it opens a sentence, so that a capital means nothing; ``cited`` that it stands in quotation
    marks, or is one of the last few words after a colon, so that it is spoken of.
    """

    raw: str
    fold: str
    stem: str
    kind: Kind
    starts: bool
    cited: bool = False


class Word(NamedTuple):
    """A word, or a fixed phrase, that carries content. ``at`` is its first token."""

    fold: str
    stem: str
    concepts: frozenset[int]
    at: int


@dataclass(eq=False)
class Text:
    """What is known of a text.

    Args:
        folded: The text without case, runs of white space and punctuation at its ends: equal means "the same text".
        language: ISO 639-1 code, or an empty string if it cannot be told.
        tokens: All tokens, politeness and hesitation taken out.
        words: Content words in order; no numbers, codes, function words or vague words.
        quantities: Numbers with their units, dates and times of day.
        codes: Positions of the codes that belong to no quantity.
        blocks: Code between backticks, white space collapsed.
    """

    folded: str
    language: str
    tokens: tuple[Token, ...]
    words: tuple[Word, ...]
    concepts: frozenset[int]
    quantities: tuple[Quantity, ...]
    counted: frozenset[int]
    asks: tuple[Ask, ...]
    codes: tuple[int, ...]
    blocks: tuple[str, ...]
    folds: tuple[str, ...]
    stems: tuple[str, ...]
    starts: tuple[bool, ...]

    @cached_property
    def present(self) -> frozenset[str]:
        """``folds`` in no order."""
        return frozenset(self.folds)

    @cached_property
    def word_stems(self) -> frozenset[str]:
        return frozenset(word.stem for word in self.words)

    @cached_property
    def poles(self) -> tuple[Found[tuple[Pole, ...]], ...]:
        """The tokens that stand at one end of a line of opposites, from the left."""
        # Units of measured quantities are none: "a week" and "7 days" may be equal.
        return tuple(one for one in english().poles.find(self.folds, self.stems) if one.start not in self.counted)


def fold(text: str) -> str:
    """The identity of a text: NFKC, no case, single spaces, no punctuation at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_EDGE)


@lru_cache(maxsize=_REMEMBERED)
def made_of(text: Text) -> dict[str, Any]:
    """What was made of a text, by name (each guard has one), to be filled by those who make it.

    Beside the text and not in it: some of it holds the text, and what holds itself stays in memory until the collector
    comes, which costs more than half as much again as reading texts does.
    """
    return {}


@lru_cache(maxsize=_REMEMBERED)
def read(text: str) -> Text:
    """Read a text. Pure; the memo is bounded by number, so very long texts should not come here by the thousand."""
    blocks = tuple(" ".join(block.strip("`~").split()) for block in _BLOCK.findall(text))
    prose = _spelled_out(unicodedata.normalize("NFKC", _BLOCK.sub(" ", text) if blocks else text).translate(_ALIKE))
    lexicon = english()
    tokens = closed_up(_without_fillers(_tokens(prose), lexicon), lexicon)
    raws, folds, stems, kinds, starts, _ = zip(*tokens, strict=True) if tokens else ((),) * 6
    phrases = {found.start: found for found in lexicon.concepts.find(folds, stems)}
    inside = {at for found in phrases.values() if found.end - found.start > 1 for at in range(found.start, found.end)}
    asks = tuple(read_asks(folds, starts, lexicon))
    asking = {at for kind, start, end in asks for at in range(start, end)}
    quantities, counted = read_quantities(folds, kinds, inside, lexicon)
    function, light = lexicon.function, lexicon.light
    mixed = any(raw[-1].islower() for raw in raws)
    vague = {
        at
        for at, token in enumerate(tokens)
        if (token.fold in function and not (token.raw.isupper() and _is_label(tokens, at, mixed)))
        or token.stem in light
        or (token.stem in _IDLE and _is_idle(tokens, at, counted))
    }
    return Text(
        folded=fold(text),
        language=_language(text, raws, folds),
        tokens=tuple(tokens),
        words=tuple(_content(tokens, phrases, vague | asking, counted)),
        concepts=frozenset(value for found in phrases.values() for value in found.value),
        quantities=quantities,
        counted=counted,
        asks=asks,
        codes=tuple(at for at, kind in enumerate(kinds) if kind == "code" and at not in counted),
        blocks=blocks,
        folds=folds,
        stems=stems,
        starts=starts,
    )


def _is_label(tokens: Sequence[Token], at: int, mixed: bool) -> bool:
    """Whether capitals make a name of a word of grammar: "size S", "from A to B", "the US president".

    Args:
        mixed: Whether the text has small letters, too.
    """
    token = tokens[at]
    if token.fold == "i":
        return False
    if len(token.raw) > 1:
        return mixed and token.fold in _ACRONYMS
    if token.starts:
        return False
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    return token.fold != "a" or after is None or after.kind == "symbol" or after.fold in english().function


def _is_idle(tokens: Sequence[Token], at: int, counted: AbstractSet[int]) -> bool:
    """Whether what stands beside a word says it already: "version 3.12", "four people", "failed to start"."""
    stem = tokens[at].stem
    if stem == "person":
        return at - 1 in counted
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    if after is None:
        return False
    return after.fold == "to" if stem == "fail" else after.kind in ("number", "code") and stem in _NUMBERED


def _content(
    tokens: Sequence[Token],
    phrases: Mapping[int, Found[tuple[int, ...]]],
    idle: AbstractSet[int],
    counted: AbstractSet[int],
) -> Iterator[Word]:
    """The words and phrases that carry content.

    Args:
        phrases: What is known of words and phrases, by the position of their first token.
        idle: Positions of tokens that are vague, or ask. A phrase of such tokens only carries nothing.
        counted: Positions that belong to a quantity.
    """
    end = 0
    for at, token in enumerate(tokens):
        if at < end:
            continue
        found = phrases.get(at)
        if found is not None and found.end - at > 1:
            end = found.end
            if any(inner not in idle for inner in range(at, end)):
                span = tokens[at:end]
                written, stems = " ".join(each.fold for each in span), " ".join(each.stem for each in span)
                yield Word(written, stems, frozenset(found.value), at)
        elif token.kind == "word" and at not in idle and at not in counted:
            yield Word(token.fold, token.stem, frozenset(found.value) if found else frozenset(), at)


def _spelled_out(prose: str) -> str:
    """With "no. 5" as "number 5", which denies nothing, and "18+" as "18 or more"."""
    if "o." in prose:
        prose = _NUMBER_SIGN.sub("number ", prose)
    return _PLUS.sub(" or more", prose) if "+" in prose else prose


def _tokens(prose: str) -> list[Token]:
    tokens: list[Token] = []
    cited = [match.span() for match in _CITED.finditer(prose)][::-1] if '"' in prose or ":" in prose else []
    starts = True
    for match in _TOKEN.finditer(prose):
        kind = str(match.lastgroup)
        raw = match[kind]
        if kind == "plain" or kind == "word":
            words = _words(raw, starts)
            begin = match.start(kind)
            while cited and cited[-1][1] <= begin:
                cited.pop()
            if cited and cited[-1][0] <= begin:
                words = tuple(word._replace(cited=True) for word in words)
            tokens += words
        elif kind == "dotted":
            tokens += _words(raw.replace(".", ""), starts)
        elif kind == "code":
            tokens += _codes(raw, starts)
        elif kind == "number":
            tokens.append(Token(raw, raw, raw, "number" if len(raw) <= _LONGEST else "code", starts))
        elif raw in _END:
            starts = True
            continue
        elif kind == "sign":
            # "Thanks! 🙏" says no more than "Thanks!", but "what does 🙏 mean" asks for that very sign.
            if not (starts and tokens):
                tokens.append(Token(raw, raw, raw, "code", starts))
            continue
        else:
            tokens.append(Token(raw, raw, raw, "symbol", False))
            continue
        starts = False
    return tokens


@lru_cache(maxsize=16384)
def _words(raw: str, starts: bool) -> tuple[Token, ...]:
    """What is written as one word, contractions taken apart."""
    parts = _expand(raw.casefold())
    return tuple(Token(raw, part, stem(part), "word", starts and at == 0) for at, part in enumerate(parts))


def _codes(raw: str, starts: bool) -> tuple[Token, ...]:
    """A code; a number with its unit or suffix is two tokens."""
    folded = raw.casefold()
    glued = _GLUED.fullmatch(folded)
    if glued and (glued[2] in _SUFFIXES or glued[2] in english().units):
        number, unit = glued.groups()
        return Token(number, number, number, "number", starts), Token(unit, unit, unit, "word", False)
    model = _MODEL.fullmatch(folded)
    if model and folded not in english().known:
        name, number = model.groups()
        return Token(name, name, stem(name), "word", starts), Token(number, number, number, "number", False)
    if version := _VERSION.fullmatch(folded):
        folded = version[1]
        if folded.count(".") < 2:
            return (Token(raw, folded, folded, "number", starts),)
    folded = _LETTER_DASH_DIGIT.sub(r"\1\2", "".join(folded.split()))
    return (Token(raw, folded, folded, "code", starts),)


@lru_cache(maxsize=1)
def _contracted() -> dict[str, tuple[str, ...]]:
    """Contractions that an apostrophe alone does not explain, and those written without one."""
    auxiliaries = english().grammar["auxiliary"]
    return {
        **{f"{aux}nt": (aux, "not") for aux in auxiliaries},
        **{f"{aux}n't": (aux, "not") for aux in auxiliaries},
        **dict.fromkeys(("cannot", "cant", "can't"), ("can", "not")),
        **dict.fromkeys(("wont", "won't"), ("will", "not")),
        **dict.fromkeys(("aint", "ain't"), ("is", "not")),
        **{f"{word}s": (word, "is") for word in ("what", "how", "where", "when", "who", "why")},
        "im": ("i", "am"),
        "ive": ("i", "have"),
        "youre": ("you", "are"),
        "gonna": ("going", "to"),
        "wanna": ("want", "to"),
    }


def _expand(word: str) -> tuple[str, ...]:
    """Take contractions apart: every way to write "is not" gives the same words. A possessive loses its "s"."""
    parts = _contracted().get(word)
    if parts is not None:
        return parts
    head, mark, tail = word.partition("'")
    if not mark:
        return (word,)
    if tail == "s":
        return (head, "is") if head in english().grammar["is_after"] else (head,)
    if tail in _TAILS:
        return (head, _TAILS[tail])
    return (head + tail.replace("'", ""),)


def _without_fillers(tokens: list[Token], lexicon: Lexicon) -> list[Token]:
    folds = [token.fold for token in tokens]
    fillers = list(lexicon.fillers.find(folds, folds))
    if not fillers:
        return tokens
    people = lexicon.grammar["speaker"] | lexicon.grammar["listener"]
    stop = {
        at
        for found in fillers
        # "Do you know me?" and "what do you know?" mean what they say.
        if folds[found.end - 1] not in lexicon.grammar["leads_on"]
        or (found.end < len(folds) and folds[found.end] not in people)
        if not _is_spoken_of(tokens, found)
        for at in range(found.start, found.end)
    }
    kept = [token for at, token in enumerate(tokens) if at not in stop]
    return kept if any(token.kind != "symbol" for token in kept) else tokens


def _is_spoken_of(tokens: Sequence[Token], filler: Found[tuple[bool, ...]]) -> bool:
    """Whether a question is about these words ("how do you say sorry"), or asked with them ("who can you see")."""
    asking = english().grammar["asking"]
    for at in range(filler.start - 1, max(filler.start - 4, -1), -1):
        if tokens[at].fold in asking and tokens[filler.end - 1].fold == "you":
            return True
        if tokens[at].starts:
            break
    if tokens[filler.start].cited or (filler.start and tokens[filler.start - 1].fold in english().grammar["cites"]):
        return True
    return filler.end < len(tokens) and tokens[filler.end].stem == "mean" and not tokens[filler.end].starts


_SCRIPTS: Final = (
    ("ko", re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")),
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)


def _language(text: str, raws: Sequence[str], folds: Sequence[str]) -> str:
    """By script, then by function words. Plain ASCII without any evidence of another language counts as English."""
    if not text.isascii():
        letters = sum(letter.isalpha() for letter in text) or 1
        for code, script in _SCRIPTS:
            if 3 * len(script.findall(text)) >= letters:
                return code
    latin = text.isascii() or all(letter.isascii() for letter in text if letter.isalpha())
    shouted = text.isupper()
    present = {  # no "EU"
        fold for raw, fold in zip(raws, folds, strict=True) if not raw.isupper() or len(raw) == 1 or shouted
    }
    # No language can have more words than all others together have, which settles it for most English texts.
    english_hits = len(present & language_words()["en"])
    if len(present & foreign_words()) <= english_hits:
        return "en" if latin or english_hits >= 2 else ""
    hits = {code: len(present & words) for code, words in language_words().items()}
    best = max(hits.values(), default=0)
    winners = [code for code, count in hits.items() if count == best]
    if best == 0:
        return "en" if latin else ""
    # Short questions share words like "die", "me", "no" with English: another language has to show two.
    if "en" in winners or best < 2:
        return "en" if latin or best >= 2 else ""
    return winners[0] if len(winners) == 1 else ""
