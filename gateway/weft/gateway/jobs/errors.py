"""What can be wrong with a job.

rpc.NotFound: JobNotFound          rpc.ResourceExhausted: TooManyJobs
rpc.FailedPrecondition: JobRunning rpc.InvalidArgument: JobKeyReused
rpc.Aborted: JobOutcomeUnknown     rpc.DeadlineExceeded: JobTooLate
"""

from __future__ import annotations

from weft import rpc


class JobNotFound(rpc.NotFound):
    """There is no such job of yours."""

    reason = "JOB_NOT_FOUND"


class JobRunning(rpc.FailedPrecondition):
    """The job has not ended; cancel it first."""

    reason = "JOB_RUNNING"


class JobKeyReused(rpc.InvalidArgument):
    """This idempotency key was used for another job; take a new one."""

    reason = "IDEMPOTENCY_KEY_REUSED"
    http_status = 422


class TooManyJobs(rpc.ResourceExhausted):
    """Too many of your jobs have not ended."""

    reason = "TOO_MANY_JOBS"


class JobOutcomeUnknown(rpc.Aborted):
    """The gateway or the agent that ran the job was lost: whether the call had its effect is not known. Look for it."""

    reason = "JOB_OUTCOME_UNKNOWN"


class JobTooLate(rpc.DeadlineExceeded):
    """The job's deadline passed before it was done."""

    reason = "JOB_TOO_LATE"
