"""A request to fill in: JSON with every field, each with its type beside it in a comment."""

from __future__ import annotations

import json
from collections.abc import Iterator

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from weft.v1 import options_pb2

_INDENT = "  "
# google.protobuf types with a JSON form of their own (ProtoJSON): value to show, type in words.
_WELL_KNOWN = {
    "google.protobuf.Timestamp": ('"2030-01-31T12:00:00Z"', "RFC 3339 time"),
    "google.protobuf.Duration": ('"1.5s"', "duration in seconds"),
    "google.protobuf.FieldMask": ('""', "comma-separated field paths"),
    "google.protobuf.Struct": ("{}", "any object"),
    "google.protobuf.Value": ("null", "any value"),
    "google.protobuf.ListValue": ("[]", "any list"),
    "google.protobuf.Any": ('{"@type": ""}', "any message, named by its @type"),
    "google.protobuf.Empty": ("{}", "empty"),
}
_SCALARS = {
    FieldDescriptor.TYPE_DOUBLE: ("0.0", "double"),
    FieldDescriptor.TYPE_FLOAT: ("0.0", "float"),
    FieldDescriptor.TYPE_INT64: ('"0"', "int64"),
    FieldDescriptor.TYPE_UINT64: ('"0"', "uint64"),
    FieldDescriptor.TYPE_INT32: ("0", "int32"),
    FieldDescriptor.TYPE_FIXED64: ('"0"', "fixed64"),
    FieldDescriptor.TYPE_FIXED32: ("0", "fixed32"),
    FieldDescriptor.TYPE_BOOL: ("false", "bool"),
    FieldDescriptor.TYPE_STRING: ('""', "string"),
    FieldDescriptor.TYPE_BYTES: ('""', "bytes in base64"),
    FieldDescriptor.TYPE_UINT32: ("0", "uint32"),
    FieldDescriptor.TYPE_SFIXED32: ("0", "sfixed32"),
    FieldDescriptor.TYPE_SFIXED64: ('"0"', "sfixed64"),
    FieldDescriptor.TYPE_SINT32: ("0", "sint32"),
    FieldDescriptor.TYPE_SINT64: ('"0"', "sint64"),
}


def render(message: Descriptor) -> str:
    """The template of a message. Of a oneof the first field is filled in, the others are commented out."""
    return "\n".join(_object(message, 0, "", (message.full_name,)))


def _object(message: Descriptor, depth: int, about: str, inside: tuple[str, ...]) -> Iterator[str]:
    yield "{" + _comment(about)
    for position, field in enumerate(message.fields):
        last = position == len(message.fields) - 1
        lines = list(_field(field, depth + 1, inside))
        lines[0] = f"{_INDENT * (depth + 1)}{json.dumps(field.json_name)}: {lines[0]}"
        if not last:
            lines[-1] = _with_comma(lines[-1])
        oneof = field.containing_oneof
        if oneof is not None and oneof.fields[0] is not field and len(oneof.fields) > 1:
            lines = [f"// {line}" for line in lines]
        yield from lines
    yield _INDENT * depth + "}"


def _field(field: FieldDescriptor, depth: int, inside: tuple[str, ...]) -> Iterator[str]:
    notes = _notes(field)
    kind = field.message_type
    if _is_map(field):
        assert kind is not None
        entry = kind.fields_by_name
        kinds = f"{_type(entry['key'])} to {_type(entry['value'])}"
        yield "{}" + _comment(f"map of {kinds}{notes}")
        return
    if field.is_repeated:
        if kind is None or kind.full_name in _WELL_KNOWN or kind.full_name in inside:
            yield "[]" + _comment(f"list of {_type(field)}{notes}")
            return
        first, *rest = _object(
            kind, depth, f"list of {kind.name}{notes}", (*inside, kind.full_name)
        )
        yield "[" + first
        yield from rest[:-1]
        yield rest[-1] + "]"
        return
    if kind is None:
        yield _scalar(field) + _comment(_type(field) + notes)
    elif kind.full_name in _WELL_KNOWN:
        value, words = _WELL_KNOWN[kind.full_name]
        yield value + _comment(words + notes)
    elif kind.full_name in inside:
        yield "{}" + _comment(f"{kind.name} again{notes}")
    else:
        yield from _object(kind, depth, f"{kind.name}{notes}", (*inside, kind.full_name))


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _scalar(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return json.dumps(field.enum_type.values[0].name)
    return _SCALARS[field.type][0]


def _type(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return " | ".join(value.name for value in field.enum_type.values)
    if field.message_type is not None:
        name = field.message_type.full_name
        return _WELL_KNOWN[name][1] if name in _WELL_KNOWN else str(field.message_type.name)
    return _SCALARS[field.type][1]


def _notes(field: FieldDescriptor) -> str:
    options = field.GetOptions()
    notes = ""
    if field_behavior_pb2.REQUIRED in options.Extensions[field_behavior_pb2.field_behavior]:
        notes += ", required"
    oneof = field.containing_oneof
    if oneof is not None and len(oneof.fields) > 1:
        notes += f", one of {oneof.name}"
    if described := options.Extensions[options_pb2.hints].description:
        notes += f": {described}"
    return notes


def _comment(text: str) -> str:
    return f"  // {text}" if text else ""


def _with_comma(line: str) -> str:
    head, mark, tail = line.partition("  // ")
    return f"{head},{mark}{tail}"
