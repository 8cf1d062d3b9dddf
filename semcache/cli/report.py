"""``semcache report``."""

from __future__ import annotations

import click

from semcache.cli._common import asked_like, json_option, must_exist, number, print_json, store_option, warn


@click.command()
@click.argument("verdict", type=click.Choice(["right", "wrong"]))
@click.argument("text")
@click.argument("entry_id", metavar="ENTRY")
@store_option
@json_option
def report(verdict: str, text: str, entry_id: str, store_url: str, as_json: bool) -> None:
    """Say whether a stored answer is right for a question.

    TEXT is the question, and ENTRY the id of the stored one, as explain prints it. "wrong" deletes the entry, and the
    two questions never match again. Both verdicts count for the entry and its namespace, each time they are given. An
    application calls report_wrong(outcome) or report_right(outcome) instead.
    """
    from semcache.cache import SemanticCache
    from semcache.errors import InputError
    from semcache.policy import Policy
    from semcache.types import Layer, Outcome

    must_exist(store_url)
    with SemanticCache(store=store_url, policy=Policy(semantic=False)) as cache:
        cache.on_event(warn)
        (entry,) = cache.engine.store.fetch([number(entry_id)])
        if entry is None or entry.text is None:
            raise InputError(f"there is no stored question with the id {entry_id}")
        request, options = asked_like(entry, text)
        with cache.options(**options):
            key = cache.key(request)
        layer: Layer = "exact" if key.id == entry.key.id else "semantic"
        outcome = Outcome("hit", layer, namespace=entry.namespace, entry_id=entry.key.id, key=key)
        (cache.report_wrong if verdict == "wrong" else cache.report_right)(outcome)
    if as_json:
        print_json({"entry_id": entry.key.id, "reported": verdict, "layer": layer})
    elif verdict == "wrong":
        click.echo("Deleted, and the two questions never match again." if layer == "semantic" else "Deleted.")
    else:
        click.echo("Noted." if layer == "semantic" else "It is the same question: nothing to learn.")
