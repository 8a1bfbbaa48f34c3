"""Arguments as they may be recorded: without what their contract calls secret, and no longer than a record should be."""

from __future__ import annotations

import functools
import math
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from weft.agents.filling.kinds import hints_of

Json = dict[str, Any]
F = FieldDescriptor

REDACTED = "[redacted]"
_LONGEST = 4_000  # characters of a text
_MOST = 200  # of a list, and of an object's members
_DEEPEST = 32
_ANY = "google.protobuf.Any"


def shown(message: Message) -> Json:
    """What a message says, for records."""
    found: Json = _message(message, 0)
    return found


def _message(message: Any, depth: int) -> Any:
    descriptor = message.DESCRIPTOR
    if depth > _DEEPEST:
        return "..."
    if descriptor.full_name == _ANY:
        return {"@type": _text(message.type_url)}  # what is in it, nobody here knows
    if descriptor.file.package == "google.protobuf":
        return _bounded(json_format.MessageToDict(message), depth)
    return {
        field.name: REDACTED if _is_secret(field) else _field(field, value, depth)
        for field, value in message.ListFields()
    }


def _field(field: Any, value: Any, depth: int) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        inner = entry.fields_by_name["value"]
        return {_text(str(key)): _single(inner, value[key], depth) for key in list(value)[:_MOST]}
    if field.is_repeated:
        return [_single(field, each, depth) for each in value[:_MOST]]
    return _single(field, value, depth)


def _single(field: Any, value: Any, depth: int) -> Any:
    if field.message_type is not None:
        return _message(value, depth + 1)
    if field.enum_type is not None:
        found = field.enum_type.values_by_number.get(value)
        return value if found is None else found.name
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return _text(value) if isinstance(value, str) else value


def _bounded(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {_text(k): _bounded(v, depth + 1) for k, v in list(value.items())[:_MOST]}
    if isinstance(value, list):
        return [_bounded(each, depth + 1) for each in value[:_MOST]]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
    return cut.replace("\0", "\N{REPLACEMENT CHARACTER}")  # which PostgreSQL has no room for


@functools.lru_cache(maxsize=4_096)
def _is_secret(field: FieldDescriptor) -> bool:
    return bool(hints_of(field).secret)
