"""One call: its messages both ways, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import grpc

from weft.gateway.dataplane import headers
from weft.gateway.dataplane.errors import (
    BY_HTTP_STATUS,
    BY_RESET,
    FLOW_CONTROL_ERROR,
    REFUSED_STREAM,
    CallFailed,
    ProtocolError,
    StreamError,
)
from weft.gateway.dataplane.headers import Head
from weft.gateway.dataplane.inbox import Inbox, prefixed
from weft.gateway.dataplane.tally import Tally
from weft.rpc.call import Metadata
from weft.rpc.server import MAX_MESSAGE_BYTES
from weft.rpc.status import BY_NUMBER

C = grpc.StatusCode

# Bytes an agent may send before its caller has read the last of them; a caller that reads nothing has no more kept.
WINDOW = 262_144


class Carrier(Protocol):
    """What a call asks of its connection."""

    tally: Tally

    def send(self, call: Call) -> None:
        """Sends as much of `call.unsent` as windows allow, now or later."""

    def grant(self, call: Call, size: int) -> None:
        """Lets the agent send so many bytes more."""

    def give_up(self, call: Call) -> None:
        """Tells the agent that nobody waits any more."""


class Call:
    """A call from its beginning to its end; one task sends, one receives.

    Args:
        head: the fields of its request, without the timeout.
        expires: when it ends at the latest, on the loop's clock; None: never.
        unary: whether the agent sends one message.
        ended: told the status at the end.

    Attributes:
        leading: metadata that came before the messages.
        trailing: metadata that came at the end.
    """

    __slots__ = (
        *("_answered", "_carrier", "_done", "_ended", "_expires", "_failure", "_head", "_inbox"),
        *("_loop", "_owed", "_reader", "_timer", "_unary", "_window", "_writer"),
        *("closed", "closing", "leading", "room", "stream", "trailing", "unsent"),
    )

    def __init__(
        self,
        head: bytes,
        expires: float | None,
        *,
        unary: bool,
        ended: Callable[[grpc.StatusCode], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._head = head
        self._expires = expires
        self._unary = unary
        self._ended = ended
        self._carrier: Carrier | None = None
        self._inbox = Inbox(MAX_MESSAGE_BYTES)
        self._answered = False
        self._done = False
        self._failure: CallFailed | None = None
        self._window = WINDOW  # what the agent may still send
        self._owed = 0  # what it sent and may not send again yet
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._timer = None if expires is None else self._loop.call_at(expires, self._expired)
        self.leading: Metadata = ()
        self.trailing: Metadata = ()
        # What the connection knows of it.
        self.stream = 0
        self.room = 0  # bytes of the agent's window
        self.unsent = memoryview(b"")
        self.closing = False  # whether nothing follows `unsent`
        self.closed = False  # whether the agent knows that

    # The caller's side

    async def answer(self) -> bytes:
        """The message of a unary call, once the call is over.

        Raises:
            CallFailed: it failed.
        """
        while not self._done:
            await self._change()
        if self._failure is not None:
            raise self._failure
        return self._take()

    async def begun(self) -> None:
        """Returns when the agent has answered, with `leading` or with the end of the call.

        Raises:
            CallFailed: it failed before.
        """
        while not (self._answered or self._done):
            await self._change()
        if self._failure is not None and not self._inbox:
            raise self._failure

    async def receive(self) -> bytes | None:
        """The next message; None: there are no more.

        Raises:
            CallFailed: the call failed. What came before is given first.
        """
        inbox = self._inbox
        while not inbox:
            if self._done:
                if self._failure is not None:
                    raise self._failure
                return None
            self._grant(
                self._owed
            )  # the beginning of a message is no use to the one who waits for it
            await self._change()
        message = self._take()
        self._grant(self._owed - inbox.held)
        return message

    def _take(self) -> bytes:
        try:
            return self._inbox.take()
        except StreamError as wrong:
            failure = self._failed(wrong.code, str(wrong))
            if not self._done:
                self._abandon(failure)
            raise failure from None

    async def send(self, message: bytes, *, last: bool = False) -> bool:
        """Sends a message, and returns when there is room for the next; False: the call is over.

        Args:
            message: the message.
            last: whether it is the last.
        """
        if self._done:
            return False
        self.put(message, last=last)
        while self.unsent and not self._done:
            self._writer = self._loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        return not self._done

    def put(self, message: bytes, *, last: bool) -> None:
        """Sends a message with no regard for room."""
        self.unsent = memoryview(prefixed(message))
        self.closing = last
        if self._carrier is not None:
            self._carrier.send(self)

    def close_sending(self) -> None:
        """Tells the agent that no more messages come."""
        if not self._done:
            self.closing = True
            if self._carrier is not None:
                self._carrier.send(self)

    def cancel(self) -> None:
        """Gives the call up, if it is not over."""
        if not self._done:
            self._abandon(CallFailed(C.CANCELLED, "The caller gave up."))

    async def _change(self) -> None:
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    # The connection's side

    def carried(self, carrier: Carrier) -> None:
        """A connection has taken it."""
        self._carrier = carrier

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._done

    def head(self) -> bytes:
        """The fields of its request, as of now."""
        if self._expires is None:
            return self._head
        return self._head + headers.timeout(self._expires - self._loop.time())

    def room_made(self) -> None:
        """What was to be sent is sent."""
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def on_head(self, head: Head, *, end: bool) -> bool:
        """A header block came; whether the call is over.

        Raises:
            StreamError: it cannot be understood.
        """
        if 100 <= head.http_status < 200 and not end:  # noqa: PLR2004 informational
            return False
        if not self._answered:
            if head.grpc_status is None and (head.http_status != 200 or not head.is_grpc):  # noqa: PLR2004 OK
                raise StreamError(
                    BY_HTTP_STATUS.get(head.http_status, C.UNKNOWN),
                    f"The answer is not gRPC's; HTTP status {head.http_status}.",
                )
            self._answered = True
            if not end:
                self.leading = head.metadata
                self._inbox.encoding = head.encoding
                if not self._unary:
                    self._wake()
                return False
        if not end:
            raise StreamError(C.INTERNAL, "The agent sent headers twice.")
        self.trailing = head.metadata
        self._end(self._judged(head))
        return True

    def _judged(self, head: Head) -> CallFailed | None:
        if head.grpc_status is None:
            return self._failed(C.UNKNOWN, "The agent ended the call with no status.")
        if head.grpc_status:
            return self._failed(BY_NUMBER.get(head.grpc_status, C.UNKNOWN), head.message)
        if self._inbox.cut_off:
            return self._failed(C.INTERNAL, "The last message of the agent is cut off.")
        if self._unary and len(self._inbox) != 1:
            return self._failed(C.INTERNAL, f"The agent sent {len(self._inbox)} messages, not one.")
        return None

    def on_data(self, data: bytes, size: int, *, end: bool) -> None:
        """Data came, for which `size` bytes of the window were used.

        Raises:
            StreamError: it cannot be understood.
            ProtocolError: it is more than was allowed.
        """
        self._window -= size
        if self._window < 0:
            raise ProtocolError(FLOW_CONTROL_ERROR, "more than the window of a stream")
        if not self._answered:
            raise StreamError(C.INTERNAL, "The agent sent a message before its headers.")
        if end:
            raise StreamError(C.UNKNOWN, "The agent ended the call with no status.")
        self._owed += size
        self._inbox.feed(data)
        if self._unary:
            if len(self._inbox) > 1:
                raise StreamError(C.INTERNAL, "The agent sent more than one message.")
            self._grant(self._owed)
        elif self._inbox:
            self._wake()
        elif self._reader is not None:
            self._grant(self._owed)

    def on_reset(self, code: int) -> None:
        """The agent has given it up."""
        status = BY_RESET.get(code, C.INTERNAL)
        if status is C.CANCELLED and self._expires is not None:
            # An agent keeps the same deadline, and may be the first to notice.
            status = C.DEADLINE_EXCEEDED if self._expires <= self._loop.time() else status
        self.fail(
            status, f"The agent reset the call (HTTP/2 error {code}).", code == REFUSED_STREAM
        )

    def fail(self, code: grpc.StatusCode, details: str, unseen: bool = False) -> None:  # noqa: FBT001, FBT002 short
        """It ends with an error; `unseen`: no agent worked on it."""
        if not self._done:
            self._end(self._failed(code, details, unseen=unseen))

    def _failed(self, code: grpc.StatusCode, details: str, *, unseen: bool = False) -> CallFailed:
        return CallFailed(
            code, details, leading=self.leading, trailing=self.trailing, unseen=unseen
        )

    def _expired(self) -> None:
        if not self._done:
            self._abandon(
                self._failed(C.DEADLINE_EXCEEDED, "The deadline passed.", unseen=not self.stream)
            )

    def _abandon(self, failure: CallFailed) -> None:
        self._end(failure)
        if self._carrier is not None:
            self._carrier.give_up(self)

    def _end(self, failure: CallFailed | None) -> None:
        self._done = True
        self._failure = failure
        if self._timer is not None:
            self._timer.cancel()
        self._wake()
        self.room_made()
        if self._carrier is not None:
            if failure is not None:
                self._carrier.tally.failure(failure.code())
            elif self.trailing:
                self._carrier.tally.answer(self.trailing)
        if self._ended is not None:
            self._ended(C.OK if failure is None else failure.code())

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _grant(self, size: int) -> None:
        if size >= WINDOW // 2 and not self._done and self._carrier is not None:
            self._owed -= size
            self._window += size
            self._carrier.grant(self, size)
