"""What an expression names, read from its checked syntax tree (cel.expr.CheckedExpr, of which the needed part is here)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

_INT64, _STRING, _BOOL, _MESSAGE = 3, 9, 8, 11  # google.protobuf.FieldDescriptorProto.Type
# From cel/expr/syntax.proto and checked.proto, https://github.com/google/cel-spec: message -> (field, number, type,
# message, repeated).
_TREE: Final[dict[str, tuple[tuple[str, int, int, str, bool], ...]]] = {
    "CheckedExpr": (("expr", 4, _MESSAGE, "Expr", False),),
    "Constant": (("string_value", 6, _STRING, "", False),),
    "Expr": (
        ("id", 2, _INT64, "", False),
        ("const_expr", 3, _MESSAGE, "Constant", False),
        ("ident_expr", 4, _MESSAGE, "Ident", False),
        ("select_expr", 5, _MESSAGE, "Select", False),
        ("call_expr", 6, _MESSAGE, "Call", False),
        ("list_expr", 7, _MESSAGE, "CreateList", False),
        ("struct_expr", 8, _MESSAGE, "CreateStruct", False),
        ("comprehension_expr", 9, _MESSAGE, "Comprehension", False),
    ),
    "Ident": (("name", 1, _STRING, "", False),),
    "Select": (
        ("operand", 1, _MESSAGE, "Expr", False),
        ("field", 2, _STRING, "", False),
        ("test_only", 3, _BOOL, "", False),
    ),
    "Call": (
        ("target", 1, _MESSAGE, "Expr", False),
        ("function", 2, _STRING, "", False),
        ("args", 3, _MESSAGE, "Expr", True),
    ),
    "CreateList": (("elements", 1, _MESSAGE, "Expr", True),),
    "CreateStruct": (("entries", 2, _MESSAGE, "Entry", True),),
    "Entry": (
        ("map_key", 3, _MESSAGE, "Expr", False),
        ("value", 4, _MESSAGE, "Expr", False),
    ),
    "Comprehension": (
        ("iter_var", 1, _STRING, "", False),
        ("iter_range", 2, _MESSAGE, "Expr", False),
        ("accu_var", 3, _STRING, "", False),
        ("accu_init", 4, _MESSAGE, "Expr", False),
        ("loop_condition", 5, _MESSAGE, "Expr", False),
        ("loop_step", 6, _MESSAGE, "Expr", False),
        ("result", 7, _MESSAGE, "Expr", False),
        ("iter_var2", 8, _STRING, "", False),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """What an expression names.

    Attributes:
        names: variables, without those that the expression itself introduces.
        keys: (variable, key): fields or constant keys of variables, such as ("ran", "triage").
    """

    names: frozenset[str]
    keys: frozenset[tuple[str, str]]


def uses(serialized: bytes, variables: Collection[str]) -> Uses:
    """Reads what a checked expression names.

    Args:
        serialized: the google.protobuf.Any in which it comes.
        variables: all that are declared.
    """
    checked = _checked_class().FromString(any_pb2.Any.FromString(serialized).value)
    found = set(_walk(checked.expr, variables, frozenset()))
    return Uses(
        names=frozenset(name for name, key in found if key is None),
        keys=frozenset((name, key) for name, key in found if key is not None),
    )


def _walk(  # noqa: C901  a case for each kind of expression
    expr: Any, variables: Collection[str], bound: frozenset[str]
) -> Iterator[tuple[str, str | None]]:
    match expr.WhichOneof("kind"):
        case "ident_expr":
            name = expr.ident_expr.name.removeprefix(".")
            if name in variables and name not in bound:
                yield name, None
        case "select_expr":
            operand = expr.select_expr.operand
            yield from _key(operand, expr.select_expr.field, variables, bound)
            yield from _walk(operand, variables, bound)
        case "call_expr":
            call = expr.call_expr
            if call.function == "_[_]" and call.args[1].HasField("const_expr"):
                key = call.args[1].const_expr.string_value
                yield from _key(call.args[0], key, variables, bound)
            for each in (call.target, *call.args):
                yield from _walk(each, variables, bound)
        case "list_expr":
            for each in expr.list_expr.elements:
                yield from _walk(each, variables, bound)
        case "struct_expr":
            for entry in expr.struct_expr.entries:
                yield from _walk(entry.map_key, variables, bound)
                yield from _walk(entry.value, variables, bound)
        case "comprehension_expr":
            loop = expr.comprehension_expr
            inner = bound | {loop.iter_var, loop.iter_var2, loop.accu_var}
            yield from _walk(loop.iter_range, variables, bound)
            yield from _walk(loop.accu_init, variables, bound)
            for each in (loop.loop_condition, loop.loop_step, loop.result):
                yield from _walk(each, variables, inner)


def _key(
    operand: Any, key: str, variables: Collection[str], bound: frozenset[str]
) -> Iterator[tuple[str, str]]:
    name = operand.ident_expr.name.removeprefix(".")
    if name in variables and name not in bound:
        yield name, key


@cache
def _checked_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="checked.proto", package="tree", syntax="proto3")
    for name, fields in _TREE.items():
        message = file.message_type.add(name=name)
        if name == "Expr":
            message.oneof_decl.add(name="kind")
        for field, number, kind, of, repeated in fields:
            added = message.field.add(name=field, number=number)
            added.type = kind  # type: ignore[assignment]  # the number of an enum
            added.label = added.LABEL_REPEATED if repeated else added.LABEL_OPTIONAL
            if of:
                added.type_name = f".tree.{of}"
            if name == "Expr" and field != "id":
                added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tree.CheckedExpr"))
