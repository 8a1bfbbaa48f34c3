"""The checker sees what it is there to see."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.faults.orchestrator.agent import Remembered
from tests.faults.orchestrator.caller import Seen
from tests.faults.orchestrator.checker import check
from tests.faults.orchestrator.evidence import Blow, Evidence, Hold, Logged, Span, Write
from tests.faults.orchestrator.graph import Plan, expected

from weft.echo.v1 import echo_pb2
from weft.v1 import orchestrator_pb2 as pb

PLAN = Plan(id="run-1", seconds=0.1, edited="")
RIGHT = expected(PLAN)
BEGIN = 1_000.0


def ended(text: str = RIGHT.text) -> Seen:
    run = pb.Run(id=PLAN.id, state=pb.RUN_STATE_SUCCEEDED)
    run.output.binary = echo_pb2.SayResponse(text=text).SerializeToString()
    return Seen(plan=PLAN, ends=[run])


def step(number: int, state: pb.StepState.ValueType) -> pb.RunEvent:
    event = pb.RunEvent(number=number, step=pb.Step(key="intake@1", state=state, attempts=1))
    event.time.FromMicroseconds(int((BEGIN + number) * 1e6))
    return event


def evidence(**further: Any) -> Evidence:
    """A worker was killed at BEGIN + 2, and another went on 2 s later."""
    last = pb.RunEvent(number=4, ended=pb.Run())
    logged = Logged(
        events=[
            pb.RunEvent(number=1),
            step(2, pb.STEP_STATE_RUNNING),
            step(3, pb.STEP_STATE_SUCCEEDED),
            last,
        ],
        holds=[
            Hold(at=BEGIN, fence=1, taken=True, worker="one.a"),
            Hold(at=BEGIN + 3.9, fence=2, taken=True, worker="two.b"),
            Hold(at=BEGIN + 5, fence=2, taken=False, worker="two.b"),
        ],
        writes=[
            Write(at=BEGIN, event=1, fence=0, worker="two.b"),
            Write(at=BEGIN + 1, event=2, fence=1, worker="one.a"),
            Write(at=BEGIN + 4, event=3, fence=2, worker="two.b"),
            Write(at=BEGIN + 5, event=4, fence=2, worker="two.b"),
        ],
    )
    effects = {f"{key}/{n}": text for n, (text, key) in enumerate(RIGHT.effects.items())}
    whole = Evidence(
        runs={PLAN.id: logged},
        remembered=Remembered(effects=effects, calls={f"{PLAN.id}/intake@1": [BEGIN + 1]}),
        kills=[Blow(worker="one", begin=BEGIN + 2)],
        stops=[],
        dark=[],
        lease=2,
        slack=1,
    )
    logged = dataclasses.replace(logged, **further.pop("logged", {}))
    return dataclasses.replace(whole, runs={PLAN.id: logged}, **further)


def test_a_round_without_fault() -> None:
    report = check([ended()], evidence())
    assert report.violations == []
    assert report.resumed == [2.0]
    assert (report.steps, report.ended) == (1, {"succeeded": 1})


def test_ends() -> None:
    (wrong,) = check([ended("else")], evidence()).violations
    assert "has to be" in wrong
    (wrong,) = check([Seen(plan=PLAN)], evidence()).violations
    assert "not ended" in wrong
    failed = ended()
    failed.ends.append(pb.Run(state=pb.RUN_STATE_FAILED))
    assert "ended twice" in check([failed], evidence()).violations[0]


def test_a_step_that_is_begun_again() -> None:
    events = [
        *evidence().runs[PLAN.id].events[:3],
        step(4, pb.STEP_STATE_RUNNING),
        pb.RunEvent(number=5, ended=pb.Run()),
    ]
    report = check([ended()], evidence(logged={"events": events}))
    assert report.finished_repeated == 1
    assert len(report.violations) == 1


def test_effects() -> None:
    effects = dict(evidence().remembered.effects)
    (first, text), *_ = effects.items()
    twice = Remembered(effects=effects | {"run-1/intake@1/other": text})
    report = check([ended()], evidence(remembered=twice))
    assert (report.effects_doubled, len(report.violations)) == (1, 1)
    del effects[first]
    report = check([ended()], evidence(remembered=Remembered(effects=effects)))
    assert "not had" in report.violations[0]
    strange = Remembered(effects=dict(evidence().remembered.effects) | {"run-1/x": "strange"})
    assert "nobody asked" in check([ended()], evidence(remembered=strange)).violations[0]


def test_who_lost_a_run_and_writes() -> None:
    writes = [
        *evidence().runs[PLAN.id].writes,
        Write(at=BEGIN + 6, event=5, fence=2, worker="one.a"),
    ]
    report = check([ended()], evidence(logged={"writes": writes}))
    assert report.late_writes == 1
    assert "had lost it" in report.violations[0]


@pytest.mark.parametrize("dark", [False, True])
def test_a_run_that_lies_idle(*, dark: bool) -> None:
    spans = [Span(begin=BEGIN + 1, end=BEGIN + 3)] if dark else []
    report = check([ended()], evidence(lease=0.5, dark=spans))
    assert bool(report.violations) != dark
    assert (report.resumed, report.resumed_in_the_dark) == (([], [2.0]) if dark else ([2.0], []))


def test_a_run_taken_from_one_that_was_stopped() -> None:
    report = check(
        [ended()], evidence(kills=[], stops=[Blow(worker="one", begin=BEGIN + 2, end=BEGIN + 9)])
    )
    assert (report.taken_over, report.violations) == (1, [])
