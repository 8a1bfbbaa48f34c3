"""What an interpreter makes of events that are not the plain ends of steps."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.message import Message
from tests.orchestrator.executor import Trial, answering
from tests.orchestrator.lab import call, spec, step, way, world

from weft.agents.orchestrator.plan.compile import compile_workflow
from weft.agents.orchestrator.plan.model import Plan
from weft.agents.orchestrator.plan.types import pack
from weft.agents.orchestrator.run.interpreter import Interpreter
from weft.agents.orchestrator.run.turns import OpenApproval, OpenCall
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.workflow_pb2 import Opinion, RunInfo, StepFailure, TypedMessage, Verdict

WORLD = world()


def begun(*, items: int = 0, **fields: Any) -> tuple[Interpreter, Plan]:
    plan = compile_workflow(spec(**fields), WORLD)
    return Interpreter(plan, RunInfo(id="r"), given(plan, items)), plan


def given(plan: Plan, items: int = 0) -> Message:
    made = plan.types.new("lab.v1.Order")
    made.text = "hi"
    for number in range(items):
        made.items.add(name=f"i{number}", n=number)
    return made


def ended(plan: Plan, key: str, **fields: Any) -> pb.RunEvent:
    result = plan.types.new("lab.v1.Result")
    for name, value in fields.items():
        setattr(result, name, value)
    output = pack(result, "lab.v1.Result")
    return pb.RunEvent(step=pb.Step(key=key, state=pb.STEP_STATE_SUCCEEDED, output=output))


def failed(key: str, code: str = "INTERNAL") -> pb.RunEvent:
    failure = StepFailure(code=code)
    return pb.RunEvent(step=pb.Step(key=key, state=pb.STEP_STATE_FAILED, failure=failure))


def told(interpreter: Interpreter) -> dict[str, str]:
    states = ((step.key, pb.StepState.Name(step.state)) for step in interpreter.turn().told)
    return {key: state.removeprefix("STEP_STATE_") for key, state in states}


def test_attempts_and_strangers_change_nothing() -> None:
    run, plan = begun(nodes=[step("a"), step("b")], edges=[way("a", "b")])
    running = pb.RunEvent(step=pb.Step(key="a@1", state=pb.STEP_STATE_RUNNING, attempts=2))
    waiting = pb.RunEvent(step=pb.Step(key="a@1", state=pb.STEP_STATE_WAITING))
    for event in (
        running,
        waiting,
        ended(plan, "b@1"),
        ended(plan, "zz@4/1"),
        pb.RunEvent(run=pb.Run()),
    ):
        assert not run.apply(event)
    assert list(run.turn().open) == ["a@1"]
    assert run.apply(ended(plan, "a@1"))
    assert not run.apply(ended(plan, "a@1")), "a step ends once"
    assert list(run.turn().open) == ["b@1"]


def test_what_is_under_way_stays_what_it_is() -> None:
    run, plan = begun(
        nodes=[step("a"), step("b"), step("c")], edges=[way("a", "c")], output="input"
    )
    before = run.turn().open["b@1"]
    run.apply(ended(plan, "a@1", n=5))
    assert run.turn().open["b@1"] is before
    assert sorted(run.turn().open) == ["b@1", "c@1"]


def test_a_call_has_all_that_is_needed_to_make_it() -> None:
    run, _ = begun(nodes=[step("a", timeout="4s", retry={"attempts": 2}, call=call(agent="lab"))])
    opened = run.turn().open["a@1"]
    assert isinstance(opened, OpenCall)
    assert opened.call.path == "/lab.v1.LabService/Work"
    assert opened.request.text == "hi"
    assert (opened.timeout.total_seconds(), opened.retry.attempts) == (4, 2)


def test_a_cancelled_run_drops_what_is_under_way_and_undoes_what_was_done() -> None:
    run, plan = begun(
        nodes=[step("a", compensation=call()), step("b"), step("c")],
        edges=[way("a", "b"), way("b", "c")],
    )
    run.apply(ended(plan, "a@1"))
    run.turn()
    assert run.apply(pb.RunEvent(run=pb.Run(cancelling=True)))
    turn = run.turn()
    assert turn.ended is not None
    assert turn.ended.failure is not None
    assert turn.ended.failure.code == "CANCELLED"
    assert not turn.open
    assert {step.key for step in turn.told} == {"b@1", "c@1"}
    assert [each.key for each in turn.undo] == ["a@1~undo"]
    assert not run.apply(ended(plan, "b@1")), "too late"
    assert run.apply(ended(plan, "a@1~undo"))
    assert told(run) == {"a@1": "COMPENSATED"}
    assert not run.turn().undo


def test_what_would_be_undone_is_known_before_the_end() -> None:
    """For whoever ends a run for reasons of its own."""
    broken = call(fields={"by_path": {"text": "input.items[3].name"}})
    run, plan = begun(
        nodes=[step("a", compensation=call()), step("b", compensation=broken), step("c")],
        edges=[way("a", "b"), way("b", "c")],
    )
    assert not run.turn().undo
    run.apply(ended(plan, "a@1"))
    run.apply(ended(plan, "b@1"))
    assert [each.key for each in run.turn().undo] == ["a@1~undo"]
    assert not run.apply(ended(plan, "a@1~undo")), "nothing is undone of a run that has not ended"
    run.apply(ended(plan, "c@1"))
    turn = run.turn()
    assert turn.ended is not None
    assert turn.ended.output is not None
    assert not turn.undo, "it has a result"


def test_a_run_that_is_to_end_ends_with_the_reason_it_is_given() -> None:
    run, _ = begun(nodes=[step("a")])
    late = StepFailure(code="DEADLINE_EXCEEDED", reason="RUN_TOO_LATE")
    assert run.apply(pb.RunEvent(run=pb.Run(failure=late)))
    ending = run.turn().ended
    assert ending is not None
    assert ending.failure == late


def test_compensations_are_for_visits_with_what_each_gave() -> None:
    undo = call(fields={"by_path": {"text": "'undo ' + a.text"}})
    run, plan = begun(
        nodes=[step("s"), step("a", max_visits=3, compensation=undo), step("b")],
        edges=[way("s", "a"), way("a", "a", when="visits.a < 3"), way("a", "b", otherwise=True)],
    )
    run.apply(ended(plan, "s@1"))
    for visit in (1, 2, 3):
        run.apply(ended(plan, f"a@{visit}", text=f"t{visit}"))
    run.apply(failed("b@1"))
    undoing = run.turn().undo
    assert [(each.key, each.request.text) for each in undoing] == [
        ("a@3~undo", "undo t3"),
        ("a@2~undo", "undo t2"),
        ("a@1~undo", "undo t1"),
    ]


@pytest.mark.parametrize(
    "output",
    [
        TypedMessage(type="lab.v1.Result", binary=b"\xff"),
        TypedMessage(type="lab.v1.Order", binary=b""),
        TypedMessage(type="lab.v1.Nothing", binary=b""),
    ],
)
def test_an_answer_that_is_none_fails_its_step(output: TypedMessage) -> None:
    run, _ = begun(nodes=[step("a")])
    run.apply(pb.RunEvent(step=pb.Step(key="a@1", state=pb.STEP_STATE_SUCCEEDED, output=output)))
    ending = run.turn().ended
    assert ending is not None
    assert ending.failure is not None
    assert ending.failure.reason == "BAD_OUTPUT"


def test_a_slow_branch_or_an_approval_delays_nobody_else() -> None:
    gate = {"id": "gate", "approval": {"title": "'Go on?'", "show": "input"}}
    run, plan = begun(
        nodes=[gate, step("slow"), step("a"), step("b"), step("c"), step("z")],
        edges=[way("a", "b"), way("b", "c"), way("c", "z"), way("gate", "z"), way("slow", "z")],
    )
    for key in ("a@1", "b@1", "c@1"):
        assert key in run.turn().open
        run.apply(ended(plan, key))
    assert sorted(run.turn().open) == ["gate@1", "slow@1"]
    run.apply(ended(plan, "slow@1"))
    opened = run.turn().open["gate@1"]
    assert isinstance(opened, OpenApproval)
    assert (opened.title, opened.shown.text) == ("Go on?", "hi")


def test_an_open_approval_that_is_told_again_goes_on_waiting() -> None:
    gate = {"id": "gate", "approval": {"title": "'Go on?'", "show": "input"}}
    run, plan = begun(nodes=[gate])
    asked = pb.Approval(step="gate@1", shown=pack(given(plan), "lab.v1.Order"))
    assert not run.apply(pb.RunEvent(approval=asked))
    asked.decision.verdict = Verdict.VERDICT_APPROVED
    assert run.apply(pb.RunEvent(approval=asked))
    turn = run.turn()
    assert turn.ended is not None
    assert turn.ended.output == given(plan)
    assert not run.apply(pb.RunEvent(approval=asked)), "decided once"


def test_a_join_of_any_passes_over_who_is_late_and_not_over_the_next_round() -> None:
    run, plan = begun(
        nodes=[
            step("s"),
            step("top", max_visits=2),
            step("b"),
            step("c"),
            step("first", join={"any": True}),
            step("z"),
        ],
        edges=[
            way("s", "top"),
            way("top", "b"),
            way("top", "c"),
            way("b", "first"),
            way("c", "first"),
            way("first", "top", when="visits.top < 2"),
            way("first", "z", otherwise=True),
        ],
    )
    for key in ("s@1", "top@1", "b@1", "first@1"):
        run.apply(ended(plan, key))
    assert sorted(run.turn().open) == ["c@1", "top@2"]
    run.apply(ended(plan, "c@1"))
    assert sorted(run.turn().open) == ["top@2"], "c was late"
    run.apply(ended(plan, "top@2"))
    run.apply(ended(plan, "c@2"))
    assert sorted(run.turn().open) == ["b@2", "first@2"]


def each(**more: Any) -> dict[str, Any]:
    called = call(fields={"by_path": {"text": "item.name", "n": "index"}})
    return {"id": "each", "for_each": {"over": "input.items", "calls": [called], **more}}


def test_items_are_begun_in_order_so_many_at_a_time() -> None:
    run, plan = begun(nodes=[each(at_once=2)], output="each[0]", items=5)
    assert told(run) == {"each@1": "RUNNING"}
    assert sorted(run.turn().open) == ["each@1/0", "each@1/1"]
    run.apply(ended(plan, "each@1/1"))
    assert sorted(run.turn().open) == ["each@1/0", "each@1/2"]
    run.apply(ended(plan, "each@1/0"))
    assert sorted(run.turn().open) == ["each@1/2", "each@1/3"]


def test_items_under_way_are_dropped_when_too_many_failed() -> None:
    run, plan = begun(nodes=[each(at_once=3, least=4)], output="each[0]", items=5)
    told(run)
    run.apply(failed("each@1/1", "NOT_FOUND"))
    assert run.turn().ended is None
    run.apply(failed("each@1/0", "ABORTED"))
    turn = run.turn()
    assert turn.ended is not None
    assert turn.ended.failure is not None
    assert (turn.ended.failure.code, turn.ended.failure.message) == ("ABORTED", "Item 0: ")
    assert not turn.open
    states = {step.key: pb.StepState.Name(step.state) for step in turn.told}
    assert states["each@1/2"] == states["each@1/3"] == "STEP_STATE_SKIPPED"
    assert states["each@1"] == "STEP_STATE_FAILED"
    assert not run.apply(ended(plan, "each@1/2"))


def test_an_item_whose_request_cannot_be_computed_fails_alone() -> None:
    called = call(fields={"by_path": {"n": "6 / item.n"}})
    node = {"id": "each", "for_each": {"over": "input.items", "calls": [called], "least": 2}}
    run, plan = begun(nodes=[node], output="lab.v1.Result{n: size(each)}", items=3)
    assert told(run) == {"each@1": "RUNNING", "each@1/0": "FAILED"}
    for key in list(run.turn().open):
        run.apply(ended(plan, key))
    ending = run.turn().ended
    assert ending is not None
    assert ending.output is not None
    assert ending.output.n == 2


def test_ten_thousand_items_cost_no_more_each_than_ten() -> None:
    run, plan = begun(nodes=[each(most=10_000)], output="each[0]", items=10_000)
    chance = random.Random(1)
    count = 0
    while (turn := run.turn()).ended is None:
        assert len(turn.open) <= 16
        run.apply(ended(plan, chance.choice(list(turn.open))))
        count += 1
    assert count == 10_000


def test_items_see_the_run_as_it_was_when_their_step_began() -> None:
    called = call(fields={"by_path": {"text": "string(ran.beside)"}})
    node = {"id": "each", "for_each": {"over": "input.items", "calls": [called], "at_once": 1}}
    run, plan = begun(nodes=[node, step("beside")], output="input", items=2)
    run.apply(ended(plan, "beside@1"))
    run.apply(ended(plan, "each@1/0"))
    opened = run.turn().open["each@1/1"]
    assert isinstance(opened, OpenCall)
    assert opened.request.text == "false"


def test_parts_may_answer_with_what_counts_of_their_response() -> None:
    """As patterns do: the response is not what the part gives."""
    run, _ = begun(nodes=[each()], output="input", items=1)
    opinion = pack(Opinion(answer="x"), "weft.v1.Opinion")
    part = pb.Step(key="each@1/0", state=pb.STEP_STATE_SUCCEEDED, output=opinion)
    run.apply(pb.RunEvent(step=part))
    assert run.turn().ended is not None


def test_everything_that_is_told_can_be_read_again() -> None:
    plan = compile_workflow(
        spec(
            nodes=[each(), step("a", call=call(fields={"by_path": {"n": "size(each)"}}))],
            edges=[way("each", "a")],
        ),
        WORLD,
    )
    trial = Trial(plan, given(plan, 3), answering(plan))
    trial.run()
    listed = plan.types.unpack(trial.steps["each@1"].output)
    assert isinstance(listed, list)
    assert [one.n for one in listed] == [0, 1, 2]
