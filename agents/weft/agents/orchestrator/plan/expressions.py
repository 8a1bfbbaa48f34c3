"""Expressions of a workflow: what each may name, and what each has to give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from google.protobuf.descriptor import Descriptor

from weft.agents.orchestrator.plan import cel
from weft.agents.orchestrator.plan.cel import CompileFailed, Environment, Program, StaticType
from weft.agents.orchestrator.plan.faults import Faults
from weft.agents.orchestrator.plan.types import MessageTypes
from weft.v1 import workflow_pb2
from weft.v1.workflow_pb2 import Call, Compute, FaultKind, Fields, SubWorkflow

EVERYWHERE: Final = ("input", "ran", "visits", "failures", "decisions", "run")
"""Names that every expression has."""

_BY_NODE: Final = frozenset({"ran", "visits", "failures", "decisions"})
_MOST_FIELDS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an expression stands.

    Attributes:
        path: such as "nodes[2].call.message".
        earlier: nodes that may have run when it is computed.
        extra: variables that only some places have.
    """

    path: str
    earlier: frozenset[str]
    extra: Mapping[str, StaticType] = field(default_factory=dict)

    def at(self, suffix: str) -> Place:
        """A place below."""
        return replace(self, path=f"{self.path}.{suffix}" if self.path else suffix)

    def naming(self, extra: Mapping[str, StaticType]) -> Place:
        """The same place with more variables."""
        return replace(self, extra={**self.extra, **extra})


class Expressions:
    """Compiles the expressions of a workflow.

    Every method gives None where something is wrong, which is a fault then.

    Args:
        types: the messages.
        input_type: what runs begin with; None: not known, so that nothing is said of its fields.
        nodes: types of what nodes give, by id; None: not known.
        approvals: ids of nodes that ask people.
        faults: where faults go.
    """

    def __init__(
        self,
        types: MessageTypes,
        input_type: str | None,
        nodes: Mapping[str, str | None],
        approvals: frozenset[str],
        faults: Faults,
    ) -> None:
        self.types = types
        self._nodes = nodes
        self._approvals = approvals
        self._faults = faults
        self._variables: dict[str, StaticType] = {
            node: cel.DYN if name is None else cel.message_type(name)
            for node, name in nodes.items()
        } | {
            "input": cel.DYN if input_type is None else cel.message_type(input_type),
            "ran": cel.map_type(cel.BOOL),
            "visits": cel.map_type(cel.INT),
            "failures": cel.map_type(_of(workflow_pb2.StepFailure.DESCRIPTOR)),
            "decisions": cel.map_type(_of(workflow_pb2.Decision.DESCRIPTOR)),
            "run": _of(workflow_pb2.RunInfo.DESCRIPTOR),
        }
        self._environments: dict[tuple[tuple[str, str], ...], Environment] = {}

    def boolean(self, source: str, place: Place) -> Program | None:
        """An expression of a bool."""
        return self._plain(source, place, "BOOL", "a bool")

    def string(self, source: str, place: Place) -> Program | None:
        """An expression of a string."""
        return self._plain(source, place, "STRING", "a string")

    def message(self, source: str, name: str | None, place: Place) -> Program | None:
        """An expression of a message of a type; None: the type is not known, and nothing is said of it."""
        program = self._compile(source, place)
        if program is None or name is None:
            return None
        if not program.gives(name, self.types):
            self._mismatch(place, f"gives {_name(program.type)}, not {name}")
            return None
        return program

    def any_message(self, source: str, place: Place) -> tuple[Program, str] | None:
        """An expression of a message of any type, and the type."""
        program = self._compile(source, place)
        if program is None:
            return None
        name = _message_name(program.type)
        if name is None or not program.gives(name, self.types):
            self._mismatch(place, f"gives {_name(program.type)}, not a message")
            return None
        return program, name

    def time(self, source: str, place: Place) -> Program | None:
        """An expression of a Timestamp or a Duration."""
        program = self._compile(source, place)
        if program is None:
            return None
        names = ("google.protobuf.Timestamp", "google.protobuf.Duration")
        static = program.type.name()
        if static == "DYN" or not any(program.gives(name, self.types) for name in names):
            self._mismatch(place, f"gives {_name(program.type)}, not a Timestamp or a Duration")
            return None
        return program

    def items(self, source: str, place: Place) -> tuple[Program, StaticType] | None:
        """An expression of a list, and the type of its elements."""
        program = self._compile(source, place)
        if program is None:
            return None
        static = program.type.name()
        if static == "DYN":
            return program, cel.DYN
        if not static.startswith("LIST<"):
            self._mismatch(place, f"gives {_name(program.type)}, not a list")
            return None
        element = self._environment(place).compile(f"({source}\n)[0]")
        return program, element.type

    def fields(self, fields: Fields, name: str | None, place: Place) -> Program | None:
        """A message made of expressions of its fields, as one expression."""
        if len(fields.by_path) > _MOST_FIELDS:
            self._add(
                FaultKind.FAULT_KIND_OUT_OF_RANGE, place, f"has more than {_MOST_FIELDS} fields"
            )
            return None
        message = self.types.find(name) if name else None
        sound, tree = True, _Tree()
        for path, source in sorted(fields.by_path.items()):
            here = place.at(f'by_path["{path}"]')
            # Each by itself first: what cannot be parsed alone must not be completed by what stands around it.
            sound &= self._compile(source, here) is not None
            wrong = tree.put(path, source, message) if message is not None else ""
            if wrong:
                self._mismatch(here, wrong)
                sound = False
        if message is None or name is None:
            return None
        if not sound:
            self._fit_each(fields, message, place)
            return None
        try:
            program = self._environment(place).compile(tree.construct(message))
        except CompileFailed as failed:
            if self._fit_each(fields, message, place):
                self._mismatch(place, failed.message)
            return None
        if not program.gives(name, self.types):
            self._mismatch(place, f"gives {_name(program.type)}, not {name}")
            return None
        return program

    def given(
        self, part: Call | Compute | SubWorkflow, name: str | None, place: Place, missing: str
    ) -> Program | None:
        """The message that a part of a node says by an expression or by fields; `missing` is the fault of one that does not."""
        if part.HasField("message"):
            return self.message(part.message, name, place.at("message"))
        if part.HasField("fields"):
            return self.fields(part.fields, name, place.at("fields"))
        self._add(FaultKind.FAULT_KIND_MALFORMED, place, missing)
        return None

    def _fit_each(self, fields: Fields, message: Descriptor, place: Place) -> bool:
        """Takes down each field whose expression is of another type. True: there is none."""
        fit = True
        environment = self._environment(place)
        for path, source in sorted(fields.by_path.items()):
            alone = _Tree()
            if alone.put(path, source, message):
                continue
            try:
                environment.compile(source)
            except CompileFailed:
                continue
            try:
                environment.compile(alone.construct(message))
            except CompileFailed as failed:
                self._mismatch(place.at(f'by_path["{path}"]'), failed.message.rpartition(" (")[0])
                fit = False
        return fit

    def _plain(self, source: str, place: Place, static: str, words: str) -> Program | None:
        program = self._compile(source, place)
        if program is None:
            return None
        if program.type.name() not in {static, "DYN"}:
            self._mismatch(place, f"gives {_name(program.type)}, not {words}")
            return None
        return program

    def _compile(self, source: str, place: Place) -> Program | None:
        if not source.strip():
            self._add(FaultKind.FAULT_KIND_MALFORMED, place, "is empty")
            return None
        if len(source) > cel.LONGEST:
            words = f"is longer than {cel.LONGEST:,} characters"
            self._add(FaultKind.FAULT_KIND_MALFORMED, place, words)
            return None
        try:
            program = self._environment(place).compile(source)
        except CompileFailed as failed:
            kind = (
                FaultKind.FAULT_KIND_SYNTAX if failed.syntax else FaultKind.FAULT_KIND_TYPE_MISMATCH
            )
            self._add(kind, place, failed.message)
            return None
        return program if self._known(program, place) else None

    def _known(self, program: Program, place: Place) -> bool:
        sound = True
        for name in sorted(program.uses.names - place.extra.keys()):
            if name in self._nodes and name not in place.earlier:
                words = f"{name} can not have run before: no way leads from it to here"
                self._add(FaultKind.FAULT_KIND_NOT_YET_RUN, place, words)
                sound = False
        for name, key in sorted(program.uses.keys):
            if name not in _BY_NODE or name in place.extra:
                continue
            if key not in self._nodes:
                self._mismatch(place, f"{name}.{key}: there is no node {key!r}")
                sound = False
            elif name == "decisions" and key not in self._approvals:
                self._mismatch(place, f"decisions.{key}: {key} asks nobody")
                sound = False
        return sound

    def _environment(self, place: Place) -> Environment:
        key = tuple(sorted((name, static.name()) for name, static in place.extra.items()))
        found = self._environments.get(key)
        if found is None:
            found = Environment(self.types, {**self._variables, **place.extra})
            self._environments[key] = found
        return found

    def _mismatch(self, place: Place, message: str) -> None:
        self._add(FaultKind.FAULT_KIND_TYPE_MISMATCH, place, message)

    def _add(self, kind: FaultKind.ValueType, place: Place, message: str) -> None:
        self._faults.add(kind, place.path, message)


