"""A JSON schema of a message type, in what all endpoints know of JSON schema."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from weft.agents.filling import kinds

Json = dict[str, Any]
F = FieldDescriptor

# Grammars become too large with many of them (anthropics/anthropic-sdk-python#1185).
MOST_CHOICES = 20
_FREE: Mapping[str, Json] = {
    "Struct": {"type": "object"},
    "ListValue": {"type": "array"},
    "Value": {"description": "any JSON value"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The schema of a message type.

    Attributes:
        type: full name of the message.
        schema: an object, `additionalProperties` false throughout.
        optionals: properties that may be left out, and unions: what makes a grammar large.
    """

    type: str
    schema: Json
    optionals: int

    @property
    def text(self) -> str:
        """As JSON."""
        return json.dumps(self.schema, ensure_ascii=False)

    @property
    def tool_name(self) -> str:
        """A name for a tool that takes it."""
        return f"give_{self.type.rpartition('.')[2].lower()}"[:64]

    @property
    def too_free(self) -> bool:
        """Whether an endpoint may refuse to hold a model to it."""
        return self.optionals > MOST_CHOICES


@functools.lru_cache(maxsize=256)
def schema_of(
    descriptor: Descriptor, depth: int = kinds.DEPTH, *, arguments: bool = False
) -> Schema:
    """The schema of a message type.

    Args:
        descriptor: the type.
        depth: how often a type may be within itself; deeper fields are left out. At least 1.
        arguments: of arguments, not of an answer. See the package.
    """
    making = _Making(depth, arguments=arguments)
    if arguments and descriptor.full_name == kinds.STRUCT:
        made: Json = {"type": "object"}
    else:
        made = making.message(descriptor, ())
    return Schema(type=descriptor.full_name, schema=made, optionals=making.optionals)


class _Making:
    def __init__(self, depth: int, *, arguments: bool) -> None:
        self._depth = depth
        self._arguments = arguments
        self.optionals = 0

    def message(self, descriptor: Descriptor, within: tuple[str, ...]) -> Json:
        within = (*within, descriptor.full_name)
        if self._arguments:
            return self._argument(descriptor, within)
        properties: Json = {}
        required: list[str] = []
        for field in kinds.plain_fields(descriptor):
            if not kinds.fits(field, within, self._depth):
                continue
            properties[field.name] = _described(self._field(field, within), field)
            if kinds.must_be_said(field, arguments=False) or field.is_repeated:
                required.append(field.name)
            else:
                self.optionals += 1
        for oneof in kinds.oneofs(descriptor):
            if members := [
                field for field in oneof.fields if kinds.fits(field, within, self._depth)
            ]:
                properties[oneof.name] = self._oneof(oneof, members, within)
                self.optionals += 1
        return _object(properties, required)

    def _argument(self, descriptor: Descriptor, within: tuple[str, ...]) -> Json:
        """A message in ProtoJSON."""
        fields = [each for each in descriptor.fields if kinds.fits(each, within, self._depth)]
        properties = {}
        for field in fields:
            made = _described(self._field(field, within), field)
            oneof = kinds.oneof_of(field)
            others = [each.json_name for each in oneof.fields if each != field] if oneof else []
            if others:
                told = [made.get("description", ""), f"Not together with {', '.join(others)}"]
                made = {**made, "description": ". ".join(filter(None, told))}
            properties[field.json_name] = made
        return _object(properties, [each.json_name for each in fields if kinds.is_required(each)])

    def _oneof(
        self, oneof: OneofDescriptor, members: list[FieldDescriptor], within: tuple[str, ...]
    ) -> Json:
        each = [
            _object({field.name: _described(self._single(field, within), field)}, [field.name])
            for field in members
        ]
        self.optionals += 1
        return {"anyOf": each, "description": f"At most one: {oneof.name} by its kind."}

    def _field(self, field: FieldDescriptor, within: tuple[str, ...]) -> Json:
        if kinds.is_map(field):
            key, value = kinds.map_parts(field)
            if self._arguments:
                return {"type": "object", "additionalProperties": self._single(value, within)}
            parts = {"key": self._single(key, within), "value": self._single(value, within)}
            note = "Each key once."
            return {
                "type": "array",
                "items": _object(parts, ["key", "value"]),
                "description": note,
            }
        if field.is_repeated:
            return {"type": "array", "items": self._single(field, within)}
        return self._single(field, within)

    def _single(self, field: FieldDescriptor, within: tuple[str, ...]) -> Json:  # noqa: PLR0911 a case each
        if field.message_type is None:
            return self._scalar(field)
        kind = field.message_type
        name = kind.full_name
        if name in kinds.WRAPPERS:
            return self._scalar(kinds.wrapped(kind))
        if name in kinds.AS_JSON and self._arguments:
            return dict(_FREE[kind.name])
        if name in kinds.AS_JSON:
            what = {"Struct": "an object", "ListValue": "an array", "Value": "any value"}
            return _text(f"JSON of {what[kind.name]}, as text")
        if name == kinds.TIMESTAMP:
            return {"type": "string", "format": "date-time", "description": "RFC 3339 with zone"}
        if name == kinds.DURATION:
            return _text('seconds, such as "90s" or "0.5s"')
        if name in kinds.AS_TEXT:
            return _text('paths joined by commas, such as "name,address.city"')
        return self.message(kind, within)

    def _scalar(self, field: FieldDescriptor) -> Json:
        if field.type in kinds.BITS_64 and self._arguments:
            return {"type": "integer"}
        return _scalar(field)


def _scalar(field: FieldDescriptor) -> Json:  # noqa: PLR0911 a case each
    if field.type in kinds.BITS_64:
        return _text("64-bit integer as a decimal string")
    if field.type in kinds.BITS_32:
        return {"type": "integer"}
    if field.type in kinds.FLOATS:
        return {"type": "number"}
    if field.type == F.TYPE_BOOL:
        return {"type": "boolean"}
    if field.type == F.TYPE_BYTES:
        return _text("base64")
    if field.type == F.TYPE_ENUM:
        return _enum(kinds.enum_of(field))
    return {"type": "string"}


def _enum(enum: EnumDescriptor) -> Json:
    # No type beside it: the SDK takes it away.
    return {"enum": list(kinds.choices(enum))}


def _object(properties: Json, required: list[str]) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _text(description: str) -> Json:
    return {"type": "string", "description": description}


def _described(schema: Json, field: FieldDescriptor) -> Json:
    hints = kinds.hints_of(field)
    notes = [hints.description.strip(), schema.get("description", "")]
    if hints.pattern:
        notes.append(f"Matches {hints.pattern}")
    if hints.HasField("minimum"):
        notes.append(f"At least {hints.minimum}")
    text = ". ".join(note.rstrip(".") for note in notes if note)
    return {**schema, "description": text} if text else schema
