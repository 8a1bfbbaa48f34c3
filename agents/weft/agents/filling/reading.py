"""JSON that a model gave, as a message: every fault found and named by its path, nothing guessed."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from weft.agents.filling import kinds
from weft.agents.filling.json_text import Unfit

F = FieldDescriptor
MessageT = TypeVar("MessageT", bound=Message)

_DEEPEST = 64
_SHOWN = 60
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_UNSIGNED = frozenset({F.TYPE_UINT32, F.TYPE_FIXED32, F.TYPE_UINT64, F.TYPE_FIXED64})
_LARGEST_FLOAT = 3.4028235677973366e38  # from here on a 32-bit float is infinite
_ZONED = re.compile(r"\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:\d\d)")


class _WrongError(ValueError):
    """A value does not fit; the text says why."""


def read(kind: type[MessageT], value: object, *, arguments: bool = False) -> MessageT:
    """The message that a JSON value says.

    Args:
        kind: of message.
        value: an object.
        arguments: it is arguments, not an answer. See the package.

    Raises:
        Unfit: it does not fit; all faults are in it.
    """
    message = kind()
    reading = _Reading(arguments=arguments)
    reading.root(message, value)
    if reading.faults:
        raise Unfit(reading.faults)
    return message


class _Reading:
    def __init__(self, *, arguments: bool) -> None:
        self._arguments = arguments
        self.faults: list[tuple[str, str]] = []

    def root(self, message: Any, value: object) -> None:
        if self._arguments and message.DESCRIPTOR.full_name == kinds.STRUCT:
            self._submessage(message, value, "$", 0)
        else:
            self.message(message, value, "$", 0)

    def message(self, message: Any, value: object, path: str, depth: int) -> None:
        if depth > _DEEPEST:
            self.faults.append((path, "is nested too deeply"))
            return
        if not isinstance(value, Mapping):
            self.faults.append((path, f"must be an object, not {_shown(value)}"))
            return
        message.SetInParent()
        left = dict(value)
        for field in kinds.plain_fields(message.DESCRIPTOR):
            given = _taken(left, field)
            place = f"{path}.{self._named(field)}"
            if given is not None:
                self._field(message, field, given, place, depth)
            elif kinds.must_be_said(field, arguments=self._arguments):
                self.faults.append((place, "is missing"))
        for oneof in kinds.oneofs(message.DESCRIPTOR):
            self._oneof(message, oneof, left, path, depth)
        for name in left:
            self.faults.append((f"{path}.{name[:_SHOWN]}", "there is no such field"))

    def _oneof(self, message: Any, oneof: Any, left: dict[str, Any], path: str, depth: int) -> None:
        members = {field.name: field for field in oneof.fields}
        given = left.pop(oneof.name, None)
        place = f"{path}.{oneof.name}"
        if given is None:
            # Without the oneof around them, as ProtoJSON has them.
            place = path
            found = [(field, _taken(left, field)) for field in oneof.fields]
            chosen = [(field, each) for field, each in found if each is not None]
        elif isinstance(given, Mapping):
            known = [(members.get(name), name, each) for name, each in given.items()]
            for field, name, _ in known:
                if field is None:
                    self.faults.append((f"{place}.{name[:_SHOWN]}", "there is no such field"))
            chosen = [
                (field, each) for field, _, each in known if field is not None and each is not None
            ]
        else:
            self.faults.append((place, f"must be an object with one of {', '.join(members)}"))
            return
        if len(chosen) > 1:
            names = ", ".join(self._named(field) for field, _ in chosen)
            self.faults.append((f"{path}.{oneof.name}", f"only one may be there, not {names}"))
            return
        for field, each in chosen:
            self._single_into(message, field, each, f"{place}.{self._named(field)}", depth)

    def _field(
        self, message: Any, field: FieldDescriptor, given: Any, path: str, depth: int
    ) -> None:
        if kinds.is_map(field):
            self._map(getattr(message, field.name), field, given, path, depth)
        elif not field.is_repeated:
            self._single_into(message, field, given, path, depth)
        elif not isinstance(given, list):
            self.faults.append((path, f"must be an array, not {_shown(given)}"))
        else:
            if kinds.is_required(field) and not given and not self._arguments:
                self.faults.append((path, "must not be empty"))
            held = getattr(message, field.name)
            for number, each in enumerate(given):
                place = f"{path}[{number}]"
                if field.message_type is not None:
                    self._submessage(held.add(), each, place, depth)
                else:
                    self._append(held, field, each, place)

    def _single_into(
        self, message: Any, field: FieldDescriptor, given: Any, path: str, depth: int
    ) -> None:
        if field.message_type is not None:
            self._submessage(getattr(message, field.name), given, path, depth)
            return
        self._try(path, lambda: setattr(message, field.name, self._checked(field, given)))

    def _checked(self, field: FieldDescriptor, given: Any) -> Any:
        value = _scalar(field, given)
        hints = kinds.hints_of(field)
        if hints.HasField("minimum") and isinstance(value, int) and value < hints.minimum:
            raise _WrongError(f"must be at least {hints.minimum}")
        if hints.pattern and isinstance(value, str) and not re.search(hints.pattern, value):
            raise _WrongError(f"must match {hints.pattern}")
        # Where a field can be told to be absent, an empty text may be what was meant.
        may_be_empty = self._arguments and field.has_presence
        if kinds.is_required(field) and value in {"", b""} and not may_be_empty:
            raise _WrongError("must not be empty")
        return value

    def _submessage(self, message: Any, given: Any, path: str, depth: int) -> None:
        name = message.DESCRIPTOR.full_name
        message.SetInParent()
        if name in kinds.WRAPPERS:
            inner = kinds.wrapped(message.DESCRIPTOR)
            self._try(path, lambda: setattr(message, "value", _scalar(inner, given)))
        elif name in kinds.AS_JSON:
            self._try(path, lambda: _free(message, given, as_text=not self._arguments))
        elif name in kinds.AS_TEXT:
            self._try(path, lambda: _as_text(message, given))
        elif name == kinds.ANY:
            self.faults.append((path, "cannot be filled"))
        else:
            self.message(message, given, path, depth + 1)

    def _map(self, held: Any, field: FieldDescriptor, given: Any, path: str, depth: int) -> None:
        pairs = self._pairs(given, path)
        if pairs is None:
            return
        key_field, value_field = kinds.map_parts(field)
        for place, key, value in pairs:
            try:
                found = _key(key_field, key)
            except _WrongError as wrong:
                self.faults.append((f"{place}.key", str(wrong)))
                continue
            if found in held:
                self.faults.append((f"{place}.key", f"{_shown(key)} is there twice"))
            elif value_field.message_type is not None:
                self._submessage(held[found], value, f"{place}.value", depth)
            else:
                self._put(held, found, value_field, value, f"{place}.value")

    def _pairs(self, given: Any, path: str) -> list[tuple[str, Any, Any]] | None:
        if isinstance(given, Mapping):
            return [(f'{path}["{key[:_SHOWN]}"]', key, value) for key, value in given.items()]
        if not isinstance(given, list):
            self.faults.append((path, f"must be an array of key and value, not {_shown(given)}"))
            return None
        found = []
        for number, each in enumerate(given):
            if isinstance(each, Mapping) and each.keys() == {"key", "value"}:
                found.append((f"{path}[{number}]", each["key"], each["value"]))
            else:
                self.faults.append((f"{path}[{number}]", "must be an object of key and value"))
        return found

    def _append(self, held: Any, field: FieldDescriptor, given: Any, path: str) -> None:
        self._try(path, lambda: held.append(_scalar(field, given)))

    def _put(self, held: Any, key: Any, field: FieldDescriptor, given: Any, path: str) -> None:
        self._try(path, lambda: held.__setitem__(key, _scalar(field, given)))

    def _named(self, field: FieldDescriptor) -> str:
        return field.json_name if self._arguments else field.name

    def _try(self, path: str, work: Callable[[], object]) -> None:
        try:
            work()
        except _WrongError as wrong:
            self.faults.append((path, str(wrong)))


def _taken(left: dict[str, Any], field: FieldDescriptor) -> Any:
    """What is given for a field, by its name or its name in ProtoJSON; null is nothing."""
    given = left.pop(field.name, None)
    other = left.pop(field.json_name, None) if field.json_name != field.name else None
    return other if given is None else given


def _key(field: FieldDescriptor, given: Any) -> Any:
    if field.type == F.TYPE_BOOL and isinstance(given, str) and given in {"true", "false"}:
        return given == "true"
    return _scalar(field, given)


def _scalar(field: FieldDescriptor, given: Any) -> Any:  # noqa: PLR0911 a case each
    if field.type in kinds.BITS_64:
        return _integer(field, given, 64)
    if field.type in kinds.BITS_32:
        if isinstance(given, float) and given.is_integer():
            given = int(given)
        return _integer(field, given, 32)
    if field.type in kinds.FLOATS:
        return _number(field, given)
    if field.type == F.TYPE_BOOL:
        if isinstance(given, bool):
            return given
        raise _WrongError(f"must be true or false, not {_shown(given)}")
    if field.type == F.TYPE_ENUM:
        return _enum(kinds.enum_of(field), given)
    if not isinstance(given, str):
        raise _WrongError(f"must be a string, not {_shown(given)}")
    if field.type == F.TYPE_BYTES:
        return _bytes(given)
    return _plain(given)


def _plain(given: str) -> str:
    try:
        given.encode()
    except UnicodeEncodeError:
        raise _WrongError("holds half of a surrogate pair, which is no character") from None
    return given


def _integer(field: FieldDescriptor, given: Any, bits: int) -> int:
    # A float is refused where it could have lost digits already.
    if isinstance(given, str) and _INTEGER.fullmatch(given.strip()):
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int):
        said = " as a decimal string" if bits == 64 else ""  # noqa: PLR2004 bits
        raise _WrongError(f"must be an integer{said}, not {_shown(given)}")
    unsigned = field.type in _UNSIGNED
    least = 0 if unsigned else -(1 << bits - 1)
    most = (1 << (bits if unsigned else bits - 1)) - 1
    if not least <= given <= most:
        raise _WrongError(f"must be from {least} to {most}, not {_shown(given)}")
    return given


def _number(field: FieldDescriptor, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise _WrongError(f"must be a number, not {_shown(given)}")
    try:
        found = float(given)
    except OverflowError:
        found = math.inf
    large = field.type == F.TYPE_FLOAT and abs(found) >= _LARGEST_FLOAT
    if large or not math.isfinite(found):
        raise _WrongError("is too large a number")
    return found


def _enum(enum: EnumDescriptor, given: Any) -> int:
    offered = kinds.choices(enum)
    if isinstance(given, str):
        exact = enum.values_by_name.get(given)
        if exact is not None and exact != kinds.unspecified(enum):
            return int(exact.number)
        wanted = re.sub(r"[^A-Z0-9]+", "_", given.strip().upper())
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper()
        either = {wanted, f"{prefix}_{wanted}"}
        fitting = [name for name in offered if name.upper() in either]
        if wanted and len(fitting) == 1:
            return int(enum.values_by_name[fitting[0]].number)
    raise _WrongError(f"must be one of {', '.join(offered)}, not {_shown(given)}")


def _bytes(given: str) -> bytes:
    text = given.strip().replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _WrongError("must be base64") from None


def _free(message: Any, given: Any, *, as_text: bool) -> None:
    is_value = message.DESCRIPTOR.full_name == kinds.VALUE
    if isinstance(given, str) and (as_text or not is_value):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            if not is_value:
                raise _WrongError("must be JSON as text") from None
    _parsed(message, given, f"must be JSON of the right kind{', as text' if as_text else ''}")


def _as_text(message: Any, given: Any) -> None:
    name = message.DESCRIPTOR.full_name
    told = {
        kinds.TIMESTAMP: 'must be a time with zone, such as "2026-01-31T09:30:00Z"',
        kinds.DURATION: 'must be seconds, such as "90s"',
    }.get(name, "must be paths joined by commas")
    if not isinstance(given, str) or (name == kinds.TIMESTAMP and not _ZONED.fullmatch(given)):
        raise _WrongError(f"{told}, not {_shown(given)}")
    _parsed(message, given, told)


def _parsed(message: Any, given: Any, told: str) -> None:
    try:
        # ParseDict takes numbers that are not finite, which nobody can write again.
        json.dumps(given, allow_nan=False)
        json_format.ParseDict(given, message)
    except (json_format.ParseError, ValueError, TypeError, RecursionError, AttributeError):
        message.Clear()
        raise _WrongError(f"{told}, not {_shown(given)}") from None


def _shown(value: object) -> str:
    match value:
        case Mapping():
            return "an object"
        case list():
            return "an array"
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
