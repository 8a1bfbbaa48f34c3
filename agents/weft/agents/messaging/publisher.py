"""Publishes over one stream: a message at a time for the caller, as many as have queued per frame for the wire."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import math
import os
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from weft import rpc
from weft.agents.messaging.addresses import Addresses
from weft.agents.messaging.streams import (
    LOST,
    MOST_BYTES,
    MOST_SENT,
    SURE,
    cause,
    final,
    read,
    too_large,
)
from weft.rpc import error_from_status
from weft.rpc.call import RUN_KEY
from weft.v1 import broker_pb2, message_pb2

if TYPE_CHECKING:
    from weft.mtls import Credentials

log = logging.getLogger("weft.agents")

_PATH = "/weft.v1.BrokerService/PublishStream"
_MOST_UNANSWERED = 4_096
_MOST_IN_FRAME = 1_000
_PATIENCE = timedelta(seconds=30)
_LOOKS = 8  # at what waits, within the publisher's patience


class PublishFailed(rpc.Unavailable):
    """No broker has accepted the message in time; publish it again with the same id."""

    reason = "PUBLISH_FAILED"


class MessageTooLarge(rpc.InvalidArgument):
    """The message is larger than a broker takes; send a reference to its content instead."""

    reason = "MESSAGE_TOO_LARGE"


class Receipt(NamedTuple):  # one per message: a frozen dataclass takes three times as long to make
    """The message is accepted. `duplicate`: it had been accepted before."""

    id: str
    duplicate: bool


class _Pending:
    """A message that is not answered."""

    __slots__ = ("content", "give_up", "id", "receipt", "repeated", "strikes")

    def __init__(
        self,
        message_id: str,
        content: bytes,
        receipt: asyncio.Future[Receipt],
        give_up: float,
    ) -> None:
        self.id = message_id
        self.content = content
        self.receipt = receipt
        self.give_up = give_up
        self.repeated = False
        self.strikes = 0


class Publisher:
    """Publishes messages; use it as an async context.

    A connection that breaks loses nothing: what was not answered is published again, to the next broker, under the same
    ids, which brokers recognise.

    Args:
        brokers: "host:port" of each broker, joined by commas.
        sender: who sends; fills `message.sender` where it is empty.
        patience: how long a message is tried when its caller has no deadline.
        mtls: what it shows to brokers; None: connections are not encrypted.
    """

    def __init__(
        self,
        brokers: str | Sequence[str],
        *,
        sender: str,
        patience: timedelta = _PATIENCE,
        mtls: Credentials | None = None,
    ) -> None:
        self._addresses = Addresses(brokers, mtls)
        self._sender = sender
        self._patience = patience.total_seconds()
        self._queued: deque[_Pending] = deque()
        self._sent: dict[int, _Pending] = {}
        self._outside: deque[asyncio.Future[None]] = deque()  # who wait for room
        self._number = 0
        # A uuid4 for each message would be a third of all that a publish costs.
        self._prefix = os.urandom(12).hex()
        self._made = itertools.count()
        self._news = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        # Of no call: the stream outlives the call that happens to open it.
        self._running = asyncio.get_running_loop().create_task(
            self._run(), name="publisher", context=contextvars.Context()
        )
        self._look()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits until everything is answered or given up, then ends."""
        while waiting := [one.receipt for one in self._pending() if not one.receipt.done()]:
            await asyncio.wait(waiting)
        if self._looking is not None:
            self._looking.cancel()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def publish(self, message: message_pb2.Message) -> Receipt:
        """Publishes a message and returns when it is accepted, as safe as its durability says.

        Fields that are empty are filled in: id, sender, and of the call being served trace, identity, conversation and run.

        Raises:
            InvalidArgument, NotFound, ResourceExhausted: the broker refuses it.
            PublishFailed: no broker accepted it within the current deadline; without one, within the patience.
        """
        deadline = rpc.Deadline.current()
        if deadline is not None and math.isinf(deadline.at):
            deadline = None
        if len(self._sent) + len(self._queued) >= _MOST_UNANSWERED or self._outside:
            await self._room(deadline)
        give_up = monotonic() + self._patience if deadline is None else deadline.at
        receipt = self._put(message, give_up)
        if deadline is None:
            return await receipt
        try:
            async with asyncio.timeout(deadline.seconds()):
                return await receipt
        except TimeoutError:
            raise PublishFailed(metadata={"message": message.id}) from None

    def publish_nowait(self, message: message_pb2.Message) -> asyncio.Future[Receipt]:
        """Publishes a message, however many wait already; the future has its receipt, or raises as `publish` does."""
        return self._put(message, monotonic() + self._patience)

    # -- what waits

    def _put(self, message: message_pb2.Message, give_up: float) -> asyncio.Future[Receipt]:
        running = self._running
        if running is None or running.done():
            raise RuntimeError("the publisher is closed")
        self._fill(message)
        receipt: asyncio.Future[Receipt] = running.get_loop().create_future()
        content = message.SerializeToString()
        if len(content) > MOST_SENT:
            receipt.set_exception(MessageTooLarge(metadata={"message": message.id}))
            return receipt
        self._queued.append(_Pending(message.id, content, receipt, give_up))
        self._news.set()
        return receipt

    def _fill(self, message: message_pb2.Message) -> None:
        if not message.id:
            message.id = f"{self._prefix}{next(self._made):08x}"
        if not message.sender:
            message.sender = self._sender
        call = rpc.current_call()
        if call is not None:
            if not message.traceparent:
                message.traceparent = call.traceparent
            if not message.conversation and call.conversation:
                message.conversation = call.conversation
            if call.run and RUN_KEY not in message.attributes:
                message.attributes[RUN_KEY] = call.run
            if not message.HasField("identity") and (identity := call.identity_to_pass_on):
                message.identity.CopyFrom(identity)

    async def _room(self, deadline: rpc.Deadline | None) -> None:
        """Returns when so many are answered that one more may be sent; first come, first served."""
        span = self._patience if deadline is None else deadline.seconds()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outside.append(waiter)
        try:
            async with asyncio.timeout(span):
                await waiter
        except BaseException as failed:
            if waiter.done() and not waiter.cancelled():
                self._let_in()  # its place is another's
            if isinstance(failed, TimeoutError):
                raise PublishFailed from None
            raise

    def _let_in(self) -> None:
        free = _MOST_UNANSWERED - len(self._sent) - len(self._queued)
        while free > 0 and self._outside:
            waiter = self._outside.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1

    def _pending(self) -> list[_Pending]:
        return [*self._sent.values(), *self._queued]

    def _look(self) -> None:
        """Gives up what has waited too long, also where a broker is connected and says nothing."""
        now = monotonic()
        for pending in self._pending():
            if pending.give_up <= now and not pending.receipt.done():
                pending.receipt.set_exception(PublishFailed(metadata={"message": pending.id}))
        pause = min(1.0, self._patience / _LOOKS)
        self._looking = asyncio.get_running_loop().call_later(
            pause, self._look, context=contextvars.Context()
        )

    # -- the stream

    async def _run(self) -> None:
        while True:
            if not self._queued:
                self._news.clear()
                await self._news.wait()
            try:
                async with self._addresses.channel() as channel:
                    answer = broker_pb2.PublishStreamResponse.FromString
                    await self._stream(channel.stream_stream(_PATH, None, answer)())
            except LOST as failed:
                self._take_back(failed)
            pause = self._addresses.failed()
            if self._queued:
                await asyncio.sleep(pause)

    async def _stream(self, call: Any) -> None:
        self._number = 0
        writing = asyncio.create_task(self._write(call))
        try:
            await self._read(call)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            call.cancel()

    async def _write(self, call: Any) -> None:
        try:
            while True:
                if not self._queued:
                    self._news.clear()
                    await self._news.wait()
                if frame := self._frame():
                    await call.write(frame)
        except LOST:
            call.cancel()  # the reader says what happened

    def _frame(self) -> bytes:
        """A PublishStreamRequest of what is queued. Each message was serialized once, and stays as it was then."""
        queued, sent, number = self._queued, self._sent, self._number
        parts: list[bytes] = []
        size, most = 0, number + _MOST_IN_FRAME
        while queued and number < most:
            pending = queued[0]
            content = pending.content
            size += len(content)
            if parts and size > MOST_BYTES:
                break
            queued.popleft()
            if pending.receipt.done():  # its caller has gone
                continue
            parts.append(_head(len(content)))
            parts.append(content)
            sent[number] = pending
            number += 1
        self._number = number
        return b"".join(parts)

    async def _read(self, call: Any) -> None:
        sent = self._sent
        while True:
            answer = await read(call)
            self._addresses.worked()
            duplicates = frozenset(answer.duplicates)
            for number in answer.accepted:
                pending = sent.pop(number, None)
                if pending is not None and not pending.receipt.done():
                    # Of a message that was sent before, it may be itself that is there.
                    duplicate = number in duplicates and not pending.repeated
                    pending.receipt.set_result(Receipt(pending.id, duplicate))
            for refusal in answer.refusals:
                pending = sent.pop(refusal.number, None)
                if pending is not None and not pending.receipt.done():
                    pending.receipt.set_exception(error_from_status(refusal.status))
            if self._outside:
                self._let_in()

    def _take_back(self, failed: BaseException) -> None:
        """Queues what was not answered once more, in order; drops what can never go."""
        log.warning("a broker was lost; going on with the next", extra={"cause": cause(failed)})
        for pending in self._sent.values():
            pending.repeated = True
        waiting = [one for one in self._pending() if not one.receipt.done()]
        if (error := final(failed)) is not None:
            for pending in waiting:
                pending.receipt.set_exception(error)
        elif (likely := too_large(failed)) and waiting:
            # Only a frame of a single message can be: none is at fault if not the largest.
            largest = max(waiting, key=lambda one: len(one.content))
            largest.strikes += likely
            if len(largest.content) > MOST_BYTES and largest.strikes >= SURE:
                largest.receipt.set_exception(MessageTooLarge(metadata={"message": largest.id}))
        self._sent.clear()
        self._queued.clear()
        self._queued.extend(one for one in waiting if not one.receipt.done())
        self._let_in()


@lru_cache
def _head(size: int) -> bytes:
    """What comes before a message of `size` bytes in field 1 of PublishStreamRequest: its tag, and its length as a varint."""
    head = bytearray(b"\x0a")
    while size > 0x7F:  # noqa: PLR2004 seven bits a byte
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)
