"""google.api.HttpBody: a message that stands for a body of any content type."""

from __future__ import annotations

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from weft import rpc
from weft.gateway.transcoding import wire


def is_raw(message: Descriptor | None) -> bool:
    """Whether a message is an HttpBody."""
    return message is not None and message.full_name == HttpBody.DESCRIPTOR.full_name


def raw_of(message: Descriptor, field: FieldDescriptor | None) -> bool:
    """Whether a message, or the field of it that a rule names, is one HttpBody."""
    if field is None:
        return is_raw(message)
    return is_raw(field.message_type) and not field.is_repeated


def to_wire(content_type: str, body: bytes, field: FieldDescriptor | None) -> bytes:
    """A body as HttpBody, in the field of a message where one is given."""
    made = HttpBody(content_type=content_type, data=body).SerializeToString()
    return made if field is None else wire.delimited(field, made)


def from_wire(reply: bytes, field: FieldDescriptor | None) -> tuple[str, bytes]:
    """Content type and body of a reply that is an HttpBody, or holds one in a field.

    Raises:
        rpc.Internal: the bytes are no such message.
    """
    try:
        found = HttpBody.FromString(
            reply if field is None else wire.submessage(reply, field.number)
        )
    except (DecodeError, ValueError):
        raise rpc.Internal("The reply is not a valid message.", reason="BAD_REPLY") from None
    return found.content_type, found.data
