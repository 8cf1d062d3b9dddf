"""``semcache invalidate``."""

from __future__ import annotations

import click

from semcache.cli._common import counted, json_option, number, opened, print_json, store_option


@click.command()
@store_option
@click.option("--id", "ids", multiple=True, metavar="ID", help="This entry; may be given again.")
@click.option("--tag", help="Entries with this tag.")
@click.option("--namespace", help="Entries of this namespace.")
@click.option("--tenant", help="Entries of this tenant.")
@click.option("--scope", metavar="ID", help="Entries of this scope, as explain prints it.")
@click.option("--all", "everything", is_flag=True, help="All entries of the store.")
@click.option("--yes", is_flag=True, help="Do not ask before --all.")
@json_option
def invalidate(
    store_url: str,
    ids: tuple[str, ...],
    tag: str | None,
    namespace: str | None,
    tenant: str | None,
    scope: str | None,
    everything: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete stored answers by id, tag, namespace, scope or tenant.

    With more than one of these, only entries that match all of them go. The books are kept.
    """
    from semcache.stores.base import Selector

    selector = Selector(
        ids=tuple(map(number, ids)) or None,
        tag=tag,
        namespace=namespace,
        tenant=tenant,
        scope_id=None if scope is None else number(scope),
    )
    if everything == (selector != Selector()):
        raise click.UsageError("say what to delete: --id, --tag, --namespace, --tenant or --scope; or --all alone")
    with opened(store_url) as store:
        if everything:
            selector = Selector(everything=True)
            size = store.stats()
            if not yes:
                click.confirm(f"Delete all {counted(size.entries)} of {size.location}?", abort=True, err=True)
        deleted = store.delete(selector)
    if as_json:
        print_json({"deleted": deleted})
    else:
        click.echo(f"{counted(deleted)} deleted")
