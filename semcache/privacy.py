"""Texts that a cache must not keep or compare: secrets, and texts that hide something.

Pure functions. Secrets are found by shape, so a password in plain prose is not found; see ``docs/privacy.md``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

from semcache.types import Request

Secrets = Literal["bypass", "redact", "allow"]
"""What becomes of a request that holds a secret, see :class:`semcache.Policy`."""

MODES: Final[tuple[Secrets, ...]] = ("bypass", "redact", "allow")
EMAIL: Final = "e-mail address"
CARD: Final = "card number"


class _Shape(NamedTuple):
    """One kind of secret. A text in which no ``hint`` occurs (in lower case) is not searched for it."""

    kind: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]


def _shape(kind: str, hints: str, pattern: str) -> _Shape:
    return _Shape(kind, tuple(hints.split()), re.compile(pattern))


# Formats as their issuers document them, read 2026-11-21. ``\b`` would see no edge after the "_" of a longer name.
_SHAPES: Final = (
    # RFC 7468 (PEM), RFC 9580 (OpenPGP). A block that was cut off is no less secret.
    _shape(
        "private key",
        "private",
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-----END[^-]*-----)?",
    ),
    # OpenAI, Anthropic, OpenRouter, DeepSeek: "sk-", with or without an infix. A digit tells a key from a slug.
    _shape("API key", "sk-", r"(?<![\w-])sk-(?=[\w-]*\d)[\w-]{20,}"),
    _shape("API key", "gsk_ xai- hf_", r"(?<!\w)(?:gsk_|xai-|hf_)[A-Za-z0-9]{30,}"),
    # Google Cloud documentation, "API keys"; OAuth access tokens and client secrets.
    _shape("API key", "aiza ya29. gocspx-", r"(?<!\w)(?:AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{28})"),
    # AWS IAM user guide, "IAM identifiers": AKIA long-term, ASIA temporary.
    _shape("AWS key", "akia asia", r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    # GitHub, "About authentication to GitHub" (prefix, 36 characters); GitLab, "Token prefixes".
    _shape("repository token", "ghp_ gho_ ghu_ ghs_", r"(?<!\w)gh[pous]_[A-Za-z0-9]{36,}"),
    _shape("repository token", "github_pat_ glpat-", r"(?<!\w)(?:github_pat_\w{50,}|glpat-[\w-]{20,})"),
    _shape("package registry token", "npm_ pypi-", r"(?<!\w)(?:npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{50,})"),
    # Slack, "Token types" and "Incoming webhooks".
    _shape("Slack token", "xox xapp-", r"(?<!\w)(?:xox[abeoprs]|xapp)-[\w-]{10,}"),
    _shape("Slack token", "hooks.slack.com/", r"hooks\.slack\.com/services/[\w/]{20,}"),
    # Stripe, "API keys": secret and restricted ones; "pk_" keys are public.
    _shape("payment key", "k_live_ k_test_", r"(?<![A-Za-z0-9])[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    _shape("mail service key", "sg.", r"(?<!\w)SG\.[\w-]{22}\.[\w-]{43}"),
    # RFC 7519: three base64url parts, of which the first two are JSON objects.
    _shape("JSON web token", "eyj", r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    # RFC 6750, RFC 7617.
    _shape("bearer token", "bearer", r"[Bb](?i:earer)\s+(?=\S*\d)[\w.~+/-]{20,}=*"),
    _shape("basic credentials", "basic", r"[Aa](?i:uthorization[\"']?\s*[:=]\s*[\"']?basic)\s+[\w+/]{8,}=*"),
    # RFC 3986, 3.2.1: userinfo with a password; and credentials in a query.
    _shape("password in a URL", "://", r"://[^\s/:@\"'<>]*:[^\s/@\"'<>]+@[^\s/@\"'<>]"),
    _shape(
        "token in a URL",
        "key token secret password sig=",
        r"[?&](?i:api_?key|key|access_token|auth_token|token|(?:client_)?secret|password|sig)=(?=[^?&\s\"']*\d)[\w%.~+/-]{12,}",
    ),
    # A value in quotes after a telling name, as in settings and code; a digit tells it from a word.
    _shape(
        "assigned password",
        "password passwd pwd secret key token",
        # The first letter stands apart: the engine can skip to a set of letters, not to an alternative without case.
        r"[PpSsAa](?i:assword|asswd|wd|ecret|pi[_-]?key|ccess[_-]?token|uth[_-]?token)[\"']?\s*(?:=>|:=|[:=])\s*"
        r"([\"'])(?=[^\"'\s]*\d)[^\"'\s]{8,}\1",
    ),
)  # fmt: skip
_HINTS: Final = {hint: [s for s in _SHAPES if hint in s.hints] for shape in _SHAPES for hint in shape.hints}
_EMAIL: Final = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24}(?![\w-])")
# Sixteen digits in one run or in the groups that are printed on cards.
_CARD: Final = re.compile(
    r"(?<![\w.+-])(?:\d{13,19}|(?:\d{4}[ -]){3}\d{4}(?:[ -]\d{3})?|\d{4}[ -]\d{6}[ -]\d{4,5})(?![\w-]|\.\d)"
)
_DIGITS: Final = re.compile(rb"\d{4}[ -]?\d{4,6}[ -]?\d{4}")
# Numbering of issuers after ISO/IEC 7812: Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay.
_ISSUER: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|(?:6011|64[4-9]\d|65\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)
_ESCAPE: Final = re.compile(r"\\(?:[\"\\/]|[bfnrt]|u00[01][0-9a-f])")


def find_secret(data: bytes, *, emails: bool = False) -> str:
    """The kind of the first secret in some JSON (or plain UTF-8) text; empty if none is found.

    Args:
        data: Canonical bytes, or the body of an answer.
        emails: Whether an e-mail address is a secret too.
    """
    # As Latin-1 every byte is a letter, and "in" is twice as quick on a string as on bytes.
    lowered = data.decode("latin-1").lower()
    # Hints first, since this runs on every call: most texts hold none, or none but the "://" of a link.
    shapes = [shape for hint, hinted in _HINTS.items() if hint in lowered for shape in hinted]
    cards = _DIGITS.search(data) is not None
    emails = emails and b"@" in data
    if not (shapes or cards or emails):
        return ""
    return next((kind for kind, _, _ in _secrets(_plain(data), shapes, cards, emails)), "")


def mask_secrets(request: Request, key: bytes, *, emails: bool = False) -> Request:
    """``request`` with every secret replaced by ``[kind:digest]``, for the exact tier only.

    The digest is keyed: equal secrets have equal ones, two different secrets never do in practice, and without the
    key nobody can try out card numbers. What stands in names of fields is left; the caller checks again.

    Args:
        key: 16 to 64 random bytes.
    """

    def masked(value: Any) -> Any:
        if isinstance(value, str):
            return _masked(value, key, emails)
        if isinstance(value, Mapping):
            return {name: masked(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [masked(item) for item in value]
        return value

    return replace(
        request,
        scope=masked(request.scope),
        text=masked(request.text),
        history=masked(request.history),
        exact_only=request.exact_only or "holds a secret, which was masked",
    )


def _masked(text: str, key: bytes, emails: bool) -> str:
    pieces: list[str] = []
    at = 0
    for kind, start, end in sorted(_secrets(text, _SHAPES, True, emails), key=lambda found: (found[1], -found[2])):
        if end <= at:
            continue
        secret = text[max(at, start) : end].encode("utf-8", "surrogatepass")
        pieces += text[at : max(at, start)], f"[{kind}:{hashlib.blake2b(secret, key=key, digest_size=16).hexdigest()}]"
        at = end
    return "".join((*pieces, text[at:]))


def _secrets(text: str, shapes: Iterable[_Shape], cards: bool, emails: bool) -> Iterator[tuple[str, int, int]]:
    """Kind, start and end of each secret of these shapes, and of cards and e-mail addresses; they may overlap."""
    for shape in shapes:
        for match in shape.pattern.finditer(text):
            yield shape.kind, *match.span()
    for match in _CARD.finditer(text) if cards else ():
        digits = "".join(filter(str.isdecimal, match.group()))
        if _ISSUER.fullmatch(digits) and _luhn(digits):
            yield CARD, *match.span()
    for match in _EMAIL.finditer(text) if emails else ():
        yield EMAIL, *match.span()


def _luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1, annex B."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _plain(data: bytes) -> str:
    """JSON text without its escapes: in ``\\nsk-…`` no word would begin at "sk"."""
    text = data.decode("utf-8", "replace")
    return _ESCAPE.sub(lambda match: match[0][1] if match[0][1] in '"\\/' else " ", text) if "\\" in text else text


# Characters that are not seen but told apart: Default_Ignorable_Code_Point, controls, and private use (Unicode 16,
# DerivedCoreProperties.txt, UnicodeData.txt), bidirectional controls among them (UAX #9); and blanks that look like
# nothing. An embedder's tokenizer drops most of these without a word.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
# Two alphabets with letters that look alike (Latin; Greek, Cyrillic, Armenian, Cherokee) within a word: UTS #39, 5.1.
_LATIN: Final = "A-Za-z\u00c0-\u024f"
_LIKE_LATIN: Final = "\u0370-\u052f\u0531-\u0588\u13a0-\u13ff"
_MIXED: Final = re.compile(f"[{_LATIN}][{_LIKE_LATIN}]|[{_LIKE_LATIN}][{_LATIN}]")


def hides(text: str) -> str:
    """Why a text must not be matched by meaning: it may say more than an embedder or a reader sees; empty if not.

    Such a text can be crafted to lie next to a popular question and carry an instruction of its own.
    """
    if text.isascii() and text.isprintable():
        return ""
    if _HIDDEN.search(text):
        return "hidden characters"
    return "look-alike letters" if _MIXED.search(text) else ""
