"""Test tools for authors of agents and for Weft itself: real gRPC over loopback, waiting without sleeping blindly."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

from weft.rpc.channel import Channel
from weft.rpc.server import Server
from weft.telemetry import Telemetry

_PATIENCE = timedelta(seconds=15)
_ENDING = timedelta(seconds=1)


@contextlib.asynccontextmanager
async def channel_for(
    add_to_server: Callable[[Any, Any], None],
    servicer: object,
    *,
    telemetry: Telemetry | None = None,
    max_concurrency: int = 1_000,
) -> AsyncIterator[Channel]:
    """Serves `servicer` on a free port of the loopback interface and gives a channel to it."""
    server = Server(telemetry=telemetry, max_concurrency=max_concurrency)
    server.add(add_to_server, servicer)
    async with server:
        async with Channel(server.address, telemetry=telemetry) as channel:
            yield channel
        # A caller has its answer a moment before its call is counted and its span has ended.
        with contextlib.suppress(TimeoutError):
            await wait_until(lambda: server.load.in_flight == 0, _ENDING)


async def wait_until(
    predicate: Callable[[], object | Awaitable[object]],
    timeout: timedelta = _PATIENCE,  # noqa: ASYNC109 what a test reads best
) -> None:
    """Returns when `predicate` (plain or async) is true.

    Raises:
        TimeoutError: it was not within `timeout`.
    """
    pause = 0.001
    async with asyncio.timeout(timeout.total_seconds()):
        while True:
            result = predicate()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.05)
