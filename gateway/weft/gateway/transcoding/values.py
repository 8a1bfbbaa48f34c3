"""Text of a path or a query parameter to the wire form of a field, with its tag.

A value is always written, also where it is the field's default: the parser of a request merges its parts
in order, and a path must win over a body also when it says 0. Lists are written element by element, which
every parser takes for a packed field too (https://protobuf.dev/programming-guides/encoding#packed).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Callable

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from weft.gateway.transcoding import wire
from weft.gateway.transcoding.fields import SPECIAL_JSON, expectation
from weft.gateway.transcoding.json_codec import MISFIT

Encode = Callable[[str], bytes]
"""Tag and value of a field from text. Raises ValueError saying what is expected."""

F = FieldDescriptor
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_AFTER_UNDERSCORE = re.compile("_([a-z0-9])")
_BOOLEANS = ("true", "false")
_NON_FINITE = ("NaN", "Infinity", "-Infinity")
_LONGEST_NUMBER = 400  # characters; a double needs at most 324 digits

# Bits and signedness of the integers, with how each is written.
_INTEGERS: dict[int, tuple[int, bool, int, str]] = {
    F.TYPE_INT32: (32, True, wire.VARINT, "plain"),
    F.TYPE_INT64: (64, True, wire.VARINT, "plain"),
    F.TYPE_UINT32: (32, False, wire.VARINT, "plain"),
    F.TYPE_UINT64: (64, False, wire.VARINT, "plain"),
    F.TYPE_SINT32: (32, True, wire.VARINT, "zigzag"),
    F.TYPE_SINT64: (64, True, wire.VARINT, "zigzag"),
    F.TYPE_FIXED32: (32, False, wire.FIXED32, "<I"),
    F.TYPE_FIXED64: (64, False, wire.FIXED64, "<Q"),
    F.TYPE_SFIXED32: (32, True, wire.FIXED32, "<i"),
    F.TYPE_SFIXED64: (64, True, wire.FIXED64, "<q"),
}
# Types whose JSON in a query is the text itself, and those whose JSON is a string.
_RAW_JSON = frozenset(
    f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue", "BoolValue")
)


def scalar_encoder(field: FieldDescriptor) -> Encode:
    """The encoder of a field that is no message.

    Raises:
        LookupError: it is one.
    """
    if (layout := _INTEGERS.get(field.type)) is not None:
        return _integer(field, *layout)
    if field.enum_type is not None:
        return _enum(field, field.enum_type)
    makers: dict[int, Callable[[FieldDescriptor], Encode]] = {
        F.TYPE_STRING: lambda each: lambda text: wire.delimited(each, text.encode()),
        F.TYPE_BYTES: lambda each: lambda text: wire.delimited(each, _base64(text)),
        F.TYPE_BOOL: _boolean,
        F.TYPE_FLOAT: lambda each: _float(each, "<f", wire.FIXED32),
        F.TYPE_DOUBLE: lambda each: _float(each, "<d", wire.FIXED64),
    }
    return makers[field.type](field)


def has_text_form(message: Descriptor) -> bool:
    """Whether a message is one JSON value that a query parameter can hold."""
    return message.full_name in SPECIAL_JSON and message.full_name != "google.protobuf.Any"


def json_encoder(field: FieldDescriptor, parse: Callable[[bytes], bytes]) -> Encode:
    """The encoder of a message with a JSON form of its own, which `parse` turns into wire form."""
    name = field.message_type.full_name if field.message_type else ""

    def encode(text: str) -> bytes:
        if name == "google.protobuf.FieldMask":
            # Clients write the names of the .proto as often as those of JSON; the wire has the former.
            text = _AFTER_UNDERSCORE.sub(lambda found: found.group(1).upper(), text)
        if name == "google.protobuf.BoolValue" and text not in _BOOLEANS:
            raise ValueError("expects true or false")
        body = text if name in _RAW_JSON else json.dumps(text)
        try:
            return wire.delimited(field, parse(body.encode()))
        except MISFIT:
            raise ValueError(f"expects {SPECIAL_JSON[name]}") from None

    return encode


def _integer(field: F, bits: int, signed: bool, wire_type: int, how: str) -> Encode:  # noqa: FBT001  a row of the table
    tag = wire.tag(field, wire_type)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    problem = f"expects {expectation(field)}"

    def encode(text: str) -> bytes:
        if not _INTEGER.fullmatch(text) or not low <= (number := int(text)) <= high:
            raise ValueError(problem)
        if how == "plain":
            return tag + wire.varint(number & 0xFFFF_FFFF_FFFF_FFFF)
        if how == "zigzag":
            return tag + wire.varint(number << 1 if number >= 0 else (-number << 1) - 1)
        return tag + struct.pack(how, number)

    return encode


def _enum(field: F, enum: EnumDescriptor) -> Encode:
    tag = wire.tag(field, wire.VARINT)
    numbers = {value.name: value.number for value in enum.values}
    known = frozenset(numbers.values())
    problem = f"expects {expectation(field)}"

    def encode(text: str) -> bytes:
        number = numbers.get(text)
        if number is None:
            if not _INTEGER.fullmatch(text):
                raise ValueError(problem)
            number = int(text)
            if not -(1 << 31) <= number < 1 << 31 or (enum.is_closed and number not in known):
                raise ValueError(problem)
        return tag + wire.varint(number & 0xFFFF_FFFF_FFFF_FFFF)

    return encode


def _boolean(field: F) -> Encode:
    tag = wire.tag(field, wire.VARINT)

    def encode(text: str) -> bytes:
        if text not in _BOOLEANS:
            raise ValueError("expects true or false")
        return tag + (b"\1" if text == "true" else b"\0")

    return encode


def _float(field: F, how: str, wire_type: int) -> Encode:
    tag = wire.tag(field, wire_type)

    def encode(text: str) -> bytes:
        try:
            if text in _NON_FINITE:
                return tag + struct.pack(how, float(text))
            if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text):
                number = float(text)
                if math.isfinite(number):
                    return tag + struct.pack(how, number)
        except OverflowError:  # does not fit a float
            pass
        raise ValueError("expects a number")

    return encode


def _base64(text: str) -> bytes:
    """Standard and URL-safe alphabets, padding optional, as ProtoJSON has it."""
    try:
        standard = text.replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("expects a base64 string") from None
