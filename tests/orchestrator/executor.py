"""Carries out runs in memory: takes turns, calls handlers, keeps the log, and forgets all else when it is told to."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from weft.agents.orchestrator.plan.model import ExpressionFailed, Plan
from weft.agents.orchestrator.plan.types import Given, pack
from weft.agents.orchestrator.run.interpreter import Interpreter
from weft.agents.orchestrator.run.turns import (
    Ended,
    OpenApproval,
    OpenCall,
    OpenRun,
    OpenStep,
    OpenTimer,
    OpenWait,
    Turn,
)
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.workflow_pb2 import RunInfo, StepFailure, Verdict


class Fails(Exception):
    """What a handler raises for its step to fail."""

    def __init__(self, code: str = "INTERNAL") -> None:
        super().__init__(code)
        self.failure = StepFailure(code=code, message="It did not work.")


Handler = Callable[[OpenStep], Message]
"""What a step does: gives its message, or raises Fails."""


@dataclass
class Verdicts:
    """What people decide, by step: a verdict, and what they approve instead."""

    by_key: Mapping[str, Verdict.ValueType] = field(default_factory=dict)
    edited: Mapping[str, Message] = field(default_factory=dict)


class Trial:
    """A run.

    Args:
        plan: what it follows.
        given: what it begins with.
        handler: carries out calls, waits and child runs.
        chance: settles which step under way ends next, and where the run is forgotten and read from its log again.
        crashes: how likely that is after each event.
    """

    def __init__(
        self,
        plan: Plan,
        given: Message,
        handler: Handler,
        *,
        chance: random.Random | None = None,
        crashes: float = 0.0,
        verdicts: Verdicts | None = None,
    ) -> None:
        self.plan = plan
        self.log: list[bytes] = []
        self.steps: dict[str, pb.Step] = {}
        self.order: list[str] = []
        self.done: list[str] = []
        self._given = given
        self._handler = handler
        self._chance = chance or random.Random(0)
        self._crashes = crashes
        self._verdicts = verdicts or Verdicts()
        self.interpreter = self._new()

    def _new(self) -> Interpreter:
        now = Timestamp()
        now.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
        info = RunInfo(id="run-1", workflow=self.plan.name, subject="anna", create_time=now)
        return Interpreter(self.plan, info, self._given)

    def run(self) -> Ended:
        turn = self.look()
        while turn.ended is None:
            assert turn.open, "nothing is under way, and the run has not ended"
            key = self._chance.choice(sorted(turn.open))
            self.happen(self.outcome(turn.open[key]))
            if self._chance.random() < self._crashes:
                self.crash()
            turn = self.look()
        while turn.undo:
            self.happen(self.outcome(turn.undo[0]))
            turn = self.look()
        assert turn.ended is not None
        return turn.ended

    def look(self) -> Turn:
        turn = self.interpreter.turn()
        for step in turn.told:
            self._store(pb.RunEvent(step=step))
        for key in turn.open:
            if key not in self.order:
                self.order.append(key)
        return turn

    def crash(self) -> None:
        """What is not in the log is gone."""
        self.interpreter = self._new()
        for raw in self.log:
            self.interpreter.apply(pb.RunEvent.FromString(raw))

    def happen(self, event: pb.RunEvent) -> None:
        assert self.interpreter.apply(event)
        self._store(event)

    def outcome(self, step: OpenStep) -> pb.RunEvent:
        self.done.append(step.key)
        if isinstance(step, OpenApproval):
            return pb.RunEvent(approval=self._decide(step))
        try:
            given = self._give(step)
        except Fails as fails:
            return _step(step.key, pb.STEP_STATE_FAILED, failure=fails.failure)
        except ExpressionFailed as failed:
            return _step(step.key, pb.STEP_STATE_FAILED, failure=StepFailure(message=str(failed)))
        return _step(step.key, pb.STEP_STATE_SUCCEEDED, given=given)

    def _give(self, step: OpenStep) -> Message:
        if isinstance(step, OpenTimer):
            made = Timestamp()
            made.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
            return made
        given = self._handler(step)
        if isinstance(step, OpenCall) and step.reply is not None:
            return step.reply.message({**step.scope, "reply": given})
        return given

    def _decide(self, step: OpenApproval) -> pb.Approval:
        verdict = self._verdicts.by_key.get(step.key, Verdict.VERDICT_APPROVED)
        shown = self._verdicts.edited.get(step.key, step.shown)
        approval = pb.Approval(
            id=step.key, step=step.key, shown=pack(shown, shown.DESCRIPTOR.full_name)
        )
        approval.decision.verdict = verdict
        approval.decision.subject = "boss"
        return approval

    def _store(self, event: pb.RunEvent) -> None:
        if event.WhichOneof("kind") == "step":
            self.steps[event.step.key] = event.step
        self.log.append(event.SerializeToString())

    def states(self) -> dict[str, str]:
        """States of steps by key, without the part of the name that all have."""
        names = ((key, pb.StepState.Name(step.state)) for key, step in self.steps.items())
        return {key: name.removeprefix("STEP_STATE_") for key, name in names}


def _step(
    key: str,
    state: pb.StepState.ValueType,
    *,
    given: Given | None = None,
    failure: StepFailure | None = None,
) -> pb.RunEvent:
    step = pb.Step(key=key, node=key.partition("@")[0], state=state, failure=failure)
    if isinstance(given, Message):
        step.output.CopyFrom(pack(given, given.DESCRIPTOR.full_name))
    return pb.RunEvent(step=step)


def answering(plan: Plan, *, fails: Sequence[str] = ()) -> Handler:
    """A handler: Work and its like answer with the text and number they were given."""

    def handle(step: OpenStep) -> Message:
        if step.key in fails:
            raise Fails
        if isinstance(step, OpenWait):
            made = plan.types.new(step.action.type)
            _put(made, text=f"signal {step.action.name}", n=1)
            return made
        if isinstance(step, OpenRun):
            made = plan.types.new(plan.nodes[step.key.partition("@")[0]].output_type)
            _put(made, text=f"child of {step.input.text}", n=1)
            return made
        assert isinstance(step, OpenCall)
        made = plan.types.new(step.call.response_type)
        text, number = getattr(step.request, "text", ""), getattr(step.request, "n", 0)
        _put(made, text=text, n=number, word=text, answer=text, score=number / 10)
        return made

    return handle


def _put(message: Message, **values: object) -> None:
    for name, value in values.items():
        if name in message.DESCRIPTOR.fields_by_name:
            setattr(message, name, value)
