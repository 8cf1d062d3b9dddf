"""What a flow may ask of the engine, one record a step, and what it is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from semcache.flight import Landed
from semcache.types import Entry, Key, Marks, Prompt, Reply, Usage

if TYPE_CHECKING:
    from semcache.context import Turns
    from semcache.prompt_cache import Plan
    from semcache.types import Vector


class GetExact(NamedTuple):
    """Answer: the live ``Entry`` of the key, or ``None``."""

    key: Key


class Join(NamedTuple):
    """Join the flight of this key. Answer: ``Lead``, ``Landed``, or ``None`` if its leader failed."""

    key: Key
    wait_s: float


class Rewrite(NamedTuple):
    """Answer: the last question so that it stands alone, or ``None`` if that failed."""

    history: Turns
    text: str


class Embed(NamedTuple):
    """Answer: float32 [d]; ``None`` on trouble; ``UNREADABLE`` if the embedder would not read the whole text."""

    text: str


class Search(NamedTuple):
    """Answer: the nearest stored questions of the scope as ``Near``, best first."""

    key: Key
    vector: Vector
    k: int
    min_similarity: float


class Verify(NamedTuple):
    """Answer: probability that the answer of ``entry`` is right, or ``None`` if the verifier failed or was late.

    A verdict may be kept with ``tags``, which are the asker's, and those of the entry.
    """

    query: str
    entry: Entry
    tags: tuple[str, ...] = ()


class RuleFailed(NamedTuple):
    """A rule raised while candidates were judged: a bug of ours, which must not be the caller's. Answer: ``None``."""

    error: Exception


class CheckSchema(NamedTuple):
    """Answer: whether an answer keeps to the JSON schema that was asked for; ``None`` if it cannot be told."""

    schema: Mapping[str, Any] | str
    answer: bytes


class GetStale(NamedTuple):
    """Answer: the ``Entry`` of the key, though it expired up to ``stale_s`` seconds ago; ``None`` if there is none.

    ``why``: how the upstream failed, for the event.
    """

    key: Key
    stale_s: float
    why: str


class MarkPrompt(NamedTuple):
    """Answer: the prompt as ``Marked`` for the provider's cache; ``None`` if it has none, or on trouble."""

    prompt: Prompt
    tenant: str | None


class CallUpstream(NamedTuple):
    """Answer: the upstream's complete ``Reply``, or the exception that it raised is thrown into the flow.

    ``body`` is to be sent instead of the caller's, if it is set.
    """

    body: Mapping[str, Any] | None = None


class Reconcile(NamedTuple):
    """Hold what the provider says of its prompt cache against what was expected. Answer: ``None``."""

    marked: Marked
    usage: Usage | None


class Refused(NamedTuple):
    """The provider will not have a prompt with these marks, and says why. Answer: whether they are why."""

    marked: Marked
    said: str


class Write(NamedTuple):
    """Answer: whether the entry was stored."""

    entry: Entry


Step = (
    GetExact
    | Join
    | Rewrite
    | Embed
    | Search
    | Verify
    | RuleFailed
    | CheckSchema
    | MarkPrompt
    | CallUpstream
    | Reconcile
    | Refused
    | GetStale
    | Write
)


class Lead(Protocol):
    """The caller leads the flight, and ends it by one of these."""

    def land(self, answer: Landed) -> None: ...

    def fail(self) -> None: ...


class Near(NamedTuple):
    """A stored question near to the one asked, with its entry."""

    entry: Entry
    similarity: float
    wrong_before: bool
    barred: bool = False
    slack: float = 0.0


class Marked(NamedTuple):
    """A prompt with cache points.

    Args:
        body: What to send; ``None`` if the caller's is to be sent as it is.
        marks: For the outcome.
        model: Provider and model, under which it is counted.
        plan: What was decided.
        head: Hash of its tools and system prompt; ``None`` if it has none, or nothing of it should be read.
        expected: Estimate of the tokens that the provider should have.
        at: Unix seconds of the decision.
    """

    body: Mapping[str, Any] | None
    marks: Marks
    model: str
    plan: Plan
    head: int | None
    expected: int
    at: float


class StreamReply(NamedTuple):
    """Upstream has begun to stream.

    Args:
        value: What the caller reads from.
        drain: Reads it to its end where there is no caller (audits), and gives the complete reply.
    """

    value: Any
    drain: Callable[[], Reply | Awaitable[Reply]] | None = None


UNREADABLE: Final = "the embedder cannot read the whole text"
"""Such a text is kept to the exact tier: two long texts with one beginning would get one vector."""
