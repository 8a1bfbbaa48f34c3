"""JSON schemas as messages.

What protobuf can say is said: objects, strings, numbers, integers, booleans, arrays, maps. What it cannot, and what is
odd, is google.protobuf.Struct or Value, which has the same JSON. Schemas come from strangers: they are never used to
check anything, nothing they refer to is fetched, and how much of one is read is bounded.

Fields get their numbers from their names, so that a message written before a schema changed is read the same after it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2

from weft.agents.remote.names import camel, clean, distinct, snake
from weft.v1 import options_pb2

Json = dict[str, Any]
F = descriptor_pb2.FieldDescriptorProto

STRUCT = ".google.protobuf.Struct"
VALUE = ".google.protobuf.Value"

_MOST_FIELDS = 1_000  # of all messages made of one schema
_DEEPEST = 24
_MOST_REFERENCES = 16  # one behind the other
_LONGEST_DESCRIPTION = 500
_MOST_LISTED = 20  # values of an enum in a description
_NUMBERS = 1 << 18  # numbers of fields: up to this one a tag takes three bytes
_RESERVED = range(19_000, 20_000)
_INT32 = (-(1 << 31), (1 << 31) - 1)
# Names that every JSON codec takes as they stand.
_NAME = re.compile(r"[\w$@.:/+-][\w$@.:/+ -]{0,99}")
_SCALARS: Mapping[str, F.Type.ValueType] = {
    "string": F.TYPE_STRING,
    "number": F.TYPE_DOUBLE,
    "boolean": F.TYPE_BOOL,
}


class Unsayable(Exception):
    """Protobuf cannot say it."""


class TooMuch(Exception):
    """The schema as a whole is too large to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What became of a schema.

    Attributes:
        type_name: full name of the message's type, with a leading dot.
        message: the message, where it is one of its own.
        nulls: fields that are required and may be null: message and field.
        whole: why the schema as a whole is a Struct or a Value; empty: it is not.
    """

    type_name: str
    message: descriptor_pb2.DescriptorProto | None = None
    nulls: frozenset[tuple[str, str]] = frozenset()
    whole: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What a field can hold."""

    type: F.Type.ValueType = F.TYPE_MESSAGE
    type_name: str = VALUE
    repeated: bool = False
    mapped: bool = False
    nullable: bool = False
    secret: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def single(self) -> bool:
        """Whether an array or a map can hold such values."""
        return not (self.repeated or self.mapped or self.nullable)


_ANYTHING = _Kind()
_OBJECT = _Kind(type_name=STRUCT)


def compile_schema(schema: object, *, package: str, name: str) -> Compiled:
    """A schema as the message `package.name`, or as a Struct or a Value where it can be no message."""
    try:
        return _Builder(schema, package, name).root()
    except (Unsayable, TooMuch) as why:
        kind = schema.get("type") if isinstance(schema, dict) else None
        return Compiled(type_name=STRUCT if kind == "object" else VALUE, whole=str(why))


