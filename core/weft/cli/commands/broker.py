"""`weft broker`: one part alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weft.cli import failures, membership, part
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.broker import Broker
    from weft.config import Settings


@click.command(
    epilog=examples(
        "weft broker --redis-url redis://redis:6379/0 --database-url postgresql://weft@db/weft --listen 0.0.0.0:7072"
    )
)
@configured(
    *("redis_url", "database_url", "registry"),
    *membership.OPTIONS,
    listen="broker_listen",
    metrics="broker_metrics",
    log_format="log_format",
)
@part.supervisor_option
def broker(*, settings: Settings, supervised: str | None) -> None:
    """Run the broker alone, on a Redis and a PostgreSQL of yours.

    It keeps messages between agents until they are handled. Several brokers on one Redis share the work,
    and any of them may die. Without a PostgreSQL there is no archive.
    """
    if not settings.redis_url:
        raise failures.WrongSetting(
            "The broker keeps messages in Redis: give --redis-url or WEFT_REDIS_URL. "
            "`weft up` brings its own."
        )
    part.run(_serve(settings, supervised), supervised)


async def _serve(settings: Settings, supervised: str | None) -> None:
    from weft.broker import Broker

    roles = membership.roles(settings)
    async with (
        membership.as_part(settings, "broker") as mtls,
        part.observed(settings, "broker", settings.broker_metrics, mtls=mtls) as telemetry,
        Broker(
            redis_url=settings.redis_url,
            database_url=settings.database_url,
            address=settings.broker_listen,
            unknown_recipients=settings.broker_unknown_recipients,
            max_message=settings.broker_max_message,
            telemetry=telemetry,
            mtls=mtls,
            roles=roles,
        ) as found,
    ):
        await part.until_stopped(_serving(found, telemetry.metrics_address, supervised))


async def _serving(found: Broker, metrics: str, supervised: str | None) -> None:
    part.announce(supervised, address=found.address, metrics=metrics)
    await found.wait()
