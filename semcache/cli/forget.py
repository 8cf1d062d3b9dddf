"""``semcache forget``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from semcache.cli._common import counted, json_option, opened, print_json, safe, store_option, warn

if TYPE_CHECKING:
    from semcache.types import Event


@click.command()
@store_option
@click.option("--tenant", required=True, help="Whose entries.")
@click.option("--user", help="Only those of this user of the tenant.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget(store_url: str, tenant: str, user: str | None, yes: bool, as_json: bool) -> None:
    """Erase all that is kept of a tenant, and leave nothing behind.

    An SQLite file is written anew, which takes as much free disk space as the file and keeps other writers waiting.
    Stop asking for the tenant first: what is stored meanwhile stays. The books hold no tenants and are kept. An
    encrypted store needs all its keys (SEMCACHE_KEY): exit code 1 if there are entries under others, which cannot be
    recognised and stay.
    """
    from semcache.live.evidence import Evidence
    from semcache.options import USER_TAG
    from semcache.policy import Policy
    from semcache.shared_history import erase_prompts
    from semcache.stores.base import Selector

    locked = []

    def note(event: Event) -> None:
        warn(event)
        if event.kind == "entry_locked":
            locked.append(event)

    selector = Selector(tenant=tenant, tag=None if user is None else f"{USER_TAG}{user}")
    with opened(store_url) as store:
        store.on_event = note
        if not yes:
            whom = safe(tenant) if user is None else f"{safe(user)} of {safe(tenant)}"
            click.confirm(f"Erase all that {store.stats().location} keeps of {whom}?", abort=True, err=True)
        Evidence(store, Policy(), warn).forget(selector)
        erase_prompts(store)
        erased = store.erase(selector)
    if as_json:
        print_json({"erased": erased, "complete": not locked})
    else:
        click.echo(f"{counted(erased)} erased")
    if locked:
        click.echo("Error: there are entries under keys that SEMCACHE_KEY does not name; they stay", err=True)
        sys.exit(1)
