"""Hands messages to the agent's own server: the same handler, limits, metrics and traces as a call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from weft import rpc
from weft.agents.messaging.served import MESSAGE_KEY, call_of, metadata_of
from weft.agents.messaging.settlement import Reject, Retry
from weft.agents.messaging.tracing import processing
from weft.rpc.call import Metadata, serve_as
from weft.rpc.methods import DEFAULT_TIMEOUT, default_timeout
from weft.telemetry import Telemetry
from weft.v1 import message_pb2, options_pb2

if TYPE_CHECKING:
    from weft.rpc.signing import Verifier

CONCURRENCY_LIMIT = "CONCURRENCY_LIMIT"  # reason by which weft.rpc.Server refuses what is too much

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
        agent: whose skills they are; answers are sent in its name.
        skills: gRPC paths it handles.
        publish: publishes answers.
        only: gRPC path of the skill that gets every message, whatever method it names; empty: the one it names.
        queue: where the messages are; by default the agent's.
        verifier: that of the agent's own server, which is told when a message was accepted.
        telemetry: where messages are traced; None: nowhere.
    """

    def __init__(
        self,
        channel: rpc.Channel,
        *,
        agent: str,
        skills: Iterable[str],
        publish: Publish,
        only: str = "",
        queue: str = "",
        verifier: Verifier | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._verifier = verifier
        self._telemetry = telemetry
        self._agent = agent
        self._queue = queue or agent
        self._publish = publish
        self._only = only
        self._skills = {path: channel.unary_unary(path) for path in skills}

    async def __call__(self, delivery: message_pb2.MessageDelivery) -> message_pb2.Reply | None:
        """Handles a message; raises what makes it fail.

        Raises:
            Reject: the agent has no such skill for messages.
            Retry: the agent is at its limit; it was no attempt.
            grpc.aio.AioRpcError: what the skill ended with.
        """
        message = delivery.message
        path = self._only or message.method
        skill = self._skills.get(path)
        if skill is None:
            raise Reject("METHOD_UNKNOWN", f"{path!r} takes no messages here")
        most = default_timeout(path, streaming=False) or DEFAULT_TIMEOUT
        call = call_of(delivery, path, most, queue=self._queue)
        serve_as(call)
        try:
            with processing(self._telemetry, message, self._queue, call, self._agent):
                response: bytes = await skill(message.payload, metadata=self._metadata(delivery))
        except grpc.aio.AioRpcError as failed:
            if failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                _raise_if_not_begun(rpc.error_from_call(failed))
            raise
        if message.reply_to:
            await self._publish(self._answer(message, response))
        return message_pb2.Reply(payload=response)

    def _metadata(self, delivery: message_pb2.MessageDelivery) -> Metadata:
        told = metadata_of(delivery, self._queue)
        if self._verifier is None or not delivery.message.HasField("identity"):
            return told
        return (*told, self._verifier.accepted(delivery.publish_time_ms))

    def _answer(self, message: message_pb2.Message, response: bytes) -> message_pb2.Message:
        # The same for every attempt at the same message, and no other's: a repeated answer is recognised.
        asked = f"{self._queue}\0{message.sender}\0{message.id}"
        return message_pb2.Message(
            id=f"reply-{hashlib.sha256(asked.encode()).hexdigest()[:32]}",
            sender=self._agent,
            recipient=message.reply_to,
            correlation_id=message.id,
            method=message.method,
            traceparent=message.traceparent,
            conversation=message.conversation,
            key=message.key,
            payload=response,
        )


def _raise_if_not_begun(error: rpc.Error) -> None:
    """Overload costs a message no attempt: else a busy hour would send it to the dead letters."""
    if isinstance(error, rpc.ResourceExhausted) and error.reason == CONCURRENCY_LIMIT:
        raise Retry(error.message, delay=error.retry_after, unused=True)


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
