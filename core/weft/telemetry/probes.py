"""Whether the servers a process needs can be reached, as a metric."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from weft.telemetry.instruments import Instruments

log = logging.getLogger("weft.telemetry")

EVERY = 5.0  # seconds
_PATIENCE = 2.0  # seconds for an answer


async def probe(
    metrics: Instruments, dependency: str, ask: Callable[[], Awaitable[object]]
) -> None:
    """Asks a server again and again and shows whether it answers, until cancelled; for a task of its own.

    Args:
        metrics: where it is shown.
        dependency: the server, "postgres" or "redis".
        ask: something that costs it next to nothing; raises where it is away.
    """
    up = metrics.dependency_up.labels(dependency)
    while True:
        try:
            async with asyncio.timeout(_PATIENCE):
                await ask()
        except Exception as failed:  # noqa: BLE001 whatever it is, the server gave no answer
            log.debug("a server does not answer", exc_info=failed, extra={"server": dependency})
            up.set(0)
        else:
            up.set(1)
        await asyncio.sleep(EVERY)
