"""Workflows written in Python."""

from __future__ import annotations

from datetime import timedelta

import pytest

from weft.agents.orchestrator.forms import (
    Workflow,
    compute,
    participant,
    read_spec,
    retry,
    skill,
    to_yaml,
)
from weft.support.v1.research_pb2_grpc import ResearchServiceServicer
from weft.support.v1.supervisor_pb2 import HandleRequest
from weft.support.v1.support_pb2 import Answer
from weft.support.v1.triage_pb2_grpc import TriageServiceServicer

THE_SAME = """
name: built
input_type: weft.support.v1.HandleRequest
max_duration: 1d
nodes:
  - id: triage
    retry: {attempts: 3, first_pause: 1s}
    call:
      agent: support-triage
      method: weft.support.v1.TriageService/Classify
      fields: {text: input.text}
  - id: research
    call:
      capability: {tags: [search]}
      method: weft.support.v1.ResearchService/Search
      fields: {query: input.text}
  - id: talk
    debate:
      question: input.text
      rule: unanimity
      participants:
        - name: anna
          opinion: "weft.v1.Opinion{answer: reply.model}"
          call:
            agent: support-triage
            method: weft.support.v1.TriageService/Classify
            fields: {text: question}
  - id: pause
    timer: {pause: 5m}
  - id: decide
    join: any
    approval: {title: "'Send it?'", show: last, expires: 2h}
  - id: last
    compute: {type: weft.support.v1.Answer, fields: {text: input.text}}
edges:
  - {from: triage, to: research}
  - {from: triage, to: talk}
  - {from: research, to: pause}
  - {from: talk, to: pause}
  - {from: pause, to: last, when: "true"}
  - {from: pause, to: decide, otherwise: true}
  - {from: triage, to: decide, failed: true}
"""


def test_a_workflow_is_built() -> None:
    flow = Workflow("built", input=HandleRequest, max_duration=timedelta(days=1))
    triage = flow.call(
        "triage",
        TriageServiceServicer.Classify,
        text="input.text",
        node={"retry": retry(3, first_pause=timedelta(seconds=1))},
    )
    research = flow.call(
        "research", ResearchServiceServicer.Search, tags=["search"], query="input.text"
    )
    anna = participant(
        "anna",
        TriageServiceServicer.Classify,
        opinion="weft.v1.Opinion{answer: reply.model}",
        text="question",
    )
    talk = flow.debate("talk", "input.text", [anna], rule="unanimity")
    pause = flow.timer("pause", timedelta(minutes=5))
    decide = flow.approval(
        "decide", title="'Send it?'", show="last", expires=timedelta(hours=2), join="any"
    )
    last = flow.compute("last", Answer, text="input.text")
    triage >> (research & talk) >> pause
    pause.when("true") >> last
    pause.otherwise >> decide
    triage.failed >> decide
    assert flow.spec() == read_spec(THE_SAME).spec
    assert read_spec(to_yaml(flow.spec())).spec == flow.spec()


def test_fields_are_those_of_the_request() -> None:
    with pytest.raises(ValueError, match="has no field 'txt'; did you mean 'text'"):
        skill(TriageServiceServicer.Classify, txt="input.text")
    with pytest.raises(ValueError, match="Scored has no field"):
        compute(_assessment(), intent__vale="'x'")
    assert compute(_assessment(), intent__value="'x'").fields.by_path == {"intent.value": "'x'"}
    with pytest.raises(ValueError, match="as a whole, or by its fields"):
        skill(TriageServiceServicer.Classify, message="input", text="input.text")


def _assessment() -> type:
    from weft.support.v1.support_pb2 import Assessment

    return Assessment


def test_what_is_no_skill_is_refused() -> None:
    with pytest.raises(ValueError, match="no method of a generated class"):
        skill(len)
    assert skill("a.B/C", text="x").WhichOneof("target") is None
