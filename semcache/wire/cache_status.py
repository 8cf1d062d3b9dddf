"""The ``Cache-Status`` response header (RFC 9211), written as a structured field (RFC 8941)."""

from __future__ import annotations

from semcache.types import Outcome

HEADER = "cache-status"


def cache_status(outcome: Outcome, *, refresh: bool = False) -> str:
    """This cache's member of the header.

    ``hit`` carries the tier as ``detail``, the entry as ``key``, and for the semantic tier the cosine as the
    extension parameter ``similarity``. ``fwd`` is ``bypass``, ``request`` (the caller asked for a fresh answer),
    ``stale`` or ``uri-miss``. ``stored`` is only there when it was known as the header was sent: not for streams.
    """
    parts = ["semcache"]
    if outcome.hit:
        parts.append("hit")
        if outcome.entry_id is not None:
            parts.append(f'key="{outcome.entry_id}"')
        if outcome.ttl_s is not None:
            parts.append(f"ttl={max(0, int(outcome.ttl_s))}")
        parts.append(f"detail={outcome.layer}")
        if outcome.layer == "semantic" and outcome.similarity is not None:
            parts.append(f"similarity={outcome.similarity:.3f}")
        return "; ".join(parts)
    fwd = "request" if refresh else {"bypass": "bypass", "stale": "stale"}.get(outcome.status, "uri-miss")
    parts.append(f"fwd={fwd}")
    if outcome.collapsed:
        parts.append("collapsed")
    if outcome.stored:
        parts.append("stored")
        parts.append(f'key="{outcome.entry_id}"')
    if outcome.reason:
        parts.append(f"detail={_string(outcome.reason)}")
    return "; ".join(parts)


def _string(text: str) -> str:
    """A structured-field string: printable ASCII, quotes and backslashes escaped."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
