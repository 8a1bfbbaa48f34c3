"""Jobs as callers see them: weft.v1.Job and what belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.gateway.jobs.deliveries import Delivery
from weft.gateway.jobs.model import Job, Message
from weft.gateway.transcoding.catalog import Method
from weft.v1 import jobs_pb2

FindMethod = Callable[[str], Method | None]


class Shown:
    """Makes the messages.

    Args:
        find: the method of a path, as it is known now.
    """

    def __init__(self, find: FindMethod) -> None:
        self._find = find

    def job(self, job: Job, *, binary: bool = False, outcome: bool = True) -> jobs_pb2.Job:
        """A job."""
        shown = jobs_pb2.Job(
            id=job.id,
            state=jobs_pb2.JobState.Value(f"JOB_STATE_{job.state}"),
            agent=job.agent,
            method=job.method.lstrip("/"),
            kind=job.kind,
            context=job.context,
            cancelling=job.cancelling and not job.state.ended,
            message_count=job.messages,
            losses=job.losses,
            webhook_url=job.webhook_url,
        )
        _stamp(shown.create_time, job.create_time)
        _stamp(shown.start_time, job.start_time)
        _stamp(shown.update_time, job.update_time)
        _stamp(shown.end_time, job.end_time)
        _stamp(shown.deadline, job.deadline)
        _stamp(shown.expire_time, job.expire_time)
        if outcome and job.response is not None:
            shown.response.CopyFrom(self._content(job.method, job.response, binary=binary))
        elif outcome and (error := job.error) is not None:
            shown.error.CopyFrom(_error(error, job.status or b""))
        return shown

    def message(self, job: Job, message: Message, *, binary: bool) -> jobs_pb2.JobMessage:
        """A message of a job's stream."""
        content = self._content(job.method, message.content, binary=binary)
        return jobs_pb2.JobMessage(number=message.number, content=content)

    def _content(self, path: str, wire: bytes, *, binary: bool) -> jobs_pb2.JobContent:
        method = self._find(path)
        shown = jobs_pb2.JobContent(type=method.output.full_name if method else "")
        if method is None or binary:
            shown.binary = wire
            return shown
        try:
            json_format.Parse(method.response_codec.to_json(wire), shown.json)
        except (rpc.Internal, json_format.ParseError):  # the contract has changed since
            shown.binary = wire
        return shown


def delivery(found: Delivery) -> jobs_pb2.JobWebhook:
    """A delivery by webhook."""
    shown = jobs_pb2.JobWebhook(
        id=found.id,
        state=jobs_pb2.WebhookState.Value(f"WEBHOOK_STATE_{found.state}"),
        job=found.job,
        job_state=jobs_pb2.JobState.Value(f"JOB_STATE_{found.job_state}"),
        url=found.url,
        attempts=found.attempts,
        problem=found.problem,
    )
    _stamp(shown.event_time, found.event_time)
    _stamp(shown.due_time, found.due)
    return shown


def _error(error: rpc.Error, status: bytes) -> jobs_pb2.JobError:
    return jobs_pb2.JobError(
        code=error.code.name,
        message=error.message,
        reason=error.reason,
        metadata=error.metadata,
        status=status,
    )


def _stamp(field: Timestamp, moment: datetime | None) -> None:
    if moment is not None:
        field.FromDatetime(moment)
