"""weft.v1.BrokerService: which object handles which of its methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from weft.broker.speakers import Speakers
from weft.v1 import broker_pb2
from weft.wire.v1 import frames_pb2

_SERVICE = broker_pb2.DESCRIPTOR.services_by_name["BrokerService"]
# What the broker reads of a request where it leaves messages as bytes.
_MIRRORS: Mapping[str, type[Message]] = {
    "Publish": frames_pb2.Publication,
    "PublishStream": frames_pb2.Publications,
    "Request": frames_pb2.Publication,
}
# They name a queue, and are for everybody.
_OPEN = frozenset({"Describe", "ListSubscriptions"})
# Their handlers write frames that are serialized already.
_SERIALIZED = frozenset({"Consume"})


def _as_is(frame: bytes) -> bytes:
    return frame


class BrokerService:
    """The servicer, made of objects that have some of its methods each.

    Args:
        handlers: between them they have every method of the service.
        speakers: who may do what; None: whoever comes.
    """

    def __init__(self, handlers: Sequence[object], speakers: Speakers | None = None) -> None:
        self._speakers = speakers
        self._handlers = handlers

    def add_to(self, _servicer: object, server: Any) -> None:
        """Adds the methods to a server; has the shape of generated `add_...Servicer_to_server` functions."""
        server.add_registered_method_handlers(
            _SERVICE.full_name,
            {
                method.name: self._handler(method)
                for method in _SERVICE.methods
                if any(hasattr(handler, method.name) for handler in self._handlers)
            },
        )

    def _handler(self, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour = next(
            found
            for handler in self._handlers
            if (found := getattr(handler, method.name, None)) is not None
        )
        guarded = "queue" in method.input_type.fields_by_name and method.name not in _OPEN
        if self._speakers is not None and guarded:
            behaviour = self._speakers.guarded(behaviour)
        request = _MIRRORS.get(method.name) or message_factory.GetMessageClass(method.input_type)
        serialize: Callable[[Any], bytes] = (
            _as_is
            if method.name in _SERIALIZED
            else message_factory.GetMessageClass(method.output_type).SerializeToString
        )
        makers: Mapping[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }
        make = makers[method.client_streaming, method.server_streaming]
        return make(
            behaviour, request_deserializer=request.FromString, response_serializer=serialize
        )
