"""JSON schemas of messages, as ProtoJSON writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from weft.gateway.transcoding.fields import is_map
from weft.v1 import options_pb2

Json = dict[str, Any]
F = FieldDescriptor


def _wide(least: int, most: int, kind: str) -> Json:
    """A 64-bit integer: a string in ProtoJSON, since JavaScript has no such number; parsers take a number too."""
    sign = "-?" if least else ""
    pattern = f"^{sign}({'|'.join(_up_to(str(most)))})$"
    if least:
        pattern = f"{pattern}|^{least}$"
    return {
        "type": ["string", "integer"],
        "format": kind,
        "pattern": pattern,
        "minimum": least,
        "maximum": most,
    }


def _up_to(most: str) -> Iterator[str]:
    """Expressions of the numbers from 0 to `most`, in decimal without leading zeros."""
    yield "0"
    yield f"[1-9][0-9]{{0,{len(most) - 2}}}"
    for place, digit in enumerate(most):
        least = 0 if place else 1
        if int(digit) > least:
            rest = len(most) - place - 1
            further = f"[0-9]{{{rest}}}" if rest else ""
            yield f"{most[:place]}[{least}-{int(digit) - 1}]{further}"
    yield most


_INT64: Mapping[str, Any] = _wide(-(2**63), 2**63 - 1, "int64")
_UINT64: Mapping[str, Any] = _wide(0, 2**64 - 1, "uint64")
_INT32: Mapping[str, Any] = {"type": "integer", "format": "int32"}
# Of AIP-158: empty, or what the list before gave as `nextPageToken`.
_PAGE_TOKEN = "page-token"  # noqa: S105 no secret, a format

_UINT32: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": 4294967295}
_BYTES: Mapping[str, Any] = {"type": "string", "format": "byte", "contentEncoding": "base64"}
_SCALARS: Mapping[int, Mapping[str, Any]] = MappingProxyType(
    {
        F.TYPE_DOUBLE: {"type": "number", "format": "double"},
        F.TYPE_FLOAT: {"type": "number", "format": "float"},
        F.TYPE_BOOL: {"type": "boolean"},
        F.TYPE_STRING: {"type": "string"},
        F.TYPE_BYTES: _BYTES,
        **dict.fromkeys((F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32), _INT32),
        **dict.fromkeys((F.TYPE_UINT32, F.TYPE_FIXED32), _UINT32),
        **dict.fromkeys((F.TYPE_INT64, F.TYPE_SINT64, F.TYPE_SFIXED64), _INT64),
        **dict.fromkeys((F.TYPE_UINT64, F.TYPE_FIXED64), _UINT64),
    }
)


def _or_null(schema: Mapping[str, Any]) -> Json:
    kinds = schema["type"]
    return {**schema, "type": [*(kinds if isinstance(kinds, list) else [kinds]), "null"]}


_SPECIAL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
        "google.protobuf.Duration": {
            "type": "string",
            "pattern": r"^-?[0-9]{1,11}(\.[0-9]{1,9})?s$",  # all of 10,000 years but the last third
            "examples": ["1.5s"],
        },
        "google.protobuf.FieldMask": {
            "type": "string",
            "description": "Field paths in lowerCamelCase, separated by commas.",
        },
        "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
        "google.protobuf.Value": {"description": "Any JSON value."},
        "google.protobuf.ListValue": {"type": "array", "items": {}},
        "google.protobuf.Any": {
            "type": "object",
            "properties": {"@type": {"type": "string", "description": "Type of the message."}},
            "additionalProperties": True,
        },
        "google.protobuf.DoubleValue": _or_null(_SCALARS[F.TYPE_DOUBLE]),
        "google.protobuf.FloatValue": _or_null(_SCALARS[F.TYPE_FLOAT]),
        "google.protobuf.Int64Value": _or_null(_INT64),
        "google.protobuf.UInt64Value": _or_null(_UINT64),
        "google.protobuf.Int32Value": _or_null(_INT32),
        "google.protobuf.UInt32Value": _or_null(_UINT32),
        "google.protobuf.BoolValue": _or_null(_SCALARS[F.TYPE_BOOL]),
        "google.protobuf.StringValue": _or_null(_SCALARS[F.TYPE_STRING]),
        "google.protobuf.BytesValue": _or_null(_BYTES),
    }
)


class Components:
    """The schemas of all messages and enums that a document speaks of, by full name.

    Where agents have different versions of one type, the later ones get a name with a suffix.

    Args:
        place: where the document keeps them, as references name it.
    """

    def __init__(self, place: str = "#/components/schemas/") -> None:
        self.schemas: dict[str, Json] = {}
        self._place = place
        self._prints: dict[str, str] = {}
        self._names: dict[Descriptor | EnumDescriptor, str] = {}

    def of(self, kind: Descriptor | EnumDescriptor) -> Json:
        """The schema of a message or an enum: a reference, but for types with a JSON of their own."""
        special = _SPECIAL.get(kind.full_name)
        if special is not None:
            return dict(special)
        if kind.full_name == "google.protobuf.NullValue":
            return {"type": "null"}
        name = self._names.get(kind) or self._add(kind)
        return {"$ref": f"{self._place}{name}"}

    def field(self, field: FieldDescriptor) -> Json:
        """The schema of a field, with what its options say about it."""
        if is_map(field):
            assert field.message_type is not None
            value = self._single(field.message_type.fields_by_name["value"])
            schema: Json = {"type": "object", "additionalProperties": value}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field)}
        else:
            schema = self._single(field)
        hints = field.GetOptions().Extensions[options_pb2.hints]
        if hints.description:
            schema["description"] = hints.description
        if hints.pattern:
            schema["pattern"] = hints.pattern
        if hints.HasField("minimum"):
            schema["minimum"] = hints.minimum
        if field.name == "page_token" and field.type == F.TYPE_STRING:
            schema["format"] = _PAGE_TOKEN
        if hints.secret and schema.get("type") == "string":
            schema["format"] = "password"
        behavior = behaviors(field)
        if field_behavior_pb2.OUTPUT_ONLY in behavior:
            schema["readOnly"] = True
        if field_behavior_pb2.INPUT_ONLY in behavior:
            schema["writeOnly"] = True
        return schema

    def object(
        self, message: Descriptor, keep: Callable[[FieldDescriptor], bool] = lambda _: True
    ) -> Json:
        """The schema of a message's JSON object, with some of its fields."""
        fields = [field for field in message.fields if keep(field)]
        schema: Json = {
            "type": "object",
            "properties": {field.json_name: self.field(field) for field in fields},
            "additionalProperties": False,
        }
        required = [field.json_name for field in fields if is_required(field)]
        if required:
            schema["required"] = required
        choices = [
            "At most one of " + ", ".join(f"`{each.json_name}`" for each in oneof.fields) + "."
            for oneof in message.oneofs
            if len(oneof.fields) > 1
        ]
        if choices:
            schema["description"] = " ".join(choices)
        return schema

    def _single(self, field: FieldDescriptor) -> Json:
        kind = field.message_type or field.enum_type
        return dict(_SCALARS[field.type]) if kind is None else self.of(kind)

    def _add(self, kind: Descriptor | EnumDescriptor) -> str:
        digest = _fingerprint(kind)
        name = kind.full_name
        if self._prints.setdefault(name, digest) != digest:
            name = f"{name}.{digest[:8]}"
            self._prints[name] = digest
        self._names[kind] = name
        if name not in self.schemas:
            self.schemas[name] = {}  # a message may hold itself
            if isinstance(kind, EnumDescriptor):
                self.schemas[name] = {
                    "type": "string",
                    "title": kind.name,
                    "enum": [value.name for value in kind.values],
                }
            else:
                self.schemas[name] = {"title": kind.name, **self.object(kind)}
        return name


def behaviors(field: FieldDescriptor) -> list[int]:
    """What google.api.field_behavior says of a field."""
    return list(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request must set a field."""
    return field_behavior_pb2.REQUIRED in behaviors(field)


def _fingerprint(kind: Descriptor | EnumDescriptor) -> str:
    """Equal for types that are equal, with all they are made of."""
    seen: dict[str, bytes] = {}
    waiting: list[Descriptor | EnumDescriptor] = [kind]
    while waiting:
        each = waiting.pop()
        if each.full_name in seen:
            continue
        if isinstance(each, EnumDescriptor):
            enum = descriptor_pb2.EnumDescriptorProto()
            each.CopyToProto(enum)
            seen[each.full_name] = enum.SerializeToString(deterministic=True)
            continue
        message = descriptor_pb2.DescriptorProto()
        each.CopyToProto(message)
        seen[each.full_name] = message.SerializeToString(deterministic=True)
        for field in each.fields:
            waiting += [part for part in (field.message_type, field.enum_type) if part]
    return hashlib.sha256(b"".join(seen[name] for name in sorted(seen))).hexdigest()
