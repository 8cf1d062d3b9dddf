"""What may be cached, for how long, and by which rules it may be served: one frozen record.

A policy lives in code or in a TOML file::

    threshold = 0.92
    min_probability = 0.95
    ttl = 86400.0

    [namespaces.weather]
    semantic = false

    [categories.refunds]
    threshold = 0.97

    [languages.de]
    answers = "closed"

    [evidence]
    fingerprint = "all-MiniLM-L6-v2/onnx/8199be6f699a/mean/256"
    data = ["support-log-2026-10.jsonl"]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from semcache import agreement
from semcache._callables import must_not_await
from semcache.context import MODES as CONTEXTS
from semcache.context import Context, Rewrite, user_turns
from semcache.errors import ConfigurationError
from semcache.guards import GUARDS
from semcache.guards.time_bound import time_bound
from semcache.privacy import MODES, Secrets, find_secret
from semcache.scoring import Scoring
from semcache.types import Request

if TYPE_CHECKING:
    from semcache.verifiers.base import Verifier

Mode = Literal["live", "shadow"]
Answers = Literal["free", "closed"]

OVERRIDES: Final = {"namespaces": "namespace", "categories": "category", "languages": "language"}
"""The tables of overrides, and what one entry of each is called."""

VerifyFunction = Callable[[str, str], float]
"""``verify(query, cached)`` is the probability in [0, 1] that the cached answer serves the query."""


@dataclass(frozen=True)
class Evidence:
    """Where a threshold comes from.

    Args:
        fingerprint: The embedder that the data was embedded with; another one's cosines mean other things.
        data: Names of the data sets.
        date: ISO 8601 date of the measurement.
        hits: Hits on the data that the threshold was tested on.
        wrong_hits: How many of them were wrong.
        requests: Requests of that data.
        max_false_hit_rate: The upper bound that was shown for wrong hits / hits.
        max_unsafe_rate: The upper bound that was shown for wrong hits / requests.
        confidence: The confidence of that bound.
        note: Anything a reader should know.
    """

    fingerprint: str
    data: tuple[str, ...] = ()
    date: str = ""
    hits: int = 0
    wrong_hits: int = 0
    requests: int = 0
    max_false_hit_rate: float | None = None
    max_unsafe_rate: float | None = None
    confidence: float | None = None
    note: str = ""


class Rules(NamedTuple):
    """What holds for one question, of what :class:`Policy` says by namespace, category and language."""

    threshold: float
    min_probability: float
    answers: Answers
    min_agreement: float
    guards: tuple[str, ...]
    ttl: float | None
    time_bound_ttl: float
    stale_if_error: float | None
    semantic: bool
    mode: Mode

    @property
    def closed(self) -> bool:
        return self.answers == "closed"


@dataclass(frozen=True)
class Override:
    """What one namespace, category or language does differently; ``None`` means "as the policy says"."""

    threshold: float | None = None
    min_probability: float | None = None
    answers: Answers | None = None
    min_agreement: float | None = None
    guards: tuple[str, ...] | None = None
    ttl: float | None = None
    time_bound_ttl: float | None = None
    stale_if_error: float | None = None
    semantic: bool | None = None
    mode: Mode | None = None


@dataclass(frozen=True)
class Policy:
    """The rules of one cache.

    Args:
        threshold: Least cosine of a semantic hit. How the default was chosen: ``docs/answer-safety.md``.
        min_probability: Least probability that the answer is right (:mod:`semcache.scoring`). Some of what ``wording``
            objects to is then evidence, and no veto. 0 asks for none: every objection is a veto; so it is with an
            embedder that the model was not fitted to, and in a language that the guards do not know.
        answers: ``"closed"`` says that answers come from a limited set and are equal where they mean the same: labels,
            routes, canned replies. Near questions with one answer then vouch for it, down to a cosine of 0.5, and an
            answer that most of them contradict is not served. With ``"free"`` wording answers are not compared.
        min_agreement: Least share of the near questions, weighted by similarity, that vouch for an answer.
        scoring: The model of that probability; ``None`` means the shipped one. ``semcache tune`` fits others.
        uncovered_threshold: Least cosine where a guard does not know the language of the text.
        guards: Names of the guards that may veto (``semcache.guards.GUARDS``); all by default.
        semantic: Whether texts are matched by meaning at all.
        mode: ``"shadow"`` finds and judges as ever, but serves nothing: every call goes upstream, its outcome says what
            would have been served (``would_serve``), and the books count what that would have saved.
        context: What of a conversation must match exactly: ``"exact"``, every earlier turn; ``"rewrite"``, none, as
            ``rewrite`` makes the last question stand alone; ``"window"``, none, as the last user turns are embedded
            together and guards compare the whole history. See ``docs/multi-turn.md``.
        rewrite: ``rewrite(history, text) -> text``; needed with ``context="rewrite"``. One that raises means exact
            tier only for that call.
        window: How many user turns are embedded together with ``context="window"``.
        verifier: A second opinion (:mod:`semcache.verifiers`) on the nearest candidate that would not be served
            by itself. It may overrule ``wording``, ``question`` and the probability, and no other guard.
        verify_from: Least cosine worth a second opinion; needed with a verifier.
        verify_at_least: Least probability from the verifier that serves.
        verify_within_s: Seconds that a call waits for the verifier; after that it goes upstream, and a verdict that
            comes late counts from the next time on. With 0 no call ever waits.
        ttl: Seconds for which an answer may be served; ``None`` means for ever.
        time_bound_ttl: The same for a question about now ("what time is it", "the latest news"), whatever longer time
            the policy or the caller gives. Nor does an older answer to another question serve it. A minute, since a
            clock is told by the minute; ``inf`` treats such questions as all others.
        stale_if_error: Seconds past its time for which an answer of the exact tier may still be served when the
            upstream fails (it raises, or says 5xx or 408; no other 4xx), as in RFC 5861; ``None`` hands on the failure.
            An SDK's own retries then do not come to pass. Not for questions about now, nor for callers who asked for a
            fresh answer.
        secrets: What becomes of a request that holds a key, token, password in a URL or card number: ``"bypass"``, not
            looked up and not kept; ``"redact"``, masked and only matched exactly; ``"allow"``, no check. An answer
            that holds one is never kept, unless all is allowed. See ``docs/privacy.md``.
        emails_are_secret: Whether an e-mail address counts as one.
        audit_rate: Share of semantic hits, and of those withheld, that are checked against a fresh answer, 0 to 1. The
            upstream is asked behind the caller's back, and its price is booked apart. See ``docs/live.md``.
        max_false_hit_rate: The share of semantic hits that may be wrong. When audits show that a namespace is over it,
            its semantic tier switches itself off. Needs ``audit_rate`` and a cache with a judge.
        audit_confidence: Of being right to switch it off, over all the time that it is audited.
        max_temperature: Requests above it are not cached: who asks for variety must not get a constant.
        k: How many candidates are looked at.
        collapse_wait_s: Seconds that a caller waits for an equal call in flight.
        embed_budget_s: Seconds that an embedding may take before the call goes on without.
        namespaces: Overrides by namespace.
        categories: Overrides by the category that a caller gives (``cache.options(category=…)``), over those of the
            namespace. A category is no scope: its questions may be answered from all of the namespace.
        languages: Overrides by the language of the question (ISO 639-1; empty: not recognised), over both others.
        evidence: Where the threshold comes from.

    Raises:
        ConfigurationError: A value out of its range, or a guard of an unknown name.
    """

    threshold: float = 0.9
    min_probability: float = 0.85
    answers: Answers = "free"
    min_agreement: float = 0.8
    scoring: Scoring | None = None
    uncovered_threshold: float = 0.97
    guards: tuple[str, ...] = tuple(GUARDS)
    semantic: bool = True
    mode: Mode = "live"
    context: Context = "exact"
    rewrite: Rewrite | None = None
    window: int = 3
    verifier: Verifier | VerifyFunction | None = None
    verify_from: float | None = None
    verify_at_least: float = 0.9
    verify_within_s: float = 2.0
    ttl: float | None = None
    time_bound_ttl: float = 60.0
    stale_if_error: float | None = None
    secrets: Secrets = "bypass"
    emails_are_secret: bool = False
    audit_rate: float = 0.0
    max_false_hit_rate: float | None = None
    audit_confidence: float = 0.95
    max_temperature: float = 1.0
    k: int = 5
    collapse_wait_s: float = 30.0
    embed_budget_s: float = 1.0
    namespaces: Mapping[str, Override] = field(default_factory=dict)
    categories: Mapping[str, Override] = field(default_factory=dict)
    languages: Mapping[str, Override] = field(default_factory=dict)
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        _check_rules("policy", self)
        _check_mode("policy", self.mode)
        for where, override in self._overrides():
            _check_rules(where, override)
            _check_mode(where, override.mode or self.mode)
        for language in self.languages:
            if language and not (len(language) == 2 and language.isascii() and language.islower()):
                raise ConfigurationError(f"languages are named by their ISO 639-1 code (en, de), not {language!r}")
        _check_range("uncovered_threshold", self.uncovered_threshold, -1.0, 1.0)
        _check_range("verify_from", self.verify_from, -1.0, 1.0)
        _check_range("verify_at_least", self.verify_at_least, 0.0, 1.0)
        _check_range("verify_within_s", self.verify_within_s, 0.0, math.inf)
        _check_range("max_temperature", self.max_temperature, 0.0, math.inf)
        _check_range("collapse_wait_s", self.collapse_wait_s, 0.0, math.inf)
        _check_range("embed_budget_s", self.embed_budget_s, 0.0, math.inf)
        if self.secrets not in MODES:
            raise ConfigurationError(f"secrets is one of {', '.join(MODES)}, not {self.secrets!r}")
        self._check_context()
        self._check_audits()
        if self.k < 1:
            raise ConfigurationError(f"k must be at least 1, not {self.k}")
        if self.verifier is not None and self.verify_from is None:
            raise ConfigurationError("a verifier needs verify_from: the least cosine worth a second opinion")

    def _check_context(self) -> None:
        if self.context not in CONTEXTS:
            raise ConfigurationError(f"context is one of {', '.join(CONTEXTS)}, not {self.context!r}")
        if (self.context == "rewrite") != (self.rewrite is not None):
            raise ConfigurationError('context="rewrite" and a callable to rewrite with need each other')
        must_not_await("rewrite", self.rewrite)
        if self.window < 1:
            raise ConfigurationError(f"window must be at least 1, not {self.window}")

    def _check_audits(self) -> None:
        _check_range("audit_rate", self.audit_rate, 0.0, 1.0)
        for name in ("max_false_hit_rate", "audit_confidence"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < 1.0:
                raise ConfigurationError(f"{name} must lie between 0 and 1, both excluded, not {value}")
        if self.max_false_hit_rate is not None and self.audit_rate == 0.0:
            raise ConfigurationError("max_false_hit_rate needs an audit_rate above 0: without audits no one would know")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Policy:
        """Read a policy file.

        Raises:
            ConfigurationError: No such file, no TOML, an unknown key, or a value of the wrong type or range. The
                message names the file and the key, and the known key that is nearest to an unknown one.
        """
        from semcache.policy_file import load

        return load(path)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a policy file that :meth:`load` reads back as an equal policy.

        Raises:
            ConfigurationError: The policy has a verifier, which no file can hold.
        """
        from semcache.policy_file import save

        save(self, path)

    def offline(self) -> Policy:
        """The same judgements without what is for live traffic only: shadow mode and audits."""
        return replace(
            self,
            mode="live",
            audit_rate=0.0,
            max_false_hit_rate=None,
            namespaces=_not_shadow(self.namespaces),
            categories=_not_shadow(self.categories),
            languages=_not_shadow(self.languages),
        )

    def _overrides(self) -> Iterator[tuple[str, Override]]:
        """All of them, with what an error message calls each."""
        for table, kind in OVERRIDES.items():
            for name, override in getattr(self, table).items():
                yield f"{kind} {name!r}", override

    def rules(self, namespace: str, category: str | None = None, language: str | None = None) -> Rules:
        """What holds for a question: of each rule the most particular word that the policy has.

        Args:
            category: As the caller gave it.
            language: ISO 639-1 code of the text, where the guards recognise it.
        """
        tables = (
            self.languages.get(language or ""),
            self.categories.get(category or ""),
            self.namespaces.get(namespace),
        )
        said = [table for table in tables if table is not None]
        if not said:
            return self._defaults
        return Rules(*(_first(name, said, default) for name, default in self._defaults._asdict().items()))

    @cached_property
    def _defaults(self) -> Rules:
        return Rules(*(getattr(self, name) for name in Rules._fields))

    @property
    def longest_stale(self) -> float:
        """Seconds for which a store has to keep what has expired."""
        said = (self.stale_if_error, *(override.stale_if_error for _, override in self._overrides()))
        return max(seconds or 0.0 for seconds in said)

    @property
    def any_semantic(self) -> bool:
        """Whether any namespace matches by meaning: if none does, no embedder is needed."""
        return self.semantic or any(override.semantic for _, override in self._overrides())

    def search_from(self, rules: Rules) -> float:
        """Least cosine that can lead to a hit: what a search has to find."""
        least = rules.threshold
        if self.verifier is not None and self.verify_from is not None:
            least = min(least, self.verify_from)
        return min(least, agreement.FROM) if rules.closed else least

    def reach(self, rules: Rules) -> int:
        """How many of the nearest questions a search has to find."""
        return max(self.k, agreement.REACH) if rules.closed else self.k

    def check_embedder(self, fingerprint: str) -> None:
        """Refuse an embedder other than the one that the evidence was measured with, and the scoring fitted to.

        Raises:
            ConfigurationError: The fingerprints differ.
        """
        for made in (self.evidence, self.scoring):
            if made is not None and made.fingerprint != fingerprint:
                raise ConfigurationError(
                    f"this policy was made for the embedder {made.fingerprint!r}, not {fingerprint!r}: "
                    "its threshold means something else here; tune again"
                )


