"""Numbers with their units, dates, and times of day, in a form in which equal quantities are equal."""

from __future__ import annotations

import re
from collections.abc import Collection
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from semcache.guards.lexicon import english, stem

if TYPE_CHECKING:
    from semcache.guards.lexicon import Lexicon, Unit

_MULTIPLIERS: Final = {
    "k": 1000,
    "m": 10**6,
    "mn": 10**6,
    "million": 10**6,
    "bn": 10**9,
    "billion": 10**9,
    "thousand": 1000,
}
_AFTER_ONCE: Final = frozenset({"", "a", "an", "per", "every", "each", "only"})  # elsewhere it joins clauses
_HALF: Final = Fraction(1, 2)
_ORDINAL_TAILS: Final = frozenset({"st", "nd", "rd", "th"})
_CURRENCY: Final = frozenset({"$", "£", "€", "¥", "₹", "usd", "eur", "gbp", "jpy", "inr"})
_ARTICLES: Final = frozenset({"a", "an"})
_ISO_DATE: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_SLASH_DATE: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_DOTTED_DATE: Final = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")  # the day comes first wherever it is written so
_PART_OR_RANGE: Final = re.compile(r"(\d{1,64})([/-])(\d{1,64})")  # "1/2 cup", "2-3 days"
_DECADE: Final = re.compile(r"(?:19)?(\d{1,3}0)s")
_DOTTED_TIME: Final = re.compile(r"\d{1,2}\.[0-5]\d")  # "9.30 am", as the British write it
_HALVES: Final = {"morning": "a", "afternoon": "p", "evening": "p"}
_NOON: Final = {"noon": 720, "midday": 720, "midnight": 0}
_PARTS: Final = frozenset({"half", "quarter"})
_DIGITS: Final = frozenset({"number", "code"})


_LOOSE: Final = frozenset({"", "most"})  # "in two days", "within two days"
_ALIKE: Final = (
    frozenset({"roman", "", "label"}),
    frozenset({"roman", "th"}),
    frozenset({"label", "th"}),
    frozenset({"", "age"}),  # "at 18", "an 18-year-old"
    frozenset({"pound", "sterling"}),  # "500 pounds" may be either
    frozenset({"degree", "celsius"}),
    frozenset({"degree", "fahrenheit"}),
)


class Quantity(NamedTuple):
    """A number in its base unit.

    ``unit`` is a base unit of ``units.txt``, empty for a bare number, or one of ``th`` (ordinal), ``roman``, ``day``,
    ``month`` (of a date), ``clock`` (minutes since midnight), ``clock12`` (the same, morning or afternoon unknown),
    ``label`` ("chapter 3"), ``decade``.
    ``needed`` is false for a lone "one", which may be a pronoun. ``bound`` says of what it is the bound: ``above``,
    ``least``, ``below`` or ``most``; empty if of nothing. ``of`` is the stem of what a bare number counts.
    """

    value: Fraction
    unit: str
    needed: bool
    text: str
    bound: str = ""
    of: str = ""

    def agrees(self, other: Quantity) -> bool:
        if self.bound != other.bound and ((self.bound and other.bound) or not {self.bound, other.bound} <= _LOOSE):
            return False
        if self.unit == other.unit:
            return self.value == other.value
        units = {self.unit, other.unit}
        if units == {"clock", "clock12"}:
            return self.value % 720 == other.value % 720
        return self.value == other.value and any(units <= alike for alike in _ALIKE)


def read_quantities(
    folds: tuple[str, ...], kinds: tuple[str, ...], taken: Collection[int], lexicon: Lexicon
) -> tuple[tuple[Quantity, ...], frozenset[int]]:
    """The quantities of a text, and the positions of the tokens that they used up.

    Args:
        folds: Tokens without case.
        kinds: Kind of each token.
        taken: Positions that belong to a fixed phrase.
    """
    words = _first_words()
    places = [at for at, fold in enumerate(folds) if fold in words or kinds[at] in _DIGITS]
    if not places:
        return (), frozenset()
    reader = _Reader(folds, kinds, taken, lexicon)
    end = 0
    for at in places:
        if at >= end:
            end = reader.step(at)
    return tuple(reader.found), frozenset(reader.used)


@lru_cache(maxsize=1)
def _first_words() -> frozenset[str]:
    """The words with which a quantity begins: few texts have any but "a"."""
    return frozenset().union(*english().numbers, _NOON, _PARTS, _ARTICLES)


