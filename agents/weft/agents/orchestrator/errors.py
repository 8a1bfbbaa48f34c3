"""What callers of the orchestrator are refused with.

rpc.NotFound: WorkflowNotFound, RunNotFound, StepNotFound, ApprovalNotFound
rpc.InvalidArgument: weft.agents.orchestrator.plan.faults.WorkflowInvalid
rpc.AlreadyExists: RunExists
rpc.FailedPrecondition: RunEnded, RunNotEnded, ApprovalDecided, ApprovalChanged
rpc.PermissionDenied: ApprovalNotYours
rpc.ResourceExhausted: TooManyRuns
"""

from __future__ import annotations

from weft import rpc


class WorkflowNotFound(rpc.NotFound):
    """There is no such workflow, or no such version of it."""

    reason = "WORKFLOW_NOT_FOUND"


class RunNotFound(rpc.NotFound):
    """There is no such run."""

    reason = "RUN_NOT_FOUND"


class StepNotFound(rpc.NotFound):
    """The run has had no such step."""

    reason = "STEP_NOT_FOUND"


class ApprovalNotFound(rpc.NotFound):
    """There is no such approval."""

    reason = "APPROVAL_NOT_FOUND"


class RunExists(rpc.AlreadyExists):
    """The id belongs to a run of another workflow or input."""

    reason = "RUN_EXISTS"


class RunEnded(rpc.FailedPrecondition):
    """The run has ended."""

    reason = "RUN_ENDED"


class RunNotEnded(rpc.FailedPrecondition):
    """The run has not ended; wait for it, or cancel it."""

    reason = "RUN_NOT_ENDED"


class TooManyRuns(rpc.ResourceExhausted):
    """Too many of your runs have not ended."""

    reason = "TOO_MANY_RUNS"


class ApprovalDecided(rpc.FailedPrecondition):
    """It was decided, or its time is over."""

    reason = "APPROVAL_DECIDED"


class ApprovalChanged(rpc.FailedPrecondition):
    """The digest is of something else than what is to be decided now. Look at it again."""

    reason = "APPROVAL_CHANGED"


class ApprovalNotYours(rpc.PermissionDenied):
    """It is for others to decide."""

    reason = "APPROVAL_NOT_YOURS"
