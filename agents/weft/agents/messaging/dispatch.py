"""Hands messages to the agent's own server: the same handler, limits, metrics and traces as a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from weft import rpc
from weft.agents.messaging.settlement import Reject
from weft.rpc.call import IDENTITY_KEY, TRACEPARENT_KEY, Call, serve_as
from weft.rpc.methods import DEFAULT_TIMEOUT, default_timeout
from weft.v1 import message_pb2, options_pb2

MESSAGE_KEY = "weft-message-id"
ATTEMPT_KEY = "weft-attempt"

_BY_MESSAGE = frozenset({options_pb2.DELIVERY_MESSAGE, options_pb2.DELIVERY_BOTH})

Publish = Callable[[message_pb2.Message], Any]


def by_message(service: ServiceDescriptor) -> Mapping[str, options_pb2.Delivery.ValueType]:
    """The methods of a service that take messages, by gRPC path."""
    found = {}
    for method in service.methods:
        delivery = method.GetOptions().Extensions[options_pb2.skill].delivery
        if delivery in _BY_MESSAGE:
            found[f"/{service.full_name}/{method.name}"] = delivery
    return found


class Dispatch:
    """Calls skills with messages.

    Args:
        channel: to the agent's own server.
        skills: gRPC paths it handles.
        publish: publishes answers.
    """

    def __init__(
        self, channel: rpc.Channel, *, skills: Mapping[str, object], publish: Publish
    ) -> None:
        self._publish = publish
        self._skills = {path: channel.unary_unary(path) for path in skills}

    async def __call__(self, delivery: message_pb2.MessageDelivery) -> message_pb2.Reply | None:
        """Handles a message; raises what makes it fail.

        Raises:
            Reject: the agent has no such skill for messages.
            grpc.aio.AioRpcError: what the skill ended with.
        """
        message = delivery.message
        skill = self._skills.get(message.method)
        if skill is None:
            raise Reject("METHOD_UNKNOWN", f"{message.method!r} takes no messages here")
        deadline = rpc.Deadline.after_seconds(self._left(message))
        serve_as(_call(message, deadline))
        response: bytes = await skill(
            message.payload,
            metadata=(
                (MESSAGE_KEY, message.id),
                (ATTEMPT_KEY, str(delivery.attempt)),
            ),
        )
        if message.reply_to:
            await self._publish(_answer(message, response))
        return message_pb2.Reply(payload=response)

    def _left(self, message: message_pb2.Message) -> float:
        """Seconds the skill may take: what its contract says, and not beyond the message's expiry."""
        most = default_timeout(message.method, streaming=False) or DEFAULT_TIMEOUT
        if not message.HasField("expire_time"):
            return most
        left = message.expire_time.ToMilliseconds() / 1000 - time.time()
        return max(0.0, min(most, left))


def _call(message: message_pb2.Message, deadline: rpc.Deadline) -> Call:
    """The call that a message is: calls made while it is handled carry its identity, conversation and trace on."""
    metadata = ((TRACEPARENT_KEY, message.traceparent),) if message.traceparent else ()
    identity = None
    if message.HasField("identity"):
        identity = (IDENTITY_KEY, message.identity.SerializeToString())
    call = Call.at_door(message.method, metadata, deadline, identity)
    if message.conversation:
        call.conversation = message.conversation
    return call


def _answer(message: message_pb2.Message, response: bytes) -> message_pb2.Message:
    return message_pb2.Message(
        id=f"reply:{message.id}"[:128],
        recipient=message.reply_to,
        correlation_id=message.correlation_id or message.id,
        method=message.method,
        traceparent=message.traceparent,
        conversation=message.conversation,
        key=message.key,
        payload=response,
    )


def by_message_only(
    add_to_server: Callable[[Any, Any], None], paths: Mapping[str, object]
) -> Callable[[Any, Any], None]:
    """An `add_...Servicer_to_server` whose methods of `paths` refuse plain calls: they take messages only."""

    def add(servicer: Any, server: Any) -> None:
        add_to_server(servicer, _Guarding(server, frozenset(paths)))

    return add


class _Guarding:
    """Stands before a server while generated code adds its handlers."""

    def __init__(self, server: Any, paths: frozenset[str]) -> None:
        self._server = server
        self._paths = paths

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers come by the other method too."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        guarded = {
            name: _guarded(handler) if f"/{service}/{name}" in self._paths else handler
            for name, handler in handlers.items()
        }
        self._server.add_registered_method_handlers(service, guarded)


def _guarded(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    behaviour = handler.unary_unary
    assert behaviour is not None

    async def guarded(request: Any, context: Any) -> Any:
        call = rpc.current_call()
        if call is None or call.first(MESSAGE_KEY) is None:
            raise rpc.FailedPrecondition(
                "This skill takes durable messages only: send it, as with Mesh.send or `weft send`.",
                reason="BY_MESSAGE_ONLY",
            )
        return await behaviour(request, context)

    return grpc.unary_unary_rpc_method_handler(
        guarded,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
