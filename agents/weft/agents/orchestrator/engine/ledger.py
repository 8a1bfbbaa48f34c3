"""What the log of a run says, as whoever holds the run has it, and what is to be added to it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from weft.agents.orchestrator.engine.attempts import asked_pause
from weft.v1.orchestrator_pb2 import (
    STEP_STATE_COMPENSATED,
    STEP_STATE_FAILED,
    STEP_STATE_SKIPPED,
    STEP_STATE_SUCCEEDED,
    Approval,
    Run,
    RunEvent,
    Step,
    StepState,
)
from weft.v1.workflow_pb2 import StepFailure, TypedMessage

ENDED = frozenset(
    {STEP_STATE_SUCCEEDED, STEP_STATE_FAILED, STEP_STATE_SKIPPED, STEP_STATE_COMPENSATED}
)
_SECOND = 1_000_000_000  # nanoseconds


class Known:
    """A step as it is now, without what it gave: a run may have thousands."""

    __slots__ = (
        "approval",
        "asked",
        "attempts",
        "began",
        "child_run",
        "node",
        "since",
        "state",
        "visit",
    )

    def __init__(self, key: str, now: int) -> None:
        self.state: StepState.ValueType = 0  # type: ignore[assignment]
        self.node, self.visit = named(key)
        self.attempts = 0
        self.child_run = ""
        self.approval = ""
        self.asked = timedelta(0)
        """The pause that its last failure asked for."""
        self.began = now
        """In nanoseconds since 1970, as `since`, when it came to be as it is."""
        self.since = now

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.state in ENDED


class Ledger:
    """The log of a run, from its first event on."""

    def __init__(self) -> None:
        self.number = 0
        """Of the last event."""
        self.fresh: list[bytes] = []
        """Events that are not stored yet, the last `len(fresh)` numbers."""
        self.steps: dict[str, Known] = {}
        self.cancelled = False
        """Whether it is settled that the run ends since it was cancelled."""

    def replay(self, stored: Iterable[bytes]) -> Iterable[RunEvent]:
        """Takes in the log, and gives what an interpreter is to take in, in order."""
        for raw in stored:
            event = RunEvent.FromString(raw)
            self.number = event.number
            kind = event.WhichOneof("kind")
            if kind == "step":
                step = event.step
                began = step.start_time.seconds * _SECOND + step.start_time.nanos
                known = self._known(step.key, began)
                known.state, known.attempts = step.state, step.attempts
                known.child_run, known.approval = step.child_run, step.approval
                known.since = event.time.seconds * _SECOND + event.time.nanos
                if step.HasField("failure"):
                    known.asked = asked_pause(step.failure)
            elif kind == "run" and event.run.HasField("failure"):
                self.cancelled = event.run.cancelling
            yield event

    @property
    def anything_open(self) -> bool:
        """Whether a step has begun and not ended."""
        return any(not known.ended for known in self.steps.values())

    def run(self, run: Run) -> RunEvent:
        """Adds how the run is."""
        return self._add(RunEvent(run=run), time.time_ns())

    def ends(self, run: Run) -> RunEvent:
        """Adds the last event."""
        return self._add(RunEvent(ended=run), time.time_ns())

    def approval(self, approval: Approval) -> RunEvent:
        """Adds how an approval is."""
        return self._add(RunEvent(approval=approval), time.time_ns())

    def told(self, step: Step) -> RunEvent:
        """Adds what the interpreter found out of a step."""
        return self._put(step.key, step.state, RunEvent(step=step))

    def step(
        self,
        key: str,
        state: StepState.ValueType,
        *,
        attempts: int = 0,
        output: TypedMessage | None = None,
        failure: StepFailure | None = None,
        child: str = "",
        approval: str = "",
    ) -> RunEvent:
        """Adds how a step is now."""
        event = RunEvent()
        step = event.step
        step.key, step.state = key, state
        if output is not None:
            step.output.CopyFrom(output)
        elif failure is not None:
            step.failure.CopyFrom(failure)
        return self._put(key, state, event, attempts, child, approval)

    def take_fresh(self) -> tuple[int, list[bytes]]:
        """The number of the first event that is not stored, and these events: they are being stored."""
        fresh, self.fresh = self.fresh, []
        return self.number - len(fresh) + 1, fresh

    def _known(self, key: str, now: int) -> Known:
        known = self.steps.get(key)
        if known is None:
            known = self.steps[key] = Known(key, now)
        return known

    def _put(
        self,
        key: str,
        state: StepState.ValueType,
        event: RunEvent,
        attempts: int = 0,
        child: str = "",
        approval: str = "",
    ) -> RunEvent:
        now = time.time_ns()
        known = self._known(key, now)
        known.state, known.since = state, now
        if event.step.HasField("failure"):
            known.asked = asked_pause(event.step.failure)
        known.attempts = attempts or known.attempts
        known.child_run = child or known.child_run
        known.approval = approval or known.approval
        step = event.step
        step.node, step.visit, step.attempts = known.node, known.visit, known.attempts
        step.child_run, step.approval = known.child_run, known.approval
        step.start_time.seconds, step.start_time.nanos = divmod(known.began, _SECOND)
        if state in ENDED:
            step.end_time.seconds, step.end_time.nanos = divmod(now, _SECOND)
        return self._add(event, now)

    def _add(self, event: RunEvent, now: int) -> RunEvent:
        self.number += 1
        event.number = self.number
        event.time.seconds, event.time.nanos = divmod(now, _SECOND)
        self.fresh.append(event.SerializeToString())
        return event


def moment(nanoseconds: int) -> datetime:
    """A time in nanoseconds since 1970."""
    return datetime.fromtimestamp(nanoseconds / _SECOND, UTC)


def named(key: str) -> tuple[str, int]:
    """Node and visit of a step's key."""
    node, _, rest = key.partition("@")
    visit = rest.partition("/")[0].partition("~")[0]
    return node, int(visit) if visit.isdecimal() else 0
