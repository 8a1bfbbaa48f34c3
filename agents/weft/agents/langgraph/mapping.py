"""From the state of a graph to a request and from a response to the state: checked when the node is made."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Request: TypeAlias = "Mapping[str, str | Callable[[Any], Any]] | Callable[[Any], Message]"
"""Where the fields of a request come from: path of a field -> key of the state, or a function of the state."""
Into: TypeAlias = "Mapping[str, str] | str | Callable[[Any], Mapping[str, Any]]"
"""Where a response goes: key of the state -> path of a field; or the key that gets all of it; or a function of it."""

_LISTS: Final = (list, collections.abc.Sequence, collections.abc.Iterable)
_MAPS: Final = (dict, collections.abc.Mapping)
_MOMENT, _SPAN = "google.protobuf.Timestamp", "google.protobuf.Duration"
_KINDS: Final[Mapping[int, type]] = {
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_FLOAT: float,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
    FieldDescriptor.CPPTYPE_ENUM: str,
}


class MappingFault(TypeError):
    """A node's request or response does not fit the state of its graph. Its text names all that is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """How a node's request is made and its response taken. Check it by `faults` before it is used.

    Args:
        request: see Request.
        into: see Into.
        asked: class of the request.
        answered: of the response.
        state: the class that describes the state; None: nothing is known of it, and only paths are checked.
    """

    request: Request
    into: Into
    asked: type[Message]
    answered: type[Message]
    state: type | None

    def ask(self, state: Any) -> Message:
        """The request.

        Raises:
            TypeError: a value does not fit its field.
            ValueError: it cannot be in it.
        """
        if callable(self.request):
            return self.request(state)
        message = self.asked()
        for path, source in self.request.items():
            value = source(state) if callable(source) else _of_state(state, source)
            if value is not None:
                _put(message, path, value)
        return message

    def take(self, response: Message) -> Mapping[str, Any]:
        """What a response changes in the state."""
        if callable(self.into):
            return self.into(response)
        if isinstance(self.into, str):
            return {self.into: _plain(response)}
        return {key: _get(response, path) for key, path in self.into.items()}

    def faults(self) -> Iterator[str]:
        """All that is wrong."""
        hints = None
        if self.state is not None:
            hints = typing.get_type_hints(self.state, include_extras=True)
        if not callable(self.request):
            for path, source in self.request.items():
                yield from self._faults_asked(path, source, hints)
        if isinstance(self.into, str):
            yield from _faults(f"into {self.into!r}", self.into, hints, (dict,))
        elif not callable(self.into):
            for key, path in self.into.items():
                field = _field(self.answered, path)
                if field is None:
                    name = self.answered.DESCRIPTOR.full_name
                    yield f"into {key!r}: {name} has no field {path!r}"
                else:
                    yield from _faults(f"into {key!r} from {path!r}", key, hints, (_type(field),))

    def _faults_asked(
        self, path: str, source: object, hints: Mapping[str, Any] | None
    ) -> Iterator[str]:
        where = f"request {path!r}"
        field = _field(self.asked, path)
        if field is None:
            yield f"{where}: {self.asked.DESCRIPTOR.full_name} has no such field"
        elif isinstance(source, str):
            yield from _faults(f"{where} from {source!r}", source, hints, _accepted(field))


def _faults(
    where: str, key: str, hints: Mapping[str, Any] | None, wanted: tuple[Any, ...]
) -> Iterator[str]:
    if hints is None:
        return
    if key not in hints:
        yield f"{where}: the state has no {key!r}"
    elif not any(_fits(hints[key], each) for each in wanted):
        names = " or ".join(map(_name, wanted))
        yield f"{where}: the state has {_name(hints[key])}, the message {names}"


# What fields are in Python


def _type(field: FieldDescriptor) -> Any:
    """The type of a field's value in the state."""
    if (entry := _entry(field)) is not None:
        kinds = entry.fields_by_name
        return dict[_single(kinds["key"]), _single(kinds["value"])]  # type: ignore[misc]  # made of types known now
    single = _single(field)
    return list[single] if field.is_repeated else single  # type: ignore[valid-type]  # same


def _accepted(field: FieldDescriptor) -> tuple[Any, ...]:
    """The types a field can be made of."""
    plain = _type(field)
    if field.is_repeated:
        return (plain,)
    if field.cpp_type in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
        return (plain, int)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return (plain, int)
    return (plain,)