def admit(policy: Policy, request: Request) -> str:
    """Why a request must not be cached at all; empty if it may be."""
    if request.bypass:
        return request.bypass
    if request.temperature is not None and request.temperature > policy.max_temperature:
        return f"temperature: {request.temperature:g} above {policy.max_temperature:g}"
    return ""


def secret_in(policy: Policy, data: bytes) -> str:
    """Why canonical bytes or an answer must not be kept: ``secret: kind``; empty if they may be."""
    if policy.secrets == "allow":
        return ""
    kind = find_secret(data, emails=policy.emails_are_secret)
    return f"secret: {kind}" if kind else ""


def max_age(rules: Rules, request: Request) -> float:
    """How old an answer to a request may be, in seconds: infinite unless a user's turn asks for what holds now."""
    limit = rules.time_bound_ttl
    return limit if limit < math.inf and any(map(time_bound, user_turns(request))) else math.inf


def ttl_for(rules: Rules, request: Request, asked: float | None = None) -> float | None:
    """Seconds for which the answer to a request may be served; ``None`` means for ever.

    Args:
        asked: What the caller asks for instead of the policy's ``ttl``.
    """
    ttl = rules.ttl if asked is None else asked
    limit = max_age(rules, request)
    return ttl if limit == math.inf else min(limit, math.inf if ttl is None else ttl)


