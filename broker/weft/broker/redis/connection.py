"""One multiplexed connection: what is queued in one turn of the event loop leaves in one write, replies come in order.

Replies are RESP2 unless the connection is told otherwise (HELLO 3). No command here may block the server's side of the
connection for longer than `silence`, after which an unanswered connection is dropped: a stopped server does not
close it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis

from weft.broker.redis import errors
from weft.broker.redis.url import Address

Argument = bytes | str | int | float
Command = tuple[Argument, ...]
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)

_LOG = logging.getLogger("weft.broker")
_NOTHING = object()
_PING: Command = (b"PING",)
ASKING: Command = (b"ASKING",)


class Pending(Protocol):
    """What takes a reply: a future, or what stands for one."""

    def done(self) -> bool:
        """Whether nobody waits for it any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Takes the reply."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Takes the error."""
        ...


class Connection(asyncio.Protocol):
    """A connection. Use `opening.connect`.

    Args:
        address: of the server, for messages.
        silence: seconds without any answer after which the server counts as hung.
        on_error: sees every error reply first; True: it takes care of the command.
    """

    def __init__(
        self,
        address: Address,
        silence: float,
        on_error: Callable[[Pending, Command, Exception], bool] | None = None,
    ) -> None:
        self.address = address
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._silence = silence
        self._on_error = on_error
        self._reader = hiredis.Reader(replyError=errors.of_reply, notEnoughData=_NOTHING)
        self._pending: deque[tuple[Pending, Command]] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._heard = self._ticked = self._loop.time()
        self._watch: asyncio.TimerHandle | None = None

    # -- sending

    def send(self, *command: Argument) -> asyncio.Future[Any]:
        """Queues a command; the future has its reply or its error."""
        future = self._loop.create_future()
        self.put(future, command)
        return future

    def put(self, pending: Pending, command: Command) -> None:
        """Queues a command whose reply goes to `pending`."""
        if self._transport is None:
            pending.set_exception(self._loss())
            return
        packed = _pack(command)
        if not self._out:
            self._loop.call_soon(self._flush)
            if not self._pending:
                self._heard = self._loop.time()
        self._out.append(packed)
        self._pending.append((pending, command))

    def post(self, *command: Argument) -> None:
        """Queues a command that has no reply of its own, such as SSUBSCRIBE under RESP3."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(_pack(command))

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    # -- receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to watch."""
        self._transport = cast("asyncio.Transport", transport)
        self._tick()

    def data_received(self, data: bytes) -> None:
        """Hands the replies to those who wait."""
        self._heard = self._loop.time()
        reader, pending = self._reader, self._pending
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING:
                if isinstance(reply, hiredis.PushNotification):
                    self.pushed(reply)
                elif isinstance(reply, Exception):
                    self.refused(reply)
                else:
                    waiting, _ = pending.popleft()
                    if not waiting.done():
                        waiting.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            _LOG.exception("What %s answers is not RESP; dropping the connection", self.address)
            self.abort()

    def pushed(self, push: list[Any]) -> None:
        """Takes what is no reply (RESP3)."""

    def refused(self, error: Exception) -> None:
        """Takes an error reply."""
        waiting, command = self._pending.popleft()
        if waiting.done():
            return
        if self._on_error is None or not self._on_error(waiting, command, error):
            waiting.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio's signature
        """Fails whatever is unanswered."""
        self._transport = None
        if self._watch is not None:
            self._watch.cancel()
        self._out.clear()
        while self._pending:
            waiting, _ = self._pending.popleft()
            if not waiting.done():
                waiting.set_exception(self._loss())
        if not self.lost.done():
            self.lost.set_result(None)

    def _loss(self) -> errors.ConnectionLost:
        return errors.ConnectionLost(f"The connection to Redis at {self.address} broke.")

    # -- watching

    def _tick(self) -> None:
        """Looks for a server that hangs. What was late ourselves is no fault of the server."""
        now = self._loop.time()
        period = self._silence / 4
        if now - self._ticked > 2 * period:
            self._heard = max(self._heard, now - period)
        self._ticked = now
        quiet = now - self._heard
        if self._pending and quiet > self._silence:
            _LOG.warning("Redis at %s has not answered for %.1f s", self.address, quiet)
            self.abort()
            return
        if not self._pending and quiet > self._silence / 2:
            self.send(*_PING).add_done_callback(seen)
        self._watch = self._loop.call_later(period, self._tick)

    # -- ending

    def abort(self) -> None:
        """Drops the connection; what is unanswered fails."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self, drain: float = 0.0) -> None:
        """Closes it, after at most `drain` seconds in which what is queued may still be answered."""
        if drain and self._transport is not None:
            last = self.send(*_PING)
            await asyncio.wait({last}, timeout=drain)
            seen(last)
        if self._transport is not None:
            self._transport.close()
            await asyncio.wait({self.lost}, timeout=1.0)
            self.abort()
        await self.lost


def seen(future: asyncio.Future[Any]) -> None:
    """Looks at an error that nobody else looks at: a loss is told to all anyway."""
    if future.done() and not future.cancelled():
        future.exception()
    else:
        future.cancel()
