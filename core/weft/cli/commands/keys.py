"""`weft keys`: who may come in by the gateway."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from weft.cli import output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.gateway.guards.key_store import KeyStore
    from weft.gateway.guards.keys import ApiKey


@click.group(
    epilog=examples(
        'weft keys create "web shop" --scope support.write --tenant acme --days 90',
        "weft keys revoke k7qm2xvtd4ra",
    )
)
def keys() -> None:
    """Create, list and revoke API keys; show the key of the gateway itself.

    API keys are kept in the mesh's PostgreSQL: that of `weft up` on this machine, or --database-url.
    """


@keys.command(epilog=examples('weft keys create "web shop" --days 90'))
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="What it may do; may be repeated."
)
@click.option(
    "--days", type=click.IntRange(1, 36_500), help="Days until it expires; by default never."
)
@click.option("--tenant", default="", metavar="NAME", help="Organisation that it belongs to.")
@configured("data", "database_url")
@json_option
def create(
    *,
    settings: Settings,
    name: str,
    scopes: tuple[str, ...],
    days: int | None,
    tenant: str,
    as_json: bool,
) -> None:
    """Create a key. Its secret is shown now and never again."""
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    made = _with_store(
        settings,
        lambda store: store.create(
            name, scopes=scopes, expires_at=expires, tenant=tenant, by=_operator()
        ),
    )
    if as_json:
        output.print_json({"key": made.text, **_fields(made.key)})
        return
    click.echo(made.text)
    click.echo("Keep it now: it is not shown again. Send it as `Authorization: Bearer`.", err=True)


@keys.command(name="list", epilog=examples("weft keys list --json"))
@configured("data", "database_url")
@json_option
def list_keys(*, settings: Settings, as_json: bool) -> None:
    """List keys, the newest first. Secrets are not known."""
    found = _with_store(settings, lambda store: store.list_keys())
    if as_json:
        output.print_json([_fields(key) for key in found])
        return
    output.print_table(
        ["ID", "NAME", "TENANT", "SCOPES", "STATE", "CREATED", "EXPIRES"],
        [
            [
                key.id,
                key.name,
                key.tenant,
                " ".join(key.scopes),
                output.state(_state(key)),
                output.moment(key.created_at),
                output.moment(key.expires_at) or "never",
            ]
            for key in found
        ],
        "No key yet. Make one: weft keys create NAME",
    )


@keys.command(epilog=examples("weft keys revoke k7qm2xvtd4ra"))
@click.argument("key_id", metavar="ID")
@configured("data", "database_url")
@json_option
def revoke(*, settings: Settings, key_id: str, as_json: bool) -> None:
    """Revoke a key for good; every gateway refuses it within a second."""
    key = _with_store(settings, lambda store: store.revoke(key_id, by=_operator()))
    if as_json:
        output.print_json(_fields(key))
    else:
        click.echo(f"{key.id} ({key.name}) is revoked.")


@keys.command(epilog=examples("weft keys identity", "WEFT_IDENTITY_KEY=gw.pem weft keys identity"))
@configured("data")
def identity(*, settings: Settings) -> None:
    """Print what agents need to know to believe the gateway (WEFT_IDENTITY_TRUST).

    It is the public half of the key that the gateway signs identities with: WEFT_IDENTITY_KEY, or that of `weft up`
    in --data. The key is made where there is none.
    """
    from weft.cli import identities

    click.echo(identities.signer(settings, make=True).public)


def _with_store(settings: Settings, work: Callable[[KeyStore], Awaitable[Any]]) -> Any:
    from weft.cli import connect, database
    from weft.gateway.guards.key_store import KeyStore
    from weft.postgres import Database

    async def done() -> Any:
        url = database.url(settings)
        async with await Database.opened(url, "gateway", "weft.gateway.sql") as found:
            return await work(KeyStore(found))

    return connect.run(done())


def _operator() -> str:
    """Who uses this command, for the audit log."""
    import getpass
    import platform

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container there may be no name
        user = str(os.getuid())
    return f"os:{user}@{platform.node()}"


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        return "expired"
    return "valid"


def _fields(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": list(key.scopes),
        "state": _state(key),
        "created_at": _iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "revoked_at": _iso(key.revoked_at),
    }


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()
