"""What is mapped must fit, and all that does not is told when the node is made."""

from __future__ import annotations

import operator
from datetime import timedelta
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

pytest.importorskip("langgraph", reason="needs the extra weft[langgraph]")

from weft.agents import ContractError, Mesh
from weft.agents.langgraph import MappingFault, agent_node
from weft.agents.langgraph.mapping import Mapped
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.v1 import agent_pb2

Servicer = echo_pb2_grpc.EchoServiceServicer


class State(TypedDict):
    question: str
    answer: NotRequired[str | None]
    pause: timedelta
    code: int
    log: Annotated[list[str], operator.add]
    whole: dict[str, Any]
    labels: dict[str, str]
    level: Literal["a", "b"]


@pytest.fixture
def mesh() -> Mesh:
    return Mesh("127.0.0.1:1")


def test_all_faults_are_told_at_once(mesh: Mesh) -> None:
    with pytest.raises(MappingFault) as failed:
        agent_node(
            mesh,
            Servicer.Say,
            request={
                "text": "code",
                "delay": "question",
                "no.such": "question",
                "fail_with": "gone",
            },
            into={"code": "text", "answer": "said", "absent": "text", "log": "caller"},
            state=State,
        )
    assert str(failed.value).splitlines() == [
        "weft.echo.v1.EchoService/Say does not fit:",
        "request 'text' from 'code': the state has int, the message str",
        "request 'delay' from 'question': the state has str, the message timedelta",
        "request 'no.such': weft.echo.v1.SayRequest has no such field",
        "request 'fail_with' from 'gone': the state has no 'gone'",
        "into 'code' from 'text': the state has int, the message str",
        "into 'answer': weft.echo.v1.SayResponse has no field 'said'",
        "into 'absent' from 'text': the state has no 'absent'",
        "into 'log' from 'caller': the state has list[str], the message str",
    ]


def test_what_fits_is_taken(mesh: Mesh) -> None:
    agent_node(
        mesh,
        "weft.echo.v1.EchoService/SayOnce",
        request={
            "say.text": "level",
            "say.delay": "pause",
            "say.fail_with": lambda state: state["code"],
        },
        into={"answer": "said.text", "pause": "said.time_left", "whole": "said"},
        state=State,
    )
    agent_node(mesh, Servicer.Repeat, request={"text": "question"}, into="whole", state=State)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (Servicer.Gather, "takes a stream"),
        ("weft.echo.v1.EchoService/Shout", "is not known"),
        ("no.such.Service/Say", "is not known"),
        (print, "is no method of a generated"),
    ],
)
def test_what_is_no_skill_of_one_request_is_refused(mesh: Mesh, method: Any, told: str) -> None:
    with pytest.raises(ContractError, match=told):
        agent_node(mesh, method, request={}, into="whole")


def test_values_go_there_and_back() -> None:
    there = Mapped(
        request={
            "text": "question",
            "delay": "pause",
            "fail_with": "code",
        },
        into={"answer": "text", "pause": "delay", "code": "fail_with"},
        asked=echo_pb2.SayRequest,
        answered=echo_pb2.SayRequest,
        state=State,
    )
    assert not list(there.faults())
    state = {"question": "why", "pause": timedelta(seconds=2), "code": 3}
    asked = there.ask(state)
    assert asked == echo_pb2.SayRequest(text="why", delay={"seconds": 2}, fail_with=3)
    assert there.take(asked) == {"answer": "why", "pause": timedelta(seconds=2), "code": 3}
    assert there.take(there.ask({"question": None})) == {"answer": "", "pause": None, "code": 0}


def test_maps_lists_enums_and_messages_go_there_and_back() -> None:
    there = Mapped(
        request={"name": "question", "tags": "log", "instances": "parts"},
        into={"log": "tags", "parts": "instances", "question": "name"},
        asked=agent_pb2.Agent,
        answered=agent_pb2.Agent,
        state=None,
    )
    parts = [{"instance_id": "one", "labels": {"zone": "x"}, "state": "INSTANCE_STATE_SERVING"}]
    state = {"question": "echo", "log": ["a", "b"], "parts": parts}
    assert not list(there.faults())
    assert there.take(there.ask(state)) == state
    inner = Mapped(
        request={"labels": "labels", "state": "level"},
        into={"labels": "labels", "level": "state"},
        asked=agent_pb2.Instance,
        answered=agent_pb2.Instance,
        state=State,
    )
    given = {"labels": {"zone": "x"}, "level": "INSTANCE_STATE_SERVING"}
    assert [fault for fault in inner.faults() if "level" not in fault] == []
    assert inner.take(inner.ask(given)) == given
