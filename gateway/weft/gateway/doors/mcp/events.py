"""Server-sent events of the door: JSON-RPC messages, and a sign of life when there are none."""

from __future__ import annotations

import asyncio

from weft.gateway.doors.heartbeat import Heartbeat
from weft.gateway.doors.mcp import protocol
from weft.gateway.doors.mcp.changes import Listener
from weft.gateway.http.exchange import Exchange, Headers

_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Events:
    """The answer to one request as a stream.

    It begins with the first message, so that until then the answer may still be another one.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._beat = Heartbeat(exchange, _HEADERS)

    async def send(self, message: bytes, *, last: bool = False) -> None:
        """Sends a message."""
        if not self._exchange.started:
            await self.begin()
        self._beat.sent()
        data = b"event: message\ndata: " + message + b"\n\n"
        await self._exchange.write(data, more=not last)

    async def begin(self) -> None:
        """Sends the head."""
        await self._exchange.begin(200, list(_HEADERS))
        self._beat.start()

    def expect(self) -> None:
        """Begins by itself when nothing was answered for a while: then there are signs of life at least."""
        self._beat.start()

    async def end(self) -> None:
        """Ends the stream without another message."""
        if not self._exchange.started:
            await self.begin()
        await self._exchange.write(b"", more=False)

    async def stop(self) -> None:
        """Lets go of what it holds; the stream is ended, or nobody reads it."""
        await self._beat.stop()


async def pass_on(
    exchange: Exchange, stream: Events, listener: Listener, meta: protocol.Json | None
) -> bool:
    """Sends changes until the listener is closed (true) or the caller is gone (false).

    Args:
        exchange: the request that asked for them.
        stream: where they are told.
        listener: who hears of them.
        meta: `_meta` of each notification, if it has one.
    """
    gone = asyncio.create_task(_hung_up(exchange))
    try:
        while not listener.closed:
            news = asyncio.create_task(listener.wait())
            await asyncio.wait({gone, news}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                news.cancel()
                return False
            for method, params in listener.take():
                shown = params if meta is None else {**params, "_meta": meta}
                await stream.send(protocol.notification(method, shown or None))
        return True
    finally:
        gone.cancel()


async def _hung_up(exchange: Exchange) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
