"""Workflows from YAML and JSON: ProtoJSON by the contract, with what makes YAML pleasant.

Beyond ProtoJSON are taken: fields of requests without `by_path`; spans such as "5m"; names of enums without what they all
begin with ("majority"); `join: any` for `join: {any: true}`. Names are those of the .proto, or those of ProtoJSON.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from weft.agents.orchestrator.forms.durations import duration
from weft.agents.orchestrator.forms.tree import (
    Items,
    Position,
    Scalar,
    Table,
    TextFault,
    Tree,
    tree,
)
from weft.v1.workflow_pb2 import Fields, WorkflowSpec

_INTEGERS: Final = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_KINDS: Final = {Scalar: "a value", Items: "a list", Table: "a mapping"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFault:
    """Something in a text that cannot be read.

    Attributes:
        place: where in the workflow, such as "nodes[2].call"; empty: the whole.
    """

    at: Position
    place: str
    message: str

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"{self.at.line}:{self.at.column}: {place}{self.message}"


class SpecUnreadable(ValueError):
    """A text is no workflow. `faults` says all that is wrong with it, and where."""

    def __init__(self, faults: Sequence[FormFault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSpec:
    """A workflow that was read, and where in its text everything is."""

    spec: WorkflowSpec
    places: Mapping[str, Position]

    def position(self, place: str) -> Position | None:
        """Where a place such as "nodes[2].call.method" is, or the nearest that holds it; None: nowhere."""
        while place:
            if (found := self.places.get(place)) is not None:
                return found
            place = re.sub(r"(?:^|\.)[^.\[\]]+$|\[[^\[\]]*\]$", "", place, count=1)
        return self.places.get("")


def read_spec(text: str, *, as_json: bool | None = None) -> ReadSpec:
    """Reads a workflow.

    Args:
        text: YAML or JSON.
        as_json: which of them; None: JSON where it begins with a brace.

    Raises:
        SpecUnreadable: it is none.
    """
    if as_json is None:
        as_json = text.lstrip().startswith("{")
    try:
        found = tree(text, as_json=as_json)
    except TextFault as failed:
        fault = FormFault(at=failed.at, place="", message=str(failed))
        raise SpecUnreadable([fault]) from failed
    reader = _Reader()
    spec = WorkflowSpec()
    reader.message(found, spec, "")
    if reader.faults:
        raise SpecUnreadable(reader.faults)
    return ReadSpec(spec=spec, places=reader.places)


class _Reader:
    def __init__(self) -> None:
        self.faults: list[FormFault] = []
        self.places: dict[str, Position] = {}

    def message(self, found: Tree, into: Message, place: str) -> None:
        """Fills a message."""
        self.places.setdefault(place, found.at)
        if isinstance(into, Duration):
            self._duration(found, into, place)
        elif isinstance(found, Scalar) and (name := _switch(found, _of(into))):
            setattr(into, name, True)
        elif not isinstance(found, Table):
            self._wrong(found, place, f"has to be a mapping, not {_KINDS[type(found)]}")
        elif isinstance(into, Fields) and not _is_by_path(found):
            self._strings(found, into.by_path, f"{place}.by_path")
        else:
            self._fields(found, into, place)

    def _fields(self, found: Table, into: Message, place: str) -> None:
        given: dict[str, str] = {}  # members of oneofs and fields -> key
        for key, value in found.entries:
            field = _field(_of(into), key.text)
            if field is None:
                self._unknown(key, _of(into), place)
                continue
            at = f"{place}.{field.name}" if place else field.name
            self.places[at] = key.at
            if field.name in given:
                self._wrong(key, at, "is there twice")
                continue
            if field.containing_oneof is not None:
                other = next((g for g in given if _same_oneof(_of(into), g, field)), None)
                if other is not None and not _is_null(value):
                    self._wrong(key, at, f"cannot be beside {other!r}: it is the one or the other")
                    continue
            if not _is_null(value):
                given[field.name] = key.text
                self._field(value, into, field, at)

    def _field(self, value: Tree, into: Message, field: FieldDescriptor, at: str) -> None:
        held = getattr(into, field.name)
        if _is_map(field):
            if isinstance(value, Table):
                self._strings(value, held, at)
            else:
                self._wrong(value, at, f"has to be a mapping, not {_KINDS[type(value)]}")
        elif field.is_repeated:
            self._list(value, held, field, at)
        elif field.message_type is not None:
            held.SetInParent()
            self.message(value, held, at)
        else:
            self._value(value, field, at, lambda found: setattr(into, field.name, found))

    def _list(self, value: Tree, held: Any, field: FieldDescriptor, at: str) -> None:
        if not isinstance(value, Items):
            self._wrong(value, at, f"has to be a list, not {_KINDS[type(value)]}")
            return
        for number, each in enumerate(value.items):
            place = f"{at}[{number}]"
            if field.message_type is not None:
                self.message(each, held.add(), place)
            else:
                self.places[place] = each.at
                self._value(each, field, place, held.append)

    def _strings(self, value: Table, held: Any, at: str) -> None:
        for key, each in value.entries:
            place = f'{at}["{key.text}"]'
            self.places[place] = key.at
            if key.text in held:
                self._wrong(key, place, "is there twice")
            elif isinstance(each, Scalar):
                held[key.text] = each.text
            else:
                self._wrong(each, place, f"has to be a text, not {_KINDS[type(each)]}")

    def _value(
        self, found: Tree, field: FieldDescriptor, place: str, put: Callable[[Any], object]
    ) -> None:
        if not isinstance(found, Scalar):
            self._wrong(found, place, f"has to be a value, not {_KINDS[type(found)]}")
            return
        try:
            put(_scalar(found, field))
        except ValueError as failed:
            self._wrong(found, place, str(failed))

    def _duration(self, found: Tree, into: Duration, place: str) -> None:
        try:
            if not isinstance(found, Scalar):
                raise ValueError('has to be a span of time, such as "30s"')  # noqa: TRY004, TRY301 told as any other
            into.CopyFrom(duration(found.text))
        except ValueError as failed:
            self._wrong(found, place, str(failed))

    def _unknown(self, key: Scalar, of: Descriptor, place: str) -> None:
        names = [field.name for field in of.fields]
        near = difflib.get_close_matches(key.text, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
        self._wrong(key, place, f"{of.name} has no field {key.text!r}{hint}")

    def _wrong(self, found: Tree, place: str, message: str) -> None:
        self.faults.append(FormFault(at=found.at, place=place, message=message))


def _of(message: Message) -> Descriptor:
    return cast("Descriptor", message.DESCRIPTOR)  # pure Python's and upb's are one to readers


def _field(of: Descriptor, name: str) -> FieldDescriptor | None:
    found = of.fields_by_name.get(name)
    return found if found is not None else of.fields_by_camelcase_name.get(name)


def _same_oneof(of: Descriptor, given: str, field: FieldDescriptor) -> bool:
    return of.fields_by_name[given].containing_oneof == field.containing_oneof


def _switch(found: Scalar, of: Descriptor) -> str | None:
    """The field of a oneof of bools that a word names: "any" of a join."""
    field = _field(of, found.text)
    is_switch = (
        field is not None
        and field.containing_oneof is not None
        and field.type == FieldDescriptor.TYPE_BOOL
        and len(of.oneofs) == 1
        and len(of.oneofs[0].fields) == len(of.fields)
    )
    return field.name if field is not None and is_switch else None


def _is_by_path(found: Table) -> bool:
    """Whether it is written as ProtoJSON has it."""
    return any(
        key.text in {"by_path", "byPath"} and isinstance(value, Table)
        for key, value in found.entries
    )


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


def _is_null(value: Tree) -> bool:
    return isinstance(value, Scalar) and not value.quoted and value.text in {"", "null", "~"}


def _scalar(found: Scalar, field: FieldDescriptor) -> Any:
    """A value for a field; raises ValueError."""
    text = found.text
    if field.enum_type is not None:
        return _enum(text, field.enum_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in {"true", "false"}:
            raise ValueError(f"has to be true or false, not {text!r}")
        return text == "true"
    if field.type in _INTEGERS:
        least, most = _INTEGERS[field.type]
        if not re.fullmatch(r"-?\d{1,20}", text) or not least <= int(text) <= most:
            raise ValueError(f"has to be a whole number from {least} to {most}, not {text!r}")
        return int(text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"has to be a number, not {text!r}")
    return number


def _enum(text: str, of: EnumDescriptor) -> int:
    begin = enum_prefix(of)
    for name in (text, begin + text.upper()):
        if name in of.values_by_name:
            return of.values_by_name[name].number
    known = [name.removeprefix(begin).lower() for name in of.values_by_name][1:]
    near = difflib.get_close_matches(text.lower(), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
    raise ValueError(f"{text!r} is no {of.name}{hint}")


def enum_prefix(of: EnumDescriptor) -> str:
    """What the names of an enum begin with: DecisionRule -> DECISION_RULE_."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", of.name).upper() + "_"