class _Reader:
    def __init__(
        self, folds: tuple[str, ...], kinds: tuple[str, ...], taken: Collection[int], lexicon: Lexicon
    ) -> None:
        self.folds = folds
        self.kinds = kinds
        self.taken = taken
        self.lexicon = lexicon
        self.found: list[Quantity] = []
        self.used: set[int] = set()
        self.last: tuple[int, Unit] | None = None  # where the last measure ended, and its unit

    def word(self, at: int) -> str:
        """The token at a position, or an empty string outside the text."""
        return self.folds[at] if 0 <= at < len(self.folds) and at not in self.taken else ""

    def step(self, at: int) -> int:
        """Read what begins at a position; the position after it."""
        word = self.word(at)
        if not word:
            return at + 1
        if self.kinds[at] == "code":
            return self._code(at, word)
        return self._digits(at, word) if self.kinds[at] == "number" else self._word(at, word)

    def _digits(self, at: int, word: str) -> int:
        if ":" in word:
            return self._clock(at, word)
        if _DOTTED_TIME.fullmatch(word) and self._meridiem(at + 1) is not None:
            return self._clock(at, word.replace(".", ":"))
        value = Fraction(word.replace(",", ""))
        if self.word(at - 1) == "minus" and not (at > 1 and self.kinds[at - 2] == "number"):
            self.used.add(at - 1)
            value = -value
        return self._number(at, at + 1, value, exact=word)

    def _word(self, at: int, word: str) -> int:
        numbers = self.lexicon.numbers
        if word in numbers.cardinals:
            return self._words(at)
        if word in _NOON:
            return self._add(at, at + 1, Fraction(_NOON[word]), "clock")
        if word in numbers.ordinals and not (word == "second" and self._is_unit_second(at)):
            value = Fraction(numbers.ordinals[word])
            if self.word(at + 1) in self.lexicon.months or self.word(at - 1) in self.lexicon.months:
                return self._date(at, at + 1, value)
            return self._add(at, at + 1, value, "th")
        if word in numbers.romans:
            return self._add(at, at + 1, Fraction(numbers.romans[word]), "roman")
        if word in numbers.times and (word != "once" or self.word(at + 1) in _AFTER_ONCE):
            return self._add(at, at + 1, Fraction(numbers.times[word]), "time", needed=word != "once")
        if word in numbers.decades:
            return self._add(at, at + 1, Fraction(numbers.decades[word]), "decade")
        if word == "quarter" and self.word(at + 1) in ("past", "to"):
            return self._half(at)
        if word == "half" and self.word(at + 1) in ("past", "a", "an", *numbers.cardinals):
            return self._half(at)
        if word in _ARTICLES and self.word(at + 1) in self.lexicon.units:
            ordinal = self.word(at + 1) == "second" and not self._is_unit_second(at + 1)
            return at + 1 if ordinal else self._article(at)
        return at + 1

    def _is_unit_second(self, at: int) -> bool:
        """Whether this "second" is a time: "wait a second" is, "a second card" is not."""
        if self.word(at - 1) not in ("per", "a", "each", "every"):
            return False
        after = self.word(at + 1)
        return after in self.lexicon.function or not after or self.kinds[at + 1] != "word"

    def _words(self, at: int) -> int:
        """A number in words: "two hundred and five", "twenty-one"."""
        total, current, end = 0, 0, at
        cardinals, ordinals = self.lexicon.numbers.cardinals, self.lexicon.numbers.ordinals
        while True:
            word = self.word(end)
            if word == "and" and end > at and self.word(end + 1) in cardinals and current % 100 == 0:
                end += 1
                continue
            value = cardinals.get(word)
            if value is None:
                ordinal = ordinals.get(word)
                if ordinal is not None and ordinal < 10 and current % 100 >= 20 and current % 10 == 0:
                    return self._add(at, end + 1, Fraction(total + current + ordinal), "th")
                break
            if value == 12 and word == "dozen":
                current = (current or 1) * 12
            elif value == 100:
                current = (current or 1) * 100
            elif value >= 1000:
                total += (current or 1) * value
                current = 0
            elif current and not (value < 10 and current % 10 == 0 and current % 100 != 10) and current % 100 != 0:
                break  # "five ten": two numbers
            else:
                current += value
            end += 1
        number = Fraction(total + current)
        alone = self.folds[at:end] == ("one",) and self.word(end) not in self.lexicon.units
        return self._number(at, end, number, needed=not alone or self._is_ordered(at))

    def _is_ordered(self, at: int) -> bool:
        """Whether this "one" is how many are wanted: "book one room", "a table for one"."""
        before, after, lexicon = self.word(at - 1), self.word(at + 1), self.lexicon
        if before == "for":
            return not after or self.kinds[at + 1] == "symbol"
        vague = after in lexicon.function or stem(after) in lexicon.light
        return before in lexicon.grammar["order"] and bool(after) and self.kinds[at + 1] == "word" and not vague

    def _half(self, at: int) -> int:
        """ "Half past four", "half four" and "quarter to four" are times, "half a litre" is a half of the unit."""
        after = self.word(at + 1)
        if after in ("a", "an"):
            unit = self.lexicon.units.get(self.word(at + 2))
            if unit is None:
                return at + 1
            return self._add(at, at + 3, unit.factor / 2, unit.base)
        minutes = 30 if self.word(at) == "half" else 15 if after == "past" else -15
        hour_at = at + 2 if after in ("past", "to") else at + 1
        word = self.word(hour_at)
        hour = self.lexicon.numbers.cardinals.get(word, int(word) if word.isdecimal() and len(word) < 3 else 0)
        if not 1 <= hour <= 12:
            return at + 1
        return self._time_of_day(at, hour_at + 1, hour * 60 + minutes)

    def _article(self, at: int) -> int:
        unit = self.lexicon.units[self.word(at + 1)]
        return self._measured(at, at + 2, Fraction(1), unit)

    def _clock(self, at: int, word: str) -> int:
        hours, _, minutes = word.partition(":")
        if int(hours) > 24 or len(minutes) != 2 or int(minutes) > 59:
            return self._add(at, at + 1, Fraction(int(hours) * 60 + int(minutes)), "ratio")
        return self._time_of_day(at, at + 1, int(hours) * 60 + int(minutes), exact=len(hours) == 2 or int(hours) > 12)

    def _time_of_day(self, at: int, end: int, minutes: int, *, exact: bool = False) -> int:
        half = self._meridiem(end)
        if half is not None:
            tail, end = half
            if minutes <= 12 * 60 + 59:
                minutes = minutes % 720 + (720 if tail == "p" else 0)
            return self._add(at, end, Fraction(minutes), "clock")
        return self._add(at, end, Fraction(minutes), "clock" if exact or minutes >= 780 else "clock12")

    def _meridiem(self, at: int) -> tuple[str, int] | None:
        word = self.word(at)
        if word in ("am", "pm"):
            return word[0], at + 1
        if word in ("a", "p") and self.word(at + 1) == "m":
            return word, at + 2
        if (word, self.word(at + 1)) == ("in", "the") and self.word(at + 2) in _HALVES:
            return _HALVES[self.word(at + 2)], at + 3
        return None

    def _number(self, at: int, end: int, value: Fraction, *, exact: str = "", needed: bool = True) -> int:
        """A number with what stands before and after it."""
        if (self.word(end), self.word(end + 1), self.word(end + 2)) == ("and", "a", "half"):
            value, end = value + _HALF, end + 3
        word = self.word(end)
        if word in _ORDINAL_TAILS and exact.isdigit():
            end += 1
            if (
                self.word(end) in self.lexicon.months
                or self.word(at - 1) in self.lexicon.months
                or (self.word(end) == "of" and self.word(end + 1) in self.lexicon.months)
            ):
                return self._date(at, end, value)
            return self._add(at, end, value, "th")
        if value.denominator == 1 and 1 <= value <= 12:
            if self._meridiem(end) is not None:
                return self._time_of_day(at, end, int(value) * 60)
            if word == "oclock":
                return self._time_of_day(at, end + 1, int(value) * 60)
        if (
            exact.isdigit()
            and 1 <= value <= 31
            and (self.word(end) in self.lexicon.months or self.word(at - 1) in self.lexicon.months)
        ):
            return self._date(at, end, value)
        if word in _MULTIPLIERS and (exact or word not in self.lexicon.numbers.cardinals):
            value *= _MULTIPLIERS[word]
            end += 1
        return self._with_unit(at, end, value, exact, needed)

    def _with_unit(self, at: int, end: int, value: Fraction, exact: str, needed: bool) -> int:
        for length in (3, 2, 1):
            unit = self.lexicon.units.get(" ".join(map(self.word, range(end, end + length))))
            if unit is not None:
                return self._measured(at, end + length, value, unit)
        before = self.word(at - 1)
        if before in _CURRENCY:
            unit = self.lexicon.units[before]
            self.used.add(at - 1)
            return self._add(at, end, value * unit.factor, unit.base)
        if exact.startswith("0") and len(exact) > 1 and exact.isdigit():
            return self._add(at, end, value, f"id{len(exact)}")
        # Without a unit "3.10" may be a version, which is not "3.1"; "3.0" is 3, and "1,234.50" is an amount.
        places = exact.partition(".")[2] if "," not in exact else ""
        unit_name = f"version{len(places)}" if places.endswith("0") and places.strip("0") else ""
        if not unit_name and stem(before) in self.lexicon.grammar["numbered"]:
            return self._add(at, end, value, "label")
        return self._add(at, end, value, unit_name, needed=needed)

    def _measured(self, at: int, end: int, value: Fraction, unit: Unit) -> int:
        """A quantity with a unit; "an hour and a half", and what goes on in a smaller unit ("1 hour 30 minutes")."""
        if (self.word(end), self.word(end + 1), self.word(end + 2)) == ("and", "a", "half"):
            value, end = value + _HALF, end + 3
        last, self.last = self.last, (end, unit)
        gap = self.word(at - 1) == "and"
        if (
            last is not None
            and last[0] == at - gap
            and last[1].base == unit.base
            and value * unit.factor < last[1].factor
        ):
            whole = self.found.pop()
            self.used.update(range(at, end))
            self.found.append(
                whole._replace(value=whole.value + value * unit.factor, text=f"{whole.text} {self.text(at, end)}")
            )
            return end
        return self._add(at, end, value * unit.factor, unit.base)

    def _date(self, at: int, end: int, value: Fraction) -> int:
        """A day beside the name of a month; the month counts as a number too."""
        day = Quantity(value, "day", True, " ".join(self.folds[at:end]))
        of = 1 if self.word(end) == "of" else 0
        month_at = end + of if self.word(end + of) in self.lexicon.months else at - 1
        self.found.append(day)
        self.found.append(
            Quantity(Fraction(self.lexicon.months[self.word(month_at)]), "month", True, self.word(month_at))
        )
        self.used.update(range(at, end))
        self.used.add(month_at)
        return max(end, month_at + 1)

    def _code(self, at: int, word: str) -> int:
        """ "2024-03-09", and "25/12/2024" where day and month cannot be confused; other codes are left alone."""
        if match := _ISO_DATE.fullmatch(word):
            year, month, day = (int(part) for part in match.groups())
        elif match := _SLASH_DATE.fullmatch(word):
            day, month, year = (int(part) for part in match.groups())
            if month > 12:
                day, month = month, day
            elif day <= 12 and day != month:
                return at + 1
        elif match := _DOTTED_DATE.fullmatch(word):
            day, month, year = (int(part) for part in match.groups())
        elif match := _DECADE.fullmatch(word):
            return self._add(at, at + 1, Fraction(int(match[1])), "decade")
        elif (match := _PART_OR_RANGE.fullmatch(word)) and self.word(at + 1) in self.lexicon.units:
            first, last = Fraction(match[1]), Fraction(match[3])
            if match[2] == "/":
                return self._with_unit(at, at + 1, first / last, "", True) if last else at + 1
            self._add(at, at + 1, first, "")
            return self._with_unit(at, at + 1, last, "", True)
        else:
            return at + 1
        for value, unit in ((day, "day"), (month, "month"), (year, "")):
            self._add(at, at + 1, Fraction(value), unit)
        return at + 1

    def _add(self, at: int, end: int, value: Fraction, unit: str, *, needed: bool = True) -> int:
        bound, first, last = self._bound(at, end)
        counts = not unit and self.kinds[end : end + 1] == ("word",) and self.folds[end] not in self.lexicon.function
        of = stem(self.folds[end]) if counts else ""
        self.found.append(Quantity(value, unit, needed or bool(bound), self.text(first, last), bound, of))
        self.used.update(range(at, end))
        return end

    def text(self, at: int, end: int) -> str:
        return " ".join(self.folds[at:end])

    def _bound(self, at: int, end: int) -> tuple[str, int, int]:
        """Of what a quantity is the bound, by the longest words around it that say so, and where it ends with these."""
        bounds = self.lexicon.bounds
        start = at - 1 if at and self.folds[at - 1] in _CURRENCY else at
        for length in (3, 2, 1):
            side = bounds["before"].get(self.folds[max(start - length, 0) : start])
            if side:
                return side, start - length, end
            for behind in (end, end + 1):  # "50 users or more"
                side = bounds["after"].get(self.folds[behind : behind + length])
                if side:
                    self.used.update(range(behind, behind + length))
                    return side, at, behind + length
        return "", at, end
