"""Whether the servers a process needs can be reached, as a metric."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from weft.telemetry.instruments import Instruments

EVERY = 5.0  # seconds
_PATIENCE = 2.0  # seconds for an answer
_LETTING_GO = 1.0  # seconds


async def probe(
    metrics: Instruments, dependency: str, ask: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """Asks a server again and again and shows whether it answers, until cancelled; for a task of its own.

    Args:
        metrics: where it is shown.
        dependency: the server, "postgres" or "redis".
        ask: something that costs it next to nothing; raises where it is away.
    """
    up = metrics.dependency_up.labels(dependency)
    asking: asyncio.Task[object] | None = None
    try:
        while True:
            if asking is None or asking.done():
                asking = asyncio.create_task(ask(), name=f"probe of {dependency}")
            await asyncio.wait({asking}, timeout=_PATIENCE)
            up.set(asking.done() and not asking.cancelled() and asking.exception() is None)
            # Drivers take their time to let go of a connection that hangs; it is not asked anew before.
            asking.cancel()
            await asyncio.sleep(EVERY)
    finally:
        if asking is not None:
            asking.cancel()
            await asyncio.wait({asking}, timeout=_LETTING_GO)
