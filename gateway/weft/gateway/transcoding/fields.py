"""Fields of messages by the names that JSON, paths and queries give them."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.descriptor import Descriptor, FieldDescriptor

# Message types whose JSON is not an object of their fields, and what it is instead.
# https://protobuf.dev/programming-guides/json
SPECIAL_JSON = {
    "google.protobuf.Any": 'an object with "@type" naming a known message',
    "google.protobuf.Timestamp": 'an RFC 3339 time such as "2026-01-31T12:00:00Z"',
    "google.protobuf.Duration": 'seconds such as "1.5s"',
    "google.protobuf.FieldMask": 'field paths such as "user.displayName,photo"',
    "google.protobuf.Struct": "an object",
    "google.protobuf.Value": "a JSON value",
    "google.protobuf.ListValue": "an array",
    "google.protobuf.DoubleValue": "a number",
    "google.protobuf.FloatValue": "a number",
    "google.protobuf.Int64Value": "an integer of 64 bits",
    "google.protobuf.UInt64Value": "an integer of 64 bits, not negative",
    "google.protobuf.Int32Value": "an integer of 32 bits",
    "google.protobuf.UInt32Value": "an integer of 32 bits, not negative",
    "google.protobuf.BoolValue": "true or false",
    "google.protobuf.StringValue": "a string",
    "google.protobuf.BytesValue": "a base64 string",
}

F = FieldDescriptor
_SCALARS = {
    F.TYPE_DOUBLE: "a number",
    F.TYPE_FLOAT: "a number",
    F.TYPE_BOOL: "true or false",
    F.TYPE_STRING: "a string",
    F.TYPE_BYTES: "a base64 string",
    **dict.fromkeys(
        (F.TYPE_INT64, F.TYPE_SINT64, F.TYPE_SFIXED64), SPECIAL_JSON["google.protobuf.Int64Value"]
    ),
    **dict.fromkeys((F.TYPE_UINT64, F.TYPE_FIXED64), SPECIAL_JSON["google.protobuf.UInt64Value"]),
    **dict.fromkeys(
        (F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32), SPECIAL_JSON["google.protobuf.Int32Value"]
    ),
    **dict.fromkeys((F.TYPE_UINT32, F.TYPE_FIXED32), SPECIAL_JSON["google.protobuf.UInt32Value"]),
}
_LISTED_VALUES = 12


def by_any_name(message: Descriptor) -> dict[str, FieldDescriptor]:
    """The fields of a message by their name in the .proto and by their name in JSON."""
    names = {field.json_name: field for field in message.fields}
    names.update(message.fields_by_name)
    return names


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    entry = field.message_type
    return field.is_repeated and entry is not None and entry.GetOptions().map_entry


def is_plain_message(field: FieldDescriptor) -> bool:
    """Whether a field holds one message whose JSON is an object of its fields."""
    kind = field.message_type
    return not field.is_repeated and kind is not None and kind.full_name not in SPECIAL_JSON


def expectation(field: FieldDescriptor) -> str:
    """What one value of a field looks like in JSON, for people."""
    if field.message_type is not None:
        return SPECIAL_JSON.get(field.message_type.full_name, "an object")
    if field.enum_type is not None:
        names = [value.name for value in field.enum_type.values]
        more = ", ..." if len(names) > _LISTED_VALUES else ""
        return f"one of {', '.join(names[:_LISTED_VALUES])}{more}"
    return _SCALARS[field.type]


def resolve(message: Descriptor, path: Sequence[str]) -> tuple[FieldDescriptor, ...]:
    """The fields along a path that leads through single messages.

    Raises:
        LookupError: there is no such field; the text says which.
    """
    found: list[FieldDescriptor] = []
    at: Descriptor | None = message
    for depth, name in enumerate(path):
        if at is None:
            raise LookupError(f"{'.'.join(path[:depth])!r} has no fields of its own")
        field = by_any_name(at).get(name)
        if field is None:
            raise LookupError(f"{at.full_name} has no field {name!r}")
        found.append(field)
        at = field.message_type if is_plain_message(field) else None
    return tuple(found)