class _Tree:
    """Expressions by field, nested as the message is."""

    def __init__(self) -> None:
        self._fields: dict[str, str | _Tree] = {}
        self._oneofs: dict[str, str] = {}

    def put(self, path: str, source: str, message: Descriptor) -> str:  # noqa: PLR0911  a fault each
        """Adds an expression; what is wrong with its path, or nothing."""
        name, _, rest = path.partition(".")
        field = message.fields_by_name.get(name)
        if field is None:
            return f"{message.full_name} has no field {name!r}"
        if field.containing_oneof is not None:
            other = self._oneofs.setdefault(field.containing_oneof.name, name)
            if other != name:
                return f"only one of {other} and {name} can be set"
        if not rest:
            if name in self._fields:
                return f"{name} is set as a whole and in parts"
            self._fields[name] = source
            return ""
        if field.message_type is None or field.is_repeated:
            return f"{name} is no message with fields"
        inner = self._fields.setdefault(name, _Tree())
        if not isinstance(inner, _Tree):
            return f"{name} is set as a whole and in parts"
        return inner.put(rest, source, field.message_type)

    def construct(self, message: Descriptor) -> str:
        """The expression of the message. A line break ends comments that an expression may end with."""
        parts: list[str] = []
        for name, inner in self._fields.items():
            within = message.fields_by_name[name].message_type
            if isinstance(inner, str):
                parts.append(f"{name}: ({inner}\n)")
            elif within is not None:
                parts.append(f"{name}: {inner.construct(within)}")
        return f"{message.full_name}{{{', '.join(parts)}}}"


_MESSAGES: Final = {
    "TIMESTAMP": "google.protobuf.Timestamp",
    "DURATION": "google.protobuf.Duration",
}


def _message_name(static: StaticType) -> str | None:
    name = str(static.name())
    return name if static.is_message() else _MESSAGES.get(name)


def _name(static: StaticType) -> str:
    """A type as people write it."""
    name = str(static.name())
    return name if "." in name else name.lower()


def _of(message: Descriptor) -> StaticType:
    return cel.message_type(message.full_name)
