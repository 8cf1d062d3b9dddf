"""What the guards stand on: tokens, stems, quantities, and words that are one word."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from fractions import Fraction
from importlib.resources import files
from string import ascii_lowercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.guards import GUARDS, alignment, verdicts
from semcache.guards.alignment import align, derived, mistyped, slip
from semcache.guards.lexicon import english, irregular, language_words, lookalikes, stem, unstemmed
from semcache.guards.text import _TOKEN, made_of, read
from semcache.scoring import features


@pytest.mark.parametrize(
    "forms",
    [
        "cancel cancels cancelled canceled cancelling",
        "change changes changed changing",
        "pay pays paid paying",
        "city cities",
        "try tries tried trying",
        "child children",
        "box boxes",
        "class classes",
        "call calls called calling",
        "need needs needed",
        "plan plans planned planning",
        "plane planes planed",
        "care cares cared caring",
        "size sizes sized sizing",
        "add adds added adding",
        "bus buses",
    ],
)
def test_inflections_have_one_stem(forms):
    assert len({stem(form) for form in forms.split()}) == 1


@pytest.mark.parametrize(
    "words",
    [
        *(
            "use us",
            "new news",
            "bus busy",
            "need ned",
            "sing single",
            "wed weed",
            "plan plane",
            "car care",
            "sit site",
        ),
        *(
            "sit site",
            "fill file",
            "star stare",
            "roll role",
            "rat rate",
            "win wine",
            "tap tape",
            "planning planes",
            "cars caring",
        ),
    ],
)
def test_different_words_keep_different_stems(words):
    first, second = words.split()
    assert stem(first) != stem(second)


@pytest.mark.parametrize(
    ("a", "b", "one"),
    [
        ("deliver", "delivery", True),
        ("activate", "activation", True),
        ("cancel", "cancellation", True),
        ("german", "germany", True),
        ("employer", "employee", False),
        ("prison", "prisoner", False),
        ("harmful", "harmless", False),
        ("austria", "australia", False),
        ("table", "tablet", False),
        ("car", "card", False),
        ("police", "policy", False),
        ("organ", "organization", False),
        ("plane", "plan", False),
        ("agree", "agreed", True),
    ],
)
def test_derived_words(a, b, one):
    assert derived(stem(a), stem(b)) is one
    assert derived(stem(b), stem(a)) is one


def test_what_is_kept_apart_would_else_be_one_word(monkeypatch):
    pairs = [tuple(pair) for pair in english().apart]
    assert not any(derived(a, b) or derived(b, a) for a, b in pairs)
    monkeypatch.setattr(alignment, "english", lambda: replace(english(), apart=frozenset()))
    assert all(derived(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("a", "b", "slip"),
    [
        ("password", "pasword", True),
        ("account", "acount", True),
        ("package", "pacakge", True),
        ("weather", "whether", False),  # both ordinary
        ("form", "from", False),
        ("infection", "injection", False),
        ("hostels", "hotels", False),
        ("stings", "strings", False),
        ("prescribed", "proscribed", False),
        ("martial", "marital", False),
        ("recieve", "receive", True),
        ("infecton", "infection", True),
        ("wihch", "which", True),
        ("iran", "iraq", False),
        ("zamboni", "zambonni", True),
        ("jansen", "jensen", False),  # two names
        ("3-day", "4-day", False),
    ],
)
def test_slips_of_the_fingers(a, b, slip):
    assert mistyped(a, b) is slip
    assert mistyped(b, a) is slip


LOOKALIKES = sorted(lookalikes())
LETTERS = st.text("abeist", min_size=1, max_size=8)


@given(LETTERS, LETTERS)
@settings(max_examples=300)
def test_slips_go_both_ways_and_change_something(a, b):
    assert slip(a, b) == slip(b, a)
    assert mistyped(a, b) is mistyped(b, a)
    assert not mistyped(a, a)


@given(st.sampled_from(LOOKALIKES))
def test_words_that_are_spelled_right_are_no_slips_of_one_another(word):
    cuts = range(1, len(word))
    edited = {word[:at] + letter + word[at + gone :] for at in cuts for letter in ascii_lowercase for gone in (0, 1)}
    assert not any(mistyped(word, other) for other in edited & lookalikes())


@given(st.sampled_from(LOOKALIKES))
def test_a_dictionary_form_is_among_those_that_may_have_its_stem(word):
    inflected = word.endswith(("s", "ed", "ing", "ly", "ied")) or word in irregular()
    assert inflected or word in unstemmed(stem(word))


def test_the_licence_of_the_words_that_are_not_ours_is_beside_them():
    folder = files("semcache").joinpath("data", "lexicons", "en")
    assert "WORDNET-LICENSE.txt" in folder.joinpath("lookalikes.txt").read_text(encoding="utf-8")[:300]
    assert "Princeton University" in folder.joinpath("WORDNET-LICENSE.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5 pm", 17 * 60, "clock"),
        ("12 am", 0, "clock"),
        ("12 p.m.", 720, "clock"),
        ("5 o'clock", 300, "clock12"),
        ("half past four", 270, "clock12"),
        ("1,234.50", Fraction("1234.50"), ""),
        ("1,234,567", 1234567, ""),
        ("3.10", Fraction("3.1"), "version2"),
        ("3.5 kg", 3500, "gram"),
        ("fifteen percent", 15, "percent"),
        ("$20k", 20000, "dollar"),
        ("two million", 2000000, ""),
        ("thirty-second", 32, "th"),
        ("5 seconds", 5, "second"),
        ("an hour", 3600, "second"),
        ("three years", 36, "month"),
    ],
)
def test_one_quantity(text, value, unit):
    (quantity,) = read(text).quantities
    assert (quantity.value, quantity.unit) == (value, unit)


@pytest.mark.parametrize("text", ["5/6/2024", "3 + 4", "2025/26", "flat 48b", "A380", "192.168.0.1", "24/7"])
def test_codes_are_no_quantities(text):
    assert read(text).quantities == ()
    assert any(token.kind == "code" for token in read(text).tokens)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("I can't, won't and shouldn't", "i can not will not and should not"),
        ("what's Anna's plan", "what is anna plan"),
        ("they’re here", "they are here"),
        ("Hi there, could you please tell me the price? Thanks!", "the price"),
        ("do you know me", "do you know me"),
        ("hello", "hello"),
    ],
)
def test_tokens(text, tokens):
    assert " ".join(read(text).folds) == tokens


def test_words_without_counterpart():
    ours, theirs = align(read("Can I log in with a phone number?"), read("Can I login by telephone number on Sunday?"))
    assert ours == []
    assert [word.fold for word in theirs] == ["sunday"]


def test_no_word_stands_for_and_against_itself_in_one_line_of_opposites():
    for pole, entry in english().pole_names.items():
        sides = {found.value for found in english().poles.find(entry.split(), entry.split())}
        for values in sides:
            lines = [value.line for value in values]
            assert len(set(lines)) == len(lines), (pole, entry)


def test_lexicons_are_lower_case_and_hold_no_entry_that_cannot_be_found():
    for entry in english().pole_names.values():
        folds = tuple(entry.split())
        assert entry == entry.casefold()
        assert list(english().poles.find(folds, tuple(stem(word) for word in folds))), entry
    assert all(form != base for form, base in irregular().items() if form != "reads")
    assert all(len(words) > 15 for words in language_words().values())


def test_a_text_that_is_forgotten_leaves_the_memory_without_the_collector():
    asked, other = "How do I reset the PIN of my Visa card?", "Where can I block his Visa card from London?"
    gc.disable()
    try:
        verdicts(GUARDS, asked, other)
        features(asked, other, 0.9)
        kept = weakref.ref(read(asked))
        assert kept() is not None
        for memo in (read, made_of, alignment.without_counterpart):
            memo.cache_clear()
        assert kept() is None
    finally:
        gc.enable()


_BY_THE_REST = re.compile(_TOKEN.pattern[_TOKEN.pattern.index("(?P<code>") :], re.VERBOSE)


@given(
    st.text("aBé1_-.,'’ /@#()+?:$\n")
    | st.lists(st.sampled_from(["iPhone", "card", "don't", "a.b@c.de", "12", "Hi", "x()", "C++", ","])).map(" ".join)
)
@settings(max_examples=300)
def test_plain_words_are_words_by_the_rest_of_the_pattern_too(text):
    tokens = [(match.lastgroup, match.span(match.lastgroup)) for match in _TOKEN.finditer(text)]
    assert [("word" if kind == "plain" else kind, span) for kind, span in tokens] == [
        (match.lastgroup, match.span()) for match in _BY_THE_REST.finditer(text)
    ]


@pytest.mark.parametrize(
    "piece", ["a.", "a-", "1-", "a_", "_", "/a", "a@", "x", "`", "1,", "aB", "a b ", '"a', "/@", "US "]
)
def test_reading_is_not_quadratic_in_the_length_of_a_text(piece):
    short, long = (min(_seconds(piece * n) for _ in range(3)) for n in (1_000, 8_000))
    assert long < 30 * max(short, 0.001)  # eight times the text; a quadratic pattern takes 64 times


@pytest.mark.parametrize(
    "wording",
    [
        "{}", "-{}", "0.{}", "{}:30", "v{}", "v1.{}", "{} kg", "{}kg", "gpt-{}", "1/{} cup", "{}-1 days", "{}0s",
        "half past {}", "no. {}", "{}+", "minus {}", "{} million", "${}", "{}am", "2024-{}", "{},000",
    ],
)  # fmt: skip
def test_numbers_too_long_to_be_read_as_one_are_told_apart_all_the_same(wording):
    asked, other = (f"How much is {wording.replace('{}', '7' * 5_000 + last)}" for last in "78")
    assert not any(said.reason for said in verdicts(GUARDS, asked, f"{asked}?"))
    assert any(said.reason for said in verdicts(GUARDS, asked, other))


def test_digits_that_are_no_decimals_are_read():
    assert not read("half past ፩").quantities  # a digit by Unicode, of which Python makes no integer


def _seconds(text: str) -> float:
    started = time.process_time()
    read.__wrapped__(text)
    return time.process_time() - started


def test_importing_the_policy_reads_no_lexicon_and_no_heavy_package():
    code = (
        "import sys, semcache.policy; from semcache.guards.lexicon import english; "
        "assert english.cache_info().currsize == 0; "
        "assert not {'numpy', 'faiss', 'onnxruntime', 'redis', 'tokenizers'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
