"""Tokens of a text without a tokenizer: from its characters, by ratios that are learned from reported usage.

A first guess is made from the kind of text; it is within ±30 % for most prompts (measured: ``docs/savings.md``). Each
provider's own counts then correct it, model by model. An estimate is marked as one wherever it goes
(``Usage.estimated``).
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

import orjson

from semcache._fork import renew_in_child
from semcache.live.answers import text_of
from semcache.money.flusher import flusher
from semcache.money.prices import plain_name
from semcache.types import Reply, Request, Usage

if TYPE_CHECKING:
    from semcache.stores.base import Store

BAND: Final = 0.30
"""How far off an estimate may be, as a share of it."""

PROSE, CODE, OTHER, CJK = 4.0, 3.2, 2.8, 1.25
"""Characters a token: of prose in Latin letters, of program text, of other alphabets, of Chinese, Japanese and Korean.

Between what o200k_base of tiktoken 0.14.0 makes of them (4.7, 3.9, 2.9, 1.25) and models whose vocabulary is smaller:
Claude's newer ones are said to make 30 % more tokens. 2026-11-21."""

PREFIX: Final = "tokens1|"
"""Start of every counter's name; the number is the version of the encoding and of the first guess."""

HALF_LIFE_WEEKS: Final = 1
"""Weeks after which a count weighs half."""

Side = Literal["in", "out"]

_WEEK_S: Final = 7 * 86_400
_WEEKS_KEPT: Final = 8
_PRIOR_TOKENS: Final = 500
"""Weight of the first guess: so many tokens of reported usage weigh as much."""
_ENOUGH_TOKENS: Final = 100_000
"""What one process learns of a model in a week; more would tell little and take its time on every call."""
_PLAUSIBLE: Final = 3.0
"""Where counts differ by more, there was something else than text: pictures, or a prompt that the provider added."""
_MODELS: Final = 1_000
_REREAD_S: Final = 60.0

_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]")
_OTHER = re.compile("[\u0370-\u1dff]")
_SYMBOLS = re.compile(r"[{}()\[\]<>=;_/\\|&*#$@^~+]")
_CODE_SHARE: Final = 0.06
"""A line with so many symbols a character is program text."""


def guess_tokens(text: str) -> float:
    """The first guess of how many tokens a text has, the same for every model."""
    tokens = 0.0
    for line in text.split("\n"):
        length = len(line) + 1
        cjk, other = (0, 0) if line.isascii() else (len(_CJK.findall(line)), len(_OTHER.findall(line)))
        is_code = len(_SYMBOLS.findall(line)) > _CODE_SHARE * length or line.startswith(("    ", "\t"))
        tokens += cjk / CJK + other / OTHER + (length - cjk - other) / (CODE if is_code else PROSE)
    return tokens


def guess_prompt(request: Request) -> float:
    """The first guess for all texts of a request; attachments count for nothing."""
    texts = [*_texts(request.scope), *_texts(request.history), request.text or ""]
    return sum(map(guess_tokens, texts))


