"""Consumes a queue: handlers run side by side, leases are kept, settlements travel together, streams are made anew."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from weft import rpc
from weft.agents.messaging import settlement
from weft.agents.messaging.addresses import Addresses
from weft.agents.messaging.outbox import Outbox
from weft.agents.messaging.settlement import Settlement
from weft.agents.messaging.streams import LOST, cause, final, read, too_large
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

if TYPE_CHECKING:
    from weft.mtls import Credentials

log = logging.getLogger("weft.agents")

MessageDelivery = message_pb2.MessageDelivery
Handler = Callable[[MessageDelivery], Awaitable[message_pb2.Reply | bytes | None]]
OnBatch = Callable[[Sequence[MessageDelivery]], None]

_EXTENSIONS = 3  # within a visibility timeout
_STOOD_STILL = 0.7  # of a visibility timeout: what came meanwhile may be another one's by now
_GRACE = timedelta(seconds=10)
_LAST_WORDS = 1.0  # seconds, beyond the grace


class Consumer:
    """Consumes a queue; use it as an async context, or `run` it in a task.

    Handlers that return acknowledge (with a reply, if they return one); those that raise Reject or an rpc error that the
    message causes send it to the dead letters; any other error has it tried again. A handler whose lease is lost, as
    happens when its process stands still, is cancelled.

    Args:
        brokers: "host:port" of each broker, joined by commas.
        queue: its name; it is made if there is none.
        handler: handles one message; None where `on_batch` is given.
        on_batch: gets messages as they come, must not block, and has each settled by `ack`, `nack` or `reject`.
        concurrency: messages handled at a time.
        prefetch: messages that wait here beyond those, for handlers quicker than the way to the broker.
        name: who consumes, for people.
        mtls: what it shows to brokers; None: connections are not encrypted.
    """

    def __init__(
        self,
        brokers: str | Sequence[str],
        queue: str,
        handler: Handler | None = None,
        *,
        on_batch: OnBatch | None = None,
        concurrency: int = 100,
        prefetch: int = 0,
        name: str = "",
        mtls: Credentials | None = None,
    ) -> None:
        if (handler is None) == (on_batch is None):
            raise ValueError("give either a handler or on_batch")
        self.queue = queue
        self._addresses = Addresses(brokers, mtls)
        self._handler = handler
        self._on_batch = on_batch
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._session = uuid.uuid4().hex
        self._name = name
        self._in_hand: dict[str, asyncio.Task[None] | None] = {}
        self._waiting: deque[MessageDelivery] = deque()  # prefetched
        self._doubtful: dict[str, MessageDelivery] = {}  # begun when their leases are extended
        self._doubt = -1  # received before so many settlements are confirmed: doubtful
        self._outbox = Outbox()
        self._owed = 0  # credit to give
        self._news = asyncio.Event()
        self._leaving = False
        self._said_leave = False
        self._span = 30.0  # visibility timeout, seconds
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
        """Takes no new messages, finishes those in hand, leaves. What is not done within `grace` goes back at once."""
        self._leaving = True
        for delivery in (*self._waiting, *self._doubtful.values()):
            self._give_back(delivery.lease_id)
        self._waiting.clear()
        self._doubtful.clear()
        self._news.set()
        if self._running is None:
            return
        await asyncio.wait({self._running}, timeout=grace.total_seconds())
        late = [task for task in self._in_hand.values() if task is not None]
        self._in_hand.clear()  # the broker takes back what a consumer leaves with
        for task in late:
            task.cancel()
        self._news.set()
        await asyncio.wait({self._running, *late}, timeout=_LAST_WORDS)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def run(self) -> None:
        """Consumes until `drain`.

        Raises:
            rpc.Error: the broker says that this can never work, as with a name that no queue can have.
        """
        while not (self._leaving and not self._in_hand and self._outbox.empty):
            try:
                async with self._addresses.channel() as channel:
                    await self._stream(broker_pb2_grpc.BrokerServiceStub(channel).Consume())
            except LOST as failed:
                if self._said_leave:
                    return
                if (error := final(failed)) is not None:
                    raise error from None
                if likely := too_large(failed):
                    self._outbox.shrink(likely)
                log.warning(
                    "a broker was lost; going on with the next",
                    extra={"queue": self.queue, "cause": cause(failed)},
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
        self._outbox.put(said)
        self._owed += 1
        self._news.set()
        if self._waiting:
            self._handle_waiting()

    def _give_back(self, lease_id: str) -> None:
        """It was not begun, and that was no attempt."""
        self._in_hand.pop(lease_id, None)
        self._outbox.put(broker_pb2.Nack(lease_id=lease_id, unused=True))
        self._news.set()

    # -- a stream

    async def _stream(self, call: Any) -> None:
        held = [*self._in_hand, *self._outbox.again()]
        await call.write(
            broker_pb2.ConsumeRequest(
                open=broker_pb2.ConsumeOpen(
                    queue=self.queue,
                    consumer=self._name,
                    declare=True,
                    resume=held,
                    session=self._session,
                )
            )
        )
        opened: broker_pb2.ConsumeOpened = (await read(call)).opened
        self._addresses.worked()
        self._span = opened.visibility_timeout.ToTimedelta().total_seconds()
        self._lose(opened.lost)
        resumed = list(self._doubtful.values())
        self._doubtful.clear()
        self._doubt = -1
        self._owed = max(0, self._concurrency + self._prefetch - len(self._in_hand))
        self._tick = monotonic()
        self.connected.set()
        self._news.set()
        self._begin(resumed)
        helpers = [asyncio.create_task(self._write(call)), asyncio.create_task(self._extend())]
        try:
            await self._read(call)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            call.cancel()

    def _lose(self, lost: Sequence[str]) -> None:
        """Drops what others have by now, and settlements that came too late or were taken before the stream broke."""
        gone = frozenset(lost)
        self._outbox.drop(gone)
        for lease_id in gone:
            self._doubtful.pop(lease_id, None)
            task = self._in_hand.pop(lease_id, _NOTHING)
            if task is _NOTHING:
                continue
            self._owed += 1
            self._news.set()
            if task is not None:
                log.warning(
                    "a lease was lost while its message was handled", extra={"queue": self.queue}
                )
                task.cancel()
        if self._waiting:
            self._waiting = deque(one for one in self._waiting if one.lease_id not in gone)
            self._handle_waiting()

    async def _read(self, call: Any) -> None:
        while True:
            frame = await read(call)
            for failure in frame.failures:
                log.warning(
                    "a settlement failed",
                    extra={"queue": self.queue, "why": failure.status.message},
                )
                self._lose([failure.lease_id])
            self._confirm(frame.settled)
            if frame.deliveries:
                self._received(frame.deliveries)
            if frame.draining and not self._leaving:
                log.info("the broker stops; going on with the next", extra={"queue": self.queue})
                raise EOFError

    def _confirm(self, settled: int) -> None:
        extended = self._outbox.confirm(settled)
        ours = [self._doubtful.pop(lease_id) for lease_id in extended if lease_id in self._doubtful]
        if ours:
            self._begin(ours)
        if self._leaving:
            self._news.set()

    async def _write(self, call: Any) -> None:
        try:
            while True:
                if not self._outbox.waits:
                    await self._news.wait()
                self._news.clear()
                credit, self._owed = (0 if self._leaving else self._owed), 0
                frame = self._outbox.frame(credit, self._in_hand)
                if self._leaving and not self._in_hand and self._outbox.empty:
                    frame.leave = self._said_leave = True
                if frame.ByteSize():
                    await call.write(frame)
                if frame.leave:
                    await call.done_writing()
                    return
        except LOST:
            call.cancel()  # the reader says what happened

    # -- leases

    async def _extend(self) -> None:
        """Keeps the leases of what is in hand."""
        while True:
            await asyncio.sleep(self._span / _EXTENSIONS)
            self._look_at_the_clock()
            self._tick = monotonic()
            if self._in_hand:
                self._outbox.extend(self._in_hand)
                self._news.set()

    def _look_at_the_clock(self) -> None:
        """Notices that this process stood still: leases may have run out while their messages lay in its socket.

        All that is received from now on is doubtful, until the broker confirms something that was said from now on:
        what comes with that or later was sent after we woke.
        """
        if monotonic() - self._tick <= self._span * _STOOD_STILL:
            return
        self._tick = monotonic()
        self._doubt = self._outbox.said
        waiting = list(self._waiting)
        self._waiting.clear()
        self._verify(waiting)

    def _verify(self, deliveries: Sequence[MessageDelivery]) -> None:
        """Begins deliveries when their leases are extended."""
        self._doubtful.update((one.lease_id, one) for one in deliveries)
        self._outbox.extend(one.lease_id for one in deliveries)
        self._news.set()

    # -- messages

    def _received(self, deliveries: Sequence[MessageDelivery]) -> None:
        self._look_at_the_clock()
        if self._leaving:
            for delivery in deliveries:
                self._give_back(delivery.lease_id)
            return
        for delivery in deliveries:
            self._in_hand[delivery.lease_id] = None
        if self._outbox.confirmed <= self._doubt:
            self._verify(deliveries)
        else:
            self._begin(deliveries)

    def _begin(self, deliveries: Sequence[MessageDelivery]) -> None:
        if self._on_batch is None:
            self._waiting.extend(deliveries)
            self._handle_waiting()
            return
        if not deliveries:
            return
        try:
            self._on_batch(deliveries)
        except Exception as failed:
            log.exception("messages could not be handled", extra={"queue": self.queue})
            for delivery in deliveries:
                self.nack(delivery.lease_id, type(failed).__name__)

    def _handle_waiting(self) -> None:
        if monotonic() - self._tick > self._span * _STOOD_STILL:
            return  # no stream, or it stood still: first it is seen which leases are ours
        waiting, in_hand = self._waiting, self._in_hand
        create = asyncio.get_running_loop().create_task
        room = self._concurrency - (len(in_hand) - len(waiting) - len(self._doubtful))
        for _ in range(min(room, len(waiting))):
            delivery = waiting.popleft()
            # A context of its own: handlers find nothing of other messages in it.
            in_hand[delivery.lease_id] = create(
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


_NOTHING: Any = object()
