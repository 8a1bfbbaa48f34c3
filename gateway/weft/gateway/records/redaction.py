"""Messages as logs may hold them: without the values of fields that are secret.

A field is secret by its option `(weft.v1.hints) = {secret: true}`, or protobuf's own `debug_redact`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from weft import rpc
from weft.gateway.transcoding.catalog import Method
from weft.v1 import options_pb2

SECRET = "[secret]"  # noqa: S105 what stands in its place
_MOST = 8 * 1024  # bytes of JSON in a line
_DEPTH = 64


class Redaction:
    """Shows messages without their secrets."""

    def shown(self, method: Method, request: bytes) -> Any:
        """A request of a method as a value for JSON; its size where it cannot be shown, or is too large."""
        omitted = {"@bytes": len(request)}
        if len(request) > _MOST:
            return omitted
        try:
            if has_secrets(method.input):
                message = message_factory.GetMessageClass(method.input)()
                message.ParseFromString(request)
                message.DiscardUnknownFields()
                _clear(message, method.schema.pool.FindMessageTypeByName, _DEPTH)
                request = message.SerializeToString()
            text = method.request_codec.to_json(request)
        except (rpc.Error, DecodeError, ValueError, RecursionError):
            return omitted
        return orjson.loads(text) if len(text) <= _MOST else omitted


@functools.lru_cache(maxsize=4096)
def has_secrets(message: Descriptor) -> bool:
    """Whether a message of this type can hold a secret; one that can hold any type can."""
    seen: set[str] = set()
    waiting = [message]
    while waiting:
        each = waiting.pop()
        if each.full_name in seen:
            continue
        seen.add(each.full_name)
        if each.full_name == any_pb2.Any.DESCRIPTOR.full_name or each.is_extendable:
            return True
        for field in each.fields:
            if is_secret(field):
                return True
            if field.message_type is not None:
                waiting.append(field.message_type)
    return False


@functools.lru_cache(maxsize=16_384)
def is_secret(field: FieldDescriptor) -> bool:
    """Whether the value of a field is never logged, traced or shown."""
    options = field.GetOptions()
    return bool(options.debug_redact or options.Extensions[options_pb2.hints].secret)


def _clear(message: Message, find: Callable[[str], Descriptor], depth: int) -> None:
    if not depth:
        raise RecursionError("nested too deep")
    if isinstance(message, any_pb2.Any) or message.DESCRIPTOR.full_name == "google.protobuf.Any":
        _clear_any(message, find, depth)
        return
    for field, value in message.ListFields():
        if is_secret(field):
            _blank(message, field)
            continue
        for held in _messages(field, value):
            _clear(held, find, depth - 1)


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    """The messages that the value of a field holds."""
    kind = field.message_type
    if kind is None:
        return ()
    if not kind.GetOptions().map_entry:
        found: Iterable[Message] = value if field.is_repeated else (value,)
        return found
    of_map: Iterable[Message] = value.values()
    return of_map if kind.fields_by_name["value"].message_type is not None else ()


def _clear_any(message: Any, find: Callable[[str], Descriptor], depth: int) -> None:
    name = message.type_url.rpartition("/")[2]
    try:
        kind = find(name)
    except KeyError:  # nobody can tell what is in it
        message.Clear()
        return
    held = message_factory.GetMessageClass(kind)()
    held.ParseFromString(message.value)
    held.DiscardUnknownFields()
    _clear(held, find, depth - 1)
    message.value = held.SerializeToString()


def _blank(message: Message, field: FieldDescriptor) -> None:
    """Says that there was a value, where its type lets."""
    message.ClearField(field.name)
    if field.message_type is not None:
        return
    if field.type == FieldDescriptor.TYPE_STRING:
        blank: Any = SECRET
    elif field.type == FieldDescriptor.TYPE_BYTES:
        blank = SECRET.encode()
    else:
        return
    if field.is_repeated:
        getattr(message, field.name).append(blank)
    else:
        setattr(message, field.name, blank)
