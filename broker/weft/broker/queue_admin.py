"""The RPCs about queues: make, change, look at, pause, empty, remove."""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import grpc

from weft import rpc
from weft.broker.clock import Clock
from weft.broker.functions import Counts, Functions
from weft.broker.marks import Marks
from weft.broker.policy import record_of
from weft.broker.queues import Queue, Queues
from weft.rpc import paging
from weft.v1 import broker_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]
Consumers = Callable[[str], Sequence[pb.ConsumerStatus]]

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,127}")
_PAGE, _MAX_PAGE = 100, 1_000
_RATE_SPAN = 10_000  # ms
_AT_ONCE = 64  # queues asked at a time, so that a long list delays no message


def check_name(name: str, field: str = "queue") -> None:
    """Whether a client may call a queue so.

    Raises:
        InvalidArgument: it may not.
    """
    if not _NAME.fullmatch(name):
        raise rpc.InvalidArgument(
            'must be 1 to 128 characters of a-z, 0-9, "-", "_" and ".", beginning with a letter',
            field=field,
        )


class QueueAdmin:
    """Handlers of weft.v1.BrokerService, as broker.proto describes them.

    Args:
        queues: all there are.
        functions: counts and empties them.
        clock: the broker's.
        consumers: tells who consumes a queue here.
        marks: tell what Redis is known to have lost of a queue.
    """

    def __init__(
        self,
        *,
        queues: Queues,
        functions: Functions,
        clock: Clock,
        consumers: Consumers,
        marks: Marks,
    ) -> None:
        self._queues = queues
        self._functions = functions
        self._clock = clock
        self._consumers = consumers
        self._marks = marks

    async def SetQueue(self, request: pb.SetQueueRequest, _: Context) -> pb.SetQueueResponse:
        """See broker.proto."""
        check_name(request.queue)
        queue = await self._queues.set_policy(request.queue, request.policy, request.update_mask)
        return pb.SetQueueResponse(policy=record_of(queue.policy))

    async def DeleteQueue(
        self, request: pb.DeleteQueueRequest, _: Context
    ) -> pb.DeleteQueueResponse:
        """See broker.proto."""
        check_name(request.queue)
        dropped = await self._queues.delete(request.queue)
        await self._marks.forget(request.queue)
        return pb.DeleteQueueResponse(dropped=dropped)

    async def Describe(self, request: pb.DescribeRequest, _: Context) -> pb.DescribeResponse:
        """See broker.proto."""
        return pb.DescribeResponse(status=await self._status(self._queues.known(request.queue)))

    async def ListQueues(self, request: pb.ListQueuesRequest, _: Context) -> pb.ListQueuesResponse:
        """See broker.proto."""
        size = paging.page_size(request.page_size, default=_PAGE, most=_MAX_PAGE)
        made_for = f"queues {request.pattern}"
        begin = paging.page_begin(request.page_token, made_for=made_for, like=("",))
        names = [
            name
            for name in self._queues.names()
            if fnmatch.fnmatchcase(name, request.pattern or "*")
            and (begin is None or name > str(begin[0]))
        ]
        response = pb.ListQueuesResponse()
        page = [queue for name in names[:size] if (queue := self._queues.get(name)) is not None]
        for start in range(0, len(page), _AT_ONCE):
            some = page[start : start + _AT_ONCE]
            response.queues.extend(await asyncio.gather(*map(self._status, some)))
        if len(names) > size:
            response.next_page_token = paging.page_token((names[size - 1],), made_for=made_for)
        return response

    async def PurgeQueue(self, request: pb.PurgeQueueRequest, _: Context) -> pb.PurgeQueueResponse:
        """See broker.proto."""
        queue = self._queues.known(request.queue)
        purged = 0
        while count := await self._functions.purge(queue, now=self._clock.now_ms()):
            purged += count
        return pb.PurgeQueueResponse(purged=purged)

    async def PauseQueue(self, request: pb.PauseQueueRequest, _: Context) -> pb.PauseQueueResponse:
        """See broker.proto."""
        await self._queues.pause(request.queue, paused=True)
        return pb.PauseQueueResponse()

    async def ResumeQueue(
        self, request: pb.ResumeQueueRequest, _: Context
    ) -> pb.ResumeQueueResponse:
        """See broker.proto."""
        await self._queues.pause(request.queue, paused=False)
        return pb.ResumeQueueResponse()

    async def _status(self, queue: Queue) -> pb.QueueStatus:
        counts = await self._functions.counts(queue)
        now = self._clock.now_ms()
        status = pb.QueueStatus(
            queue=queue.name,
            policy=record_of(queue.policy),
            paused=queue.paused,
            depth=counts.depth,
            delayed=counts.delayed,
            pending=counts.pending,
            blocked=counts.blocked,
            bytes=counts.bytes,
            dead=counts.dead,
            published=counts.published,
            acked=counts.acked,
            publish_rate=_rate(counts.published, counts.publish_samples, now),
            ack_rate=_rate(counts.acked, counts.ack_samples, now),
            consumers=self._consumers(queue.name),
            data_loss=self._marks.loss(queue.name),
        )
        _add_age(status, counts, now)
        return status


def _add_age(status: pb.QueueStatus, counts: Counts, now: int) -> None:
    if counts.oldest:
        status.oldest_age.FromTimedelta(timedelta(milliseconds=max(0, now - counts.oldest)))


def _rate(total: int, samples: tuple[int, int, int, int], now: int) -> float:
    """Events a second since the younger of two samples that is ten seconds old, or since the older one."""
    last, at_last, before, at_before = samples
    since, count = (last, at_last) if now - last >= _RATE_SPAN else (before, at_before)
    if since == 0 or now <= since:
        return 0.0
    return (total - count) * 1000 / (now - since)
