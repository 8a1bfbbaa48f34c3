"""Publishes over one stream: a message at a time for the caller, as many as have queued per frame for the wire."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Self

import grpc

from weft import rpc
from weft.agents.messaging.addresses import Addresses
from weft.rpc import error_from_call, error_from_status
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

log = logging.getLogger("weft.agents")

_MOST_UNANSWERED = 4_096
_MOST_IN_FRAME = 1_000
_MOST_BYTES = 2 * 1024 * 1024
_PATIENCE = timedelta(seconds=30)


class PublishFailed(rpc.Unavailable):
    """No broker has accepted the message in time; publish it again with the same id."""

    reason = "PUBLISH_FAILED"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The message is accepted. `duplicate`: it had been accepted before."""

    id: str
    duplicate: bool


@dataclass(slots=True, eq=False)
class _Pending:
    message: message_pb2.Message
    receipt: asyncio.Future[Receipt]
    give_up: float
    repeated: bool = False


class Publisher:
    """Publishes messages; use it as an async context.

    A connection that breaks loses nothing: what was not answered is published again, to the next broker, under the same
    ids, which brokers recognise.

    Args:
        brokers: "host:port" of each broker, joined by commas.
        sender: who sends; fills `message.sender` where it is empty.
        patience: how long a message is tried when its caller has no deadline.
    """

    def __init__(
        self, brokers: str | Sequence[str], *, sender: str, patience: timedelta = _PATIENCE
    ) -> None:
        self._addresses = Addresses(brokers)
        self._sender = sender
        self._patience = patience.total_seconds()
        self._queued: deque[_Pending] = deque()
        self._sent: dict[int, _Pending] = {}
        self._number = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        # Of no call: the stream outlives the call that happens to open it.
        self._running = asyncio.get_running_loop().create_task(
            self._run(), name="publisher", context=contextvars.Context()
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits until everything is answered, then ends."""
        while unanswered := [one.receipt for one in (*self._sent.values(), *self._queued)]:
            await asyncio.wait(unanswered)
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def publish(self, message: message_pb2.Message) -> Receipt:
        """Publishes a message and returns when it is accepted, as safe as its durability says.

        Fields that are empty are filled in: id, sender, and of the call being served trace, identity and conversation.

        Raises:
            InvalidArgument, NotFound, ResourceExhausted: the broker refuses it.
            PublishFailed: no broker accepted it within the current deadline.
        """
        deadline = rpc.Deadline.current()
        span = self._patience if deadline is None else min(deadline.seconds(), self._patience)
        try:
            async with asyncio.timeout(span):
                while len(self._sent) + len(self._queued) >= _MOST_UNANSWERED:
                    self._room.clear()
                    await self._room.wait()
                return await self.publish_nowait(message)
        except TimeoutError:
            raise PublishFailed(metadata={"message": message.id}) from None

    def publish_nowait(self, message: message_pb2.Message) -> asyncio.Future[Receipt]:
        """Publishes a message; the future has its receipt, or raises as `publish` does."""
        self._fill(message)
        pending = _Pending(
            message, asyncio.get_running_loop().create_future(), monotonic() + self._patience
        )
        self._queued.append(pending)
        self._news.set()
        return pending.receipt

    def _fill(self, message: message_pb2.Message) -> None:
        if not message.id:
            message.id = uuid.uuid4().hex
        if not message.sender:
            message.sender = self._sender
        call = rpc.current_call()
        if call is not None:
            if not message.traceparent:
                message.traceparent = call.traceparent
            if not message.conversation and call.conversation:
                message.conversation = call.conversation
            if not message.HasField("identity") and call.identity is not None:
                message.identity.CopyFrom(call.identity)

    async def _run(self) -> None:
        while True:
            if not self._queued:
                self._news.clear()
                await self._news.wait()
            try:
                async with self._addresses.channel() as channel:
                    await self._stream(broker_pb2_grpc.BrokerServiceStub(channel).PublishStream())
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, EOFError) as failed:
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
        queued = self._queued
        try:
            while True:
                if not queued:
                    self._news.clear()
                    await self._news.wait()
                messages: list[message_pb2.Message] = []
                size = 0
                while queued and len(messages) < _MOST_IN_FRAME and size < _MOST_BYTES:
                    pending = queued.popleft()
                    if pending.receipt.done():  # its caller has gone
                        continue
                    messages.append(pending.message)
                    size += len(pending.message.payload)
                    self._sent[self._number] = pending
                    self._number += 1
                if messages:
                    await call.write(broker_pb2.PublishStreamRequest(messages=messages))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            call.cancel()  # the reader says what happened

    async def _read(self, call: Any) -> None:
        sent = self._sent
        while True:
            answer = await call.read()
            if answer is grpc.aio.EOF:
                # The broker is stopping, or rejects the stream as a whole; the status says which.
                if await call.code() is not grpc.StatusCode.OK:
                    raise grpc.aio.AioRpcError(
                        await call.code(),
                        await call.initial_metadata(),
                        await call.trailing_metadata(),
                        await call.details(),
                    )
                raise EOFError
            self._addresses.worked()
            duplicates = frozenset(answer.duplicates)
            for number in answer.accepted:
                pending = sent.pop(number)
                if not pending.receipt.done():
                    # Of a message that was sent before, it may be itself that is there.
                    duplicate = number in duplicates and not pending.repeated
                    pending.receipt.set_result(Receipt(pending.message.id, duplicate))
            for refusal in answer.refusals:
                pending = sent.pop(refusal.number)
                if not pending.receipt.done():
                    pending.receipt.set_exception(error_from_status(refusal.status))
            self._room.set()

    def _take_back(self, failed: BaseException) -> None:
        """Queues what was not answered once more, in order; gives up what has waited too long."""
        log.warning("a broker was lost; going on with the next", extra={"cause": _cause(failed)})
        now = monotonic()
        unanswered = [self._sent[number] for number in sorted(self._sent)]
        self._sent.clear()
        for pending in unanswered:
            pending.repeated = True
        again: deque[_Pending] = deque()
        for pending in (*unanswered, *self._queued):
            if pending.receipt.done():
                continue
            if pending.give_up <= now or _final(failed):
                pending.receipt.set_exception(_error(failed, pending.message.id))
            else:
                again.append(pending)
        self._queued.clear()
        self._queued.extend(again)
        self._room.set()


def _final(failed: BaseException) -> bool:
    """Whether the broker says that the client does something wrong: again would be wrong again."""
    return isinstance(failed, grpc.aio.AioRpcError) and failed.code() in {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }


def _error(failed: BaseException, message_id: str) -> rpc.Error:
    if _final(failed):
        assert isinstance(failed, grpc.aio.AioRpcError)
        return error_from_call(failed)
    return PublishFailed(metadata={"message": message_id})


def _cause(failed: BaseException) -> str:
    if isinstance(failed, grpc.aio.AioRpcError):
        return f"{failed.code().name}: {failed.details()}"
    return type(failed).__name__
