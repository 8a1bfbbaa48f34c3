"""Streams of A2A: server-sent events, each a StreamResponse in the form of its binding."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from weft import rpc
from weft.gateway.http.exchange import Exchange, Headers

Events = AsyncGenerator[list[bytes], None]
"""StreamResponses as JSON, those together that came together."""

_QUIET = 15.0  # seconds of silence after which proxies begin to give up
_SIGN_OF_LIFE = b": keep-alive\n\n"
_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def send(
    exchange: Exchange,
    events: Events,
    wrap: Callable[[bytes], bytes],
    render: Callable[[rpc.Error], bytes],
) -> rpc.Error | None:
    """Sends events until there are no more or nobody reads them; returns the error that ended them, if one did.

    Raises:
        rpc.Error: before the first event; nothing was sent then.
    """
    async with contextlib.aclosing(events):
        first = await anext(events, None)
        await exchange.begin(200, list(_HEADERS))
        if first is not None:
            await _write(exchange, first, wrap)
        gone = asyncio.create_task(_hung_up(exchange))
        try:
            await _go_on(exchange, events, wrap, gone)
        except rpc.Error as failed:
            data = b"event: error\ndata: " + render(failed) + b"\n\n"
            await exchange.write(data, more=False)
            return failed
        finally:
            await _stop(gone)
    return None


async def _go_on(
    exchange: Exchange, events: Events, wrap: Callable[[bytes], bytes], gone: asyncio.Task[None]
) -> None:
    while True:
        coming = asyncio.create_task(_next(events))
        try:
            while not coming.done():
                done, _ = await asyncio.wait(
                    {coming, gone}, timeout=_QUIET, return_when=asyncio.FIRST_COMPLETED
                )
                if gone in done:
                    return
                if not done:
                    await exchange.write(_SIGN_OF_LIFE, more=True)
        finally:
            await _stop(coming)
        batch = coming.result()
        if batch is None:
            await exchange.write(b"", more=False)
            return
        await _write(exchange, batch, wrap)


async def _write(exchange: Exchange, batch: list[bytes], wrap: Callable[[bytes], bytes]) -> None:
    await exchange.write(b"".join(b"data: " + wrap(each) + b"\n\n" for each in batch), more=True)


async def _next(events: Events) -> list[bytes] | None:
    return await anext(events, None)


async def _stop(task: asyncio.Task[object]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


async def _hung_up(exchange: Exchange) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