def _single(field: FieldDescriptor) -> type:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes
    if field.message_type is not None:
        return {_MOMENT: datetime, _SPAN: timedelta}.get(field.message_type.full_name, dict)
    return _KINDS.get(field.cpp_type, int)


def _fits(hint: Any, wanted: Any) -> bool:
    hint = _bare(hint)
    if hint is Any or hint is object or hint == wanted:
        return True
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return any(_fits(each, wanted) for each in inner if each is not type(None))
    shape, parts = typing.get_origin(wanted) or wanted, typing.get_args(wanted)
    if typing.is_typeddict(hint):
        return shape is dict and not parts
    if shape in {list, dict}:
        alike = (origin or hint) in (_LISTS if shape is list else _MAPS)
        return alike and (not inner or not parts or all(map(_fits, inner, parts)))
    return origin is typing.Literal and all(isinstance(each, shape) for each in inner)


def _bare(hint: Any) -> Any:
    """A type without what is said about it: Annotated, Required, NotRequired."""
    while typing.get_origin(hint) in {typing.Annotated, typing.Required, typing.NotRequired}:
        hint = typing.get_args(hint)[0]
    return hint


def _name(hint: Any) -> str:
    bare = _bare(hint)
    return bare.__name__ if isinstance(bare, type) and not typing.get_args(bare) else str(bare)


# Values


def _of_state(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, collections.abc.Mapping) else getattr(state, key)


def _put(message: Any, path: str, value: Any) -> None:
    *outer, last = path.split(".")
    for name in outer:
        message = getattr(message, name)
    field = message.DESCRIPTOR.fields_by_name[last]
    if field.is_repeated or field.message_type is not None:
        _fill(message, field, value)
    elif field.enum_type is not None and isinstance(value, str):
        setattr(message, last, field.enum_type.values_by_name[value].number)
    else:
        setattr(message, last, value)


def _fill(message: Any, field: FieldDescriptor, value: Any) -> None:
    """Sets a field that is no scalar."""
    target = getattr(message, field.name)
    if isinstance(value, Message):
        target.CopyFrom(value)
    elif isinstance(value, datetime):
        target.FromDatetime(value)
    elif isinstance(value, timedelta):
        target.FromTimedelta(value)
    elif field.message_type is None:
        target.extend(value)
    elif field.is_repeated:
        json_format.ParseDict({field.name: value}, message)
    else:
        json_format.ParseDict(value, target)
        target.SetInParent()


def _get(message: Any, path: str) -> Any:
    *outer, last = path.split(".")
    for name in outer:
        message = getattr(message, name)
    field = message.DESCRIPTOR.fields_by_name[last]
    value = getattr(message, last)
    if (entry := _entry(field)) is not None:
        kind = entry.fields_by_name["value"]
        return {key: _value(kind, each) for key, each in value.items()}
    if field.is_repeated:
        return [_value(field, each) for each in value]
    if field.has_presence and not message.HasField(last):
        return None
    return _value(field, value)


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named is not None else str(value)
    if not isinstance(value, Message):
        return value
    kind = value.DESCRIPTOR.full_name
    if kind == _MOMENT:
        return value.ToDatetime()  # type: ignore[attr-defined]  # a Timestamp
    if kind == _SPAN:
        return value.ToTimedelta()  # type: ignore[attr-defined]  # a Duration
    return _plain(value)


def _plain(message: Message) -> dict[str, Any]:
    # The state is stored: LangGraph's serializer takes a document, and no message.
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _field(message: type[Message], path: str) -> FieldDescriptor | None:
    descriptor: Any = message.DESCRIPTOR  # of either of two classes, which are alike
    *outer, last = path.split(".")
    for name in outer:
        field = descriptor.fields_by_name.get(name)
        if field is None or field.message_type is None or field.is_repeated:
            return None
        descriptor = field.message_type
    found: FieldDescriptor | None = descriptor.fields_by_name.get(last)
    return found


def _entry(field: FieldDescriptor) -> Descriptor | None:
    """The message of a map's entries; None: it is no map."""
    kind = field.message_type
    return kind if kind is not None and kind.GetOptions().map_entry else None
