"""`weft registry`: one part alone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from weft.cli import failures, membership, part
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.registry import Registry

_HEARTBEAT = timedelta(seconds=1)


@click.command(
    epilog=examples(
        "weft registry --database-url postgresql://weft@db/weft --listen 0.0.0.0:7070",
        "weft agents serve support --registry 10.0.0.5:7070,10.0.0.6:7070",
    )
)
@configured(
    "database_url",
    *membership.OPTIONS,
    listen="registry_listen",
    metrics="registry_metrics",
    log_format="log_format",
)
@part.supervisor_option
def registry(*, settings: Settings, supervised: str | None) -> None:
    """Run the registry alone, on a PostgreSQL of yours.

    It leases names to agents, answers who is there, is the xDS server of gRPC clients, and keeps
    recent traces.

    Started several times on one database it has replicas: each answers for all of it, and when one dies
    another takes over its leases. Give callers all addresses, joined by commas; `weft status` shows how
    the replicas are. They must reach each other at the addresses they listen on.
    """
    if not settings.database_url:
        raise failures.WrongSetting(
            "The registry needs a PostgreSQL: give --database-url or WEFT_DATABASE_URL. "
            "`weft up` brings its own."
        )
    part.run(_serve(settings, supervised), supervised)


async def _serve(settings: Settings, supervised: str | None) -> None:
    from weft import traces
    from weft.cli.edge import access
    from weft.registry import Registry, Terms
    from weft.rpc import process

    process.raise_files()

    edge = access.options(settings)
    ttl = settings.registry_lease_ttl
    with failures.settings_checked("WEFT_REGISTRY_LEASE_TTL"):
        terms = Terms(ttl=ttl, heartbeat_interval=min(_HEARTBEAT, ttl / 4))
    roles = membership.roles(settings)
    async with (
        membership.as_part(settings, "registry", settings.registry_listen) as mtls,
        part.observed(
            settings, "registry", settings.registry_metrics, traced=False, mtls=mtls
        ) as telemetry,
        Registry(
            database_url=settings.database_url,
            address=settings.registry_listen,
            terms=terms,
            cold_start=settings.registry_cold_start,
            telemetry=telemetry,
            edge=edge,
            beside=traces.services(traces.TraceStore()),
            mtls=mtls,
            roles=roles,
        ) as found,
        process.collecting(),
    ):
        await part.until_stopped(_serving(found, telemetry.metrics_address, supervised))


async def _serving(found: Registry, metrics: str, supervised: str | None) -> None:
    part.announce(supervised, address=found.address, metrics=metrics)
    await found.wait()
