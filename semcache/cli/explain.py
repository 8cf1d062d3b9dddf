"""``semcache explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from semcache.cli._common import (
    asked_like,
    console,
    counted,
    json_option,
    must_exist,
    print_json,
    safe,
    store_option,
    warn,
)

if TYPE_CHECKING:
    from rich.console import Console

    from semcache.cache import SemanticCache
    from semcache.flow import Explanation
    from semcache.types import Entry


class ScopeSeen(NamedTuple):
    """What one scope of a store has to say to a question; ``like`` is an entry of it."""

    scope_id: int
    entries: int
    like: Entry
    explanation: Explanation

    @property
    def rank(self) -> tuple[bool, float]:
        nearest = max((judged.candidate.similarity for judged in self.explanation.candidates), default=-1.0)
        return (self.explanation.status == "hit", nearest)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        explanation = self.explanation
        return {
            "scope_id": self.scope_id,
            "entries": self.entries,
            "namespace": self.like.namespace,
            "tenant": self.like.tenant,
            "api": self.like.api,
            "model": self.like.model,
            "status": explanation.status,
            "reason": explanation.reason,
            "exact": explanation.exact,
            "threshold": explanation.decision.threshold if explanation.decision else None,
            "candidates": [
                {
                    "entry_id": judged.candidate.entry_id,
                    "text": judged.candidate.text,
                    "similarity": judged.candidate.similarity,
                    "probability": judged.probability,
                    "agreement": judged.agreement,
                    "reasons": list(judged.reasons),
                    "guards": {verdict.guard: verdict.reason for verdict in judged.verdicts},
                }
                for judged in explanation.candidates
            ],
        }


@click.command()
@click.argument("text")
@store_option
@click.option("--policy", type=click.Path(exists=True, dir_okay=False), help="Judge by this policy file.")
@click.option("--scopes", default=10, show_default=True, type=click.IntRange(min=1), help="How many scopes to ask.")
@json_option
def explain(text: str, store_url: str, policy: str | None, scopes: int, as_json: bool) -> None:
    """Show why a question would hit or miss: candidates, scores, guards.

    A store keeps its entries in scopes: model, system prompt, tools, earlier turns and all else that must match
    exactly. TEXT is asked in the scopes with the most entries, as a request that differs from theirs in its last
    user text only. Nothing is served, stored or booked.
    """
    from semcache.cache import SemanticCache
    from semcache.live.answers import same_answer

    must_exist(store_url)
    with SemanticCache(store=store_url, policy=policy, judge=same_answer) as cache:
        cache.engine.store.ping()
        cache.on_event(warn)
        size = cache.engine.store.stats()
        refused = _refused(cache, text)
        seen = [] if refused else _ask(cache, text, scopes)
    seen.sort(key=lambda scope: scope.rank, reverse=True)
    if as_json:
        scopes_seen = [scope.to_dict() for scope in seen]
        print_json({"text": text, "store": size._asdict(), "reason": refused, "scopes": scopes_seen})
        return
    out = console()
    if refused:
        out.print(f"No match by meaning, in any scope: {refused}.")
    elif not seen:
        out.print(f"Miss: {size.kind} store {size.location} has no entry that can match by meaning.")
    for scope in seen:
        _show(out, scope)


def _refused(cache: SemanticCache, text: str) -> str:
    """Why a text is never matched by meaning, whatever is stored; such a text must not reach the embedder."""
    from semcache.policy import secret_in
    from semcache.privacy import hides
    from semcache.steps import UNREADABLE

    refused = secret_in(cache.policy, text.encode("utf-8", "surrogatepass")) or hides(text)
    semantic = cache.engine.semantic
    return refused or ("" if semantic is None or semantic.queue.fits(text) else UNREADABLE)


def _ask(cache: SemanticCache, text: str, limit: int) -> list[ScopeSeen]:
    from semcache.types import Key

    store, semantic = cache.engine.store, cache.engine.semantic
    if semantic is None:
        return []
    vector = semantic.queue.embed(text)
    seen = []
    for scope_id, entries in store.scopes(limit).items():
        nearest = semantic.search(Key(-1, scope_id, b"", 0), vector, 1, -1.0)
        for entry in store.fetch([match.id for match in nearest]):
            if entry is None:
                continue
            request, options = asked_like(entry, text)
            with cache.options(**options):
                seen.append(ScopeSeen(scope_id, entries, entry, cache.explain(request)))
    return seen


def _show(out: Console, scope: ScopeSeen) -> None:
    from rich.table import Table

    explanation, facts = scope.explanation, scope.to_dict()
    named = [safe(facts[name]) for name in ("api", "model", "namespace", "tenant") if facts[name]]
    out.print(f"\nScope {scope.scope_id:#x}: {', '.join(named)}; {counted(scope.entries)}", style="bold")
    tier = "the same question is stored" if explanation.exact else "by meaning"
    verdict = (
        f"Hit, {tier}" if explanation.status == "hit" else f"{explanation.status.capitalize()}: {explanation.reason}"
    )
    out.print(safe(verdict), style="green" if explanation.status == "hit" else "yellow")
    if not explanation.candidates:
        return
    threshold = facts["threshold"]
    table = Table(
        "similarity",
        "probability",
        "agreement",
        "stored question",
        "entry",
        f"held against it (threshold {threshold:.3f})",
        box=None,
    )
    for judged in explanation.candidates:
        candidate = judged.candidate
        against = "; ".join(judged.reasons) or "nothing"
        degrees = ("–" if degree is None else f"{degree:.2f}" for degree in (judged.probability, judged.agreement))
        entry = f"{candidate.entry_id:#x}"
        table.add_row(f"{candidate.similarity:.4f}", *degrees, safe(candidate.text), entry, safe(against))
    out.print(table)