class Meter:
    """Says what a call used: as the provider reported it, which teaches, or else by an estimate.

    What is learned is a factor on the first guess for each model, for prompts and for answers: reported tokens by
    guessed ones, older weeks weighing less. It is kept in the store's counters, so processes learn together. It is
    written and read by a thread in the background, and trouble with the store changes nothing: the meter knows less.

    Args:
        store: ``None`` keeps what is learned in memory.
        clock: Unix seconds; replaced in tests.
    """

    def __init__(self, store: Store | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._stored: Mapping[str, int] = {}
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: the parent writes what it has learned."""
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        self._taught: Counter[str] = Counter()
        self._taught_in = 0
        self._read_at = -_REREAD_S

    def attach(self, store: Store) -> None:
        """Use this store, unless the meter was built with one."""
        self._store = self._store or store

    def usage(self, request: Request, reply: Reply) -> Usage | None:
        """The usage of a call; ``None`` if it failed, or if nobody counted and the answer is not all text."""
        if request.model is None or reply.failed:
            return reply.usage
        try:
            if reply.usage is None:
                answer = _answer(reply.body)
                return None if answer is None else self.estimate(request.model, guess_prompt(request), answer)
            if not reply.usage.estimated:
                self._learn(request, reply, plain_name(request.model))
        except RecursionError:  # a request without end, which the cache has let through as it was
            pass
        return reply.usage

    def estimate(self, model: str, guessed_prompt: float, answer: str) -> Usage:
        """An estimate from the first guess for a prompt, and the text of an answer."""
        self._remind()
        name = plain_name(model)
        prompt, said = guessed_prompt * self.factor(name, "in"), guess_tokens(answer) * self.factor(name, "out")
        return Usage(round(prompt), round(said), estimated=True)

    def factor(self, model: str, side: Side) -> float:
        """Tokens of a model (its plain name) for each token of the first guess; 1 while nothing is known."""
        week, sums = self._week(), {"guessed": float(_PRIOR_TOKENS), "reported": float(_PRIOR_TOKENS)}
        with self._lock:
            for counts in (self._stored, self._pending):
                for age in range(_WEEKS_KEPT):
                    for what in sums:
                        count = counts.get(_name(week - age, model, side, what), 0)
                        sums[what] += count * 0.5 ** (age / HALF_LIFE_WEEKS)
        return sums["reported"] / sums["guessed"]

    def flush(self) -> None:
        """Write what was learned, and read what others did."""
        if self._store is None:
            return
        with self._lock:
            pending, self._pending = self._pending, Counter()
        try:
            if pending:
                self._store.add_counters(pending)
            stored = self._store.counters(PREFIX)
            self._store.drop_counters([name for name in stored if _week_of(name) <= self._week() - _WEEKS_KEPT])
        except Exception:  # whatever a store raises
            return  # what it might have taught is not worth counting twice
        with self._lock:
            self._stored = stored

    def _learn(self, request: Request, reply: Reply, model: str) -> None:
        usage, week = reply.usage, self._week()
        assert usage is not None
        if week != self._taught_in:
            self._taught_in, self._taught = week, Counter()
        taught = self._taught
        if taught[model] >= _ENOUGH_TOKENS or (model not in taught and len(taught) >= _MODELS):
            return
        taught[model] += usage.total
        pairs: list[tuple[Side, float, int]] = [("in", guess_prompt(request), usage.input_tokens)]
        if (answer := _answer(reply.body)) is not None:
            pairs.append(("out", guess_tokens(answer), usage.output_tokens - usage.reasoning_tokens))
        with self._lock:
            for side, guess, reported in pairs:
                if guess / _PLAUSIBLE <= reported <= guess * _PLAUSIBLE:
                    self._pending[_name(week, model, side, "guessed")] += round(guess)
                    self._pending[_name(week, model, side, "reported")] += reported
        if self._store is not None:
            flusher.wake(self)

    def _remind(self) -> None:
        """Have the store read in the background, if that was not done a moment ago."""
        if self._store is not None and time.monotonic() - self._read_at >= _REREAD_S:
            self._read_at = time.monotonic()
            flusher.wake(self)

    def _week(self) -> int:
        return int(self._clock() // _WEEK_S)


def _texts(value: Any) -> Iterable[str]:
    """All strings in a JSON-like value but the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _answer(body: bytes | None) -> str | None:
    """The text of an answer; ``None`` if it is not all text."""
    try:
        value = None if body is None else orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(value, list) and all(isinstance(chunk, str) for chunk in value):
        return "".join(value)
    return value if isinstance(value, str) else text_of(value)


def _name(week: int, model: str, side: Side, what: str) -> str:
    return f"{PREFIX}{week}|{quote(model, safe='', errors='replace')}|{side}|{what}"


def _week_of(counter: str) -> int:
    week = counter.removeprefix(PREFIX).partition("|")[0]
    return int(week) if week.isdecimal() else 0
