"""The RPCs Publish and PublishStream, and publishing from within the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Literal, Protocol

import grpc

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.errors import BrokerStopping, RateLimited, RecipientUnknown, StoreUnavailable
from weft.broker.layout import ASKED, Entry
from weft.broker.publishing.answers import Answers
from weft.broker.publishing.payloads import Payloads
from weft.broker.publishing.rounds import Rounds, Sink
from weft.broker.publishing.routing import Routed, route
from weft.broker.queue_admin import check_name
from weft.broker.queues import Queue, Queues
from weft.broker.speakers import Speakers
from weft.v1 import broker_pb2 as pb
from weft.wire.v1 import frames_pb2 as wire

Context = grpc.aio.ServicerContext[Any, Any]

MOST_IN_FRAME = 1_000


class Limits(Protocol):
    """What is used of weft.broker.senders.Senders."""

    def check(self, sender: str, count: int) -> float:
        """Seconds until the sender may publish so many messages; 0: now, and they are counted."""


class Publishing:
    """Publishes messages.

    Args:
        rounds: stores them in batches.
        queues: all there are.
        clock: the broker's.
        payloads: keeps the large ones.
        senders: limits of senders; None: there are none.
        speakers: in whose name callers may send; None: in anybody's.
        unknown_recipients: what becomes of a message to a queue that nobody made.
        max_message: largest message, in bytes.
    """

    def __init__(
        self,
        *,
        rounds: Rounds,
        queues: Queues,
        clock: Clock,
        payloads: Payloads,
        senders: Limits | None = None,
        speakers: Speakers | None = None,
        unknown_recipients: Literal["reject", "create"] = "reject",
        max_message: int,
    ) -> None:
        self._rounds = rounds
        self._queues = queues
        self._clock = clock
        self._payloads = payloads
        self._senders = senders
        self._speakers = speakers
        self._create = unknown_recipients == "create"
        self._max_message = max_message
        self._waiting: set[asyncio.Timeout] = set()  # streams that have nothing to publish now
        self._stopping = False

    def end_streams(self) -> None:
        """Ends each stream when what came by it is answered, and takes no more."""
        self._stopping = True
        for waiting in self._waiting:
            waiting.reschedule(asyncio.get_running_loop().time())

    async def Publish(self, request: wire.Publication, _: Context) -> pb.PublishResponse:
        """See broker.proto."""
        message_id, duplicate = await self.publish(request.message)
        return pb.PublishResponse(id=message_id, duplicate=duplicate)

    async def PublishStream(
        self, frames: AsyncIterator[wire.Publications], context: Context
    ) -> None:
        """See broker.proto."""
        answers = Answers(context)
        writing = asyncio.create_task(answers.write())
        try:
            first = 0
            while (frame := await self._next(frames)) is not None:
                messages = list(frame.messages)
                if len(messages) > MOST_IN_FRAME:
                    raise rpc.InvalidArgument(
                        f"has {len(messages)} messages, and a frame has at most {MOST_IN_FRAME}",
                        field="messages",
                    )
                answers.expect(len(messages), sum(map(len, messages)))
                await self._put_all(messages, answers, first)
                first += len(messages)
                await answers.room()
            await answers.all_said()
            if self._stopping:
                raise BrokerStopping
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _next(self, frames: AsyncIterator[wire.Publications]) -> wire.Publications | None:
        """The next frame of a stream; None: no more come, or are taken."""
        if self._stopping:
            return None
        try:
            async with asyncio.timeout(None) as waiting:
                self._waiting.add(waiting)
                return await anext(frames, None)
        except TimeoutError:
            return None
        finally:
            self._waiting.discard(waiting)

    async def publish(self, raw: bytes, *, asked: bool = False) -> tuple[str, bool]:
        """Publishes a serialized weft.v1.Message: its id, and whether it was accepted before.

        Args:
            raw: the message.
            asked: its reply is waited for; if there is one, the message was accepted before.

        Raises:
            rpc.Error: as `Publish` in broker.proto.
        """
        routed = route(raw, self._clock.now_ms(), self._max_message)
        if asked:
            routed.flags |= ASKED
        duplicate = await self._put_slowly(routed)
        return routed.id, duplicate

    def put(self, queue: Queue, routed: Routed, sink: Sink, number: int) -> None:
        """Hands a message over whose queue is known."""
        policy = queue.policy
        if policy.time_to_live is not None and not routed.expires:
            begin = max(routed.published, routed.not_before)
            routed.expires = begin + int(policy.time_to_live.total_seconds() * 1000)
        self._rounds.put(
            queue,
            routed.durability or policy.durability,
            routed.pack(),
            sink,
            number,
            keyed=bool(routed.key),
        )

    async def copy(self, queue: Queue, entry: Entry) -> bool:
        """Puts a copy of an entry into another queue, under the same id; whether it was there already.

        A large message is the copy's own: the first queue to be done with it must not take it from the others.
        """
        copied = Routed(
            entry.message,
            entry.identity,
            entry.key,
            entry.priority,
            published=self._clock.now_ms(),
            expires=entry.expires,
            flags=entry.flags,
            queue=queue.name,
        )
        one = _One()
        self.put(queue, copied, one, 0)
        duplicate = await one.done
        if duplicate:
            await self._payloads.abandon(copied)
        return duplicate

    async def _put_all(self, messages: Sequence[bytes], sink: Sink, first: int) -> None:
        """Hands the messages of a frame over, in order."""
        done = 0
        while done < len(messages):
            done, waiting = self._put_some(messages, done, sink, first)
            if waiting is None:
                continue
            number = first + done - 1
            try:
                duplicate = await self._put_slowly(waiting, counted=True)
            except rpc.Error as refused:
                sink.refused(number, refused)
            else:
                (sink.duplicate if duplicate else sink.accepted)(number)
            sink.settled()

    def _put_some(
        self, messages: Sequence[bytes], begin: int, sink: Sink, first: int
    ) -> tuple[int, Routed | None]:
        """Hands messages over, up to the first that something must be awaited for.

        Returns how many of them are done with, and the last of these if it is that one.
        """
        # The hot path: no await, and no call that is not needed.
        now = self._clock.now_ms()
        queue_of, put = self._queues.get, self.put
        most, inline = self._max_message, self._payloads.inline_limit
        refusals = False
        for index in range(begin, len(messages)):
            raw = messages[index]
            try:
                routed = route(raw, now, most)
                if self._senders is not None:
                    self._check_rate(routed, self._senders)
            except rpc.Error as refused:
                sink.refused(first + index, refused)
                refusals = True
                continue
            queue = queue_of(routed.queue)
            if queue is None or len(raw) > inline:
                if refusals:
                    sink.settled()
                return index + 1, routed
            put(queue, routed, sink, first + index)
        if refusals:
            sink.settled()
        return len(messages), None

    async def _put_slowly(self, routed: Routed, *, counted: bool = False) -> bool:
        """Publishes a message for which something may have to be awaited; whether it was stored before."""
        if not counted and self._senders is not None:
            self._check_rate(routed, self._senders)
        queue = self._queues.get(routed.queue) or await self._made(routed.queue)
        large = self._payloads.too_large(routed)
        if large:
            await self._payloads.store(routed, tentative=True)
        one = _One()
        self.put(queue, routed, one, 0)
        try:
            duplicate = await one.done
        except StoreUnavailable:
            raise  # it may be in its queue
        except rpc.Error:
            if large:
                await self._payloads.abandon(routed)
            raise
        if large:
            await self._payloads.keep(routed)
            if duplicate:
                await self._payloads.abandon(routed)
        return duplicate

    def _check_rate(self, routed: Routed, senders: Limits) -> None:
        sender = routed.sender
        if self._speakers is not None:
            self._speakers.check_sender(sender)
        if wait := senders.check(sender, 1):
            raise RateLimited(
                f"{sender!r} sends more messages a second than its limit allows.",
                retry_after=timedelta(seconds=wait),
            )

    async def _made(self, name: str) -> Queue:
        """A queue that is not there yet. Those of topics always can be."""
        if not name.startswith("_"):
            check_name(name, "message.recipient")
            if (found := await self._queues.find(name)) is not None:
                return found
            if not self._create:
                raise RecipientUnknown(
                    f"There is no queue {name!r}: its agent has never consumed, or the name is wrong.",
                    metadata={"recipient": name},
                )
        return await self._queues.declare(name)


class _One:
    """Tells what became of one message."""

    def __init__(self) -> None:
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def accepted(self, _: int) -> None:
        self._say(duplicate=False)

    def duplicate(self, _: int) -> None:
        self._say(duplicate=True)

    def refused(self, _: int, error: rpc.Error) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def settled(self) -> None:
        """Nothing gathers here."""

    def _say(self, *, duplicate: bool) -> None:
        if not self.done.done():  # whoever waited may have gone
            self.done.set_result(duplicate)
