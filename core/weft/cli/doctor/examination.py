"""All there is to look at, at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from weft.cli.doctor import clocks, machine, parts, postgres, queues, redis
from weft.cli.doctor.model import Finding

if TYPE_CHECKING:
    from weft.config import Settings


async def examine(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Looks at an installation, and changes nothing.

    Args:
        settings: where its parts are.
        environ: of the process that asks: parts that are started from there have the same.
    """
    from weft import embedded

    servers = embedded.endpoints(settings.data)
    database = settings.database_url or (servers.database_url if servers else "")
    memory = settings.redis_url or (servers.redis_url if servers else "")
    found = await asyncio.gather(
        parts.registry(settings),
        parts.gateway(settings),
        queues.look(settings),
        parts.metrics(settings),
        postgres.look(database),
        redis.look(memory),
        clocks.look(database, memory),
    )
    return [*machine.look(settings, environ), *(each for group in found for each in group)]
