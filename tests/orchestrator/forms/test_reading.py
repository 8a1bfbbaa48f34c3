"""Workflows as YAML and JSON."""

from __future__ import annotations

import contextlib
import json
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.agents.orchestrator.forms import SpecUnreadable, read_spec, to_json, to_yaml
from weft.v1.workflow_pb2 import DECISION_RULE_RANKED, WorkflowSpec

GRAPH = """
name: trial
description: |
  Two lines,
  both kept.
input_type: lab.v1.Order
max_duration: 2h
nodes:
  - id: first
    timeout: 1.5s
    call:
      agent: lab
      method: lab.v1.LabService/Work
      fields: {text: input.text, customer.id: "'7'"}
    retry: {attempts: 3, codes: [UNAVAILABLE]}
  - id: talk
    join: any
    maxVisits: 3
    debate:
      question: input.text
      rule: ranked
      participants:
        - {name: anna, call: {method: a.B/C, message: input}}
  - id: last
    join: {first: 2}
    for_each: {over: input.items, calls: [{method: a.B/C, fields: {by_path: {text: item.name}}}]}
edges:
  - {from: first, to: talk, when: true}
  - {from: first, to: last, otherwise: true}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(SpecUnreadable) as failed:
        read_spec(textwrap.dedent(text))
    assert str(failed.value).splitlines() == [str(fault) for fault in failed.value.faults]
    return [str(fault) for fault in failed.value.faults]


def test_yaml_is_read() -> None:
    spec = read_spec(GRAPH).spec
    assert spec.description == "Two lines,\nboth kept.\n"
    assert spec.max_duration.seconds == 7_200
    first, talk, last = spec.nodes
    assert (first.timeout.seconds, first.timeout.nanos) == (1, 500_000_000)
    assert dict(first.call.fields.by_path) == {"text": "input.text", "customer.id": "'7'"}
    assert talk.join.any
    assert talk.max_visits == 3
    assert talk.debate.rule == DECISION_RULE_RANKED
    assert last.join.first == 2
    assert dict(last.for_each.calls[0].fields.by_path) == {"text": "item.name"}
    # An expression is text, whatever YAML takes it for.
    assert spec.edges[0].when == "true"
    assert spec.edges[1].otherwise


def test_yaml_and_json_are_written_so_that_they_are_read() -> None:
    spec = read_spec(GRAPH).spec
    assert read_spec(to_yaml(spec)).spec == spec
    assert read_spec(to_json(spec)).spec == spec
    assert "rule: ranked" in to_yaml(spec)
    assert "max_duration: 2h" in to_yaml(spec)


def test_json_with_tabs_and_halves_of_characters_is_read() -> None:
    text = json.dumps({"name": "a", "description": "\t😀/"}, indent="\t").replace("/", "\\/")
    assert read_spec(text).spec == WorkflowSpec(name="a", description="\t😀/")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["1:1: it is empty"]),
        ("- a", ["1:1: has to be a mapping, not a list"]),
        ("name: [", ["1:8: expected the node content, but found '<stream end>'"]),
        ('{"name": }', ["1:10: Expecting value"]),
        ("nods: []", ["1:1: WorkflowSpec has no field 'nods'; did you mean 'nodes'?"]),
        ("name: a\nname: b", ["2:1: name: is there twice"]),
        ("nodes: 3", ["1:8: nodes: has to be a list, not a value"]),
        (
            "nodes:\n- join: some",
            ["2:9: nodes[0].join: has to be a mapping, not a value"],
        ),
        (
            "nodes:\n- call: {}\n  wait: {}",
            ["3:3: nodes[0].wait: cannot be beside 'call': it is the one or the other"],
        ),
        (
            "nodes:\n- max_visits: -1\n- timeout: soon",
            [
                "2:15: nodes[0].max_visits: has to be a whole number from 0 to 4294967295, not '-1'",
                "3:12: nodes[1].timeout: 'soon' is no span of time, such as \"30s\", \"5m\", \"2h\" or \"7d\"",
            ],
        ),
        (
            "nodes:\n- debate: {rule: rankd}",
            ["2:18: nodes[0].debate.rule: 'rankd' is no DecisionRule; did you mean 'ranked'?"],
        ),
        (
            "edges:\n- {from: a, to: b, otherwise: yes}",
            ["2:31: edges[0].otherwise: has to be true or false, not 'yes'"],
        ),
        ("nodes:\n- call: {fields: {text: [1]}}", [
            '2:25: nodes[0].call.fields.by_path["text"]: has to be a text, not a list'
        ]),
        ("&a [*a]", ["1:1: it is nested too deeply"]),
    ],
)  # fmt: skip
def test_all_that_cannot_be_read_is_told_with_its_place(text: str, told: list[str]) -> None:
    found = faults(text)
    assert [line.split(": ", 1)[1] for line in found] == [line.split(": ", 1)[1] for line in told]
    if "deeply" not in told[0]:
        assert found == told


def test_what_aliases_stand_for_is_bounded() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for one, other in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{other}: &{other} [{', '.join([f'*{one}'] * 9)}]\n"
    assert "too large" in faults(bomb)[0]


def test_places_of_a_checked_workflow_have_lines() -> None:
    found = read_spec(GRAPH)

    def line(place: str) -> int:
        at = found.position(place)
        assert at is not None
        return at.line

    lines = GRAPH.splitlines()
    assert "agent: lab" in lines[line("nodes[0].call.agent") - 1]
    assert "customer.id" in lines[line('nodes[0].call.fields.by_path["customer.id"]') - 1]
    assert "anna" in lines[line("nodes[1].debate.participants[0].call.method") - 1]
    assert "when: true" in lines[line("edges[0].when") - 1]
    # What is not there is where it would be.
    assert "id: talk" in lines[line("nodes[1].timeout") - 1]
    assert line("nowhere") == 2


@given(st.text(alphabet="ab:-[]{}\"'\n &*!|>#%@,\t01?", max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(SpecUnreadable):
        assert read_spec(text).spec.ByteSize() >= 0
