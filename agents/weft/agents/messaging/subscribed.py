"""Handlers of topics: each with a durable subscription and a queue of its own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from google.protobuf.message import Message

from weft.agents.messaging.calls import Calls
from weft.v1 import broker_pb2, message_pb2

TopicHandler = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A subscription: `handler` gets what is published to topics that match `pattern`.

    The handler takes the event, parsed as the message class that its first parameter is annotated with, or the
    MessageDelivery as it came; a second parameter gets the delivery as well.
    """

    pattern: str
    name: str
    handler: TopicHandler

    async def handle(self, delivery: message_pb2.MessageDelivery) -> None:
        """Gives the handler what it takes."""
        given: list[Any] = [delivery]
        kind = self._event()
        if kind is not message_pb2.MessageDelivery:
            given.insert(0, kind.FromString(delivery.message.payload))
        await self.handler(*given[: len(inspect.signature(self.handler).parameters)])

    def _event(self) -> type[Message]:
        hints = get_type_hints(self.handler)
        first = next(iter(inspect.signature(self.handler).parameters), "")
        kind = hints.get(first, message_pb2.MessageDelivery)
        if not (isinstance(kind, type) and issubclass(kind, Message)):
            raise TypeError(
                f"{self.handler!r} must take a message class, and its first parameter is a {kind!r}"
            )
        return kind


async def subscribe(brokers: str, topic: Topic) -> None:
    """Makes the subscription; the same again changes nothing.

    Raises:
        rpc.Error: the broker refuses it, or none is there.
    """
    calls = Calls(brokers)
    subscription = broker_pb2.Subscription(name=topic.name, pattern=topic.pattern, queue=topic.name)
    try:
        await calls(
            "Subscribe", broker_pb2.SubscribeRequest(subscription=subscription, declare=True)
        )
    finally:
        await calls.close()
