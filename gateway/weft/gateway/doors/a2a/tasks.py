"""A task is a job: what A2A keeps beside it, and how it is shown."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from weft.gateway.doors.a2a import errors, protocol
from weft.gateway.doors.a2a.content import Chunk, Shape
from weft.gateway.jobs import Job, State


@dataclass(slots=True, kw_only=True)
class Note:
    """What only A2A needs of a job: how its answers are shown, and the messages of its task."""

    accepted: list[str] = field(default_factory=list)
    """Media types of answers; none: any."""
    text: bool = False
    """Whether its caller wrote text."""
    history: list[bytes] = field(default_factory=list)
    """Messages as JSON."""

    def encode(self) -> bytes:
        """As it is stored. It is put together from bytes: most are never read."""
        return b'{"accepted":%s,"text":%s,"history":[%s]}' % (
            orjson.dumps(self.accepted),
            b"true" if self.text else b"false",
            b",".join(self.history),
        )

    @classmethod
    def decode(cls, stored: bytes) -> Note:
        """What `encode` made."""
        values = orjson.loads(stored)
        values["history"] = [orjson.dumps(each) for each in values["history"]]
        return cls(**values)


class Task:
    """A job as A2A shows it.

    Args:
        job: the job.
        note: what is kept beside it.
        shape: how its answers are shown.
        answers: its answers so far.
    """

    __slots__ = ("answers", "job", "note", "shape", "state")

    def __init__(self, job: Job, note: Note, shape: Shape, answers: Sequence[bytes] = ()) -> None:
        self.job = job
        self.note = note
        self.shape = shape
        self.answers = answers if job.response is None else (job.response,)
        self.state = state_of(job)

    @property
    def told(self) -> bytes:
        """Message that goes with the state, as JSON; empty: none."""
        job = self.job
        error = None if job.state is State.CANCELLED else job.error
        if error is None:
            return b""
        return protocol.message(
            f"{job.id}-{job.fence}",
            b'{"text":' + orjson.dumps(error.message) + b"}",
            context_id=job.context,
            task_id=job.id,
            metadata=errors.as_metadata(error),
        )

    def status(self) -> bytes:
        """TaskStatus as JSON."""
        told = self.told
        return (
            b'{"state":"%s","timestamp":"' % self.state.encode()
            + protocol.timestamp(self.job.state_time)
            + b'"'
            + (b',"message":' + told if told else b"")
            + b"}"
        )

    def artifacts(self) -> list[bytes]:
        """Artifacts, each as JSON."""
        made: dict[str, tuple[Chunk, list[bytes]]] = {}
        for answer in self.answers:
            for chunk in self.shape.chunks(answer):
                made.setdefault(chunk.id, (chunk, []))[1].extend(chunk.parts)
        return [chunk.render(parts) for chunk, parts in made.values()]

    def render(self, history: int | None = None, *, artifacts: bool = True) -> bytes:
        """As JSON.

        Args:
            history: the most messages to show, the latest; None: all.
            artifacts: whether to show them.
        """
        job = self.job
        shown = b'{"id":"%s","contextId":%s,"status":%s' % (
            job.id.encode(),
            orjson.dumps(job.context),
            self.status(),
        )
        if artifacts and (made := self.artifacts()):
            shown += b',"artifacts":[' + b",".join(made) + b"]"
        kept = self.note.history
        messages = kept if history is None else kept[-history:] if history else []
        if messages:
            shown += b',"history":[' + b",".join(messages) + b"]"
        return shown + b',"metadata":{"%s":{"skill":%s}}}' % (
            protocol.EXTENSION.encode(),
            orjson.dumps(job.method[1:]),
        )

    def event(self) -> bytes:
        """As a member of a StreamResponse, or of a SendMessageResponse."""
        return b'{"task":' + self.render() + b"}"

    def status_update(self) -> bytes:
        """TaskStatusUpdateEvent, as a member of a StreamResponse."""
        return b'{"statusUpdate":{"taskId":"%s","contextId":%s,"status":%s}}' % (
            self.job.id.encode(),
            orjson.dumps(self.job.context),
            self.status(),
        )

    def artifact_updates(self, answer: bytes, seen: set[str], *, last: bool) -> Iterable[bytes]:
        """TaskArtifactUpdateEvents of an answer, as members of StreamResponses.

        Args:
            answer: what the agent said.
            seen: ids of the artifacts that were begun; takes those of this answer.
            last: whether it is all of the answer.
        """
        for chunk in self.shape.chunks(answer):
            flags = b',"append":true' if chunk.id in seen else b""
            flags += b',"lastChunk":true' if last else b""
            seen.add(chunk.id)
            yield b'{"artifactUpdate":{"taskId":"%s","contextId":%s,"artifact":%s%s}}' % (
                self.job.id.encode(),
                orjson.dumps(self.job.context),
                chunk.render(chunk.parts),
                flags,
            )


def state_of(job: Job) -> str:
    """The state of a job's task; a2a_state in the database says the same."""
    if job.state is State.QUEUED:
        return protocol.SUBMITTED if job.start_time is None else protocol.WORKING
    if job.state is State.WAITING:
        return f"TASK_STATE_{job.waits_for}"
    if job.state is State.FAILED:
        error = job.error
        return (
            protocol.FAILED
            if error is None
            else protocol.STATE_OF_ERROR.get(error.code, protocol.FAILED)
        )
    return _STATES[job.state]


_STATES = {
    State.RUNNING: protocol.WORKING,
    State.SUCCEEDED: protocol.COMPLETED,
    State.CANCELLED: protocol.CANCELED,
}


def new_id() -> str:
    """An id of a context, message or config."""
    return str(uuid.uuid4())
