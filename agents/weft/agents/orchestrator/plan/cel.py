"""CEL (https://cel.dev) by Google's own implementation: the only module that knows it.

What has to be known of it: an error of an evaluation is a value whose type is ERROR and which is true where it is taken for
a bool; variables come as protobuf messages, lists and maps; well-known types come out as plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cel_expr_python import cel
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.message import Message

from weft.agents.orchestrator.plan.model import ExpressionFailed
from weft.agents.orchestrator.plan.syntax import Uses, uses
from weft.agents.orchestrator.plan.types import MessageTypes, item_of

LONGEST: Final = 10_000
"""Characters of an expression."""

StaticType = Any
"""A type of CEL: has a name()."""

BOOL: Final[StaticType] = cel.Type.BOOL
INT: Final[StaticType] = cel.Type.INT
STRING: Final[StaticType] = cel.Type.STRING
DYN: Final[StaticType] = cel.Type.DYN

_ERROR: Final = cel.Type.ERROR
# Of CEL's extensions that of strings: join, format, substring and the like.
_CONFIG: Final = "name: weft\nextensions:\n  - name: strings\n    version: latest\n"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class CompileFailed(Exception):
    """An expression cannot be compiled.

    Attributes:
        syntax: whether it cannot be parsed; otherwise it is of the wrong types.
        message: what is wrong.
    """

    def __init__(self, message: str, *, syntax: bool) -> None:
        super().__init__(message)
        self.message = message
        self.syntax = syntax


def message_type(name: str) -> StaticType:
    """The type of messages, by full name; of "list(NAME)" that of lists of them."""
    item = item_of(name)
    return cel.Type(name) if item is None else list_type(cel.Type(item))


def list_type(of: StaticType) -> StaticType:
    """The type of lists."""
    return cel.Type.List(of)


def map_type(to: StaticType) -> StaticType:
    """The type of maps from strings."""
    return cel.Type.Map(cel.Type.STRING, to)


class Program:
    """A compiled expression.

    Attributes:
        source: as it is written.
        uses: what it names.
        type: of what it gives.
    """

    __slots__ = ("_eval", "_names", "_new", "source", "type", "uses")

    def __init__(self, source: str, compiled: Any, used: Uses) -> None:
        self.source = source
        self.uses = used
        self.type: StaticType = compiled.return_type()
        self._eval = compiled.eval
        self._names = tuple(sorted(used.names))
        self._new: Callable[[Any], Message | None] | None = None

    def gives(self, name: str, types: MessageTypes) -> bool:
        """Makes the program one of messages of a type. False: it gives something else."""
        static = self.type.name()
        made = types.message_class(name)
        if made is None or not _assignable(static, name):
            return False
        self._new = _maker(name, made)
        return True

    def truth(self, scope: Mapping[str, object]) -> bool:
        """Of an expression of a bool. Raises ExpressionFailed."""
        value = self._run(scope).value()
        if value is True or value is False:
            return bool(value)
        raise ExpressionFailed(f"gave {_kind(value)}, not a bool", source=self.source)

    def text(self, scope: Mapping[str, object]) -> str:
        """Of an expression of a string. Raises ExpressionFailed."""
        value = self._run(scope).value()
        if not isinstance(value, str):
            raise ExpressionFailed(f"gave {_kind(value)}, not a string", source=self.source)
        return value

    def message(self, scope: Mapping[str, object]) -> Message:
        """Of an expression of a message. Raises ExpressionFailed."""
        value = self._run(scope).plain_value()
        if self._new is None:
            raise ExpressionFailed("this is no expression of a message", source=self.source)
        try:
            made = self._new(value)
        except (TypeError, ValueError) as failed:
            raise ExpressionFailed(f"gave {_kind(value)}: {failed}", source=self.source) from None
        if made is None:
            raise ExpressionFailed(f"gave {_kind(value)}", source=self.source)
        return made

    def items(self, scope: Mapping[str, object]) -> list[object]:
        """Of an expression of a list. Raises ExpressionFailed."""
        value = self._run(scope).plain_value()
        if not isinstance(value, list):
            raise ExpressionFailed(f"gave {_kind(value)}, not a list", source=self.source)
        return value

    def _run(self, scope: Mapping[str, object]) -> Any:
        try:
            value = self._eval(data={name: scope[name] for name in self._names})
        except Exception as failed:
            raise ExpressionFailed(str(failed), source=self.source) from failed
        if value.type() == _ERROR:
            raise ExpressionFailed(str(value.value()), source=self.source)
        return value


class Environment:
    """What expressions of a place may name.

    Args:
        types: the messages.
        variables: types of variables by name.
    """

    def __init__(self, types: MessageTypes, variables: Mapping[str, StaticType]) -> None:
        self.variables = variables
        config = cel.NewEnvConfigFromYaml(_CONFIG)
        self._env = cel.NewEnv(types.pool, config=config, variables=dict(variables))

    def compile(self, source: str) -> Program:
        """Parses an expression and settles its types.

        Raises:
            CompileFailed: it cannot be parsed, or its types do not fit.
        """
        if not source.strip():
            raise CompileFailed("is empty", syntax=True)
        if len(source) > LONGEST:
            raise CompileFailed(f"is longer than {LONGEST:,} characters", syntax=True)
        try:
            compiled = self._env.compile(source)
        except Exception as failed:  # noqa: BLE001  the extension raises RuntimeError
            raise _explained(str(failed)) from None
        return Program(source, compiled, uses(compiled.serialize(), self.variables))


def _kind(value: Any) -> str:
    """What a value is, without saying it: it may be secret, or large."""
    return value.DESCRIPTOR.full_name if isinstance(value, Message) else type(value).__name__


def _explained(text: str) -> CompileFailed:
    syntax = "Syntax error" in text or "recursion depth" in text or "parsing" in text
    first = (
        text.removeprefix("INVALID_ARGUMENT: ")
        .split("\n", 1)[0]
        .removesuffix(" [INVALID_ARGUMENT]")
    )
    where, found, what = first.removeprefix("ERROR: <input>:").partition(": ")
    line, _, column = where.partition(":")
    if found and line.isdigit() and column.isdigit():
        # A position is said within the line; expressions have one line as a rule.
        place = f"column {column}" if line == "1" else f"line {line}, column {column}"
        return CompileFailed(f"{what} ({place})", syntax=syntax)
    return CompileFailed(what or first, syntax=syntax)


_WRAPPED: Final[dict[str, str]] = {
    "google.protobuf.StringValue": "STRING",
    "google.protobuf.BytesValue": "BYTES",
    "google.protobuf.BoolValue": "BOOL",
    "google.protobuf.Int32Value": "INT",
    "google.protobuf.Int64Value": "INT",
    "google.protobuf.UInt32Value": "UINT",
    "google.protobuf.UInt64Value": "UINT",
    "google.protobuf.FloatValue": "DOUBLE",
    "google.protobuf.DoubleValue": "DOUBLE",
}
_TIMES: Final = {
    "google.protobuf.Timestamp": "TIMESTAMP",
    "google.protobuf.Duration": "DURATION",
}


def _assignable(static: str, name: str) -> bool:
    if static in {name, "DYN"}:
        return True
    if name in _WRAPPED:
        return static == _WRAPPED[name]
    if name in _TIMES:
        return static == _TIMES[name]
    if name == "google.protobuf.Struct":
        return static.startswith(("MAP<STRING", "MAP<DYN"))
    if name == "google.protobuf.ListValue":
        return static.startswith("LIST<")
    return name == "google.protobuf.Value" and static not in {"TYPE", "ERROR"}


def _maker(name: str, made: type[Message]) -> Callable[[Any], Message | None]:
    """What makes a message of a type from what CEL gives; None where it is of another type."""
    if name in _WRAPPED:
        kind: tuple[type, ...] = {
            "STRING": (str,),
            "BYTES": (bytes, bytearray),
            "BOOL": (bool,),
            "DOUBLE": (float,),
        }.get(_WRAPPED[name], (int,))

        def wrapped(value: Any) -> Message | None:
            fits = isinstance(value, kind) and (kind == (bool,) or not isinstance(value, bool))
            given = bytes(value) if isinstance(value, bytearray) else value
            return made(value=given) if fits else None

        return wrapped
    special = _SPECIAL.get(name)
    if special is not None:
        return special

    def same(value: Any) -> Message | None:
        if isinstance(value, made):
            return value
        if isinstance(value, Message) and value.DESCRIPTOR.full_name == name:
            return made.FromString(value.SerializeToString())
        return None

    return same


def _timestamp(value: Any) -> Message | None:
    if isinstance(value, timestamp_pb2.Timestamp):
        return value
    if not isinstance(value, datetime):
        return None
    seconds, rest = divmod(value - _EPOCH, timedelta(seconds=1))
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest // _MICROSECOND * 1000)


def _duration(value: Any) -> Message | None:
    if isinstance(value, duration_pb2.Duration):
        return value
    if not isinstance(value, timedelta):
        return None
    made = duration_pb2.Duration()
    made.FromTimedelta(value)
    return made


def _struct(value: Any) -> Message | None:
    if not isinstance(value, dict):
        return None
    made = struct_pb2.Struct()
    made.update(value)
    return made


def _list_value(value: Any) -> Message | None:
    if not isinstance(value, list):
        return None
    made = struct_pb2.ListValue()
    made.extend(value)
    return made


def _value(value: Any) -> Message | None:
    holder = _list_value([value])
    return holder.values[0] if isinstance(holder, struct_pb2.ListValue) else None


_SPECIAL: Final[dict[str, Callable[[Any], Message | None]]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list_value,
    "google.protobuf.Value": _value,
}
