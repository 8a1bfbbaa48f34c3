"""A message as the JSON that a model is asked for: for examples in prompts, and to check reading against."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from weft.agents.filling import kinds
from weft.agents.filling.json_text import Unfit

F = FieldDescriptor


def write(message: Message) -> dict[str, Any]:
    """What a message says.

    Raises:
        Unfit: it says what JSON for models has no words for: a number that is not finite, an enum value without name.
    """
    return _message(message, "$", ())


def _message(message: Any, path: str, within: tuple[str, ...]) -> dict[str, Any]:
    within = (*within, message.DESCRIPTOR.full_name)
    found: dict[str, Any] = {}
    for field in kinds.plain_fields(message.DESCRIPTOR):
        place = f"{path}.{field.name}"
        value = getattr(message, field.name)
        if not kinds.can_be_said(field):
            continue
        if field.is_repeated and not value and not kinds.fits(field, within, kinds.DEPTH):
            continue
        if kinds.is_map(field):
            found[field.name] = _map(field, value, place, within)
        elif field.is_repeated:
            found[field.name] = [
                _single(field, each, f"{place}[{number}]", within)
                for number, each in enumerate(value)
            ]
        elif message.HasField(field.name) if field.has_presence else _says(field, value):
            found[field.name] = _single(field, value, place, within)
    for oneof in kinds.oneofs(message.DESCRIPTOR):
        if name := message.WhichOneof(oneof.name):
            field = message.DESCRIPTOR.fields_by_name[name]
            if kinds.can_be_said(field):
                place = f"{path}.{oneof.name}.{name}"
                value = _single(field, getattr(message, name), place, within)
                found[oneof.name] = {name: value}
    return found


def _says(field: FieldDescriptor, value: Any) -> bool:
    """Whether a value of a field that cannot be told to be absent says something."""
    return field.enum_type is None or kinds.unspecified(field.enum_type) is None or value != 0


def _map(
    field: FieldDescriptor, value: Any, path: str, within: tuple[str, ...]
) -> list[dict[str, Any]]:
    key_field, value_field = kinds.map_parts(field)
    return [
        {
            "key": _single(key_field, key, path, within),
            "value": _single(value_field, value[key], f'{path}["{key}"]', within),
        }
        for key in value
    ]


def _single(  # noqa: PLR0911 a case each
    field: FieldDescriptor, value: Any, path: str, within: tuple[str, ...]
) -> Any:
    if field.message_type is not None:
        name = field.message_type.full_name
        if name in kinds.WRAPPERS:
            return _single(kinds.wrapped(field.message_type), value.value, path, within)
        if name in kinds.AS_JSON:
            return json.dumps(json_format.MessageToDict(value), ensure_ascii=False)
        if name in kinds.AS_TEXT:
            return json_format.MessageToDict(value)
        return _message(value, path, within)
    if field.type in kinds.BITS_64:
        return str(value)
    if field.type in kinds.FLOATS and not math.isfinite(value):
        raise Unfit([(path, f"{value} is no number in JSON")])
    if field.type == F.TYPE_BYTES:
        return base64.b64encode(value).decode()
    if field.type == F.TYPE_ENUM:
        enum = kinds.enum_of(field)
        known = enum.values_by_number.get(value)
        if known is None or known == kinds.unspecified(enum):
            raise Unfit([(path, f"{value} has no name that models are offered")])
        return known.name
    return value
