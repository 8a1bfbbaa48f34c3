"""A task: what was asked of an agent, how it stands, what came of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from weft.gateway.doors.a2a import protocol


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a task is. Nobody else learns that it is there."""

    tenant: str
    subject: str


@dataclass(slots=True, kw_only=True)
class Artifact:
    """What an agent made; its parts are JSON."""

    id: str
    name: str
    parts: list[bytes] = field(default_factory=list)

    def render(self, parts: Iterable[bytes] | None = None) -> bytes:
        """As JSON, with these parts instead of all."""
        head = orjson.dumps(
            {"artifactId": self.id, "name": self.name, "extensions": [protocol.EXTENSION]}
        )
        shown = b",".join(self.parts if parts is None else parts)
        return head[:-1] + b',"parts":[' + shown + b"]}"


@dataclass(slots=True, kw_only=True)
class Task:
    """A task as its runner changes it, or as it was read from the store."""

    id: str
    context_id: str
    owner: Owner
    agent: str
    """Whom it was asked of: an agent, or all of the mesh."""
    skill: str
    """The method, "package.Service/Method"."""
    state: str = protocol.WORKING
    status_time: datetime = field(default_factory=lambda: datetime.now(UTC))
    told: bytes = b""
    """Message that goes with the state, as JSON; empty: none."""
    stored_artifacts: bytes = b""
    """Artifacts that came from the store, as JSON, between brackets that are left out."""
    artifacts: list[Artifact] = field(default_factory=list)
    """Artifacts made since."""
    history: list[bytes] = field(default_factory=list)
    revision: int = 0
    """How often it was changed in the store."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in protocol.TERMINAL

    @property
    def settled(self) -> bool:
        """Whether nothing will happen to it without another message."""
        return self.ended or self.state in protocol.INTERRUPTED

    def become(self, state: str, told: bytes = b"") -> None:
        """Goes into a state, with a message that says why."""
        self.state = state
        self.told = told
        self.status_time = datetime.now(UTC)

    def all_artifacts(self) -> bytes:
        """Artifacts as JSON, separated by commas."""
        made = b",".join(each.render() for each in self.artifacts)
        return b",".join(filter(None, (self.stored_artifacts, made)))

    def rendered_artifacts(self) -> list[bytes]:
        """Artifacts, each as JSON."""
        stored = orjson.loads(b"[" + self.stored_artifacts + b"]")
        return [*map(orjson.dumps, stored), *(each.render() for each in self.artifacts)]

    def status(self) -> bytes:
        """TaskStatus as JSON."""
        told = b',"message":' + self.told if self.told else b""
        return (
            b'{"state":"%s","timestamp":"' % self.state.encode()
            + protocol.timestamp(self.status_time)
            + b'"'
            + told
            + b"}"
        )

    def render(self, history: int | None = None, *, artifacts: bool = True) -> bytes:
        """As JSON.

        Args:
            history: the most messages to show, the latest; None: all.
            artifacts: whether to show them.
        """
        shown = b'{"id":"%s","contextId":%s,"status":%s' % (
            self.id.encode(),
            orjson.dumps(self.context_id),
            self.status(),
        )
        made = self.all_artifacts() if artifacts else b""
        if made:
            shown += b',"artifacts":[' + made + b"]"
        messages = self.history if history is None else self.history[-history:] if history else []
        if messages:
            shown += b',"history":[' + b",".join(messages) + b"]"
        return shown + b',"metadata":{"%s":{"skill":%s}}}' % (
            protocol.EXTENSION.encode(),
            orjson.dumps(self.skill),
        )

    def status_update(self) -> bytes:
        """TaskStatusUpdateEvent, as a member of a StreamResponse."""
        return b'{"statusUpdate":{"taskId":"%s","contextId":%s,"status":%s}}' % (
            self.id.encode(),
            orjson.dumps(self.context_id),
            self.status(),
        )

    def artifact_update(self, artifact: bytes, *, append: bool, last: bool) -> bytes:
        """TaskArtifactUpdateEvent, as a member of a StreamResponse."""
        flags = (b',"append":true' if append else b"") + (b',"lastChunk":true' if last else b"")
        return b'{"artifactUpdate":{"taskId":"%s","contextId":%s,"artifact":%s%s}}' % (
            self.id.encode(),
            orjson.dumps(self.context_id),
            artifact,
            flags,
        )


def new_id() -> str:
    """An id of a task, context, message or config."""
    return str(uuid.uuid4())
