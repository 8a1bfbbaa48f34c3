"""The RPCs Publish and PublishStream, and publishing from within the broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Literal, Protocol

import grpc

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.errors import RateLimited, RecipientUnknown
from weft.broker.layout import Entry
from weft.broker.publishing.payloads import Payloads
from weft.broker.publishing.rounds import Rounds, Sink
from weft.broker.publishing.routing import Routed, route
from weft.broker.queue_admin import check_name
from weft.broker.queues import Queue, Queues
from weft.rpc import status_proto
from weft.v1 import broker_pb2 as pb
from weft.wire.v1 import frames_pb2 as wire

Context = grpc.aio.ServicerContext[Any, Any]

MOST_IN_FRAME = 1_000
_MOST_UNANSWERED = 10_000
_MOST_UNANSWERED_BYTES = 32 * 1024 * 1024


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
        senders: limits of senders.
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
        senders: Limits,
        unknown_recipients: Literal["reject", "create"] = "reject",
        max_message: int,
    ) -> None:
        self._rounds = rounds
        self._queues = queues
        self._clock = clock
        self._payloads = payloads
        self._senders = senders
        self._create = unknown_recipients == "create"
        self._max_message = max_message

    async def Publish(self, request: wire.Publication, _: Context) -> pb.PublishResponse:
        """See broker.proto."""
        message_id, duplicate = await self.publish(request.message)
        return pb.PublishResponse(id=message_id, duplicate=duplicate)

    async def PublishStream(
        self, frames: AsyncIterator[wire.Publications], context: Context
    ) -> None:
        """See broker.proto."""
        answers = _Answers(context)
        writing = asyncio.create_task(answers.write())
        try:
            number = 0
            async for frame in frames:
                if len(frame.messages) > MOST_IN_FRAME:
                    raise rpc.InvalidArgument(
                        f"has {len(frame.messages)} messages, and a frame has at most {MOST_IN_FRAME}",
                        field="messages",
                    )
                size = 0
                for raw in frame.messages:
                    size += len(raw)
                    if not self.submit(raw, answers, number):
                        await self._submit_slowly(raw, answers, number)
                    number += 1
                answers.expect(number, size)
                await answers.room()
            await answers.all_said()
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def publish(self, raw: bytes) -> tuple[str, bool]:
        """Publishes a serialized weft.v1.Message: its id, and whether it was accepted before.

        Raises:
            rpc.Error: as `Publish` in broker.proto.
        """
        routed = self._route(raw)
        one = _One()
        queue = self._queues.get(routed.queue) or await self._made(routed.queue)
        if self._payloads.too_large(routed.entry):
            await self._payloads.store(routed.entry)
        self.put(queue, routed, one, 0)
        return routed.id, await one.done

    def submit(self, raw: bytes, sink: Sink, number: int) -> bool:
        """Hands a message over to the rounds; False: something must be awaited first."""
        try:
            routed = self._route(raw)
            queue = self._queues.get(routed.queue)
            if queue is None and not self._create:
                raise _unknown(routed.queue)
        except rpc.Error as refused:
            sink.refused(number, refused)
            sink.settled()
            return True
        if queue is None or self._payloads.too_large(routed.entry):
            return False
        self.put(queue, routed, sink, number)
        return True

    def put(self, queue: Queue, routed: Routed, sink: Sink, number: int) -> None:
        """Hands a message over whose queue is known."""
        entry, policy = routed.entry, queue.policy
        now = entry.published = self._clock.now_ms()
        if policy.time_to_live is not None and not entry.expires:
            begin = max(now, entry.not_before)
            entry.expires = begin + int(policy.time_to_live.total_seconds() * 1000)
        durability = routed.durability or policy.durability
        self._rounds.put(queue, durability, entry.pack(), sink, number, keyed=bool(entry.key))

    async def copy(self, queue: Queue, entry: Entry) -> bool:
        """Puts a copy of an entry into another queue, under the same id; whether it was there already."""
        copied = Entry(
            entry.message,
            entry.identity,
            entry.key,
            entry.priority,
            expires=entry.expires,
            flags=entry.flags,
        )
        one = _One()
        self.put(queue, Routed("", queue.name, 0, copied), one, 0)
        return await one.done

    async def _submit_slowly(self, raw: bytes, sink: Sink, number: int) -> None:
        try:
            routed = self._route(raw, counted=True)
            queue = self._queues.get(routed.queue) or await self._made(routed.queue)
            if self._payloads.too_large(routed.entry):
                await self._payloads.store(routed.entry)
        except rpc.Error as refused:
            sink.refused(number, refused)
            sink.settled()
            return
        self.put(queue, routed, sink, number)

    def _route(self, raw: bytes, *, counted: bool = False) -> Routed:
        routed = route(raw, now=self._clock.now_ms(), most_bytes=self._max_message)
        if not counted:
            sender = routed.entry.identity.partition(b"\0")[0].decode()
            if wait := self._senders.check(sender, 1):
                raise RateLimited(
                    f"{sender!r} sends more messages a second than its limit allows.",
                    retry_after=timedelta(seconds=wait),
                )
        return routed

    async def _made(self, name: str) -> Queue:
        if not self._create and not name.startswith("_"):
            raise _unknown(name)
        if not name.startswith("_"):
            check_name(name, "message.recipient")
        return await self._queues.declare(name)


def _unknown(name: str) -> RecipientUnknown:
    return RecipientUnknown(
        f"There is no queue {name[:128]!r}: its agent has never consumed, or the name is wrong.",
        metadata={"recipient": name[:128]},
    )


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


class _Answers:
    """Gathers what became of the messages of a stream and says it, all that is known per write."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._numbers: list[int] = []
        self._duplicates: list[int] = []
        self._refusals: list[pb.Refusal] = []
        self._news = asyncio.Event()
        self._said = asyncio.Event()
        self._expected = 0
        self._answered = 0
        self._bytes = 0
        self.accepted = self._numbers.append

    def duplicate(self, number: int) -> None:
        self._numbers.append(number)
        self._duplicates.append(number)

    def refused(self, number: int, error: rpc.Error) -> None:
        self._refusals.append(pb.Refusal(number=number, status=status_proto(error)))

    def settled(self) -> None:
        self._news.set()

    def expect(self, number: int, size: int) -> None:
        self._expected = number
        self._bytes += size

    async def room(self) -> None:
        """Returns when so few messages are unanswered that more may come."""
        while (
            self._expected - self._answered > _MOST_UNANSWERED
            or self._bytes > _MOST_UNANSWERED_BYTES
        ) and self._expected > self._answered:
            self._said.clear()
            await self._said.wait()

    async def all_said(self) -> None:
        """Returns when everything has been answered and written."""
        while self._expected > self._answered:
            self._said.clear()
            await self._said.wait()

    async def write(self) -> None:
        """Writes answers until it is cancelled, or the client is gone."""
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.UsageError):
            while True:
                await self._news.wait()
                self._news.clear()
                response = pb.PublishStreamResponse(
                    accepted=self._numbers, duplicates=self._duplicates, refusals=self._refusals
                )
                count = len(self._numbers) + len(self._refusals)
                for said in (self._numbers, self._duplicates, self._refusals):
                    said.clear()
                await self._context.write(response)
                self._answered += count
                if self._answered >= self._expected:
                    self._bytes = 0
                self._said.set()
