"""What a verifier is."""

from __future__ import annotations

import hashlib
import marshal
import math
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Final, Protocol
from uuid import uuid4

from semcache._callables import must_not_await
from semcache.errors import ConfigurationError, VerifierError

TextPair = tuple[str, str]
"""The question asked, and the stored question whose answer would be served."""


class Verifier(Protocol):
    """Gives the probability that the answer to a stored question is right and complete for the one asked.

    Contract (each line is a test in ``semcache.testing.verifier_contract``):

    - ``score`` takes pairs of the text asked and the stored one, and returns one number in [0, 1] for each, in order.
    - No pairs give no numbers. A pair's number does not depend on the others beyond rounding.
    - Trouble raises; the caller treats it as "not confirmed". A wrong argument raises ConfigurationError when the
      verifier is built.
    - ``score`` may be called from several threads at once. It need keep no deadline: whoever waits does.

    Confirmed pairs are shared by all processes on a store whose verifiers have one :func:`fingerprint`: an attribute of
    that name, or else the class. What may judge otherwise (another model, prompt, window) needs another.
    """

    def score(self, pairs: Sequence[TextPair]) -> Sequence[float]:
        """The probability for each pair."""


class FunctionVerifier:
    """A verifier made of ``function(query, cached) -> probability``.

    Raises:
        ConfigurationError: It is a coroutine function.
    """

    def __init__(self, function: Callable[[str, str], float]) -> None:
        must_not_await("a verifier", function)
        self._function = function
        self.fingerprint = fingerprint(function)

    def score(self, pairs: Sequence[TextPair]) -> list[float]:
        return [float(self._function(query, cached)) for query, cached in pairs]


_SLACK: Final = 1e-6


def resolve(verifier: object) -> Verifier:
    """A verifier from what a policy holds: one already, or a function of two texts.

    Raises:
        ConfigurationError: It is neither, or a coroutine function.
    """
    if hasattr(verifier, "score"):
        must_not_await("a verifier", verifier.score)
        return verifier
    if callable(verifier):
        return FunctionVerifier(verifier)
    raise ConfigurationError(f"a verifier has score(pairs) or is a function of two texts; {verifier!r} is neither")


def fingerprint(verifier: object) -> str:
    """Under which name the verdicts of a verifier, or of a function in one, are kept.

    Its own ``fingerprint`` if it has one, the name of its class, or the name and code of a plain function. What else
    tells two functions apart (closed-over values, a bound object) cannot be seen from the next process, so such a one
    is known to this process only.
    """
    own = getattr(verifier, "fingerprint", None)
    if isinstance(own, str):
        return own
    if isinstance(verifier, FunctionType):
        # Version 2 knows no back references, which would differ from run to run.
        code = hashlib.sha256(marshal.dumps(verifier.__code__, 2)).hexdigest()[:16]
        name = f"{verifier.__module__}.{verifier.__qualname__}#{code}"
        return f"{name}@{uuid4().hex}" if verifier.__closure__ else name
    kind = type(verifier)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if hasattr(verifier, "score") else f"{name}@{uuid4().hex}"


def score_one(verifier: Verifier, query: str, cached: str) -> float:
    """The probability for one pair, checked.

    Raises:
        VerifierError: What came back is not one probability.
    """
    scores = list(verifier.score([(query, cached)]))
    if len(scores) != 1 or not math.isfinite(scores[0]) or not -_SLACK <= scores[0] <= 1.0 + _SLACK:
        raise VerifierError(f"a verifier must give one number between 0 and 1 for a pair, not {scores!r}")
    return min(1.0, max(0.0, float(scores[0])))