class _Builder:
    """Makes one message, with all that it is made of inside."""

    def __init__(self, schema: object, package: str, name: str) -> None:
        self._document = schema
        self._full_name = f"{package}.{name}"
        self._message = descriptor_pb2.DescriptorProto(name=name)
        self._names: set[str] = set()
        self._of_reference: dict[str, str] = {}
        self._nulls: set[tuple[str, str]] = set()
        self._fields = 0

    def root(self) -> Compiled:
        schema, reference, nullable = self._plain(self._document)
        if schema.get("type") != "object" or nullable:
            raise Unsayable("it is no object")
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            if schema.get("additionalProperties") is not False:
                raise Unsayable("it names no properties")
            properties = {}
        _check_closed(schema)
        for known in {"#", reference} - {""}:
            self._of_reference[known] = f".{self._full_name}"
        self._fill(self._message, self._full_name, properties, _required(schema), 0)
        return Compiled(
            type_name=f".{self._full_name}", message=self._message, nulls=frozenset(self._nulls)
        )

    def _fill(
        self,
        message: descriptor_pb2.DescriptorProto,
        full_name: str,
        properties: Json,
        required: frozenset[str],
        depth: int,
    ) -> None:
        properties = {name: each for name, each in properties.items() if each is not False}
        if odd := [name for name in properties if not _NAME.fullmatch(name)]:
            raise Unsayable(f"it has a property {clean(odd[0], 40)!r}")
        names = _field_names(properties)
        numbers = _field_numbers(properties)
        for name, schema in properties.items():
            kind = self._kind(schema, name, depth + 1)
            made = message.field.add(
                name=names[name],
                json_name=name,
                number=numbers[name],
                type=kind.type,
                label=F.LABEL_REPEATED if kind.repeated or kind.mapped else F.LABEL_OPTIONAL,
            )
            if kind.mapped:
                _make_map(message, made, kind, full_name)
            elif kind.type == F.TYPE_MESSAGE:
                made.type_name = kind.type_name
            _describe(made, schema, kind)
            if name in required:
                made.options.Extensions[field_behavior_pb2.field_behavior].append(
                    field_behavior_pb2.REQUIRED
                )
                if kind.nullable:
                    self._nulls.add((full_name, made.name))
        taken = {*properties, *names.values()}
        for made in message.field:
            if made.label == F.LABEL_OPTIONAL and made.type != F.TYPE_MESSAGE:
                made.proto3_optional = True
                made.oneof_index = len(message.oneof_decl)
                oneof = f"_{made.name}"
                while oneof in taken:  # as protoc does it
                    oneof = f"X{oneof}"
                taken.add(oneof)
                message.oneof_decl.add(name=oneof)

    def _kind(self, given: object, name: str, depth: int) -> _Kind:
        """What a field of a schema can hold."""
        self._fields += 1
        if self._fields > _MOST_FIELDS:
            raise TooMuch(f"it has more than {_MOST_FIELDS} fields")
        if depth > _DEEPEST:
            return _ANYTHING
        try:
            schema, reference, nullable = self._plain(given)
            return replace(self._of_type(schema, reference, name, depth), nullable=nullable)
        except Unsayable:
            return _ANYTHING

    def _of_type(self, schema: Json, reference: str, name: str, depth: int) -> _Kind:
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, reference, name, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind == "integer":
            return _Kind(type=_integer(schema), type_name="")
        scalar = _SCALARS.get(kind) if isinstance(kind, str) else None
        if scalar is None:
            raise Unsayable(f"the type {clean(kind, 40)!r}")
        return _Kind(
            type=scalar,
            type_name="",
            secret=schema.get("format") == "password",
            notes=_choices(schema),
        )

    def _array(self, schema: Json, name: str, depth: int) -> _Kind:
        item = _ANYTHING
        if "prefixItems" not in schema and isinstance(schema.get("items"), dict):
            found = self._kind(schema["items"], name, depth + 1)
            item = found if found.single else _ANYTHING
        return replace(item, repeated=True)

    def _object(self, schema: Json, reference: str, name: str, depth: int) -> _Kind:
        if reference in self._of_reference:
            return _Kind(type_name=self._of_reference[reference])
        properties = schema.get("properties")
        more = schema.get("additionalProperties")
        if not properties and isinstance(more, dict) and more and "patternProperties" not in schema:
            value = self._kind(more, name, depth + 1)
            return replace(value, mapped=True) if value.single else _OBJECT
        if not isinstance(properties, dict) or not (properties or more is False):
            return _OBJECT
        # What cannot be finished leaves nothing behind.
        before = (len(self._message.nested_type), dict(self._of_reference))
        try:
            _check_closed(schema)
            return self._nested(schema, properties, reference, name, depth)
        except Unsayable:
            del self._message.nested_type[before[0] :]
            self._of_reference = before[1]
            return _OBJECT

    def _nested(
        self, schema: Json, properties: Json, reference: str, name: str, depth: int
    ) -> _Kind:
        own = self._free_name(camel(reference.rpartition("/")[2] or name))
        full_name = f"{self._full_name}.{own}"
        if reference:
            self._of_reference[reference] = f".{full_name}"
        place = len(self._message.nested_type)
        self._message.nested_type.add(name=own)
        # Filled apart: filling it may add further ones.
        made = descriptor_pb2.DescriptorProto(name=own)
        self._fill(made, full_name, properties, _required(schema), depth)
        self._message.nested_type[place].CopyFrom(made)
        return _Kind(type_name=f".{full_name}")

    def _free_name(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self._names or name.endswith("Entry"):
            name, number = f"{wanted}{number}", number + 1
        self._names.add(name)
        return name

    def _plain(self, given: object) -> tuple[Json, str, bool]:
        """A schema with nothing before its type, the last reference that led to it, and whether it may be null."""
        nullable = False
        reference = ""
        for _ in range(_MOST_REFERENCES):
            if not isinstance(given, dict):
                raise Unsayable("it is no schema")
            if isinstance(given.get("$ref"), str):
                reference = given["$ref"]
                given = self._target(reference)
                continue
            choices = given.get("anyOf") or given.get("oneOf") or given.get("allOf")
            if choices is None:
                kind, may_be_null = _type_of(given)
                return {**given, "type": kind}, reference, nullable or may_be_null
            if not isinstance(choices, list) or given.get("properties"):
                raise Unsayable("it is made of several")
            left = [each for each in choices if not _is_null(each)]
            nullable = nullable or len(left) < len(choices)
            if len(left) != 1:
                raise Unsayable("it is one of several")
            given, reference = left[0], ""
        raise Unsayable("its references do not end")

    def _target(self, reference: str) -> object:
        if not reference.startswith("#"):
            raise Unsayable("it refers to another document")
        found: object = self._document
        for step in reference[1:].split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise Unsayable("it refers to what is not there")
            found = found[key]
        return found


def _type_of(schema: Json) -> tuple[str, bool]:
    """The one type of a schema, and whether it may be null."""
    kind: object = schema.get("type")
    given = schema.get("enum")
    values = given if isinstance(given, list) else [schema["const"]] if "const" in schema else []
    nullable = None in values
    if isinstance(kind, list):
        nullable = nullable or "null" in kind
        left = [each for each in kind if each != "null"]
        if set(map(str, left)) == {"integer", "number"}:
            left = ["number"]
        kind = left[0] if len(left) == 1 else None
    if kind is None and "properties" in schema:
        kind = "object"
    if kind is None and values:
        kinds = {type(each) for each in values if each is not None}
        known = {str: "string", int: "integer", bool: "boolean", float: "number"}
        kind = known.get(kinds.pop()) if len(kinds) == 1 else None
    if not isinstance(kind, str):
        raise Unsayable("it has no one type")
    return kind, nullable


def _is_null(schema: object) -> bool:
    return isinstance(schema, dict) and (
        schema.get("type") == "null" or ("const" in schema and schema["const"] is None)
    )


def _check_closed(schema: Json) -> None:
    """A message holds what it names: what may hold more is none."""
    more = schema.get("additionalProperties")
    if "patternProperties" in schema or (more is not None and more is not False):
        raise Unsayable("it may have properties that it does not name")


def _required(schema: Json) -> frozenset[str]:
    given = schema.get("required")
    return frozenset(filter(_is_text, given)) if isinstance(given, list) else frozenset()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _integer(schema: Json) -> F.Type.ValueType:
    bounds = (schema.get("minimum"), schema.get("maximum"))
    small = all(
        isinstance(each, int) and not isinstance(each, bool) and _INT32[0] <= each <= _INT32[1]
        for each in bounds
    )
    return F.TYPE_INT32 if small else F.TYPE_INT64


def _choices(schema: Json) -> tuple[str, ...]:
    values = schema.get("enum")
    if not isinstance(values, list):
        return ()
    shown = [clean(each, 60) for each in values[:_MOST_LISTED] if isinstance(each, str)]
    more = ", ..." if len(values) > _MOST_LISTED else ""
    return (f"One of: {', '.join(shown)}{more}.",) if shown else ()


def _describe(made: F, schema: object, kind: _Kind) -> None:
    given = schema if isinstance(schema, dict) else {}
    said = clean(given.get("description"), _LONGEST_DESCRIPTION) or clean(given.get("title"), 100)
    notes = [said, *kind.notes]
    default = given.get("default")
    if isinstance(default, str | int | float | bool) and default != "":
        notes.append(f"Default: {clean(str(default), 60)}.")
    text = clean(" ".join(filter(None, notes)), _LONGEST_DESCRIPTION)
    hints = options_pb2.FieldHints(description=text, secret=kind.secret)
    if hints.ByteSize():
        made.options.Extensions[options_pb2.hints].CopyFrom(hints)


def _field_names(properties: Iterable[str]) -> dict[str, str]:
    """Names of fields: of those that JSON may call by two names no two are the same."""
    properties = list(properties)
    as_they_are = {name for name in properties if name == snake(name)}
    others = distinct(
        (name for name in properties if name not in as_they_are),
        snake,
        taken={*properties},
    )
    return {**{name: name for name in as_they_are}, **others}


def _field_numbers(properties: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(properties):
        salt = 0
        while True:
            hashed = hashlib.sha256(f"{salt}{name}".encode(errors="surrogatepass")).digest()
            number = int.from_bytes(hashed[:4], "big") % (_NUMBERS - 1) + 1
            if number not in taken and number not in _RESERVED:
                break
            salt += 1
        taken.add(number)
        numbers[name] = number
    return numbers


def _make_map(
    message: descriptor_pb2.DescriptorProto, made: F, kind: _Kind, full_name: str
) -> None:
    entry = "".join(part[:1].upper() + part[1:] for part in made.name.split("_")) + "Entry"
    nested = message.nested_type.add(name=entry)
    nested.options.map_entry = True
    nested.field.add(
        name="key", json_name="key", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL
    )
    value = nested.field.add(
        name="value", json_name="value", number=2, type=kind.type, label=F.LABEL_OPTIONAL
    )
    if kind.type == F.TYPE_MESSAGE:
        value.type_name = kind.type_name
    made.type = F.TYPE_MESSAGE
    made.type_name = f".{full_name}.{entry}"
