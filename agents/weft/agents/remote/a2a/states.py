"""Tasks of an A2A agent as they come along, and what it means to a caller how one ends."""

from __future__ import annotations

from a2a.types import a2a_pb2 as a2a
from google.protobuf import json_format

from weft import rpc
from weft.agents.remote.a2a.messages import EXTENSION, text_of
from weft.agents.remote.access import MOST_BYTES
from weft.agents.remote.names import clean
from weft.agents.remote.statuses import LONGEST, of_mesh

INTERRUPTED = frozenset({a2a.TASK_STATE_INPUT_REQUIRED, a2a.TASK_STATE_AUTH_REQUIRED})
TERMINAL = frozenset(
    {
        *(a2a.TASK_STATE_COMPLETED, a2a.TASK_STATE_FAILED),
        *(a2a.TASK_STATE_CANCELED, a2a.TASK_STATE_REJECTED),
    }
)
SETTLED = INTERRUPTED | TERMINAL

_MEANINGS: dict[int, tuple[type[rpc.Error], str, str]] = {
    a2a.TASK_STATE_INPUT_REQUIRED: (
        *(rpc.FailedPrecondition, "INPUT_REQUIRED"),
        "The agent needs more to go on.",
    ),
    a2a.TASK_STATE_AUTH_REQUIRED: (
        *(rpc.FailedPrecondition, "AUTH_REQUIRED"),
        "The agent waits until somebody signs in.",
    ),
    a2a.TASK_STATE_REJECTED: (
        *(rpc.FailedPrecondition, "REJECTED"),
        "The agent does not want to do this.",
    ),
    a2a.TASK_STATE_CANCELED: (rpc.Cancelled, "TASK_CANCELED", "The task was cancelled."),
    a2a.TASK_STATE_FAILED: (rpc.Aborted, "TASK_FAILED", "The task failed."),
}


class Progress:
    """What is known of an answer while it comes."""

    def __init__(self) -> None:
        self.task: a2a.Task | None = None
        self.message: a2a.Message | None = None
        self._size = 0

    @property
    def settled(self) -> bool:
        """Whether nothing more will come without another message."""
        return self.message is not None or (
            self.task is not None and self.task.status.state in SETTLED
        )

    @property
    def waits(self) -> bool:
        """Whether the task waits for its caller."""
        return self.task is not None and self.task.status.state in INTERRUPTED

    def take(self, event: a2a.StreamResponse) -> None:
        """Something has come.

        Raises:
            rpc.OutOfRange: all of it is too large.
        """
        self._size += event.ByteSize()
        if self._size > MOST_BYTES:
            raise rpc.OutOfRange(
                f"The answer is larger than {MOST_BYTES} bytes.", reason="REMOTE_ANSWER_TOO_LARGE"
            )
        match event.WhichOneof("payload"):
            case "message":
                self.message = event.message
            case "task":
                self.task = event.task
            case "status_update":
                update = event.status_update
                self._known(update.task_id, update.context_id).status.CopyFrom(update.status)
            case "artifact_update":
                added = event.artifact_update
                task = self._known(added.task_id, added.context_id)
                for each in task.artifacts:
                    if each.artifact_id == added.artifact.artifact_id:
                        if added.append:
                            each.parts.extend(added.artifact.parts)
                        else:
                            each.CopyFrom(added.artifact)
                        return
                task.artifacts.append(added.artifact)

    def forget(self) -> None:
        """What comes next stands for all that came."""
        self._size = 0

    def answer(self) -> a2a.Task | a2a.Message:
        """The answer.

        Raises:
            rpc.Error: the task ended in another way.
        """
        if self.message is not None:
            return self.message
        if self.task is None:
            raise rpc.Internal("The agent answered nothing.", reason="REMOTE_ANSWER_INVALID")
        if self.task.status.state == a2a.TASK_STATE_COMPLETED:
            return self.task
        raise ended(self.task)

    def _known(self, task_id: str, context_id: str) -> a2a.Task:
        if self.task is None:
            self.task = a2a.Task(id=task_id, context_id=context_id)
        return self.task


def ended(task: a2a.Task) -> rpc.Error:
    """What it means that a task is where it is, which is not its completion."""
    kind, reason, usual = _MEANINGS.get(
        task.status.state,
        (rpc.Unavailable, "TASK_UNFINISHED", "The agent left the task unfinished."),
    )
    said = clean(text_of(task.status.message.parts), LONGEST) or usual
    if kind is rpc.Aborted and EXTENSION in task.status.message.metadata.fields:
        # A skill of another mesh: its status is as good as one of this mesh.
        told = json_format.MessageToDict(task.status.message.metadata)[EXTENSION]
        error = of_mesh(told.get("error") if isinstance(told, dict) else None, otherwise=reason)
        if error is not None:
            return error
    known = {"task_id": clean(task.id, 200), "context_id": clean(task.context_id, 200)}
    return kind(said, reason=reason, metadata=known)
