"""Runs as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp

from weft.v1.orchestrator_pb2 import Run, RunState
from weft.v1.workflow_pb2 import RunInfo, StepFailure, TypedMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run, as its row says."""

    number: int
    tenant: str
    id: str
    workflow: int
    """Number of its workflow."""
    name: str
    version: int
    subject: str
    identity: bytes
    traceparent: str
    parent: int | None
    parent_id: str
    parent_step: str
    retry_of: str
    origin: str
    asked: bytes
    input: bytes
    """weft.v1.TypedMessage."""
    state: str
    cancelling: bool
    fence: int
    wakes: int
    losses: int
    create_time: datetime
    end_time: datetime | None
    deadline: datetime
    output_type: str
    output: bytes | None
    failure: bytes | None
    budget: bytes | None
    """weft.v1.Budget; None: nothing was said."""
    payer: str
    """Id of the run whose step it is, or that one's, and so on: that pays. Empty: it does itself."""

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Self:
        """A run of a row of `runs`."""
        return cls(**{name: row[name] for name in cls.__slots__})

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.end_time is not None

    def info(self) -> RunInfo:
        """The run, as its expressions see it."""
        info = RunInfo(
            id=self.id,
            workflow=self.name,
            version=self.version,
            subject=self.subject,
            tenant=self.tenant,
        )
        stamp(info.create_time, self.create_time)
        return info

    def shown(self) -> Run:
        """The run as callers see it, without its steps, input and outcome."""
        run = Run(
            id=self.id,
            workflow=self.name,
            version=self.version,
            state=RunState.Value(f"RUN_STATE_{self.state}"),
            cancelling=self.cancelling and not self.ended,
            subject=self.subject,
            parent=self.parent_id,
            retry_of=self.retry_of,
            trace_id=self.traceparent.split("-")[1] if self.traceparent else "",
        )
        if self.budget is not None:
            run.budget.ParseFromString(self.budget)
        stamp(run.create_time, self.create_time)
        stamp(run.end_time, self.end_time)
        stamp(run.deadline, self.deadline)
        return run

    def outcome(self) -> TypedMessage | StepFailure | None:
        """How it ended; None: it has not."""
        if self.output is not None:
            return TypedMessage(type=self.output_type, binary=self.output)
        if self.failure is not None:
            return StepFailure.FromString(self.failure)
        return None


def stamp(field: Timestamp, moment: datetime | None) -> None:
    """Sets a field to a moment, where there is one."""
    if moment is not None:
        field.FromDatetime(moment)
