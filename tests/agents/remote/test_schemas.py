"""JSON schemas as messages: whatever they are, there is a contract, and what a value says is not lost on the way."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from weft import rpc
from weft.agents.remote import contract
from weft.agents.remote.contract import Skill, Terms
from weft.agents.remote.schemas import STRUCT, Compiled, compile_schema
from weft.agents.remote.values import Misfit, fill, to_json
from weft.gateway.transcoding.schema import Schema
from weft.v1 import options_pb2

TERMS = Terms(agent="some-remote")
REQUEST = "AskRequest"
Json = dict[str, Any]


async def _serve(_: object, __: object) -> bytes:
    return b""


def compiled(schema: object) -> Compiled:
    return compile_schema(schema, package=TERMS.package, name=REQUEST)


def made(schema: object) -> tuple[Compiled, type[Message], Schema]:
    """A schema, the class of its messages, and what the gateway makes of its contract."""
    request = compiled(schema)
    skill = Skill(
        name="Ask",
        description="",
        request=request,
        response=Compiled(type_name=STRUCT),
        serve=_serve,
    )
    whole = contract.make(TERMS, "", [skill])
    kind = whole.classes[request.type_name.lstrip(".")]
    return request, kind, Schema(whole.contract.descriptors)


# -- schemas with values that they describe

NAMES = st.one_of(
    st.sampled_from(
        ["id", "user_id", "userId", "user-id", "UserID", "from", "class", "a b", "$ref", "@type"]
    ),
    st.text(string.ascii_letters + string.digits + "_-.", min_size=1, max_size=8),
    st.text("äß日本_x", min_size=1, max_size=4),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _leaf() -> st.SearchStrategy[tuple[Json, st.SearchStrategy[Any]]]:
    int32 = {"type": "integer", "minimum": -5, "maximum": 2**31 - 1}
    return st.sampled_from(
        [
            ({"type": "string"}, TEXT),
            ({"type": "string", "enum": ["red", "blue"]}, st.sampled_from(["red", "blue"])),
            ({"enum": ["a", "b"]}, st.sampled_from(["a", "b"])),
            ({"const": "x"}, st.just("x")),
            ({"type": "boolean"}, st.booleans()),
            ({"type": "integer"}, st.integers(-(2**63), 2**63 - 1)),
            (int32, st.integers(-5, 2**31 - 1)),
            ({"type": "number"}, st.floats(allow_nan=False, allow_infinity=False)),
            ({"type": ["string", "null"]}, st.none() | TEXT),
            ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, st.none() | st.booleans()),
            ({"anyOf": [{"type": "string"}, {"type": "boolean"}]}, TEXT | st.booleans()),
            ({}, st.integers(-(2**50), 2**50) | TEXT | st.none() | st.just({"k": [1, None]})),
            ({"type": "object"}, st.dictionaries(TEXT, TEXT, max_size=2)),
            ({"type": "array"}, st.lists(TEXT | st.integers(-9, 9), max_size=3)),
        ]
    )


def _array(inner: Any) -> Any:
    return inner.map(
        lambda each: ({"type": "array", "items": each[0]}, st.lists(each[1], max_size=3))
    )


def _map(inner: Any) -> Any:
    return inner.map(
        lambda each: (
            {"type": "object", "additionalProperties": each[0]},
            st.dictionaries(TEXT, each[1], max_size=2),
        )
    )


@st.composite
def _object(draw: Any, inner: Any) -> tuple[Json, st.SearchStrategy[Any]]:
    properties = draw(st.dictionaries(NAMES, inner, min_size=1, max_size=5))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    schema: Json = {
        "type": "object",
        "properties": {name: each[0] for name, each in properties.items()},
        "required": required,
    }
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(st.booleans())
    values = st.fixed_dictionaries(
        {name: properties[name][1] for name in required},
        optional={name: each[1] for name, each in properties.items() if name not in required},
    )
    return schema, values


NESTED = st.recursive(
    _leaf(), lambda inner: _array(inner) | _map(inner) | _object(inner), max_leaves=8
)


@st.composite
def described(draw: Any) -> tuple[Json, Any]:
    """A schema of an object, and a value of it."""
    schema, values = draw(_object(NESTED))
    return schema, draw(values)


def _lean(value: Any) -> Any:
    """A value without what counts as not there: null, nothing in a list or in an object that nobody asked for."""
    if isinstance(value, dict):
        lean = {key: _lean(each) for key, each in value.items()}
        return {key: each for key, each in lean.items() if each not in (None, [], {})}
    if isinstance(value, list):
        return [_lean(each) for each in value]
    return value


def _sent(value: Any, schema: Any) -> Any:
    """A value without what counts as not there, but for what its schema asks for."""
    if isinstance(value, dict) and isinstance(schema.get("properties"), dict):
        given = {key: _sent(each, schema["properties"][key]) for key, each in value.items()}
        return {
            key: each
            for key, each in given.items()
            if key in schema["required"] or each not in (None, [], {})
        }
    if isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        more = schema["additionalProperties"]
        sent = {key: _sent(each, more) for key, each in value.items()}
        return {key: each for key, each in sent.items() if each is not None}
    if isinstance(value, list) and "items" in schema:
        return [_sent(each, schema["items"]) for each in value]
    return _lean(value)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return not isinstance(one, bool) and float(one) == float(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(described())
@example(({"type": "object", "properties": {"_a": {"type": "string"}}, "required": []}, {}))
def test_what_a_value_says_is_not_lost(case: tuple[Json, Any]) -> None:
    schema, value = case
    request, kind, _ = made(schema)
    message = kind()
    fill(message, value)
    again = kind.FromString(message.SerializeToString())
    assert _same(_lean(to_json(again, request.nulls)), _lean(value))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(described())
def test_it_comes_through_the_gateway_as_it_is(case: tuple[Json, Any]) -> None:
    schema, value = case
    request, kind, gateway = made(schema)
    codec = gateway.codec(request.type_name.lstrip("."))
    wire = codec.to_wire(json.dumps(_sent(value, schema)).encode())
    message = kind.FromString(wire)
    assert _same(_lean(to_json(message, request.nulls)), _lean(value))
    # And what protobuf itself makes of the gateway's answer is the same message.
    assert json_format.Parse(codec.to_json(wire), kind()) == message


_KEYS = st.sampled_from(
    [
        *(
            "type",
            "properties",
            "items",
            "$ref",
            "$defs",
            "anyOf",
            "oneOf",
            "allOf",
            "enum",
            "const",
        ),
        *("required", "additionalProperties", "description", "default", "minimum", "a", "b-c", "é"),
    ]
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        _KEYS, JUNK | st.sampled_from(["object", "#", "#/$defs/a", "#/properties/a"]), max_size=6
    )
)
def test_no_schema_is_too_odd_for_a_contract(schema: Json) -> None:
    made({"type": "object", "properties": {"a": schema, "b-c": schema}, **schema})
    made(schema)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        "object",
        True,
        {"type": "object"},
        {"$ref": "#"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "file:///etc/passwd"},
        {"type": "object", "properties": {"a\x00": {"type": "string"}}},
        {"type": "object", "properties": {"[x]": {"type": "string"}}},
        {"type": "object", "properties": {f"p{n}": {} for n in range(5_000)}},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
    ],
)
def test_what_protobuf_cannot_say_is_any_object(schema: object) -> None:
    request = compiled(schema)
    assert request.message is None
    assert request.whole


def test_references_that_multiply_end_soon() -> None:
    """Each holds the next one twice, all of them inline: written out they would be more than a million."""
    definitions: Json = {"d20": {"type": "object", "properties": {"x": {"type": "string"}}}}
    for n in range(20):
        item = {"type": "array", "items": {"$ref": f"#/$defs/d{n + 1}"}}
        definitions[f"d{n}"] = {
            "type": "array",
            "items": {"type": "object", "properties": {"l": item, "r": item}},
        }
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/d0"}},
        "$defs": definitions,
    }
    assert len(made(schema)[2]._files.SerializeToString()) < 200_000


def test_a_schema_may_hold_itself() -> None:
    schema = {
        "$ref": "#/$defs/Node",
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "left": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                    "more": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                },
                "required": ["name"],
            }
        },
    }
    request, kind, _ = made(schema)
    value = {"name": "a", "left": {"name": "b", "more": [{"name": "c"}]}}
    message = kind()
    fill(message, value)
    assert to_json(message, request.nulls) == value


def test_fields_say_what_the_schema_says() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where\u202e\x07 it is.", "enum": ["A", "B"]},
            "pin": {"type": "string", "format": "password", "title": "PIN"},
            "days": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        },
        "required": ["city"],
    }
    message = compiled(schema).message
    assert message is not None
    fields = {each.name: each for each in message.field}
    hints = {name: each.options.Extensions[options_pb2.hints] for name, each in fields.items()}
    assert hints["city"].description == "Where   it is. One of: A, B."
    assert hints["pin"].secret
    assert hints["days"].description == "Default: 3."
    assert fields["days"].type == descriptor_pb2.FieldDescriptorProto.TYPE_INT32


def test_a_field_keeps_its_number_whatever_comes_beside_it() -> None:
    def numbers(*names: str) -> dict[str, int]:
        properties = {name: {"type": "string"} for name in names}
        message = compiled({"type": "object", "properties": properties}).message
        assert message is not None
        return {each.json_name: each.number for each in message.field}

    few, many = numbers("b", "c"), numbers("a", "c", "d", "b")
    assert few.items() <= many.items()


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"n": "1"},
        {"n": 1.5},
        {"n": True},
        {"n": 2**63},
        {"n": float("inf")},
        {"s": 1},
        {"l": {}},
        {"l": [None]},
        {"o": [1]},
        {"m": {"a": 1}},
    ],
)
def test_a_value_of_another_shape_is_refused(value: Any) -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "s": {"type": "string"},
            "l": {"type": "array", "items": {"type": "string"}},
            "o": {"type": "object", "properties": {"x": {"type": "string"}}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }
    _, kind, _ = made(schema)
    with pytest.raises(Misfit):
        fill(kind(), value)


def test_what_must_be_there_is_asked_for() -> None:
    place = {
        "type": "object",
        "properties": {"lat": {"type": "number"}, "note": {"type": ["string", "null"]}},
        "required": ["lat", "note"],
    }
    request, kind, _ = made(
        {"type": "object", "properties": {"places": {"type": "array", "items": place}}}
    )
    message = kind()
    fill(message, {"places": [{"lat": 1}, {"note": "x"}]})
    with pytest.raises(rpc.InvalidArgument) as wrong:
        to_json(message, request.nulls)
    assert wrong.value.violations == (("places[1].lat", "is required"),)
    fill(message := kind(), {"places": [{"lat": 1}]})
    assert to_json(message, request.nulls) == {"places": [{"lat": 1.0, "note": None}]}


def test_half_a_surrogate_pair_is_no_reason_to_fail() -> None:
    _, kind, _ = made({"type": "object", "properties": {"s": {"type": "string"}}})
    message = kind()
    fill(message, {"s": "a\ud800b"})
    assert to_json(message) == {"s": "a\ufffdb"}


def test_a_pool_of_its_own_reads_the_contract() -> None:
    """What other languages make of it: every file is there, and every JSON name is written out."""
    schema = {"type": "object", "properties": {"user-id": {"type": "string"}}}
    skill = Skill(
        name="Ask",
        description="",
        request=compiled(schema),
        response=Compiled(type_name=STRUCT),
        serve=_serve,
    )
    whole = contract.make(TERMS, "", [skill])
    files = descriptor_pb2.FileDescriptorSet.FromString(whole.contract.descriptors).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    found = pool.FindMessageTypeByName(f"{TERMS.package}.{REQUEST}")
    assert found.fields_by_name["user_id"].json_name == "user-id"
    kind = message_factory.GetMessageClass(found)
    assert json_format.MessageToDict(kind(user_id="x")) == {"user-id": "x"}
