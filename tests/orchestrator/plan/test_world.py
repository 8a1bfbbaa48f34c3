"""What workflows are checked against, from what a registry says."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from tests.orchestrator.lab import AGENTS, call, descriptor_set, spec, step, world

from weft.agents.orchestrator.plan.compile import compile_workflow, contained
from weft.agents.orchestrator.plan.model import CallAction
from weft.agents.orchestrator.plan.types import MessageTypes, pack
from weft.agents.orchestrator.plan.world import DescriptorWorld, StoredWorkflow
from weft.v1 import agent_pb2
from weft.v1.workflow_pb2 import Opinion, TypedMessage


def action(plan_node: object) -> CallAction:
    assert isinstance(plan_node, CallAction)
    return plan_node


def test_a_method_is_as_its_options_say() -> None:
    methods = world().agents["lab"].methods
    think, once = methods["/lab.v1.LabService/Think"], methods["/lab.v1.LabService/Once"]
    assert think.timeout == timedelta(seconds=7)
    assert think.output_type == "weft.v1.Opinion"
    assert once.timeout == timedelta(seconds=30)
    assert not once.repeatable
    assert methods["/lab.v1.LabService/Work"].repeatable
    assert methods["/lab.v1.LabService/Refund"].scopes == ("refunds", "money")
    assert methods["/lab.v1.LabService/Mail"].messages_only


def test_a_service_without_a_descriptor_set_is_not_known() -> None:
    ref = agent_pb2.ServiceRef(name="lab.v1.LabService", descriptor_digest="0" * 64)
    made = DescriptorWorld([agent_pb2.Agent(name="lab", services=[ref])], {})
    assert made.agents["lab"].methods == {}


def test_attempts_and_timeouts_are_those_of_the_node_and_else_of_the_skill() -> None:
    plan = compile_workflow(
        spec(
            nodes=[
                step("a"),
                step("b", call=call(method="lab.v1.LabService/Once")),
                step("c", timeout="3s", retry={"max_pause": "9s", "codes": ["ABORTED"]}),
                step("d", call=call(method="lab.v1.LabService/Once"), retry={"attempts": 5}),
            ],
            output="input",
        ),
        world(),
    )
    calls = {id_: action(node.action) for id_, node in plan.nodes.items()}
    assert [each.retry.attempts for each in calls.values()] == [3, 1, 3, 5]
    assert calls["c"].timeout == timedelta(seconds=3)
    assert calls["a"].timeout == timedelta(seconds=30)
    assert calls["c"].retry.max_pause == timedelta(seconds=9)
    assert calls["c"].retry.codes == {"ABORTED"}
    assert "UNAVAILABLE" in calls["a"].retry.codes


def test_a_capability_is_settled_when_it_is_called() -> None:
    twin = call(method="lab.v1.TwinService/Work", capability={"tags": ["left"]})
    plan = compile_workflow(spec(nodes=[step("a", call=twin)]), world())
    called = action(plan.nodes["a"].action)
    assert (called.agent, called.tags) == ("", ("left",))
    clever = call(method="lab.v1.LabService/Think", capability={"tags": ["clever", "fast"]})
    assert compile_workflow(spec(nodes=[step("a", call=clever)]), world())


def test_the_newest_version_of_a_workflow_is_that_when_it_is_submitted() -> None:
    submitted = spec(nodes=[{"id": "a", "workflow": {"name": "child", "message": "input"}}])
    assert contained(submitted) == [("child", 0)]
    base = world()
    versions = [
        StoredWorkflow(
            name="child", version=n, input_type="lab.v1.Order", output_type="lab.v1.Other"
        )
        for n in (1, 9, 4)
    ]
    plan = compile_workflow(submitted, base.knowing(versions))
    assert plan.nodes["a"].action.version == 9  # type: ignore[union-attr]
    assert base.workflow("child", 9) is None


def _file(name: str, package: str, messages: list[str], fields: int = 1) -> FileDescriptorProto:
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message in messages:
        made = file.message_type.add(name=message)
        for number in range(1, fields + 1):
            made.field.add(
                name=f"f{number}",
                number=number,
                type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
                label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            )
    return file


def test_of_two_versions_of_a_file_the_larger_one_counts_in_any_order() -> None:
    sets = [
        FileDescriptorSet(file=[_file("a.proto", "a", ["M"], fields=n)]).SerializeToString()
        for n in (1, 3, 2)
    ]
    for order in (sets, sets[::-1]):
        found = MessageTypes(order).find("a.M")
        assert found is not None
        assert len(found.fields) == 3


def test_files_that_fit_no_other_are_problems_and_the_rest_is_known() -> None:
    clash = [
        FileDescriptorSet(file=[_file(name, "a", ["M"])]).SerializeToString()
        for name in ("a.proto", "b.proto")
    ]
    orphan = _file("c.proto", "c", ["C"])
    orphan.dependency.append("nowhere.proto")
    sets = [*clash, FileDescriptorSet(file=[orphan]).SerializeToString(), b"\xff\xff"]
    types = MessageTypes([*sets, descriptor_set()])
    assert len(types.problems) == 3
    assert types.find("a.M") is not None
    assert types.find("c.C") is None
    assert types.find("lab.v1.Order") is not None


def test_messages_and_lists_come_out_as_they_went_in() -> None:
    types = world().types
    order = types.new("lab.v1.Order")
    order.text = "x" * 300
    empty = types.new("lab.v1.Order")
    assert types.unpack(pack(order, "lab.v1.Order")) == order
    given = [order, empty, order]
    packed = pack(given, "list(lab.v1.Order)")
    assert types.unpack(packed) == given
    assert types.unpack(pack([], "list(lab.v1.Order)")) == []
    assert types.unpack(TypedMessage(type="weft.v1.Opinion", binary=b"")) == Opinion()
    json = TypedMessage(type="list(weft.v1.Opinion)")
    json.json.list_value.values.add().struct_value.update({"answer": "yes"})
    assert types.unpack(json) == [Opinion(answer="yes")]
    for wrong in (
        TypedMessage(type="weft.v1.Opinion", binary=b"\xff"),
        TypedMessage(type="list(lab.v1.Order)", binary=b"\x0a"),
        TypedMessage(type="list(lab.v1.Order)", binary=packed.binary[:-1]),
        TypedMessage(type="list(lab.v1.Order)", binary=b"\x12\x00"),
    ):
        with pytest.raises(ValueError, match=r"this is no"):
            types.unpack(wrong)
    with pytest.raises(LookupError):
        types.unpack(TypedMessage(type="lab.v1.Nothing"))


def test_digests_of_sets_are_those_of_their_agents() -> None:
    digest = hashlib.sha256(descriptor_set()).hexdigest()
    agents = world()._registered
    assert {service.descriptor_digest for agent in agents for service in agent.services} == {digest}
    assert [agent.name for agent in agents] == sorted(AGENTS)
