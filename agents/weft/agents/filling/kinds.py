"""How each part of a message is said in JSON: what schema, reading and writing agree on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    EnumValueDescriptor,
    FieldDescriptor,
    OneofDescriptor,
)

from weft.v1 import options_pb2

F = FieldDescriptor

DEPTH = 3
"""How often a schema has a type within itself."""

_PACKAGE = "google.protobuf."
STRUCT = _PACKAGE + "Struct"
VALUE = _PACKAGE + "Value"
# As text that holds JSON: their keys are free, and schemas have none such.
AS_JSON = frozenset(_PACKAGE + name for name in ("Struct", "Value", "ListValue"))
# As the text that ProtoJSON makes of them.
AS_TEXT = frozenset(_PACKAGE + name for name in ("Timestamp", "Duration", "FieldMask"))
WRAPPERS = frozenset(
    f"{_PACKAGE}{name}Value"
    for name in (
        *("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"),
    )
)
ANY = _PACKAGE + "Any"
TIMESTAMP = _PACKAGE + "Timestamp"
DURATION = _PACKAGE + "Duration"

BITS_64 = frozenset({F.TYPE_INT64, F.TYPE_UINT64, F.TYPE_SINT64, F.TYPE_FIXED64, F.TYPE_SFIXED64})
BITS_32 = frozenset({F.TYPE_INT32, F.TYPE_UINT32, F.TYPE_SINT32, F.TYPE_FIXED32, F.TYPE_SFIXED32})
FLOATS = frozenset({F.TYPE_DOUBLE, F.TYPE_FLOAT})


@functools.lru_cache(maxsize=4_000)
def is_map(field: FieldDescriptor) -> bool:
    """Whether it is a map."""
    entry = field.message_type
    return bool(field.is_repeated and entry is not None and entry.GetOptions().map_entry)


def map_parts(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """The key and the value of a map."""
    assert field.message_type is not None
    fields = field.message_type.fields_by_name
    return fields["key"], fields["value"]


@functools.lru_cache(maxsize=4_000)
def is_required(field: FieldDescriptor) -> bool:
    """Whether its contract says so (google.api.field_behavior)."""
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field.is_required or field_behavior_pb2.REQUIRED in behaviors


@functools.lru_cache(maxsize=4_000)
def must_be_said(field: FieldDescriptor, *, arguments: bool) -> bool:
    """Whether a value has to be there: in an answer, also where nothing could tell none from a zero that was meant."""
    if is_required(field):
        return True
    if arguments or field.is_repeated or field.has_presence:
        return False
    return field.enum_type is None or unspecified(field.enum_type) is None


@functools.lru_cache(maxsize=1_000)
def _optional(descriptor: Descriptor) -> frozenset[str]:
    described = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(described)
    return frozenset(field.name for field in described.field if field.proto3_optional)


def oneof_of(field: FieldDescriptor) -> OneofDescriptor | None:
    """The oneof that it is of; None for `optional` fields, which protoc says by a oneof as well."""
    found = field.containing_oneof
    if found is None or field.name in _optional(field.containing_type):
        return None
    return found


@functools.lru_cache(maxsize=1_000)
def oneofs(descriptor: Descriptor) -> tuple[OneofDescriptor, ...]:
    """Its oneofs, in order."""
    return tuple(each for each in descriptor.oneofs if oneof_of(each.fields[0]) is not None)


@functools.lru_cache(maxsize=1_000)
def plain_fields(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """Its fields that are in no oneof, in order."""
    return tuple(each for each in descriptor.fields if oneof_of(each) is None)


def can_be_said(field: FieldDescriptor) -> bool:
    """Whether JSON for models has it: Any could be anything."""
    given = map_parts(field)[1] if is_map(field) else field
    return given.message_type is None or given.message_type.full_name != ANY


def fits(field: FieldDescriptor, within: Sequence[str], depth: int) -> bool:
    """Whether a schema has it, within messages of these types."""
    if not can_be_said(field):
        return False
    kind = (map_parts(field)[1] if is_map(field) else field).message_type
    return kind is None or within.count(kind.full_name) < depth


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """The type of a field that is an enum."""
    assert field.enum_type is not None
    return field.enum_type


def unspecified(enum: EnumDescriptor) -> EnumValueDescriptor | None:
    """The value that says nothing, which models are not offered."""
    zero = enum.values_by_number.get(0)
    return zero if zero is not None and zero.name.endswith("UNSPECIFIED") else None


def choices(enum: EnumDescriptor) -> Sequence[str]:
    """The names that are offered, one for each number."""
    nothing = unspecified(enum)
    seen: dict[int, str] = {}
    for value in enum.values:
        if nothing is None or value.number != nothing.number:
            seen.setdefault(value.number, value.name)
    return list(seen.values())


def wrapped(descriptor: Descriptor) -> FieldDescriptor:
    """The value of a wrapper."""
    return descriptor.fields_by_name["value"]


@functools.lru_cache(maxsize=4_000)
def hints_of(field: FieldDescriptor) -> Any:
    """What its contract says for models (weft.v1.hints)."""
    return field.GetOptions().Extensions[options_pb2.hints]
