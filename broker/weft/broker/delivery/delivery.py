"""All deliveries of a broker: the RPC Consume, and consumers within the broker."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc

from weft import rpc
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.delivery.due import Mover
from weft.broker.delivery.instances import Instances
from weft.broker.delivery.internal import InternalConsumer
from weft.broker.delivery.post import Loads, Post
from weft.broker.delivery.session import Session
from weft.broker.functions import Functions
from weft.broker.layout import Entry
from weft.broker.queue_admin import check_name
from weft.broker.queues import Queue, Queues
from weft.broker.redis import Redis, ReplyError
from weft.broker.speakers import Speakers
from weft.v1 import broker_pb2 as pb
from weft.wire.v1.frames_pb2 import Deliveries

log = logging.getLogger("weft.broker")

Context = grpc.aio.ServicerContext[Any, Any]

_BEAT = timedelta(seconds=1)
_MOST_NAME, _MOST_SESSION = 200, 100
_MOST_RESUMED = 100_000
_AGAIN = 0.5  # seconds after a recovery that failed
_CLOSE = 5.0  # seconds for the last settlements


class Delivery:
    """Delivers.

    Args:
        redis: where queues are read.
        functions: settle.
        queues: all there are.
        bells: tell of new messages.
        clock: the broker's.
        payloads: have the large messages.
        instance: id of this broker.
        beat: how often it tells the other brokers that it lives.
        speakers: who may consume what; None: whoever comes.
    """

    def __init__(
        self,
        *,
        redis: Redis,
        functions: Functions,
        queues: Queues,
        bells: Bells,
        clock: Clock,
        payloads: Loads,
        instance: str,
        beat: timedelta = _BEAT,
        speakers: Speakers | None = None,
    ) -> None:
        self._speakers = speakers
        self._redis = redis
        self._functions = functions
        self._queues = queues
        self._clock = clock
        self._payloads = payloads
        self._instance = instance
        self._posts: dict[str, Post] = {}
        self._sessions: set[Session] = set()
        self._idle = asyncio.Event()
        self._draining = False
        self._doubtful = asyncio.Event()
        self.instances = Instances(
            redis=redis,
            functions=functions,
            queues=queues,
            clock=clock,
            instance=instance,
            beat=beat,
            stale=self._doubtful.set,
        )
        self._mover = Mover(functions, bells, clock)
        bells.on_ready(self._ready)
        bells.on_reset(self._doubtful.set)
        bells.on_reset(self.instances.search)
        queues.on_change(self._changed)

    async def run(self) -> None:
        """All that goes on in the background; for a task of its own."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.instances.run())
            tasks.create_task(self._mover.run())
            tasks.create_task(self._recover())

    # -- consumers

    async def Consume(self, requests: AsyncIterator[pb.ConsumeRequest], context: Context) -> None:
        """See broker.proto."""
        frames = aiter(requests)
        first = await anext(frames, None)
        if first is None or not first.HasField("open"):
            raise rpc.InvalidArgument("the first frame has it", field="open")
        if self._speakers is not None:
            self._speakers.check_queue(context, first.open.queue)
        post = await self._opened(first.open)
        session = Session(
            post, first.open.consumer, first.open.session, context.write, self.instances.fresh
        )
        lost = await post.resume([one.encode() for one in first.open.resume], session)
        opened = pb.ConsumeOpened(lost=[one.decode() for one in lost])
        opened.visibility_timeout.FromTimedelta(post.queue.policy.visibility_timeout)
        await context.write(Deliveries(opened=opened.SerializeToString()).SerializeToString())
        self._sessions.add(session)
        post.join(session)
        writing = asyncio.create_task(session.write())
        writing.add_done_callback(functools.partial(_ended, asyncio.current_task()))
        try:
            first.ClearField("open")
            session.take(first)
            if self._draining:
                session.drain()
            leaving = first.leave
            while not leaving and (request := await anext(frames, None)) is not None:
                session.take(request)
                leaving = request.leave
            await session.finished()
        finally:
            post.leave(session)
            self._sessions.discard(session)
            if not self._sessions:
                self._idle.set()
            writing.cancel()
            session.abandon()
            await asyncio.gather(writing, return_exceptions=True)

    def post(self, queue: str) -> Post | None:
        """Where a queue is delivered, if this broker has had a consumer of it."""
        return self._posts.get(queue)

    def consumers(self, queue: str) -> list[pb.ConsumerStatus]:
        """Who consumes a queue at this broker."""
        post = self.post(queue)
        if post is None:
            return []
        return [
            pb.ConsumerStatus(
                consumer=session.consumer,
                broker=self._instance,
                pending=len(post.settlements.leases.of(session)),
                credit=session.credit,
            )
            for session in post.receivers
            if isinstance(session, Session)
        ]

    @contextlib.asynccontextmanager
    async def internal(
        self, queue: str, handler: Callable[[Entry], Awaitable[None]], *, credit: int
    ) -> AsyncIterator[None]:
        """Consumes a queue within the broker: an error of the handler is an attempt that failed."""
        post = self._post(await self._queues.declare(queue))
        consumer = InternalConsumer(post, handler, credit)
        post.join(consumer)
        post.wake()
        try:
            yield
        finally:
            post.leave(consumer)
            await consumer.close()

    async def drain(self, grace: timedelta) -> None:
        """Tells all consumers to go elsewhere, waits for what they have in hand, puts back the rest."""
        self._draining = True
        for session in self._sessions:
            session.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace.total_seconds()):
                while self._sessions:
                    self._idle.clear()
                    await self._idle.wait()

    async def close(self) -> None:
        """Ends all settlements, and leaves the other brokers if no consumer has anything of this one in hand."""
        with contextlib.suppress(TimeoutError, rpc.Error):
            async with asyncio.timeout(_CLOSE):
                in_hand = await asyncio.gather(*(post.close() for post in self._posts.values()))
                if not any(in_hand):
                    await self.instances.leave()
        for post in self._posts.values():
            post.cancel()

    async def _opened(self, opening: pb.ConsumeOpen) -> Post:
        check_name(opening.queue, "open.queue")
        if len(opening.consumer) > _MOST_NAME:
            raise rpc.InvalidArgument(
                f"must be at most {_MOST_NAME} characters", field="open.consumer"
            )
        if len(opening.session) > _MOST_SESSION:
            raise rpc.InvalidArgument(
                f"must be at most {_MOST_SESSION} characters", field="open.session"
            )
        if len(opening.resume) > _MOST_RESUMED:
            raise rpc.InvalidArgument(
                f"must be at most {_MOST_RESUMED:,} leases", field="open.resume"
            )
        if opening.declare:
            return self._post(await self._queues.declare(opening.queue))
        await self._queues.find(opening.queue)
        return self._post(self._queues.known(opening.queue))

    def _post(self, queue: Queue) -> Post:
        post = self._posts.get(queue.name)
        if post is None or post.queue is not queue:
            post = self._posts[queue.name] = Post(
                queue,
                redis=self._redis,
                functions=self._functions,
                clock=self._clock,
                payloads=self._payloads,
                instance=self._instance,
                fresh=self.instances.fresh,
                doubt=self._doubtful.set,
            )
        return post

    # -- what happens

    def _ready(self, queue: str, bits: int) -> None:
        post = self._posts.get(queue)
        if post is not None:
            post.wake(bits)

    def _changed(self, name: str) -> None:
        queue, post = self._queues.get(name), self._posts.get(name)
        if post is None:
            return
        if queue is None:
            del self._posts[name]
            for session in list(self._sessions):
                if session in post.receivers:
                    session.drain()
            post.cancel()
            return
        post.settlements.leases.span = queue.policy.visibility_timeout.total_seconds()
        post.wake()

    async def _recover(self) -> None:
        while True:
            await self._doubtful.wait()
            self._doubtful.clear()
            unchecked: list[str] = []
            for name, post in list(self._posts.items()):
                try:
                    await post.recover()
                except (rpc.Unavailable, ReplyError) as failed:
                    unchecked.append(f"{name}: {failed}")
            if unchecked:
                log.warning(
                    "leases cannot be checked yet",
                    extra={"queues": len(unchecked), "why": unchecked[0]},
                )
                await asyncio.sleep(_AGAIN)
                self._doubtful.set()


def _ended(handler: asyncio.Task[None] | None, writing: asyncio.Task[None]) -> None:
    """Ends a stream that cannot be written to: its consumer would wait for ever."""
    if handler is not None and not writing.cancelled() and writing.exception() is not None:
        handler.cancel()
