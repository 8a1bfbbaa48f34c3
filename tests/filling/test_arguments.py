"""Arguments are ProtoJSON: what any message says is read back, and what is left out has its default."""

from __future__ import annotations

import random
from typing import Any

import jsonschema_rs
import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    struct_pb2,
    wrappers_pb2,
)
from tests.filling import messages

from weft.agents import filling


def read(kind: Any, value: object) -> Any:
    return filling.read(kind, value, arguments=True)


def schema_of(kind: Any) -> Any:
    return filling.schema_of(kind.DESCRIPTOR, arguments=True).schema


def faults(kind: Any, value: object) -> dict[str, str]:
    with pytest.raises(filling.Unfit) as failed:
        read(kind, value)
    return dict(failed.value.faults)


def with_numbers(value: Any, schema: Any) -> Any:
    """64-bit integers as the schema has them; ProtoJSON writes them as text."""
    if schema.get("type") == "integer":
        return int(value)
    if isinstance(value, list):
        return [with_numbers(each, schema.get("items", {})) for each in value]
    if isinstance(value, dict):
        inner, further = schema.get("properties", {}), schema.get("additionalProperties")
        return {
            key: with_numbers(each, inner.get(key, further or {})) for key, each in value.items()
        }
    return value


def without_nulls(message: Any) -> None:
    """A field that is null is not there."""
    for field, value in message.ListFields():
        if field.name == "value" and value.WhichOneof("kind") == "null_value":
            message.ClearField("value")
        elif field.message_type is message.DESCRIPTOR:
            for each in value if field.is_repeated else [value]:
                without_nulls(each)
        elif field.name == "children_by_name":
            for each in value.values():
                without_nulls(each)


@pytest.mark.timeout(240)
def test_1000_random_messages_survive_protojson_and_back(lab) -> None:
    schema = schema_of(lab.Everything)
    validator = jsonschema_rs.Draft202012Validator(schema)
    for seed in range(1_000):
        message = messages.fill(lab.Everything(), random.Random(seed))
        without_nulls(message)
        written = json_format.MessageToDict(message)
        assert read(lab.Everything, written) == message, seed
        as_told = with_numbers(written, schema)
        refused = next(validator.iter_errors(as_told), None)
        assert refused is None, (seed, refused)
        assert read(lab.Everything, as_told) == message, seed


def test_what_is_left_out_has_its_default(lab) -> None:
    given = {"summary": "it leaks", "severity": "SEVERITY_LOW"}
    assert read(lab.Finding, given) == lab.Finding(summary="it leaks", severity=1)
    assert schema_of(lab.Finding)["required"] == ["summary", "severity"]
    missing = {"$.summary": "is missing", "$.severity": "is missing"}
    assert faults(lab.Finding, {"labels": []}) == missing
    assert faults(lab.Finding, {**given, "summary": ""}) == {"$.summary": "must not be empty"}


def test_fields_have_their_names_in_json(lab) -> None:
    assert "byteOffset" in schema_of(lab.Finding)["properties"]
    told = {"$.byteOffset": "must be at least 0"}
    for name in ("byteOffset", "byte_offset"):
        assert faults(lab.Finding, {"summary": "a", "severity": "low", name: -1}) == told


def test_what_is_free_is_what_it_is(lab) -> None:
    properties = schema_of(lab.Everything)["properties"]
    assert properties["free"]["type"] == "object"
    assert properties["byInt64"]["type"] == "object"
    assert properties["anInt64"]["type"] == "integer"
    assert "Not together with" in properties["word"]["description"]
    given: dict[str, Any] = {"a": [1, "2"]}
    assert json_format.MessageToDict(read(lab.Everything, {"free": given}).free) == given
    # Text that could be JSON is that text.
    assert read(lab.Everything, {"value": "5"}).value.string_value == "5"
    assert faults(lab.Everything, {"free": 5}) == {
        "$.free": "must be JSON of the right kind, not 5"
    }


def test_any_object_and_no_object_can_be_all_that_is_taken() -> None:
    assert schema_of(struct_pb2.Struct) == {"type": "object"}
    assert dict(read(struct_pb2.Struct, {"a": True})) == {"a": True}
    assert faults(struct_pb2.Struct, [1]) == {"$": "must be JSON of the right kind, not an array"}
    assert list(schema_of(wrappers_pb2.StringValue)["properties"]) == ["value"]
    assert read(wrappers_pb2.StringValue, {"value": "a"}).value == "a"


def test_what_a_contract_of_another_pool_says_is_known(lab) -> None:
    """The registry's contracts are in pools of their own, where options have no extensions."""
    pool = descriptor_pool.DescriptorPool()

    def add(file: Any) -> None:
        for each in file.dependencies:
            add(each)
        copied = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(copied)
        pool.Add(copied)

    add(lab.Finding.DESCRIPTOR.file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("test.lab.v1.Finding"))
    assert schema_of(kind) == schema_of(lab.Finding)
    assert faults(kind, {"byteOffset": -1}) == {
        "$.summary": "is missing",
        "$.severity": "is missing",
        "$.byteOffset": "must be at least 0",
    }
