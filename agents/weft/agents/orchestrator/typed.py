"""Messages of any type, as callers give and get them: weft.v1.TypedMessage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from google.protobuf import descriptor_pool, json_format, struct_pb2
from google.protobuf.message import DecodeError, Message

from weft import rpc
from weft.v1.workflow_pb2 import TypedMessage


class Types(Protocol):
    """The message types that a workflow knows; see plan/types.py."""

    @property
    def pool(self) -> descriptor_pool.DescriptorPool:
        """Their descriptors."""
        ...

    def message_class(self, name: str) -> type[Message] | None:
        """The class of a type, by its full name; None: there is none."""
        ...

    def unpack(self, packed: TypedMessage) -> Message | Sequence[Message]:
        """What a TypedMessage holds.

        Raises:
            LookupError: its type is not known.
            ValueError: it is not of its type.
        """
        ...


def wired(message: Message) -> TypedMessage:
    """A message as it is stored. Equal messages are equal byte for byte."""
    return TypedMessage(
        type=message.DESCRIPTOR.full_name, binary=message.SerializeToString(deterministic=True)
    )


def shown(stored: TypedMessage, types: Types, *, binary: bool) -> TypedMessage:
    """A stored message as a caller gets it: as JSON, or as it is where that was asked for or its type is not known."""
    if binary or stored.WhichOneof("form") != "binary":
        return stored
    try:
        held = types.unpack(stored)
        if isinstance(held, Message):
            value = _value(held, types)
        else:
            values = [_value(each, types) for each in held]
            value = struct_pb2.Value(list_value=struct_pb2.ListValue(values=values))
    except (LookupError, ValueError, DecodeError, json_format.Error, TypeError):
        return stored
    return TypedMessage(type=stored.type, json=value)


def _value(message: Message, types: Types) -> struct_pb2.Value:
    value = struct_pb2.Value()
    json_format.ParseDict(json_format.MessageToDict(message, descriptor_pool=types.pool), value)
    return value


def read(given: TypedMessage, types: Types, expected: str, *, field: str) -> Message:
    """The message that a caller gave, of an expected type; an empty one where nothing was given.

    Raises:
        InvalidArgument: it is none of that type.
    """
    if given.type and given.type != expected:
        raise rpc.InvalidArgument(
            f"must be a {expected}, not a {given.type}", field=f"{field}.type"
        )
    kind = types.message_class(expected)
    if kind is None:
        raise rpc.InvalidArgument(f"{expected} is not known", field=f"{field}.type")
    form = given.WhichOneof("form")
    message = kind()
    try:
        if form == "binary":
            message.ParseFromString(given.binary)
        elif form == "json":
            json = json_format.MessageToDict(given.json)
            json_format.ParseDict(json, message, descriptor_pool=types.pool)
    except DecodeError:
        wrong = f"is no serialized {expected}"
        raise rpc.InvalidArgument(wrong, field=f"{field}.binary") from None
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as failed:
        raise rpc.InvalidArgument(str(failed), field=f"{field}.json") from None
    return message
