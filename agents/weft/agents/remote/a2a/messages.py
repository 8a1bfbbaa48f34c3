"""What is said to an A2A agent, and what it says, in the messages of weft.remote.v1."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, cast

from a2a.types import a2a_pb2 as a2a

from weft import rpc
from weft.remote.v1 import conversation_pb2 as own

EXTENSION = "https://weft.dev/extensions/typed-skills/v1"
"""Under which a gateway of Weft is told the skill that a message is for."""

_MOST_PARTS = 100


def request(
    said: own.SendRequest, *, skill: str, context_id: str, task_id: str
) -> a2a.SendMessageRequest:
    """A message to the agent.

    Args:
        said: what the caller says.
        skill: of the agent, which A2A itself has no word for; empty: none.
        context_id: conversation it belongs to; empty: a new one.
        task_id: task it goes on with; empty: a new one.

    Raises:
        rpc.InvalidArgument: there is nothing in it.
    """
    message = a2a.Message(
        message_id=uuid.uuid4().hex,
        role=a2a.ROLE_USER,
        context_id=context_id,
        task_id=task_id,
    )
    if said.text:
        message.parts.add(text=said.text)
    if len(said.parts) > _MOST_PARTS:
        raise rpc.InvalidArgument(f"must be at most {_MOST_PARTS} parts", field="parts")
    for number, part in enumerate(said.parts):
        kind = part.WhichOneof("content")
        if kind is None:
            raise rpc.InvalidArgument(
                "must have one of text, raw, url and data", field=f"parts[{number}]"
            )
        made = message.parts.add(filename=part.filename, media_type=part.media_type)
        if kind == "data":
            made.data.CopyFrom(part.data)
        else:
            setattr(made, kind, getattr(part, kind))
    if not message.parts:
        raise rpc.InvalidArgument("there is neither text nor a part", field="text")
    if said.HasField("metadata"):
        message.metadata.CopyFrom(said.metadata)
    if skill:
        message.metadata.get_or_create_struct(EXTENSION)["skill"] = skill
    made_request = a2a.SendMessageRequest(message=message)
    made_request.configuration.accepted_output_modes.extend(said.accepted_output_modes)
    return made_request


def message_of(given: a2a.Message) -> own.Message:
    """A message of the agent."""
    made = own.Message(
        message_id=given.message_id,
        context_id=given.context_id,
        task_id=given.task_id,
        parts=_parts(given.parts),
    )
    if given.HasField("metadata"):
        made.metadata.CopyFrom(given.metadata)
    return made


def task_of(given: a2a.Task) -> own.Task:
    """A task of the agent."""
    made = own.Task(
        id=given.id,
        context_id=given.context_id,
        state=_state(given.status.state),
        artifacts=[artifact_of(each) for each in given.artifacts],
    )
    if given.status.HasField("message"):
        made.status_message.CopyFrom(message_of(given.status.message))
    if given.HasField("metadata"):
        made.metadata.CopyFrom(given.metadata)
    return made


def artifact_of(given: a2a.Artifact) -> own.Artifact:
    """An artifact of a task."""
    made = own.Artifact(
        artifact_id=given.artifact_id,
        name=given.name,
        description=given.description,
        parts=_parts(given.parts),
    )
    if given.HasField("metadata"):
        made.metadata.CopyFrom(given.metadata)
    return made


def response(answer: a2a.Task | a2a.Message) -> own.SendResponse:
    """What a caller is answered."""
    if isinstance(answer, a2a.Message):
        return own.SendResponse(text=text_of(answer.parts), message=message_of(answer))
    parts = [part for each in answer.artifacts for part in each.parts]
    text = text_of(parts) or text_of(answer.status.message.parts)
    return own.SendResponse(text=text, task=task_of(answer))


def event(given: a2a.StreamResponse) -> own.SendStreamResponse | None:
    """What a caller that follows is told; None: nothing."""
    match given.WhichOneof("payload"):
        case "message":
            text = text_of(given.message.parts)
            return own.SendStreamResponse(text=text, message=message_of(given.message))
        case "task":
            return own.SendStreamResponse(text=response(given.task).text, task=task_of(given.task))
        case "status_update":
            update = given.status_update
            made = own.StatusUpdate(
                task_id=update.task_id,
                context_id=update.context_id,
                state=_state(update.status.state),
            )
            if update.status.HasField("message"):
                made.message.CopyFrom(message_of(update.status.message))
            text = text_of(update.status.message.parts)
            return own.SendStreamResponse(text=text, status_update=made)
        case "artifact_update":
            added = given.artifact_update
            return own.SendStreamResponse(
                text=text_of(added.artifact.parts),
                artifact_update=own.ArtifactUpdate(
                    task_id=added.task_id,
                    context_id=added.context_id,
                    artifact=artifact_of(added.artifact),
                    append=added.append,
                    last_chunk=added.last_chunk,
                ),
            )
    return None


def text_of(parts: Iterable[a2a.Part]) -> str:
    """All text of some parts."""
    return "\n".join(each.text for each in parts if each.WhichOneof("content") == "text")


def _parts(given: Iterable[a2a.Part]) -> list[own.Part]:
    made = []
    for each in given:
        part = own.Part(filename=each.filename, media_type=each.media_type)
        match each.WhichOneof("content"):
            case "data":
                part.data.CopyFrom(each.data)
            case str(kind):
                setattr(part, kind, getattr(each, kind))
        made.append(part)
    return made


def _state(given: Any) -> own.TaskState.ValueType:
    """The numbers are those of A2A 1.0."""
    return cast("own.TaskState.ValueType", int(given))
