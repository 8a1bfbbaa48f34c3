"""How the clients of the suite reach a broker, and which errors mean: again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from typing import Any

import grpc

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.use_local_subchannel_pool", 1),
)
PATIENCE = 4.0  # seconds without an answer before a client looks for another broker
AGAIN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
    }
)


# What gRPC says of a connection that broke at a bad moment, under UNKNOWN or INTERNAL.
_BROKEN = ("Stream removed", "RST_STREAM", "parsing", "execute_batch")


def worth_again(error: grpc.aio.AioRpcError) -> bool:
    """Whether the connection or the broker is to blame."""
    return error.code() in AGAIN or any(
        text in f"{error.details()} {error.debug_error_string()}" for text in _BROKEN
    )


class Addresses:
    """Brokers to try, one after the other."""

    def __init__(self, addresses: Sequence[str], start: int) -> None:
        self._addresses = addresses
        self._next = start

    def next(self) -> str:
        found = self._addresses[self._next % len(self._addresses)]
        self._next += 1
        return found


def channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=OPTIONS)


def stopping() -> asyncio.Event:
    """Set when the process is asked to end; says "ready" when it can be."""
    event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, event.set)
    print("ready", flush=True)  # noqa: T201 whoever started it waits for this
    return event


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and awaits them."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await task
