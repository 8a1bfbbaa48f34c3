"""`weft gateway`: one part alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from weft.cli import failures, part
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.gateway import Gateway


@click.command(
    epilog=examples(
        "weft gateway --registry 10.0.0.5:7070 --listen 0.0.0.0:7080 --auth keys --database-url postgresql://weft@db/weft"
    )
)
@configured(
    "registry",
    "database_url",
    listen="gateway_listen",
    grpc_listen="gateway_grpc_listen",
    metrics="gateway_metrics",
    auth="gateway_auth",
    log_format="log_format",
)
@part.supervisor_option
def gateway(*, settings: Settings, supervised: str | None) -> None:
    """Run the gateway alone: REST, Connect, gRPC-Web and gRPC in front of a registry's agents."""
    if not settings.database_url:
        raise failures.WrongSetting(
            "The gateway keeps API keys in PostgreSQL: give --database-url or WEFT_DATABASE_URL. "
            "`weft up` brings its own."
        )
    part.run(_serve(settings, supervised), supervised)


async def _serve(settings: Settings, supervised: str | None) -> None:
    from weft.gateway import Gateway
    from weft.gateway.guards import BreakerSettings
    from weft.gateway.http.cors import Cors

    with failures.settings_checked("WEFT_GATEWAY_BREAKER_*"):
        breaker = BreakerSettings(
            window=settings.gateway_breaker_window,
            failure_rate=settings.gateway_breaker_ratio,
            minimum_calls=settings.gateway_breaker_volume,
            open_for=settings.gateway_breaker_open,
        )
    with failures.settings_checked("WEFT_GATEWAY_CORS_*"):
        cors = Cors(
            settings.gateway_cors_origins.split(","),
            credentials=settings.gateway_cors_credentials == "on",
        )
    async with (
        part.observed(settings, "gateway", settings.gateway_metrics) as telemetry,
        Gateway(
            registry=settings.registry,
            listen=settings.gateway_listen,
            grpc_listen=settings.gateway_grpc_listen,
            database_url=settings.database_url,
            telemetry=telemetry,
            auth=settings.gateway_auth,
            max_body=settings.gateway_max_body,
            max_timeout=settings.gateway_max_timeout,
            cors=cors,
            idempotency_life=settings.gateway_idempotency_life,
            breaker=breaker,
        ) as found,
    ):
        await part.until_stopped(_serving(found, telemetry.metrics_address, supervised))


async def _serving(found: Gateway, metrics: str, supervised: str | None) -> None:
    # Ready is when it knows the mesh: before, it has no routes.
    await found.ready()
    part.announce(supervised, address=found.url, grpc=found.grpc_address, metrics=metrics)
    await asyncio.Event().wait()
