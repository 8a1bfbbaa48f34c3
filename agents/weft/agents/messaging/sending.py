"""Sends skills as durable messages: what `weft.agents.Mesh` offers beside the stubs."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import Message as AnyMessage

from weft import rpc
from weft.agents.messaging.calls import Calls
from weft.agents.messaging.publisher import Publisher, Receipt
from weft.agents.messaging.skills import Method, RequestT, ResponseT, skill_of
from weft.agents.messaging.tracing import sending
from weft.rpc import error_from_status
from weft.rpc.call import RUN_KEY
from weft.telemetry import Telemetry
from weft.v1 import broker_pb2, message_pb2

_WAIT = timedelta(seconds=30)


class NoBroker(rpc.FailedPrecondition):
    """This process was given no broker, so that it cannot send messages; set WEFT_BROKER."""

    reason = "NO_BROKER"


class Sending:
    """Sends messages to agents and topics. Connects at the first use.

    Args:
        brokers: "host:port" of each broker, joined by commas; empty: there is none, and sending is an error.
        sender: who sends.
        telemetry: where messages are traced; None: nowhere.
    """

    def __init__(self, brokers: str, *, sender: str, telemetry: Telemetry | None = None) -> None:
        self._telemetry = telemetry
        self._brokers = brokers
        self._sender = sender
        self._publisher: Publisher | None = None
        self._calls: Calls | None = None

    async def close(self) -> None:
        """Waits until all is accepted, and disconnects."""
        publisher, self._publisher = self._publisher, None
        calls, self._calls = self._calls, None
        if publisher is not None:
            await publisher.close()
        if calls is not None:
            await calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def send(
        self,
        method: Method[RequestT, Any],
        request: RequestT,
        *,
        to: str = "",
        id: str = "",  # noqa: A002 the CloudEvents name
        key: str = "",
        delay: timedelta | None = None,
        expires_in: timedelta | None = None,
        priority: message_pb2.Priority.ValueType = message_pb2.PRIORITY_UNSPECIFIED,
        durability: message_pb2.Durability.ValueType = message_pb2.DURABILITY_UNSPECIFIED,
        reply_to: str = "",
    ) -> Receipt:
        """Sends a request to a skill and returns when it is accepted: it will be handled, at least once.

        Args:
            method: of the generated Servicer, such as TriageServiceServicer.Classify.
            request: its request.
            to: agent that handles it; by default the one its contract names.
            id: the same one again is the same message.
            key: messages of one key are handled in order.
            delay: not handled before.
            expires_in: not handled after.
            priority: how urgent it is.
            durability: what it survives once accepted; by default what its queue says.
            reply_to: queue the response is published to.

        Raises:
            rpc.Error: it was not accepted.
        """
        skill = skill_of(method)
        message = _message(request, key=key, id=id, delay=delay, expires_in=expires_in)
        message.recipient, message.method = to or skill.agent, skill.path
        message.priority, message.durability = priority, durability
        message.reply_to = reply_to
        return await self.publish_message(message)

    async def publish(
        self,
        topic: str,
        event: AnyMessage,
        *,
        id: str = "",  # noqa: A002 the CloudEvents name
        key: str = "",
        delay: timedelta | None = None,
        expires_in: timedelta | None = None,
    ) -> Receipt:
        """Publishes an event to a topic; every subscription that matches gets a copy."""
        message = _message(event, key=key, id=id, delay=delay, expires_in=expires_in)
        message.topic = topic
        return await self.publish_message(message)

    async def publish_message(self, message: message_pb2.Message) -> Receipt:
        """Publishes a message made by hand. Raises what `send` does."""
        if not self._brokers:
            raise NoBroker
        if self._publisher is None:
            self._publisher = Publisher(self._brokers, sender=self._sender)
            await self._publisher.__aenter__()
        with sending(self._telemetry, message):
            return await self._publisher.publish(message)

    async def request(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        *,
        to: str = "",
        id: str = "",  # noqa: A002 the CloudEvents name
        key: str = "",
        within: timedelta = _WAIT,
        priority: message_pb2.Priority.ValueType = message_pb2.PRIORITY_UNSPECIFIED,
    ) -> ResponseT:
        """Sends a request to a skill and waits for its response; the broker may die on the way, and so may the agent.

        Args: as those of `send`; `within`: how long it waits, or until the current deadline.

        Raises:
            rpc.Error: what the handler ended with; DeadlineExceeded: nobody answered in time.
        """
        skill = skill_of(method)
        message = _message(request, key=key, id=id or uuid.uuid4().hex, sender=self._sender)
        message.recipient, message.method, message.priority = (
            to or skill.agent,
            skill.path,
            priority,
        )
        deadline = rpc.Deadline.after(within).min(rpc.Deadline.current())
        with deadline.applied(), sending(self._telemetry, message):
            answer = await self._call("Request", broker_pb2.RequestRequest(message=message))
        reply: message_pb2.Reply = answer.reply
        if reply.WhichOneof("outcome") == "error":
            raise error_from_status(reply.error)
        return skill.response.FromString(reply.payload)  # type: ignore[return-value]  # that of the method

    async def broadcast(
        self,
        pattern: str,
        method: Method[RequestT, Any],
        request: RequestT,
        *,
        id: str = "",  # noqa: A002 the CloudEvents name
    ) -> list[str]:
        """Sends a request to every agent whose name matches; the names of those that get it."""
        message = _message(request, id=id or uuid.uuid4().hex, sender=self._sender)
        message.method = skill_of(method).path
        with sending(self._telemetry, message):
            answer = await self._call(
                "Broadcast", broker_pb2.BroadcastRequest(message=message, pattern=pattern)
            )
        return list(answer.queues)

    async def _call(self, name: str, request: Any) -> Any:
        if self._calls is None:
            if not self._brokers:
                raise NoBroker
            self._calls = Calls(self._brokers)
        return await self._calls(name, request)


def _message(
    content: AnyMessage,
    *,
    id: str = "",  # noqa: A002 the CloudEvents name
    key: str = "",
    sender: str = "",
    delay: timedelta | None = None,
    expires_in: timedelta | None = None,
) -> message_pb2.Message:
    message = message_pb2.Message(
        id=id, key=key, sender=sender, payload=content.SerializeToString()
    )
    now = datetime.now(UTC)
    message.time.FromDatetime(now)
    if delay is not None:
        message.not_before.FromDatetime(now + delay)
    if expires_in is not None:
        message.expire_time.FromDatetime(now + expires_in)
    call = rpc.current_call()
    if call is not None:
        message.traceparent, message.conversation = call.traceparent, call.conversation
        if call.run:
            message.attributes[RUN_KEY] = call.run
        if identity := call.identity_to_pass_on:
            message.identity.CopyFrom(identity)
    return message
