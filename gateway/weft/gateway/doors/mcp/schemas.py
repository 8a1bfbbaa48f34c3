"""JSON schemas (2020-12) of what tools take and give, from the descriptors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from weft.gateway.doors.mcp.headers import Mirrored
from weft.gateway.openapi.schemas import Components, behaviors
from weft.gateway.transcoding.fields import SPECIAL_JSON
from weft.v1 import options_pb2

Json = dict[str, Any]
F = FieldDescriptor

DIALECT = "https://json-schema.org/draft/2020-12/schema"
WRAPPED = "value"
"""Name of the one argument of a tool whose request is no JSON object."""

_PLACE = "#/$defs/"
_OBJECTS = frozenset({"google.protobuf.Struct", "google.protobuf.Any"})
_INTEGERS = frozenset({F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32, F.TYPE_UINT32, F.TYPE_FIXED32})
_MIRRORABLE = _INTEGERS | {F.TYPE_STRING, F.TYPE_BOOL}


def is_object(message: Descriptor) -> bool:
    """Whether a message is an object in JSON."""
    return message.full_name not in SPECIAL_JSON or message.full_name in _OBJECTS


def input_schema(message: Descriptor) -> Json:
    """The schema of a tool's arguments."""
    components = Components(_PLACE)
    if not is_object(message):
        schema: Json = {
            "type": "object",
            "properties": {WRAPPED: components.of(message)},
            "required": [WRAPPED],
            "additionalProperties": False,
        }
        return _document(schema, components)
    schema = _object(components, message, lambda field: not _output_only(field))
    for field in message.fields:
        if name := header_of(field):
            schema["properties"][field.json_name]["x-mcp-header"] = name
    return _document(schema, components)


def output_schema(message: Descriptor, *, stream: bool) -> Json | None:
    """The schema of a tool's structured content; None: it has none.

    A stream's messages are told together, as `messages`. Nothing is required: a field that holds its default
    is not written.
    """
    if not is_object(message):
        return None
    components = Components(_PLACE)
    schema: Json
    if stream:
        listed = {"type": "array", "items": components.of(message)}
        schema = {
            "type": "object",
            "properties": {"messages": listed},
            "required": ["messages"],
        }
        _lenient(components.schemas)
        return _document(schema, components)
    schema = _object(components, message, lambda _: True)
    _lenient(schema)
    _lenient(components.schemas)
    return _document(schema, components)


def header_of(field: FieldDescriptor) -> str:
    """Name of the header that repeats an argument; empty: none does."""
    hints = field.GetOptions().Extensions[options_pb2.hints]
    if hints.secret or field.is_repeated or field.type not in _MIRRORABLE:
        return ""
    name: str = hints.mcp_header
    return name if name.replace("-", "").isalnum() and name.isascii() else ""


def mirrored(message: Descriptor) -> tuple[Mirrored, ...]:
    """The arguments that headers repeat."""
    return tuple(
        Mirrored(
            header=f"mcp-param-{name.lower()}".encode(),
            names=(field.json_name, field.name),
            integer=field.type in _INTEGERS,
        )
        for field in message.fields
        if (name := header_of(field))
    )


def _object(
    components: Components, message: Descriptor, keep: Callable[[FieldDescriptor], bool]
) -> Json:
    if message.full_name in SPECIAL_JSON:
        return components.of(message)
    return components.object(message, keep)


def _output_only(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.OUTPUT_ONLY in behaviors(field)


def _document(schema: Json, components: Components) -> Json:
    """The schema with the definitions it refers to, under short names where those are unambiguous."""
    document = {"$schema": DIALECT, **schema}
    if not components.schemas:
        return document
    short: dict[str, str] = {}
    for full in components.schemas:
        name = full.rpartition(".")[2]
        short[full] = full if name in short.values() else name
    text = orjson.dumps({**document, "$defs": components.schemas})
    for full, name in short.items():
        text = text.replace(f'"{_PLACE}{full}"'.encode(), f'"{_PLACE}{name}"'.encode())
    renamed: Json = orjson.loads(text)
    renamed["$defs"] = {short[full]: each for full, each in renamed["$defs"].items()}
    return renamed


def _lenient(schema: Any) -> None:
    """Takes `required` off every object in a schema, in place."""
    if isinstance(schema, list):
        for each in schema:
            _lenient(each)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
            schema.pop("required", None)
        for each in schema.values():
            _lenient(each)
