"""Handlers of topics: each with a durable subscription and a queue of its own."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_type_hints

from google.protobuf.message import DecodeError, Message

from weft import rpc
from weft.agents.messaging.calls import Calls
from weft.agents.messaging.consumer import Handler
from weft.agents.messaging.served import call_of
from weft.agents.messaging.settlement import Reject
from weft.rpc.call import serve_as
from weft.v1 import broker_pb2, message_pb2

log = logging.getLogger("weft.agents")

MessageDelivery = message_pb2.MessageDelivery
if TYPE_CHECKING:
    from weft.mtls import Credentials
    from weft.rpc.signing import Verifier

TopicHandler = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A subscription: what is published to topics that match `pattern` is handled from a queue of this name.

    Attributes:
        pattern: words joined by dots; "*" stands for one, ">" at the end for one or more.
        name: of the subscription and its queue.
        agent: whose it is.
        handle: handles a message, or the gRPC path of the skill that does.
    """

    pattern: str
    name: str
    agent: str
    handle: Handler | str


def typed(handler: TopicHandler, queue: str, verifier: Verifier | None = None) -> Handler:
    """What takes messages for a function of events.

    The function takes the event, parsed as the message class that its first parameter is annotated with, or the
    MessageDelivery as it came; a second parameter gets the delivery as well. While it runs, `current_call()` is the
    message: its identity, conversation and trace.

    Args:
        handler: the function.
        queue: where the messages are.
        verifier: believes in whose name they are sent; None: whoever they name is believed.

    Raises:
        TypeError: its parameters are others.
    """
    parameters = inspect.signature(handler).parameters
    kind = get_type_hints(handler).get(next(iter(parameters), ""), MessageDelivery)
    if not (isinstance(kind, type) and issubclass(kind, Message)):
        raise TypeError(
            f"{handler!r} must take a message class, and its first parameter is {kind!r}"
        )
    most = 1 if kind is MessageDelivery else 2
    if not 1 <= len(parameters) <= most:
        raise TypeError(f"{handler!r} must take {most} parameters at most, and one at least")
    with_delivery = len(parameters) > 1

    async def handle(delivery: message_pb2.MessageDelivery) -> None:
        event: Message = delivery
        if kind is not MessageDelivery:
            try:
                event = kind.FromString(delivery.message.payload)
            except DecodeError:
                raise Reject("PAYLOAD_MALFORMED", f"it is no {kind.DESCRIPTOR.full_name}") from None
        call = call_of(delivery, delivery.message.method, math.inf, queue=queue)
        if verifier is not None:
            verifier.admit(call, accepted_ms=delivery.publish_time_ms)
        serve_as(call)
        await (handler(event, delivery) if with_delivery else handler(event))

    return handle


async def subscribe(brokers: str, topic: Topic, *, mtls: Credentials | None = None) -> None:
    """Makes the subscription, as soon as a broker is there; the same again changes nothing.

    Raises:
        rpc.Error: the broker refuses it.
    """
    calls = Calls(brokers, mtls=mtls)
    subscription = broker_pb2.Subscription(name=topic.name, pattern=topic.pattern, queue=topic.name)
    request = broker_pb2.SubscribeRequest(subscription=subscription, declare=True)
    try:
        while True:
            try:
                await calls("Subscribe", request)
            except (rpc.Unavailable, rpc.DeadlineExceeded):
                log.warning("no broker to subscribe at", extra={"topic": topic.pattern})
            else:
                return
    finally:
        await calls.close()
