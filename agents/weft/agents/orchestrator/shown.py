"""Runs and approvals as callers see them."""

from __future__ import annotations

from collections.abc import Iterable

from weft.agents.orchestrator.approvals.model import StoredApproval
from weft.agents.orchestrator.engine.model import StoredRun
from weft.agents.orchestrator.engine.plans import Plans
from weft.agents.orchestrator.typed import Types, shown
from weft.v1.orchestrator_pb2 import Approval, Run, RunEvent, Step
from weft.v1.workflow_pb2 import StepFailure, TypedMessage


class Shown:
    """Makes the messages.

    Args:
        plans: workflows, whose types messages are of.
    """

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    async def run(self, run: StoredRun, *, binary: bool = False, whole: bool = True) -> Run:
        """A run without its steps; `whole`: with its input and outcome."""
        message = run.shown()
        if whole:
            types = await self._types(run)
            given = TypedMessage.FromString(run.input)
            message.input.CopyFrom(shown(given, types, binary=binary))
            _outcome(message, run.outcome(), types, binary=binary)
        return message

    async def run_with_steps(
        self, run: StoredRun, events: Iterable[RunEvent], *, outputs: bool, binary: bool
    ) -> Run:
        """A run with its steps, as its events say."""
        message = await self.run(run, binary=binary)
        types = await self._types(run)
        for step in steps_of(events):
            if not outputs:
                step.ClearField("output")
            message.steps.append(self._step(step, types, binary=binary))
        return message

    async def event(self, run: StoredRun, event: RunEvent, *, binary: bool) -> RunEvent:
        """An event."""
        types = await self._types(run)
        kind = event.WhichOneof("kind")
        if kind == "step":
            self._step(event.step, types, binary=binary)
        elif kind == "approval":
            event.approval.shown.CopyFrom(shown(event.approval.shown, types, binary=binary))
        elif kind == "ended" and event.ended.HasField("output"):
            event.ended.output.CopyFrom(shown(event.ended.output, types, binary=binary))
        return event

    async def approval(
        self, approval: StoredApproval, workflow: int | None, *, binary: bool = False
    ) -> Approval:
        """An approval. `workflow`: number of its workflow; None: what is shown stays serialized."""
        message = approval.message()
        if workflow is not None:
            types = (await self._plans.by_number(workflow)).compiled.types
            message.shown.CopyFrom(shown(message.shown, types, binary=binary))
        return message

    async def _types(self, run: StoredRun) -> Types:
        return (await self._plans.by_number(run.workflow)).compiled.types

    def _step(self, step: Step, types: Types, *, binary: bool) -> Step:
        if step.HasField("output"):
            step.output.CopyFrom(shown(step.output, types, binary=binary))
        return step


def steps_of(events: Iterable[RunEvent]) -> list[Step]:
    """The steps as events say, in the order in which they began."""
    steps: dict[str, Step] = {}
    for event in events:
        if event.WhichOneof("kind") == "step":
            step = event.step
            before = steps.get(step.key)
            if before is not None and before.HasField("output") and not step.HasField("output"):
                step.output.CopyFrom(before.output)  # what was undone was given all the same
            steps[step.key] = step
    return list(steps.values())


def _outcome(
    message: Run, outcome: TypedMessage | StepFailure | None, types: Types, *, binary: bool
) -> None:
    if isinstance(outcome, TypedMessage):
        message.output.CopyFrom(shown(outcome, types, binary=binary))
    elif outcome is not None:
        message.failure.CopyFrom(outcome)
