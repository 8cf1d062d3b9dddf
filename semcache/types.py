"""The records that pass between the parts of the cache. No behaviour beyond small derived values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]

Status = Literal["hit", "miss", "bypass", "stale"]
Layer = Literal["exact", "semantic"]
Keep = Literal["all", "exact", "never"]
"""How an answer may be kept: in both tiers, in the exact tier only, or not at all."""


class Usage(NamedTuple):
    """Tokens of one call, in one meaning for every provider.

    ``input_tokens`` includes the cached ones; ``cache_read_tokens`` and ``cache_write_tokens`` are parts of it.
    ``reasoning_tokens`` is a part of ``output_tokens``. ``cache_write_long_tokens`` is the part of
    ``cache_write_tokens`` written for the longer of the two lifetimes that a provider sells (1h of Anthropic and
    Bedrock, 12h of OpenAI), which costs more. ``estimated``: nobody counted; see :mod:`semcache.money.estimates`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_long_tokens: int = 0
    estimated: bool = False

    @property
    def total(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(slots=True)
class Request:
    """A provider-neutral request: what must match exactly, and the one text that may match by meaning.

    Args:
        api: Name of the wire format, or ``"function"``.
        scope: JSON-like mapping of everything that must match exactly (model, system prompt, tools, sampling,
            earlier turns, attachment digests, …). Namespace and tenant are added when the key is made.
        text: The last user text; ``None`` keeps the request to the exact tier.
        model: Model name as the caller gave it, for the ledger and prices.
        stream: Whether the caller wants a stream. Never part of the key.
        temperature: As given; the policy bypasses above its limit.
        bypass: Reason why this request must not be cached at all, as found by the codec.
        exact_only: Reason why this request may only match exactly, as found by the codec.
        history: Earlier turns that are no part of the scope (``Policy.context``): they match exactly in the exact
            tier only.
    """

    api: str
    scope: Mapping[str, Any]
    text: str | None
    model: str | None = None
    stream: bool = False
    temperature: float | None = None
    bypass: str | None = None
    exact_only: str | None = None
    history: Sequence[Mapping[str, Any]] = ()


class Key(NamedTuple):
    """Where a request lives.

    ``canonical`` is the whole request as canonical bytes and is compared on every hit, since ``id`` is 63 bits of
    an xxh3 hash and resists no attacker. ``canonical[:scope_length]`` is the scope.
    """

    id: int
    scope_id: int
    canonical: bytes
    scope_length: int

    @property
    def scope(self) -> bytes:
        return self.canonical[: self.scope_length]


@dataclass(slots=True)
class Entry:
    """One stored answer.

    Args:
        key: Key of the request that was answered.
        text: Its fuzzy text.
        response: The complete non-stream body in the wire format of ``api`` (JSON bytes).
        vector: float16 or float32 [d], L2-normalised, or little-endian float16 bytes, the form in which stores hand
            it back so that an exact hit never needs numpy; read it through :meth:`embedding`. ``None`` keeps the
            entry to the exact tier.
        fingerprint: Identity of the embedder that made ``vector``.
        created_at: Unix seconds.
        expires_at: Unix seconds; ``None`` means never.
        latency_s: How long the upstream call took, in seconds.
    """

    key: Key
    text: str | None
    response: bytes
    api: str
    namespace: str
    tenant: str | None
    model: str | None
    created_at: float
    expires_at: float | None = None
    latency_s: float = 0.0
    usage: Usage | None = None
    tags: tuple[str, ...] = ()
    vector: npt.NDArray[Any] | bytes | None = None
    fingerprint: str | None = None

    def embedding(self) -> Vector | None:
        """``vector`` as float32 [d]."""
        if self.vector is None:
            return None
        import numpy as np

        raw = np.frombuffer(self.vector, dtype="<f2") if isinstance(self.vector, bytes) else self.vector
        return raw.astype(np.float32)

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at


class Reply(NamedTuple):
    """What came back from upstream, complete.

    Args:
        value: What the caller of this call gets, untouched.
        body: The non-stream body as JSON bytes; ``None`` if it cannot be represented.
        keep: Whether, and in which tiers, the answer may be kept.
        reason: Why it may not be kept (or only exactly); empty when ``keep`` is ``"all"``.
        failed: An error answer: followers must not share it.
        outage: The upstream itself is in trouble (status 5xx or 408), so that an expired answer may be served instead.
        refusal: Why the upstream will not have this body (status 400, 403 or 422), in its own words.
    """

    value: Any
    body: bytes | None
    usage: Usage | None = None
    keep: Keep = "all"
    reason: str = ""
    failed: bool = False
    outage: bool = False
    refusal: str | None = None


class Candidate(NamedTuple):
    """A stored question near to the one asked. ``similarity`` is cosine, recomputed from the stored vector.

    ``wrong_before``: this pair was found wrong. ``barred``: too many of the entry's hits were. ``slack``: how far below
    the threshold it may answer, since so many were right. ``history``: why the turns before it are other ones.
    ``answer``: one form of all answers equal to its own, where answers are compared. ``too_old``: older than a question
    about now may be answered with.
    """

    entry_id: int
    text: str
    similarity: float
    wrong_before: bool = False
    barred: bool = False
    slack: float = 0.0
    history: str = ""
    answer: str | None = None
    too_old: bool = False


class GuardVerdict(NamedTuple):
    """What one guard says of a pair of texts; ``reason`` is empty when it has no objection."""

    guard: str
    reason: str

    @property
    def ok(self) -> bool:
        return not self.reason


class Judged(NamedTuple):
    """One candidate with everything that was held against it. ``reasons`` is empty if it may be served.

    ``probability`` that its answer is right, where a model was asked; ``agreement``, the share of the near questions
    that have its answer, where answers are compared.
    """

    candidate: Candidate
    reasons: tuple[str, ...]
    verdicts: tuple[GuardVerdict, ...] = ()
    probability: float | None = None
    agreement: float | None = None

    @property
    def ok(self) -> bool:
        return not self.reasons


@dataclass(slots=True)
class Decision:
    """The judgement over all candidates of one look-up, best first.

    ``verdict`` is ``"serve"``, ``"reject"``, or ``"verify"`` (ask the verifier about ``chosen`` first).
    """

    verdict: Literal["serve", "reject", "verify"]
    threshold: float
    judged: tuple[Judged, ...] = ()
    chosen: Candidate | None = None
    probability: float | None = None
    agreement: float | None = None

    @property
    def reason(self) -> str:
        """Why nothing was served, or an empty string."""
        if self.verdict == "serve":
            return ""
        if not self.judged:
            return "no candidate"
        return self.judged[0].reasons[0] if self.judged[0].reasons else "not verified"


@dataclass(slots=True)
class WouldServe:
    """A hit that was found and not served: in shadow mode, or while the semantic tier is off.

    Args:
        layer: Which tier would have answered.
        similarity: Cosine, 1.0 for the exact tier.
        entry_id: The entry that would have answered.
        agrees: Whether its answer serves the question, as far as is known by what the upstream then said: ``True``
            for an equal answer, else ``None`` until the cache's judge has spoken.
        usage: Tokens that the hit would have saved.
        usd_micro: Their price in millionths of a dollar; ``None`` when the model has no known price.
    """

    layer: Layer
    similarity: float
    entry_id: int
    agrees: bool | None = None
    usage: Usage | None = None
    usd_micro: int | None = None


class Prompt(NamedTuple):
    """A body on its way to a provider, for the provider's prompt cache.

    Args:
        api: Name of the wire format.
        body: As it would be sent. It is never changed.
        host: Name of the host that it goes to.
        provider: The user's word on who answers there, where the host does not tell.
    """

    api: str
    body: Mapping[str, Any]
    host: str
    model: str | None
    provider: str | None = None


class Mark(NamedTuple):
    """A cache point: its lifetime (``5m``, ``30m``, ``1h``, ``12h``) and the estimated tokens before it."""

    ttl: str
    tokens: int


class Marks(NamedTuple):
    """What was asked of the provider's prompt cache on a miss.

    Args:
        points: In the order of the prompt; each one's tokens include those of the points before it.
        reason: Why there are points, or why not.
    """

    points: tuple[Mark, ...] = ()
    reason: str = ""


@dataclass(slots=True)
class Outcome:
    """What happened to one call.

    Args:
        status: ``hit``, ``miss``, ``bypass`` or ``stale``.
        layer: Which tier answered a hit.
        collapsed: The answer came from another caller's call in flight: not a hit.
        stored: The answer was kept. For a stream this turns true when the stream has been read to its end.
        similarity: Cosine of a semantic hit, 1.0 for an exact one.
        reason: Why a call was bypassed, missed, or not stored.
        entry_id: The entry that answered, or that was written.
        age_s: Seconds since the served entry was stored.
        ttl_s: Seconds that the served or stored entry still lives, negative for a stale one; ``None`` if for ever.
        usage: Tokens of the call: spent on a miss, saved on a hit.
        expected_read_tokens: Input tokens that the provider was expected to hold in its prompt cache at that moment,
            whether it was called or not; ``None`` if it cannot be told.
        usd_micro: What the call cost, in millionths of a dollar; on a hit, what it would have cost at that moment.
            ``None`` when the model has no known price.
        price_id: Which row of which price table that is by.
        prompt_cache_usd_micro: What the provider's prompt cache took off the list price of a call that was made: saved
            by reads, and by writes, whose premium is negative.
        refused: A :class:`~semcache.money.budgets.Budget` kept the call from the upstream, and nothing answered it.
        seconds: Wall time by phase: ``lookup``, ``embed``, ``upstream``, ``total``.
        would_serve: The hit that was found and withheld.
        marks: What was asked of the provider's prompt cache; ``None`` where it was not called, or is not known.
        reported: What ``report_right`` or ``report_wrong`` was told of it.
    """

    status: Status
    layer: Layer | None = None
    collapsed: bool = False
    stored: bool = False
    similarity: float | None = None
    reason: str = ""
    namespace: str = "default"
    tenant: str | None = None
    model: str | None = None
    entry_id: int | None = None
    age_s: float | None = None
    ttl_s: float | None = None
    usage: Usage | None = None
    expected_read_tokens: int | None = None
    usd_micro: int | None = None
    price_id: str | None = None
    prompt_cache_usd_micro: tuple[int, int] = (0, 0)
    refused: bool = False
    upstream_latency_s: float | None = None
    decision: Decision | None = None
    request: Request | None = None
    key: Key | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    would_serve: WouldServe | None = None
    marks: Marks | None = None
    reported: Literal["right", "wrong"] | None = None

    @property
    def hit(self) -> bool:
        return self.status == "hit"

    @property
    def spent(self) -> bool:
        """Whether it came to a call upstream that this caller's call alone has to answer for."""
        return self.status in ("miss", "bypass") and not self.collapsed and not self.refused


class Event(NamedTuple):
    """Something that a person running the cache would want to know of: trouble, an eviction, a collision.

    ``kind`` is one of a small closed set, see ``semcache.events``.
    """

    kind: str
    message: str
    error: BaseException | None = None
