from __future__ import annotations

import json
import random

import jsonschema_rs
import pytest
from tests.filling import messages

from weft.agents import filling
from weft.agents.filling import kinds

MESSAGES = 2_000


@pytest.mark.timeout(240)
def test_2000_random_messages_survive_schema_json_and_back(lab) -> None:
    schema = filling.schema_of(lab.Everything.DESCRIPTOR).schema
    validator = jsonschema_rs.Draft202012Validator(schema)
    used: set[str] = set()
    for seed in range(MESSAGES):
        message = messages.fill(lab.Everything(), random.Random(seed))
        text = json.dumps(filling.write(message), ensure_ascii=False)
        refused = next(validator.iter_errors(json.loads(text)), None)
        assert refused is None, (seed, refused)
        came = filling.read(lab.Everything, filling.json_of(text))
        assert came == message, seed
        # Equality of messages does not see the sign of a zero.
        assert came.SerializeToString(deterministic=True) == message.SerializeToString(
            deterministic=True
        ), seed
        used.update(field.name for field, _ in message.ListFields())
    # All but Any, which cannot be said.
    fields = {f.name for f in lab.Everything.DESCRIPTOR.fields if kinds.can_be_said(f)}
    assert used == fields


def test_each_field_has_its_kind_of_schema(lab) -> None:
    properties = filling.schema_of(lab.Everything.DESCRIPTOR).schema["properties"]
    assert properties["an_int64"]["type"] == "string"
    assert properties["an_int32"] == {"type": "integer"}
    assert properties["severity"]["enum"] == [
        *("SEVERITY_LOW", "SEVERITY_HIGH", "SEVERITY_VERY_HIGH", "SEVERITY_NEGATIVE"),
    ]
    assert properties["mode"]["enum"] == ["OFF", "ON"]
    assert properties["time"]["format"] == "date-time"
    assert "format" not in properties["span"]
    assert properties["free"]["type"] == "string"
    assert properties["by_int64"]["items"]["required"] == ["key", "value"]
    assert [list(each["properties"]) for each in properties["choice"]["anyOf"]] == [
        *(["word"], ["number"], ["point"], ["how_bad"], ["when"], ["nothing"], ["yes"]),
    ]
    assert "whatever" not in properties
    assert "word" not in properties


def test_the_schema_has_what_endpoints_know_and_nothing_else(lab) -> None:
    known = {"type", "properties", "required", "additionalProperties", "items"}
    known |= {"anyOf", "enum", "description", "format"}

    def check(schema) -> None:
        assert schema.keys() <= known
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False
        for inner in schema.get("properties", {}).values():
            check(inner)
        for inner in (*schema.get("anyOf", ()), *filter(None, [schema.get("items")])):
            check(inner)

    for kind in (lab.Everything, lab.Report):
        check(filling.schema_of(kind.DESCRIPTOR).schema)


def test_the_sdk_has_nothing_to_change_in_it(lab) -> None:
    transform = pytest.importorskip("anthropic").transform_schema
    schema = filling.schema_of(lab.Report.DESCRIPTOR).schema
    assert transform(schema) == schema


def test_what_the_contract_says_is_told_to_the_model(lab) -> None:
    finding = filling.schema_of(lab.Finding.DESCRIPTOR).schema
    assert finding["properties"]["summary"]["description"] == "One sentence"
    assert "At least 0" in finding["properties"]["byte_offset"]["description"]
    assert "^[A-Z]{2}-[0-9]+$" in finding["properties"]["code"]["description"]
    assert finding["required"] == ["summary", "severity", "byte_offset", "labels", "code"]


def test_a_type_within_itself_is_unrolled_and_then_left_out(lab) -> None:
    schema = filling.schema_of(lab.Everything.DESCRIPTOR, 2).schema
    child = schema["properties"]["child"]
    assert "child" not in child["properties"]
    assert "children" not in child["required"]
    assert "children_by_name" not in child["properties"]
    members = child["properties"]["second_choice"]["anyOf"]
    assert [list(each["properties"]) for each in members] == [["other"]]


def test_it_says_when_it_is_too_free_to_be_held_to(lab) -> None:
    assert filling.schema_of(lab.Everything.DESCRIPTOR).too_free
    assert not filling.schema_of(lab.Report.DESCRIPTOR).too_free
