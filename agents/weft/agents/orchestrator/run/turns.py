"""What a run does next, as its interpreter says it to whoever carries it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.message import Message

from weft.agents.orchestrator.plan.model import (
    ApprovalAction,
    CallAction,
    Expression,
    RetryPlan,
    RunAction,
    Scope,
    TimerAction,
    WaitAction,
)
from weft.v1.orchestrator_pb2 import Step
from weft.v1.workflow_pb2 import StepFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall:
    """A skill is to be called."""

    key: str
    call: CallAction
    request: Message
    retry: RetryPlan
    timeout: timedelta
    reply: Expression | None
    """What of the response counts, with `scope` and `reply`; None: the response."""
    scope: Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApproval:
    """People are to be asked."""

    key: str
    action: ApprovalAction
    title: str
    shown: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWait:
    """A message is waited for."""

    key: str
    action: WaitAction


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTimer:
    """A time is waited for: `at` (a Timestamp or Duration message) or `action.pause`, from when the step began."""

    key: str
    action: TimerAction
    at: Message | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """Another workflow is to be run."""

    key: str
    action: RunAction
    input: Message


OpenStep = OpenCall | OpenApproval | OpenWait | OpenTimer | OpenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The run is over, but for compensations."""

    output: Message | None = None
    failure: StepFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What is next.

    Attributes:
        told: steps that the interpreter itself settled or found out to begin or to be skipped since the last turn, in
            order; they go into the log with what comes next, and are the same after a replay.
        open: what is to be under way now, by key: the same until it has ended.
        ended: how the run ended; None: it has not.
        undo: compensations to be carried out one after the other once it has ended without a result, the first first. As
            long as it has not ended: those that there would be now, computed when they are looked at.
    """

    told: Sequence[Step]
    open: Mapping[str, OpenStep]
    ended: Ended | None
    undo: Sequence[OpenCall]
