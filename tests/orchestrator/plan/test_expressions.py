"""Expressions give what their place needs, or fail; an error is never a value."""

from __future__ import annotations

import time
from typing import Any

import pytest
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from tests.orchestrator.lab import world

from weft.agents.orchestrator.plan import cel
from weft.agents.orchestrator.plan.cel import CompileFailed, Environment, Program
from weft.agents.orchestrator.plan.model import ExpressionFailed
from weft.v1.workflow_pb2 import Opinion, StepFailure

TYPES = world().types
VARIABLES = {
    "order": cel.message_type("lab.v1.Order"),
    "opinion": cel.message_type("weft.v1.Opinion"),
    "orders": cel.message_type("list(lab.v1.Order)"),
    "ran": cel.map_type(cel.BOOL),
    "failures": cel.map_type(cel.message_type("weft.v1.StepFailure")),
    "any": cel.DYN,
}
ENVIRONMENT = Environment(TYPES, VARIABLES)


def order(**fields: Any) -> Any:
    made = TYPES.message_class("lab.v1.Order")
    assert made is not None
    return made(**fields)


def program(source: str, gives: str = "") -> Program:
    made = ENVIRONMENT.compile(source)
    if gives:
        assert made.gives(gives, TYPES)
    return made


def test_a_truth_is_a_bool_and_nothing_else() -> None:
    assert program("order.n > 3").truth({"order": order(n=4)}) is True
    for source, scope in [
        ("1 / order.n > 0", {"order": order()}),
        ("ran.nobody", {"ran": {}}),
        ("any", {"any": "true"}),
        ("any.field", {"any": order()}),
        ("order.items[3].n > 1", {"order": order()}),
        ("failures.a.code == 'X'", {"failures": {}}),
    ]:
        with pytest.raises(ExpressionFailed) as failed:
            program(source).truth(scope)
        assert failed.value.source == source


def test_an_error_is_no_text_either() -> None:
    failing = program("order.notes[5]")
    with pytest.raises(ExpressionFailed, match="index"):
        failing.text({"order": order()})
    assert failing.text({"order": order(notes=list("abcdef"))}) == "f"


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("'x'", "google.protobuf.StringValue", wrappers_pb2.StringValue(value="x")),
        ("b'x'", "google.protobuf.BytesValue", wrappers_pb2.BytesValue(value=b"x")),
        ("order.n == 0", "google.protobuf.BoolValue", wrappers_pb2.BoolValue(value=True)),
        ("7", "google.protobuf.Int32Value", wrappers_pb2.Int32Value(value=7)),
        ("7u", "google.protobuf.UInt64Value", wrappers_pb2.UInt64Value(value=7)),
        ("0.5", "google.protobuf.DoubleValue", wrappers_pb2.DoubleValue(value=0.5)),
        (
            "duration('1.5s')",
            "google.protobuf.Duration",
            duration_pb2.Duration(seconds=1, nanos=500_000_000),
        ),
        (
            "timestamp('1969-12-31T23:59:59.5Z')",
            "google.protobuf.Timestamp",
            timestamp_pb2.Timestamp(seconds=-1, nanos=500_000_000),
        ),
        ("[1, 'a', null]", "google.protobuf.ListValue", None),
        ("{'a': [1, {'b': true}]}", "google.protobuf.Struct", None),
        ("{'a': 1}", "google.protobuf.Value", None),
    ],
)
def test_plain_values_become_the_messages_of_their_place(
    source: str, name: str, expected: object
) -> None:
    made = program(source, name).message({"order": order()})
    assert made.DESCRIPTOR.full_name == name
    if expected is not None:
        assert made == expected
    if name.endswith("Struct"):
        assert isinstance(made, struct_pb2.Struct)
        assert dict(made)["a"][1]["b"] is True


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("'x'", "google.protobuf.Int64Value"),
        ("1", "google.protobuf.UInt32Value"),
        ("order", "lab.v1.Result"),
        ("order.text", "lab.v1.Order"),
        ("[1]", "google.protobuf.Struct"),
        ("order.n", "google.protobuf.Timestamp"),
        ("order", "lab.v1.Nothing"),
    ],
)
def test_what_is_of_another_type_is_refused_before_it_runs(source: str, name: str) -> None:
    assert not program(source).gives(name, TYPES)


def test_what_is_of_another_type_only_when_it_runs_fails_then() -> None:
    dynamic = program("any", "lab.v1.Order")
    assert dynamic.message({"any": order(text="x")}) == order(text="x")
    for wrong in ("x", 1, None, StepFailure(), [order()]):
        with pytest.raises(ExpressionFailed):
            dynamic.message({"any": wrong})
    with pytest.raises(ExpressionFailed):
        program("any", "google.protobuf.Int64Value").message({"any": True})
    with pytest.raises(ExpressionFailed):
        program("any", "google.protobuf.Int32Value").message({"any": 2**40})


def test_messages_of_weft_are_those_of_its_generated_code() -> None:
    made = program("weft.v1.Opinion{answer: opinion.answer + '!'}", "weft.v1.Opinion")
    given = made.message({"opinion": Opinion(answer="yes")})
    assert type(given) is Opinion
    assert given == Opinion(answer="yes!")
    assert type(program("opinion", "weft.v1.Opinion").message({"opinion": given})) is Opinion


def test_lists_have_elements_that_expressions_take() -> None:
    scope = {"orders": [order(n=1), order(n=2)]}
    assert program("orders.filter(o, o.n > 1)").items(scope) == [order(n=2)]
    assert program("orders.map(o, {'n': [o.n]})").items(scope) == [{"n": [1]}, {"n": [2]}]
    again = Environment(TYPES, {"item": program("orders[0]").type}).compile("item.n")
    assert again.type.name() == "INT"


@pytest.mark.parametrize(
    ("source", "syntax", "words"),
    [
        ("order.", True, "column 7"),
        ("order.txt", False, "undefined field 'txt'"),
        ("nobody", False, "undeclared reference to 'nobody'"),
        ("1 +\n(2 * 'a')", False, "line 2"),
        ("lab.v1.Order{n: 'x'}", False, "expected type of field 'n'"),
        ("", True, "empty"),
        ("'" + "x" * cel.LONGEST + "'", True, "longer"),
    ],
)
def test_faults_say_what_and_where(source: str, syntax: object, words: str) -> None:
    with pytest.raises(CompileFailed) as failed:
        ENVIRONMENT.compile(source)
    assert failed.value.syntax is syntax
    assert words in failed.value.message


def test_names_are_those_that_are_used_and_not_those_it_makes_itself() -> None:
    used = program(
        "orders.map(opinion, opinion.n)[0] > 1 && ran.a && failures['b'].code == order.text"
    ).uses
    assert used.names == {"orders", "ran", "failures", "order"}
    assert {("ran", "a"), ("failures", "b")} <= used.keys
    assert program("opinion.answer == [1].map(x, opinion.answer)[0]").uses.names == {"opinion"}
    assert program("'ran.order'").uses.names == set()
    assert program(".order.n > 1").uses.names == {"order"}


def test_an_expression_that_would_never_end_is_stopped() -> None:
    many = "[" + ",".join(["1"] * 200) + "]"
    bomb = program(f"{many}.all(a, {many}.all(b, {many}.all(c, {many}.all(d, a + b + c + d > 0))))")
    began = time.monotonic()
    with pytest.raises(ExpressionFailed, match="budget"):
        bomb.truth({})
    assert time.monotonic() - began < 10
