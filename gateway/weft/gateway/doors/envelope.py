"""Messages in frames: a byte of flags, four of length, the message (Connect streams, gRPC, gRPC-Web)."""

from __future__ import annotations

import struct

from weft import rpc

COMPRESSED = 0x01
_HEAD = struct.Struct(">BI")


class BadFrame(rpc.InvalidArgument):
    """The body is not a sequence of frames."""

    reason = "BAD_FRAME"


class NotOneMessage(rpc.Unimplemented):
    """The method takes exactly one message (gRPC: a violated cardinality is UNIMPLEMENTED)."""

    reason = "NOT_ONE_MESSAGE"


def frame(flags: int, message: bytes) -> bytes:
    """A frame."""
    return _HEAD.pack(flags, len(message)) + message


def only_message(body: bytes) -> tuple[bool, bytes]:
    """The one message of a request, and whether it is compressed.

    Raises:
        BadFrame: a frame is cut, or has flags that a request has not.
        NotOneMessage: there are more messages, or none.
    """
    if not body:
        raise NotOneMessage("The request holds no message; the method takes one.")
    if len(body) < _HEAD.size:
        raise BadFrame(f"A frame begins with {_HEAD.size} bytes; {len(body)} came.")
    flags, length = _HEAD.unpack_from(body)
    if flags & ~COMPRESSED:
        raise BadFrame(f"A frame of a request has no flags {flags:#04x}.")
    came = len(body) - _HEAD.size
    if length > came:
        raise BadFrame(f"The frame says it has {length} bytes; {came} came.")
    if length < came:
        raise NotOneMessage("The request holds more than one message; the method takes one.")
    return bool(flags), body[_HEAD.size :]
