"""``semcache resume``."""

from __future__ import annotations

import click

from semcache.cli._common import json_option, opened, print_json, safe, store_option


@click.command()
@click.argument("namespace", default="default")
@store_option
@json_option
def resume(namespace: str, store_url: str, as_json: bool) -> None:
    """Switch on again what audits have switched off: the semantic tier of a namespace.

    Its audits are counted from the start again. Every process on the store follows within about a second.
    """
    from semcache.live.evidence import Evidence
    from semcache.policy import Policy

    with opened(store_url) as store:
        resumed = Evidence(store, Policy(), lambda event: None).resume(namespace)
    if as_json:
        print_json({"namespace": namespace, "resumed": resumed})
    else:
        click.echo(f"{safe(namespace)}: {'the semantic tier serves again' if resumed else 'it was not off'}")
