"""The protobuf wire form, as far as requests are put together and replies taken apart by hand.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.descriptor import FieldDescriptor

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_SEVEN_BITS = 0x7F
_LONGEST_VARINT = 70  # bits


def varint(number: int) -> bytes:
    """Base-128 varint of a number that is not negative."""
    out = bytearray()
    while number > _SEVEN_BITS:
        out.append(number & _SEVEN_BITS | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(field: FieldDescriptor, wire_type: int) -> bytes:
    """What precedes a value of a field."""
    return varint(field.number << 3 | wire_type)


def delimited(field: FieldDescriptor, payload: bytes) -> bytes:
    """A field whose length is written before it: a string, bytes or a message."""
    return tag(field, LENGTH) + varint(len(payload)) + payload


def nested(parents: Sequence[FieldDescriptor], payload: bytes) -> bytes:
    """A field inside the messages along a path. Parts of one message merge when they are parsed."""
    for parent in reversed(parents):
        payload = delimited(parent, payload)
    return payload


def submessage(message: bytes, number: int) -> bytes:
    """The message in a field of a message, all its parts together; empty: it is not set.

    Raises:
        ValueError: the bytes are no message, or hold groups, which proto3 has not.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        wire_type = key & 7
        if wire_type == VARINT:
            _, at = _read_varint(message, at)
        elif wire_type == LENGTH:
            size, start = _read_varint(message, at)
            at = start + size
            if key >> 3 == number:
                parts.append(message[start:at])
        elif wire_type in _FIXED_SIZES:
            at += _FIXED_SIZES[wire_type]
        else:
            raise ValueError("unexpected wire type")
    if at != len(message):
        raise ValueError("truncated")
    return b"".join(parts)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < _LONGEST_VARINT and at < len(data):
        byte = data[at]
        at += 1
        number |= (byte & _SEVEN_BITS) << shift
        if byte <= _SEVEN_BITS:
            return number, at
        shift += 7
    raise ValueError("bad varint")