def stale_for(rules: Rules, request: Request) -> float:
    """Seconds past its time for which the answer to a request may be served when the upstream fails."""
    return (rules.stale_if_error or 0.0) if max_age(rules, request) == math.inf else 0.0


def _not_shadow(overrides: Mapping[str, Override]) -> dict[str, Override]:
    return {name: replace(override, mode=None) for name, override in overrides.items()}


def _first(name: str, tables: list[Override], default: Any) -> Any:
    return next((value for table in tables if (value := getattr(table, name)) is not None), default)


def _check_rules(where: str, rules: Policy | Override) -> None:
    _check_range(f"threshold of the {where}", rules.threshold, -1.0, 1.0)
    _check_range(f"min_probability of the {where}", rules.min_probability, 0.0, 1.0)
    for name, seconds in (("ttl", rules.ttl), ("time_bound_ttl", rules.time_bound_ttl)):
        if seconds is not None and not seconds > 0.0:
            raise ConfigurationError(f"{name} of the {where} must be above 0 seconds, not {seconds}")
    if rules.stale_if_error is not None and not 0.0 <= rules.stale_if_error < math.inf:
        raise ConfigurationError(f"stale_if_error of the {where} must be seconds from 0 up, not {rules.stale_if_error}")
    _check_range(f"min_agreement of the {where}", rules.min_agreement, 0.0, 1.0)
    if rules.answers not in (None, "free", "closed"):
        raise ConfigurationError(f"answers of the {where} are 'free' or 'closed', not {rules.answers!r}")
    unknown = [name for name in rules.guards or () if name not in GUARDS]
    if unknown:
        raise ConfigurationError(f"no guard is called {unknown[0]!r}; there are: {', '.join(GUARDS)}")


def _check_mode(where: str, mode: str) -> None:
    if mode not in ("live", "shadow"):
        raise ConfigurationError(f"mode of the {where} is 'live' or 'shadow', not {mode!r}")


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ConfigurationError(f"{name} must lie between {low:g} and {high:g}, not {value}")
