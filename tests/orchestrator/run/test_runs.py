"""Forty workflows that are sound, run to their ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from tests.orchestrator.executor import Trial, Verdicts, answering
from tests.orchestrator.lab import call, spec, step, way, world

from weft.agents.orchestrator.plan.compile import compile_workflow
from weft.agents.orchestrator.plan.model import Plan
from weft.v1.workflow_pb2 import Verdict

WORLD = world()
APPROVED, REJECTED, EXPIRED = (
    Verdict.VERDICT_APPROVED,
    Verdict.VERDICT_REJECTED,
    Verdict.VERDICT_EXPIRED,
)
INPUT = {
    "text": "hi",
    "n": 3,
    "customer": {"id": "c7", "vip": True},
    "items": [{"name": "a", "n": 1}, {"name": "b", "n": 2}, {"name": "c", "n": 3}],
    "more": {"mood": "good", "size": 4},
    "due": "2026-03-01T00:00:00Z",
}


@dataclass(frozen=True)
class Case:
    """A workflow, and what comes of it.

    Attributes:
        spec: its nodes, ways and so on.
        output: as ProtoJSON; None: the run fails.
        failure: reason or code of its failure, and the step.
        states: of steps that are worth a look.
        fails: keys of steps that fail.
        verdicts: of approvals, by key; approved where nothing is said.
        edited: what is approved instead of what was shown, by key, as ProtoJSON.
    """

    spec: dict[str, Any]
    output: dict[str, Any] | None = None
    failure: tuple[str, str] = ("", "")
    states: dict[str, str] = field(default_factory=dict)
    fails: tuple[str, ...] = ()
    verdicts: dict[str, Verdict.ValueType] = field(default_factory=dict)
    edited: dict[str, dict[str, Any]] = field(default_factory=dict)
    undone: tuple[str, ...] = ()


def says(source: str, id_: str = "z", **more: Any) -> dict[str, Any]:
    """A node that computes a lab.v1.Result with a text."""
    fields = {"by_path": {"text": source}}
    return {"id": id_, "compute": {"type": "lab.v1.Result", "fields": fields}, **more}


def works(id_: str, source: str = "input.text", **more: Any) -> dict[str, Any]:
    return step(id_, call=call(fields={"by_path": {"text": source}}), **more)


def counts(id_: str, **more: Any) -> dict[str, Any]:
    """A call that answers with the number of the visit."""
    return step(id_, call=call(fields={"by_path": {"n": f"visits.{id_}"}}), **more)


def gate(id_: str = "gate", show: str = "input", **more: Any) -> dict[str, Any]:
    return {"id": id_, "approval": {"title": "'Go on?'", "show": show, **more}}


def diamond(join: dict[str, Any] | None = None, **ways: Any) -> dict[str, Any]:
    """a, then b and c, then z."""
    return {
        "nodes": [
            works("a"),
            works("b", "a.text + 'b'"),
            works("c", "a.text + 'c'"),
            says("b.text + '|' + c.text", join=join or {}),
        ],
        "edges": [way("a", "b", **ways), way("a", "c"), way("b", "z"), way("c", "z")],
    }


def each(over: str = "input.items", **more: Any) -> dict[str, Any]:
    called = call(fields={"by_path": {"text": "item.name + string(index)", "n": "item.n"}})
    return {"id": "each", "for_each": {"over": over, "calls": [called], **more}}


GATED = [way("gate", "yes", when="decisions.gate.verdict == weft.v1.Verdict.VERDICT_APPROVED")]

CASES: dict[str, Case] = {
    "one step": Case({"nodes": [works("a")]}, {"text": "hi"}),
    "one after the other": Case(
        {
            "nodes": [works("a"), works("b", "a.text + '!'"), says("b.text + '?'")],
            "edges": [way("a", "b"), way("b", "z")],
        },
        {"text": "hi!?"},
    ),
    "the whole input as the request": Case(
        {"nodes": [step("a", call={"method": "lab.v1.LabService/Work", "message": "input"})]},
        {"text": "hi", "n": 3, "score": 0.3},
    ),
    "a request in parts, nested": Case(
        {
            "nodes": [
                {
                    "id": "a",
                    "compute": {
                        "type": "lab.v1.Order",
                        "fields": {
                            "by_path": {
                                "customer.id": "input.customer.id + 'x'",
                                "customer.vip": "!input.customer.vip",
                                "items": "[lab.v1.Item{name: 'new'}] + input.items",
                                "say": "'word' // a comment",
                                "due": "input.due",
                            }
                        },
                    },
                }
            ],
            "output": "lab.v1.Result{text: a.customer.id + a.items[0].name + a.say, n: size(a.items)}",
        },
        {"text": "c7xnewword", "n": 4},
    ),
    "branches beside each other": Case(diamond(), {"text": "hib|hic"}),
    "a way not taken leaves nobody waiting": Case(
        diamond(when="false") | {"output": "lab.v1.Result{text: string(ran.b) + z.text}"},
        {"text": "false|hic"},
        states={"b@1": "SKIPPED"},
    ),
    "the first of two goes on": Case(
        diamond({"any": True}) | {"output": "lab.v1.Result{n: visits.z}"}, {"n": 1}
    ),
    "two of three": Case(
        {
            "nodes": [
                works("a"),
                works("b"),
                works("c"),
                says("'two'", join={"first": 2}),
            ],
            "edges": [way("a", "z"), way("b", "z"), way("c", "z")],
            "output": "lab.v1.Result{text: z.text, n: visits.z}",
        },
        {"text": "two", "n": 1},
    ),
    "more than half, and one that fails": Case(
        {
            "nodes": [
                works("a"),
                works("b"),
                works("c"),
                says("'most'", join={"quorum": True}),
                says("'sorry'", "sorry"),
            ],
            "edges": [
                way("a", "z"),
                way("b", "z"),
                way("c", "z"),
                way("b", "sorry", failed=True),
            ],
            "output": "z",
        },
        {"text": "most"},
        fails=("b@1",),
        states={"b@1": "FAILED", "sorry@1": "SUCCEEDED"},
    ),
    "too few are left for a join": Case(
        {
            "nodes": [
                works("a"),
                works("b"),
                says("'both'", "both", join={"first": 2}),
                says("'one'", "one"),
            ],
            "edges": [way("a", "both"), way("b", "both"), way("b", "one", failed=True)],
            "output": "one",
        },
        {"text": "one"},
        fails=("b@1",),
        states={"both@1": "SKIPPED"},
    ),
    "a choice": Case(
        {
            "nodes": [works("a"), says("'big'", "big"), says("'small'", "small")],
            "edges": [way("a", "big", when="input.n > 10"), way("a", "small", otherwise=True)],
        },
        {"text": "small"},
        states={"big@1": "SKIPPED"},
    ),
    "the first condition that holds": Case(
        {
            "nodes": [works("a"), says("'one'", "b"), says("'two'", "c"), says("'none'", "d")],
            "edges": [
                way("a", "b", when="input.n > 5"),
                way("a", "c", when="input.n > 2"),
                way("a", "d", when="input.n > 1"),
                way("a", "d", otherwise=True),
            ],
        },
        {"text": "two"},
        states={"b@1": "SKIPPED", "d@1": "SKIPPED"},
    ),
    "a condition on what has no types": Case(
        {
            "nodes": [works("a"), says("'glad'", "b"), says("'sad'", "c")],
            "edges": [
                way("a", "b", when="input.more.mood == 'good' && input.more.size > 3"),
                way("a", "c", otherwise=True),
            ],
        },
        {"text": "glad"},
    ),
    "a condition that cannot be computed": Case(
        {
            "nodes": [works("a"), says("'yes'", "b"), says("'no'", "c")],
            "edges": [
                way("a", "b", when="input.items[7].n > 1"),
                way("a", "c", otherwise=True),
            ],
        },
        failure=("EXPRESSION_FAILED", "a@1"),
        states={"a@1": "FAILED", "b@1": "SKIPPED", "c@1": "SKIPPED"},
    ),
    "a condition that cannot be computed, and a way for that": Case(
        {
            "nodes": [works("a"), says("'yes'", "b"), says("failures.a.reason", "c")],
            "edges": [
                way("a", "b", when="1 / (input.n - 3) > 1"),
                way("a", "b", otherwise=True),
                way("a", "c", failed=True),
            ],
        },
        {"text": "EXPRESSION_FAILED"},
    ),
    "a request that cannot be computed": Case(
        {"nodes": [works("a", "input.items[7].name")]},
        failure=("EXPRESSION_FAILED", "a@1"),
        states={"a@1": "FAILED"},
    ),
    "an error of a dynamic value is no truth": Case(
        {
            "nodes": [works("a"), says("'yes'", "b"), says("'no'", "c")],
            "edges": [way("a", "b", when="input.more.mood"), way("a", "c", otherwise=True)],
        },
        failure=("EXPRESSION_FAILED", "a@1"),
    ),
    "a step fails": Case(
        {"nodes": [works("a"), works("b")], "edges": [way("a", "b")]},
        failure=("INTERNAL", "b@1"),
        fails=("b@1",),
        states={"a@1": "SUCCEEDED", "b@1": "FAILED"},
    ),
    "a step fails, and there is another way": Case(
        {
            "nodes": [works("a"), works("b", "a.text"), says("failures.a.code", "sorry")],
            "edges": [way("a", "b"), way("a", "sorry", failed=True)],
        },
        {"text": "INTERNAL"},
        fails=("a@1",),
        states={"b@1": "SKIPPED"},
    ),
    "what was done is undone, the last first": Case(
        {
            "nodes": [
                works("a", compensation=call(fields={"by_path": {"text": "'undo ' + a.text"}})),
                works("b", compensation=call(fields={"by_path": {"text": "b.text"}})),
                works("c", compensation=call()),
            ],
            "edges": [way("a", "b"), way("b", "c")],
        },
        failure=("INTERNAL", "c@1"),
        fails=("c@1",),
        undone=("b@1~undo", "a@1~undo"),
        states={"a@1": "COMPENSATED", "b@1": "COMPENSATED", "c@1": "FAILED"},
    ),
    "an undoing that fails does not stop the others": Case(
        {
            "nodes": [
                works("a", compensation=call()),
                works("b", compensation=call()),
                works("c", compensation=call(fields={"by_path": {"text": "input.items[9].name"}})),
                works("d"),
            ],
            "edges": [way("a", "b"), way("b", "c"), way("c", "d")],
        },
        failure=("INTERNAL", "d@1"),
        fails=("d@1", "b@1~undo"),
        undone=("b@1~undo", "a@1~undo"),
        states={"a@1": "COMPENSATED", "b@1": "SUCCEEDED", "c@1~undo": "FAILED"},
    ),
    "round and round until it is good": Case(
        {
            "nodes": [works("s"), counts("a", max_visits=5), says("string(a.n)")],
            "edges": [
                way("s", "a"),
                way("a", "a", when="a.n < 3"),
                way("a", "z", otherwise=True),
            ],
        },
        {"text": "3"},
    ),
    "round and round until the bound": Case(
        {
            "nodes": [works("s"), counts("a", max_visits=4), says("string(a.n)")],
            "edges": [
                way("s", "a"),
                way("a", "a", when="a.n < 9"),
                way("a", "z", otherwise=True),
            ],
        },
        {"text": "4"},
    ),
    "a loop that is left in its middle, before a join": Case(
        {
            "nodes": [
                works("s"),
                counts("check", max_visits=4),
                works("revise"),
                works("beside"),
                says("string(visits.revise) + beside.text"),
            ],
            "edges": [
                way("s", "check"),
                way("s", "beside"),
                way("check", "z", when="check.n == 3"),
                way("check", "revise", otherwise=True),
                way("revise", "check"),
                way("beside", "z"),
            ],
        },
        {"text": "2hi"},
    ),
    "a loop in a loop": Case(
        {
            "nodes": [
                works("s"),
                counts("outer", max_visits=3),
                counts("inner", max_visits=6),
                says("string(visits.outer) + '/' + string(visits.inner)"),
            ],
            "edges": [
                way("s", "outer"),
                way("outer", "inner"),
                way("inner", "inner", when="inner.n % 2 == 1"),
                way("inner", "outer", when="visits.outer < 3"),
                way("inner", "z", otherwise=True),
            ],
        },
        {"text": "3/6"},
    ),
    "a join inside a loop, once each round": Case(
        {
            "nodes": [
                works("s"),
                counts("top", max_visits=3),
                works("b"),
                works("c"),
                counts("both"),
                says("string(visits.both) + string(visits.b)"),
            ],
            "edges": [
                way("s", "top"),
                way("top", "b"),
                way("top", "c"),
                way("b", "both"),
                way("c", "both"),
                way("both", "top", when="visits.top < 3"),
                way("both", "z", otherwise=True),
            ],
        },
        {"text": "33"},
    ),
    "for each of a list": Case(
        {"nodes": [each()], "output": "each[1]"}, {"text": "b1", "n": 2, "score": 0.2}
    ),
    "for each, one at a time, in order": Case(
        {"nodes": [each(at_once=1)], "output": "lab.v1.Result{text: each[0].text + each[2].text}"},
        {"text": "a0c2"},
    ),
    "for each of nothing": Case(
        {
            "nodes": [each("input.items.filter(one, one.n > 9)")],
            "output": "lab.v1.Result{n: size(each)}",
        },
        {},
        states={"each@1": "SUCCEEDED"},
    ),
    "for each, where some may fail": Case(
        {
            "nodes": [each(least=2)],
            "output": "lab.v1.Result{text: each[0].text + each[1].text, n: size(each)}",
        },
        {"text": "a0c2", "n": 2},
        fails=("each@1/1",),
        states={"each@1/1": "FAILED", "each@1": "SUCCEEDED"},
    ),
    "for each, where none may fail": Case(
        {"nodes": [each(at_once=1)], "output": "input"},
        failure=("INTERNAL", "each@1"),
        fails=("each@1/1",),
        states={"each@1": "FAILED", "each@1/0": "SUCCEEDED"},
    ),
    "for each of too many": Case(
        {"nodes": [each(most=2)], "output": "input"},
        failure=("TOO_MANY_ITEMS", "each@1"),
    ),
    "several skills beside each other": Case(
        {
            "nodes": [
                {
                    "id": "both",
                    "for_each": {
                        "calls": [
                            call(),
                            call(agent="twin-a", method="lab.v1.TwinService/Work"),
                        ]
                    },
                }
            ],
            "output": "both[1]",
        },
        {"text": "hi"},
    ),
    "a list that was made is gone through again": Case(
        {
            "nodes": [
                each(),
                {
                    "id": "again",
                    "for_each": {
                        "over": "each.filter(one, one.n != 2)",
                        "calls": [call(fields={"by_path": {"text": "item.text + '+'"}})],
                    },
                },
            ],
            "edges": [way("each", "again")],
            "output": "again[1]",
        },
        {"text": "c2+"},
    ),
    "approved": Case(
        {
            "nodes": [gate(), works("b", "gate.text + decisions.gate.subject")],
            "edges": [way("gate", "b")],
        },
        {"text": "hiboss"},
    ),
    "approved as it was changed": Case(
        {"nodes": [gate(editable=True), works("b", "gate.text")], "edges": [way("gate", "b")]},
        {"text": "changed"},
        edited={"gate@1": {"text": "changed"}},
    ),
    "rejected": Case(
        {"nodes": [gate(), works("b")], "edges": [way("gate", "b")]},
        failure=("REJECTED", "gate@1"),
        verdicts={"gate@1": REJECTED},
        states={"gate@1": "FAILED", "b@1": "SKIPPED"},
    ),
    "nobody decided": Case(
        {"nodes": [gate(expires="60s"), works("b")], "edges": [way("gate", "b")]},
        failure=("EXPIRED", "gate@1"),
        verdicts={"gate@1": EXPIRED},
    ),
    "rejected, and there is a way for that": Case(
        {
            "nodes": [gate(), says("'yes'", "yes"), says("'no, ' + string(ran.gate)", "no")],
            "edges": [*GATED, way("gate", "no", otherwise=True)],
        },
        {"text": "no, false"},
        verdicts={"gate@1": REJECTED},
        states={"gate@1": "SUCCEEDED", "yes@1": "SKIPPED"},
    ),
    "rejected, and a way for failures": Case(
        {
            "nodes": [gate(), says("'yes'", "yes"), says("failures.gate.reason", "no")],
            "edges": [way("gate", "yes"), way("gate", "no", failed=True)],
        },
        {"text": "REJECTED"},
        verdicts={"gate@1": REJECTED},
    ),
    "an approval shows what another approved": Case(
        {
            "nodes": [gate("second", "first"), gate("first"), works("b", "second.text")],
            "edges": [way("first", "second"), way("second", "b")],
        },
        {"text": "hi"},
    ),
    "a message from outside": Case(
        {
            "nodes": [
                {"id": "told", "wait": {"name": "go", "type": "lab.v1.Result"}},
                works("b", "told.text"),
            ],
            "edges": [way("told", "b")],
        },
        {"text": "signal go"},
    ),
    "times": Case(
        {
            "nodes": [
                {"id": "pause", "timer": {"pause": "60s"}},
                {"id": "later", "timer": {"at": "pause + duration('1h')"}},
                {"id": "due", "timer": {"at": "input.due"}},
                says("string(later.getFullYear()) + string(due > pause)"),
            ],
            "edges": [way("pause", "later"), way("later", "due"), way("due", "z")],
        },
        {"text": "2026false"},
    ),
    "another workflow": Case(
        {
            "nodes": [{"id": "sub", "workflow": {"name": "child", "message": "input"}}],
        },
        {"text": "child of hi", "n": 1},
    ),
    "a version of another workflow": Case(
        {
            "nodes": [
                {
                    "id": "sub",
                    "workflow": {
                        "name": "child",
                        "version": 1,
                        "fields": {"by_path": {"text": "'x'"}},
                    },
                },
                says("sub.word + '.'"),
            ],
            "edges": [way("sub", "z")],
        },
        {"text": "."},
    ),
    "by capability": Case(
        {
            "nodes": [
                step(
                    "a",
                    call=call(
                        method="lab.v1.TwinService/Work",
                        capability={"tags": ["right"], "labels": {"zone": "c"}},
                    ),
                )
            ]
        },
        {"text": "hi"},
    ),
    "a stream, of which the last message counts": Case(
        {"nodes": [step("a", call=call(method="lab.v1.LabService/Follow"))]}, {"text": "hi"}
    ),
    "names that hide names": Case(
        {
            "nodes": [works("item"), says("[1, 2].map(item, string(item))[1] + item.text")],
            "edges": [way("item", "z")],
        },
        {"text": "2hi"},
    ),
    "plain values as messages": Case(
        {
            "nodes": [
                {"id": "a", "compute": {"type": "google.protobuf.StringValue", "message": "'x'"}},
                {"id": "b", "compute": {"type": "google.protobuf.Int64Value", "message": "4"}},
                {
                    "id": "c",
                    "compute": {"type": "google.protobuf.Struct", "message": "input.more"},
                },
                {
                    "id": "d",
                    "compute": {"type": "google.protobuf.Duration", "message": "duration('90s')"},
                },
                says("a + string(b) + string(c.mood) + string(d)"),
            ],
            "edges": [way("a", "b"), way("b", "c"), way("c", "d"), way("d", "z")],
        },
        {"text": "x4good90s"},
    ),
    "an end that was not come to": Case(
        {
            "nodes": [works("s"), counts("a", max_visits=2), says("'end'")],
            "edges": [
                way("s", "a"),
                way("a", "z", when="a.n > 9"),
                way("a", "a", otherwise=True),
            ],
        },
        failure=("NO_RESULT", ""),
    ),
    "the end that comes last counts": Case(
        {
            "nodes": [works("a"), works("b", "'b'"), works("c", "a.text + 'c'")],
            "edges": [way("a", "b"), way("b", "c")],
        },
        {"text": "hic"},
    ),
}


def message(plan: Plan, name: str, fields: dict[str, Any]) -> Message:
    return json_format.ParseDict(fields, plan.types.new(name), descriptor_pool=plan.types.pool)


@pytest.mark.parametrize("crashes", [0.0, 0.7])
@pytest.mark.parametrize("name", CASES)
def test_a_workflow_runs(name: str, crashes: float) -> None:
    case = CASES[name]
    plan = compile_workflow(spec(**case.spec), WORLD)
    edited = {key: message(plan, "lab.v1.Order", each) for key, each in case.edited.items()}
    trial = Trial(
        plan,
        message(plan, "lab.v1.Order", INPUT),
        answering(plan, fails=case.fails),
        crashes=crashes,
        verdicts=Verdicts(by_key=case.verdicts, edited=edited),
    )
    ended = trial.run()
    if case.output is not None:
        assert ended.failure is None
        assert ended.output is not None
        assert ended.output.DESCRIPTOR.full_name == plan.output_type
        assert json_format.MessageToDict(ended.output) == case.output
    else:
        assert ended.failure is not None
        assert case.failure == (
            ended.failure.reason or ended.failure.code,
            ended.failure.metadata.get("step", ""),
        )
    states = trial.states()
    assert {key: states.get(key) for key in case.states} == case.states
    assert tuple(key for key in trial.done if key.endswith("~undo")) == case.undone
    assert len(trial.done) == len(set(trial.done)), "a step was carried out twice"


def test_there_are_forty_and_more() -> None:
    assert len(CASES) >= 40
