"""weft.v1.JobService: the jobs of whoever calls."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from weft import rpc
from weft.gateway.jobs.deliveries import Deliveries
from weft.gateway.jobs.model import Job, Owner, State
from weft.gateway.jobs.shown import Shown, delivery
from weft.gateway.jobs.store import Jobs
from weft.v1 import jobs_pb2, jobs_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_MARGIN = 0.5  # seconds to answer in, of what a caller waits


class JobService(jobs_pb2_grpc.JobServiceServicer):
    """Serves jobs.

    Args:
        jobs: those that are stored.
        deliveries: what is told of them.
        shown: makes the answers.
    """

    def __init__(self, jobs: Jobs, deliveries: Deliveries, shown: Shown) -> None:
        self._jobs = jobs
        self._deliveries = deliveries
        self._shown = shown

    async def GetJob(
        self, request: jobs_pb2.GetJobRequest, context: Context
    ) -> jobs_pb2.GetJobResponse:
        """Returns a job."""
        del context
        job = await self._jobs.get(_owner(), _id(request.id))
        return jobs_pb2.GetJobResponse(job=self._shown.job(job, binary=request.binary))

    async def ListJobs(
        self, request: jobs_pb2.ListJobsRequest, context: Context
    ) -> jobs_pb2.ListJobsResponse:
        """Lists jobs."""
        del context
        method = _text(request.method, "method")
        page = await self._jobs.list(
            _owner(),
            kind=_text(request.kind, "kind"),
            context=_text(request.context, "context"),
            state=State(name) if (name := _state(request.state)) else None,
            method=f"/{method.lstrip('/')}" if method else "",
            size=request.page_size,
            token=request.page_token,
        )
        return jobs_pb2.ListJobsResponse(
            jobs=[self._shown.job(job, outcome=False) for job in page.jobs],
            next_page_token=page.next_token,
        )

    async def WaitJob(
        self, request: jobs_pb2.WaitJobRequest, context: Context
    ) -> jobs_pb2.WaitJobResponse:
        """Returns a job when it has ended, or when the time is over."""
        left = context.time_remaining()
        seconds = max(0.0, (60.0 if left is None else left) - _MARGIN)
        if request.HasField("timeout"):
            seconds = min(seconds, max(0.0, request.timeout.ToTimedelta().total_seconds()))
        job = await self._jobs.wait(_owner(), _id(request.id), seconds)
        return jobs_pb2.WaitJobResponse(job=self._shown.job(job, binary=request.binary))

    async def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        """Streams what happens to a job."""
        del context
        owner, binary = _owner(), request.binary
        job = await self._jobs.get(owner, _id(request.id))
        changes = self._jobs.watch(owner, job.id, request.after)
        async with contextlib.aclosing(changes):
            async for change in changes:
                if isinstance(change, Job):
                    shown = self._shown.job(change, binary=binary)
                    yield jobs_pb2.WatchJobResponse(job=shown)
                else:
                    message = self._shown.message(job, change, binary=binary)
                    yield jobs_pb2.WatchJobResponse(message=message)

    async def CancelJob(
        self, request: jobs_pb2.CancelJobRequest, context: Context
    ) -> jobs_pb2.CancelJobResponse:
        """Asks for a job to be cancelled."""
        del context
        job = await self._jobs.cancel(_owner(), _id(request.id))
        return jobs_pb2.CancelJobResponse(job=self._shown.job(job))

    async def DeleteJob(
        self, request: jobs_pb2.DeleteJobRequest, context: Context
    ) -> jobs_pb2.DeleteJobResponse:
        """Forgets a job."""
        del context
        await self._jobs.delete(_owner(), _id(request.id))
        return jobs_pb2.DeleteJobResponse()

    async def ListWebhooks(
        self, request: jobs_pb2.ListWebhooksRequest, context: Context
    ) -> jobs_pb2.ListWebhooksResponse:
        """Lists deliveries."""
        del context
        found, token = await self._deliveries.page(
            _owner(),
            state=_webhook_state(request.state),
            size=request.page_size,
            token=request.page_token,
        )
        return jobs_pb2.ListWebhooksResponse(
            webhooks=[delivery(each) for each in found], next_page_token=token
        )

    async def RetryWebhook(
        self, request: jobs_pb2.RetryWebhookRequest, context: Context
    ) -> jobs_pb2.RetryWebhookResponse:
        """Tries a delivery again."""
        del context
        found = await self._deliveries.retry(_owner(), _id(request.id))
        return jobs_pb2.RetryWebhookResponse(webhook=delivery(found))


def _owner() -> Owner:
    call = rpc.current_call()
    return Owner.of(call.identity if call is not None else None)


def _id(given: str) -> str:
    if not given:
        raise rpc.InvalidArgument("is required", field="id")
    return _text(given, "id")


def _text(given: str, field: str) -> str:
    if "\0" in given:  # which PostgreSQL cannot even look for
        raise rpc.InvalidArgument("must not hold NUL", field=field)
    return given


def _state(given: jobs_pb2.JobState.ValueType) -> str:
    if given not in jobs_pb2.JobState.values():
        raise rpc.InvalidArgument("is not a state", field="state")
    return jobs_pb2.JobState.Name(given).removeprefix("JOB_STATE_") if given else ""


def _webhook_state(given: jobs_pb2.WebhookState.ValueType) -> str:
    if given not in jobs_pb2.WebhookState.values():
        raise rpc.InvalidArgument("is not a state", field="state")
    return jobs_pb2.WebhookState.Name(given).removeprefix("WEBHOOK_STATE_") if given else ""
