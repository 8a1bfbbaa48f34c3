"""The RPCs about subscriptions, and the consumers of the topic queues."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Protocol

import grpc

from weft import rpc
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.errors import SubscriptionUnknown
from weft.broker.layout import Entry, shard_of
from weft.broker.publishing.routing import TOPIC_QUEUES
from weft.broker.queue_admin import check_name
from weft.broker.queues import Queues
from weft.broker.topics.copies import Copies, KeepsLarge, Puts
from weft.broker.topics.patterns import check_pattern
from weft.broker.topics.router import Router
from weft.broker.topics.subscriptions import Stores, Subscriptions
from weft.rpc import paging
from weft.v1 import broker_pb2 as pb
from weft.v1.message_pb2 import QueuePolicy

Context = grpc.aio.ServicerContext[Any, Any]

_NAME = re.compile(r"[a-z0-9._-]{1,128}")
_PAGE, _MAX_PAGE = 100, 1_000
_CREDIT = 128  # messages of a topic queue that are routed at a time
_AGAIN = 1.0  # seconds after a start that failed
# A message that some queue refuses is tried for some minutes.
_MAX_ATTEMPTS = 20
_VISIBILITY = timedelta(seconds=5)  # copies of what a dead broker had in hand come that much later
_BACKOFF, _MAX_BACKOFF = timedelta(milliseconds=500), timedelta(seconds=30)


class Consumes(Protocol):
    """What is used of weft.broker.delivery.Delivery."""

    def internal(
        self, queue: str, handler: Callable[[Entry], Awaitable[None]], *, credit: int
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Consumes a queue within the broker."""


class Topics:
    """Handlers of weft.v1.BrokerService, as broker.proto describes them, and the routing itself.

    Args:
        redis: where subscriptions are kept.
        queues: all there are.
        bells: say when Redis may have become another one.
        publishing: takes the copies.
        payloads: keep the large ones.
        delivery: delivers the topic queues.
        clock: the broker's.
    """

    def __init__(
        self,
        *,
        redis: Stores,
        queues: Queues,
        bells: Bells,
        publishing: Puts,
        payloads: KeepsLarge,
        delivery: Consumes,
        clock: Clock,
    ) -> None:
        self._queues = queues
        self._delivery = delivery
        self._subscriptions = Subscriptions(redis, bells)
        self._router = Router(
            redis=redis,
            subscriptions=self._subscriptions,
            queues=queues,
            copies=Copies(publishing, payloads),
            clock=clock,
        )

    async def run(self) -> None:
        """Routes for ever; for a task of its own. What is in hand when it is cancelled goes back."""
        async with contextlib.AsyncExitStack() as consumers:
            for number in range(TOPIC_QUEUES):
                await consumers.enter_async_context(await self._consumer(f"_topics.{number}"))
            await asyncio.Event().wait()

    async def Subscribe(self, request: pb.SubscribeRequest, _: Context) -> pb.SubscribeResponse:
        """See broker.proto."""
        wanted = request.subscription
        _check_name(wanted.name, "subscription.name")
        check_pattern(wanted.pattern, "subscription.pattern")
        check_name(wanted.queue, "subscription.queue")
        if request.declare:
            await self._queues.declare(wanted.queue)
        elif await self._queues.find(wanted.queue) is None:
            self._queues.known(wanted.queue)
        await self._subscriptions.keep(wanted)
        return pb.SubscribeResponse()

    async def Unsubscribe(
        self, request: pb.UnsubscribeRequest, _: Context
    ) -> pb.UnsubscribeResponse:
        """See broker.proto."""
        _check_name(request.name, "name")
        await self._subscriptions.fresh()
        if request.name not in self._subscriptions.table:
            raise SubscriptionUnknown(
                f"There is no subscription {request.name!r}.",
                metadata={"subscription": request.name},
            )
        await self._subscriptions.drop(request.name)
        return pb.UnsubscribeResponse()

    async def ListSubscriptions(
        self, request: pb.ListSubscriptionsRequest, _: Context
    ) -> pb.ListSubscriptionsResponse:
        """See broker.proto."""
        size = paging.page_size(request.page_size, default=_PAGE, most=_MAX_PAGE)
        made_for = f"subscriptions {request.queue}"
        begin = paging.page_begin(request.page_token, made_for=made_for, like=("",))
        await self._subscriptions.fresh()
        found = [
            one
            for name, one in sorted(self._subscriptions.table.items())
            if request.queue in {"", one.queue} and (begin is None or name > str(begin[0]))
        ]
        response = pb.ListSubscriptionsResponse(subscriptions=found[:size])
        if len(found) > size:
            last = found[size - 1].name
            response.next_page_token = paging.page_token((last,), made_for=made_for)
        return response

    async def _consumer(self, queue: str) -> contextlib.AbstractAsyncContextManager[None]:
        shard = shard_of(queue)

        async def handle(entry: Entry) -> None:
            await self._router.route(shard, entry)

        policy = QueuePolicy(max_attempts=_MAX_ATTEMPTS)
        policy.visibility_timeout.FromTimedelta(_VISIBILITY)
        policy.backoff.FromTimedelta(_BACKOFF)
        policy.max_backoff.FromTimedelta(_MAX_BACKOFF)
        while True:
            try:
                await self._queues.declare(queue, policy)
            except rpc.Unavailable:
                await asyncio.sleep(_AGAIN)
            else:
                return self._delivery.internal(queue, handle, credit=_CREDIT)


def _check_name(name: str, field: str) -> None:
    if not _NAME.fullmatch(name):
        raise rpc.InvalidArgument(
            'must be 1 to 128 characters of a-z, 0-9, "-", "_" and "."', field=field
        )
