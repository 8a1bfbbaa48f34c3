"""JSON values as messages and back, for messages that were made of JSON schemas.

Unlike ProtoJSON: 64-bit integers are numbers, a field that is not set is not there, and null is the same as not there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from weft import rpc

Json = dict[str, Any]
F = FieldDescriptor
Nulls = Collection[tuple[str, str]]

_STRUCT, _VALUE = "google.protobuf.Struct", "google.protobuf.Value"
_EXACT = 1 << 53  # from here on a double does not have every integer
_DEEPEST = 64
_RANGES = {F.TYPE_INT32: 31, F.TYPE_INT64: 63}


class Misfit(ValueError):
    """A value is not what the contract says; the text says where."""


def to_json(message: Message, nulls: Nulls = ()) -> Any:
    """What a message says.

    Raises:
        rpc.InvalidArgument: a field that must be set is not, or a number is none in JSON.
    """
    violations: list[tuple[str, str]] = []
    found = _message(message, nulls, "", violations)
    if violations:
        raise rpc.InvalidArgument(violations=violations)
    return found


def fill(message: Message, value: object) -> None:
    """Makes a message say what a value says; what the message has no field for is left out.

    Raises:
        Misfit: the value is of another shape.
    """
    _fill(message, value, "", 0)


def _message(message: Message, nulls: Nulls, path: str, violations: list[tuple[str, str]]) -> Any:
    descriptor = message.DESCRIPTOR
    if descriptor.full_name == _STRUCT:
        return _struct(message, path, violations)
    if descriptor.full_name == _VALUE:
        return _value(message, path, violations)
    found: Json = {}
    field: Any
    for field in descriptor.fields:
        place = f"{path}.{field.json_name}" if path else field.json_name
        if field.is_repeated:
            given = getattr(message, field.name)
            if given or _is_required(field):
                found[field.json_name] = _repeated(field, given, nulls, place, violations)
        elif message.HasField(field.name):
            value = getattr(message, field.name)
            found[field.json_name] = _single(field, value, nulls, place, violations)
        elif (descriptor.full_name, field.name) in nulls:
            found[field.json_name] = None
        elif _is_required(field):
            violations.append((place, "is required"))
    return found


def _repeated(
    field: Any, given: Any, nulls: Nulls, path: str, violations: list[tuple[str, str]]
) -> Any:
    if _is_map(field):
        inner = field.message_type.fields_by_name["value"]
        return {
            key: _single(inner, given[key], nulls, f'{path}["{key}"]', violations) for key in given
        }
    return [
        _single(field, each, nulls, f"{path}[{number}]", violations)
        for number, each in enumerate(given)
    ]


def _single(
    field: Any, value: Any, nulls: Nulls, path: str, violations: list[tuple[str, str]]
) -> Any:
    if field.message_type is not None:
        return _message(value, nulls, path, violations)
    if isinstance(value, float) and not math.isfinite(value):
        violations.append((path, "must be a finite number"))
    return value


def _struct(message: Any, path: str, violations: list[tuple[str, str]]) -> Json:
    return {key: _value(message.fields[key], f"{path}.{key}", violations) for key in message.fields}


def _value(message: Any, path: str, violations: list[tuple[str, str]]) -> Any:
    match message.WhichOneof("kind"):
        case "number_value":
            return _number(message.number_value, path, violations)
        case "struct_value":
            return _struct(message.struct_value, path, violations)
        case "list_value":
            return [_value(each, path, violations) for each in message.list_value.values]
        case "string_value" | "bool_value" as kind:
            return getattr(message, kind)
    return None


def _number(number: float, path: str, violations: list[tuple[str, str]]) -> float:
    if not math.isfinite(number):
        violations.append((path, "must be a finite number"))
    elif number.is_integer() and abs(number) < _EXACT:
        return int(number)
    return number


def _fill(message: Any, value: object, path: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise Misfit(f"{path}: is nested too deeply")
    name = message.DESCRIPTOR.full_name
    if name == _VALUE:
        _fill_value(message, value, path, depth)
        return
    if not isinstance(value, Mapping):
        raise Misfit(f"{path or 'the answer'}: is no object")
    if name == _STRUCT:
        _fill_struct(message, value, path, depth)
        return
    message.SetInParent()
    for field in message.DESCRIPTOR.fields:
        given = value.get(field.json_name)
        if given is not None:
            place = f"{path}.{field.json_name}" if path else field.json_name
            _fill_field(message, field, given, place, depth)
        elif field.json_name in value and _holds_null(field):
            getattr(message, field.name).null_value = 0


def _fill_field(message: Any, field: Any, given: Any, path: str, depth: int) -> None:
    if _is_map(field):
        if not isinstance(given, Mapping):
            raise Misfit(f"{path}: is no object")
        inner = field.message_type.fields_by_name["value"]
        held = getattr(message, field.name)
        for key, each in given.items():
            name, place = _text(key), f"{path}.{key}"
            if inner.message_type is not None:
                _fill(held[name], each, place, depth + 1)
            else:
                held[name] = _scalar(inner, each, place)
    elif field.is_repeated:
        if not isinstance(given, list):
            raise Misfit(f"{path}: is no array")
        held = getattr(message, field.name)
        for number, each in enumerate(given):
            place = f"{path}[{number}]"
            if field.message_type is not None:
                _fill(held.add(), each, place, depth + 1)
            else:
                held.append(_scalar(field, each, place))
    elif field.message_type is not None:
        _fill(getattr(message, field.name), given, path, depth + 1)
    else:
        setattr(message, field.name, _scalar(field, given, path))


def _scalar(field: Any, value: object, path: str) -> Any:
    if field.type == F.TYPE_STRING and isinstance(value, str):
        return _text(value)
    if field.type == F.TYPE_BOOL and isinstance(value, bool):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if field.type == F.TYPE_DOUBLE:
            return _double(value, path)
        bits = _RANGES.get(field.type)
        if bits and value == value // 1 and -(1 << bits) <= value < 1 << bits:
            return int(value)
    raise Misfit(f"{path}: is not of the type that the contract says")


def _double(value: float, path: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise Misfit(f"{path}: is too large") from None


def _fill_struct(message: Any, value: Mapping[str, Any], path: str, depth: int) -> None:
    message.SetInParent()
    for key, each in value.items():
        _fill_value(message.fields[_text(key)], each, f"{path}.{key}", depth + 1)


def _fill_value(message: Any, value: object, path: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise Misfit(f"{path}: is nested too deeply")
    match value:
        case None:
            message.null_value = 0
        case bool():
            message.bool_value = value
        case int() | float():
            message.number_value = _double(value, path)
        case str():
            message.string_value = _text(value)
        case list():
            message.list_value.SetInParent()
            for number, each in enumerate(value):
                _fill_value(message.list_value.values.add(), each, f"{path}[{number}]", depth + 1)
        case dict():
            _fill_struct(message.struct_value, value, path, depth)
        case _:
            raise Misfit(f"{path}: is no JSON value")


def _text(value: object) -> str:
    """A string that protobuf can hold: half of a surrogate pair is no character."""
    return str(value).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _holds_null(field: Any) -> bool:
    return (
        not field.is_repeated
        and field.message_type is not None
        and field.message_type.full_name == _VALUE
    )


def _is_map(field: Any) -> bool:
    entry: Descriptor | None = field.message_type
    return field.is_repeated and entry is not None and entry.GetOptions().map_entry


def _is_required(field: Any) -> bool:
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED in behaviors
