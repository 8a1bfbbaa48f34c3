"""Signs of life of an answer that is a stream of server-sent events."""

from __future__ import annotations

import asyncio
import contextlib

from weft.gateway.http.exchange import Exchange, Headers

_QUIET = 15.0  # seconds of silence after which proxies begin to give up
_SIGN = b": keep-alive\n\n"


class Heartbeat:
    """Sends a comment whenever nothing else was sent for a while; where nothing was sent at all, the head first.

    Between two signs it is a timer and no task: there may be thousands of answers that wait.

    Args:
        exchange: the request that is answered.
        head: headers of the answer.
    """

    __slots__ = ("_exchange", "_head", "_quiet", "_sending", "_timer")

    def __init__(self, exchange: Exchange, head: Headers) -> None:
        self._exchange = exchange
        self._head = head
        self._quiet = True
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look, if it does not yet."""
        if self._timer is None:
            self._wait()

    def sent(self) -> None:
        """Something else was sent."""
        self._quiet = False

    async def stop(self) -> None:
        """Ends it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_QUIET, self._due)

    def _due(self) -> None:
        # A sign that is still being sent waits for a caller that does not read: another would say no more.
        if self._quiet and (self._sending is None or self._sending.done()):
            self._sending = asyncio.create_task(self._send())
        self._quiet = True
        self._wait()

    async def _send(self) -> None:
        if not self._exchange.started:
            await self._exchange.begin(200, list(self._head))
        await self._exchange.write(_SIGN, more=True)
