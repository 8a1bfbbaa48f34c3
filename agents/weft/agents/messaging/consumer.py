"""Consumes a queue: handlers run side by side, leases are kept, settlements travel together, streams are made anew."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Self

import grpc

from weft import rpc
from weft.agents.messaging import settlement
from weft.agents.messaging.addresses import Addresses
from weft.agents.messaging.settlement import Settlement
from weft.rpc import error_from_call
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

log = logging.getLogger("weft.agents")

MessageDelivery = message_pb2.MessageDelivery
Handler = Callable[[MessageDelivery], Awaitable[message_pb2.Reply | bytes | None]]
OnBatch = Callable[[Sequence[MessageDelivery]], None]

_EXTENSIONS = 3  # within a visibility timeout
_GRACE = timedelta(seconds=10)
_STOOD_STILL = (
    0.7  # of a visibility timeout: what was received meanwhile may be another one's by now
)
_FINAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


@dataclass(frozen=True, slots=True)
class _Extension:
    lease_id: str


class Consumer:
    """Consumes a queue; use it as an async context, or `run` it in a task.

    Handlers that return acknowledge (with a reply, if they return one); those that raise Reject or an rpc error that the
    message causes send it to the dead letters; any other error has it tried again.

    Args:
        brokers: "host:port" of each broker, joined by commas.
        queue: its name; it is made if there is none.
        handler: handles one message; None where `on_batch` is given.
        on_batch: gets messages as they come, must not block, and has each settled by `ack`, `nack` or `reject`.
        concurrency: messages in hand at a time.
        name: who consumes, for people.
    """

    def __init__(
        self,
        brokers: str | Sequence[str],
        queue: str,
        handler: Handler | None = None,
        *,
        on_batch: OnBatch | None = None,
        concurrency: int = 100,
        name: str = "",
    ) -> None:
        assert (handler is None) != (on_batch is None), "give either a handler or on_batch"
        self.queue = queue
        self._addresses = Addresses(brokers)
        self._handler = handler
        self._on_batch = on_batch
        self._concurrency = concurrency
        self._name = name
        self._in_hand: dict[str, asyncio.Task[None] | None] = {}
        self._unsafe: deque[Settlement | _Extension] = deque()  # said and not confirmed, in order
        self._unsaid: list[Settlement] = []
        self._doubtful: dict[str, MessageDelivery] = {}
        self._extensions: list[str] = []
        self._owed = 0  # credit to give
        self._news = asyncio.Event()
        self._settled = 0
        self._leaving = False
        self._said_leave = False
        self._span = timedelta(seconds=30)
        self._tick = monotonic()
        self._running: asyncio.Task[None] | None = None
        self.connected = asyncio.Event()

    # -- its life

    async def __aenter__(self) -> Self:
        self._running = asyncio.get_running_loop().create_task(
            self.run(), name=f"consumer of {self.queue}", context=contextvars.Context()
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.drain()

    async def wait(self) -> None:
        """Returns when it has left; raises what ended it."""
        if self._running is not None:
            await asyncio.shield(self._running)

    async def drain(self, grace: timedelta = _GRACE) -> None:
        """Takes no new messages, finishes those in hand, leaves. What is not done within `grace` is left to others."""
        self._leaving = True
        self._news.set()
        if self._running is None:
            return
        await asyncio.wait({self._running}, timeout=grace.total_seconds())
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        handlers = [task for task in self._in_hand.values() if task is not None]
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def run(self) -> None:
        """Consumes until `drain`.

        Raises:
            rpc.Error: the broker says that this can never work, as with a name that no queue can have.
        """
        while not (self._leaving and not self._in_hand and not self._unsafe):
            try:
                async with self._addresses.channel() as channel:
                    await self._stream(broker_pb2_grpc.BrokerServiceStub(channel).Consume())
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, EOFError) as failed:
                if self._said_leave:
                    return
                if isinstance(failed, grpc.aio.AioRpcError) and failed.code() in _FINAL:
                    raise error_from_call(failed) from None
                log.warning(
                    "a broker was lost; going on with the next",
                    extra={"queue": self.queue, "cause": _cause(failed)},
                )
            self.connected.clear()
            await asyncio.sleep(self._addresses.failed())

    # -- settlements, for on_batch

    def ack(self, lease_id: str, reply: message_pb2.Reply | bytes | None = None) -> None:
        """Handled, with a reply if somebody awaits one."""
        self._settle(lease_id, settlement.of_result(lease_id, reply))

    def nack(self, lease_id: str, error: str, *, delay: timedelta | None = None) -> None:
        """Not handled: try again."""
        failed = settlement.Retry(error, delay=delay)
        self._settle(lease_id, settlement.of_exception(lease_id, failed))

    def reject(self, lease_id: str, reason: str, error: str = "") -> None:
        """Never to be handled."""
        failed = settlement.Reject(reason, error)
        self._settle(lease_id, settlement.of_exception(lease_id, failed))

    def _settle(self, lease_id: str, said: Settlement) -> None:
        if self._in_hand.pop(lease_id, _NOTHING) is _NOTHING:
            return  # it was lost: another consumer has it
        self._unsaid.append(said)
        self._owed += 1
        self._news.set()

    # -- a stream

    async def _stream(self, call: Any) -> None:
        unsafe = [said for said in self._unsafe if not isinstance(said, _Extension)]
        self._unsaid = [*unsafe, *self._unsaid]
        self._unsafe.clear()
        self._extensions.clear()
        held = [*self._in_hand, *map(_lease_of, self._unsaid)]
        await call.write(
            broker_pb2.ConsumeRequest(
                open=broker_pb2.ConsumeOpen(
                    queue=self.queue, consumer=self._name, declare=True, resume=held
                )
            )
        )
        opened = await self._opened(call)
        self._addresses.worked()
        self._span = opened.visibility_timeout.ToTimedelta()
        self._lose(opened.lost)
        self._doubtful.clear()
        self._settled = 0
        self._owed = max(0, self._concurrency - len(self._in_hand))
        self._tick = monotonic()
        self.connected.set()
        self._news.set()
        helpers = [asyncio.create_task(self._write(call)), asyncio.create_task(self._extend())]
        try:
            await self._read(call)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            call.cancel()

    async def _opened(self, call: Any) -> broker_pb2.ConsumeOpened:
        frame = await call.read()
        if frame is grpc.aio.EOF:
            await _raise_status(call)
        opened: broker_pb2.ConsumeOpened = frame.opened
        return opened

    def _lose(self, lost: Sequence[str]) -> None:
        """Drops what others have by now, and settlements that came too late or were taken before the stream broke."""
        gone = frozenset(lost)
        self._unsaid = [said for said in self._unsaid if _lease_of(said) not in gone]
        for lease_id in gone:
            task = self._in_hand.pop(lease_id, None)
            if task is not None:
                log.warning("a lease was lost while its message was handled")
                task.cancel()

    async def _read(self, call: Any) -> None:
        while True:
            frame = await call.read()
            if frame is grpc.aio.EOF:
                await _raise_status(call)
            for failure in frame.failures:
                self._failed(failure)
            self._confirm(frame.settled)
            if frame.deliveries:
                self._received(frame.deliveries)
            if frame.draining and not self._leaving:
                log.info("the broker stops; going on with the next", extra={"queue": self.queue})
                raise EOFError

    def _received(self, deliveries: Sequence[MessageDelivery]) -> None:
        if monotonic() - self._tick > self._span.total_seconds() * _STOOD_STILL:
            # This process stood still: the leases may have run out while the frame lay in its socket.
            for delivery in deliveries:
                self._doubtful[delivery.lease_id] = delivery
                self._in_hand[delivery.lease_id] = None
                self._extensions.append(delivery.lease_id)
            self._news.set()
            return
        for delivery in deliveries:
            self._in_hand[delivery.lease_id] = None
        self._begin(deliveries)

    def _begin(self, deliveries: Sequence[MessageDelivery]) -> None:
        if self._on_batch is not None:
            self._on_batch(deliveries)
            return
        for delivery in deliveries:
            self._in_hand[delivery.lease_id] = asyncio.get_running_loop().create_task(
                self._handle(delivery), context=contextvars.Context()
            )

    async def _handle(self, delivery: MessageDelivery) -> None:
        assert self._handler is not None
        lease_id = delivery.lease_id
        try:
            said = settlement.of_result(lease_id, await self._handler(delivery))
        except asyncio.CancelledError:
            if lease_id in self._in_hand:  # else it was lost
                self._settle(lease_id, broker_pb2.Nack(lease_id=lease_id, unused=True))
            raise
        except Exception as failed:
            said = settlement.of_exception(lease_id, failed)
            if not isinstance(failed, rpc.Error | settlement.Retry | settlement.Reject):
                log.exception("a message could not be handled", extra={"queue": self.queue})
        self._settle(lease_id, said)

    def _confirm(self, settled: int) -> None:
        begun: list[MessageDelivery] = []
        for _ in range(settled - self._settled):
            done = self._unsafe.popleft()
            if isinstance(done, _Extension) and done.lease_id in self._doubtful:
                begun.append(self._doubtful.pop(done.lease_id))
        self._settled = settled
        if begun:
            self._begin(begun)
        if self._leaving:
            self._news.set()

    def _failed(self, failure: broker_pb2.SettleFailure) -> None:
        log.warning(
            "a settlement failed", extra={"queue": self.queue, "why": failure.status.message}
        )
        self._doubtful.pop(failure.lease_id, None)
        self._lose([failure.lease_id])

    async def _write(self, call: Any) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                frame = self._frame()
                if self._leaving and not (self._in_hand or self._unsaid or self._unsafe):
                    frame.leave = self._said_leave = True
                if frame.ByteSize():
                    await call.write(frame)
                if frame.leave:
                    await call.done_writing()
                    return
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            call.cancel()  # the reader says what happened

    def _frame(self) -> broker_pb2.ConsumeRequest:
        said, self._unsaid = self._unsaid, []
        acks: list[str] = []
        complete: list[broker_pb2.Completion] = []
        nacks: list[broker_pb2.Nack] = []
        rejects: list[broker_pb2.Reject] = []
        for one in said:
            if isinstance(one, str):
                acks.append(one)
            elif isinstance(one, broker_pb2.Completion):
                complete.append(one)
            elif isinstance(one, broker_pb2.Nack):
                nacks.append(one)
            else:
                rejects.append(one)
        extensions = [one for one in self._extensions if one in self._in_hand]
        self._extensions = []
        # In the order in which the broker counts the settlements of a frame.
        self._unsafe.extend((*acks, *complete, *nacks, *rejects, *map(_Extension, extensions)))
        credit, self._owed = (0 if self._leaving else self._owed), 0
        return broker_pb2.ConsumeRequest(
            credit=credit,
            ack=acks,
            complete=complete,
            nack=nacks,
            reject=rejects,
            extensions=extensions,
        )

    async def _extend(self) -> None:
        """Keeps the leases of what is in hand, and notices when this process stood still."""
        while True:
            await asyncio.sleep(self._span.total_seconds() / _EXTENSIONS)
            self._tick = monotonic()
            if self._in_hand:
                self._extensions = list(self._in_hand)
                self._news.set()


_NOTHING: Any = object()


def _lease_of(said: Settlement) -> str:
    return said if isinstance(said, str) else said.lease_id


async def _raise_status(call: Any) -> None:
    """Raises what the stream ended with."""
    if await call.code() is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            await call.code(),
            await call.initial_metadata(),
            await call.trailing_metadata(),
            await call.details(),
        )
    raise EOFError


def _cause(failed: BaseException) -> str:
    if isinstance(failed, grpc.aio.AioRpcError):
        return f"{failed.code().name}: {failed.details()}"
    return type(failed).__name__
