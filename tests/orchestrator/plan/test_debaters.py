"""Debaters: agents that serve weft.v1.DebaterService, and need no more than their name in a debate."""

from __future__ import annotations

from typing import Any

import pytest
from tests.orchestrator.executor import Trial
from tests.orchestrator.lab import call, descriptor_set, spec

from weft.agents.contract import contract_for, service_of
from weft.agents.orchestrator.plan.compile import compile_workflow
from weft.agents.orchestrator.plan.faults import WorkflowInvalid
from weft.agents.orchestrator.plan.world import DescriptorWorld
from weft.agents.orchestrator.run.turns import OpenCall, OpenStep
from weft.v1 import agent_pb2, debater_pb2_grpc
from weft.v1.debater_pb2 import AnswerRequest, AnswerResponse
from weft.v1.workflow_pb2 import DebateResult, FaultKind, Opinion

CONTRACT = contract_for(
    service_of(debater_pb2_grpc.__name__, "DebaterService"),
    debater_pb2_grpc.add_DebaterServiceServicer_to_server,
)


def world(*names: str) -> DescriptorWorld:
    """Debaters of these names, and the agent `lab`."""
    lab = agent_pb2.ServiceRef(name="lab.v1.LabService", descriptor_digest="lab")
    debater = agent_pb2.ServiceRef(name=CONTRACT.service, descriptor_digest=CONTRACT.digest)
    agents = [agent_pb2.Agent(name="lab", services=[lab])]
    agents += [agent_pb2.Agent(name=name, services=[debater]) for name in names]
    return DescriptorWorld(agents, {"lab": descriptor_set(), CONTRACT.digest: CONTRACT.descriptors})


def debate(*participants: dict[str, Any], **more: Any) -> Any:
    fields = {"question": "input.text", "participants": participants, **more}
    return spec(nodes=[{"id": "talk", "debate": fields}])


def debater(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "call": {"agent": name, **more}}


def test_a_debater_needs_no_more_than_its_name() -> None:
    plan = compile_workflow(
        debate(debater("anna"), debater("ben"), judge=debater("cleo")), world("anna", "ben", "cleo")
    )
    asked: dict[str, AnswerRequest] = {}

    def answer(step: OpenStep) -> AnswerResponse:
        assert isinstance(step, OpenCall)
        assert step.call.path == "/weft.v1.DebaterService/Answer"
        request = step.request
        assert isinstance(request, AnswerRequest)
        asked[step.key] = request
        said = {"anna": "yes", "ben": "no", "cleo": "yes"}[step.call.agent]
        return AnswerResponse(opinion=Opinion(answer=said, argument=f"{said}!"))

    given = plan.types.new("lab.v1.Order")
    given.text = "why?"
    result = Trial(plan, given, answer).run().output
    assert isinstance(result, DebateResult)
    assert result.answer == "yes"
    first, second = asked["talk@1/round0/anna"], asked["talk@1/round1/anna"]
    assert (first.question, first.round, list(first.peers)) == ("why?", 0, [])
    assert (second.question, second.round) == ("why?", 1)
    assert sorted(peer.answer for peer in second.peers) == ["no", "yes"]
    judged = [asked[f"talk@1/judge/{order}"].peers for order in ("forward", "reverse")]
    assert [each.answer for each in judged[0]] == [each.answer for each in judged[1]][::-1]
    assert all(each.votes == 0 for each in judged[0])


def test_what_is_said_is_not_filled_in() -> None:
    own = debater("anna", fields={"by_path": {"question": "'really: ' + question"}})
    own["opinion"] = "weft.v1.Opinion{answer: reply.opinion.answer + '!'}"
    other = {"name": "lab", "call": call(method="lab.v1.LabService/Think", agent="lab")}
    plan = compile_workflow(debate(own, other), world("anna"))

    def answer(step: OpenStep) -> Any:
        assert isinstance(step, OpenCall)
        if step.call.agent == "lab":
            return Opinion(answer="x!")
        assert isinstance(step.request, AnswerRequest)
        assert step.request.question == "really: why?"
        return AnswerResponse(opinion=Opinion(answer="x"))

    given = plan.types.new("lab.v1.Order")
    given.text = "why?"
    result = Trial(plan, given, answer).run().output
    assert isinstance(result, DebateResult)
    assert (result.answer, result.stopped) == ("x!", "unanimous")


@pytest.mark.parametrize(
    ("participant", "place", "kind"),
    [
        (debater("lab"), "call.method", FaultKind.FAULT_KIND_UNKNOWN_METHOD),
        (debater("nobody"), "call.agent", FaultKind.FAULT_KIND_UNKNOWN_AGENT),
        ({"name": "any", "call": {}}, "call.agent", FaultKind.FAULT_KIND_MALFORMED),
    ],
)
def test_whoever_is_no_debater_is_a_fault(
    participant: dict[str, Any], place: str, kind: FaultKind.ValueType
) -> None:
    with pytest.raises(WorkflowInvalid) as invalid:
        compile_workflow(debate(debater("anna"), participant), world("anna", "ben"))
    (fault,) = invalid.value.faults
    assert (fault.place, fault.kind) == (f"nodes[0].debate.participants[1].{place}", kind)


def test_only_debates_know_debaters() -> None:
    panel = {"question": "input.text", "experts": [debater("anna")], "synthesizer": debater("ben")}
    with pytest.raises(WorkflowInvalid) as invalid:
        compile_workflow(spec(nodes=[{"id": "p", "panel": panel}]), world("anna", "ben"))
    assert {fault.kind for fault in invalid.value.faults} == {FaultKind.FAULT_KIND_MALFORMED}
