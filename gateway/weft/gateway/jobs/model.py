"""Jobs as values."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

import asyncpg
from google.rpc import status_pb2

from weft import rpc
from weft.rpc.errors import error_from_status
from weft.v1.identity_pb2 import Identity

CALL = "call"


class State(StrEnum):
    """Where a job stands. The last three are for ever; one that is WAITING goes on when its caller says more."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether it is for ever."""
        return self in _ENDED

    @property
    def settled(self) -> bool:
        """Whether it stays as it is unless its caller does something."""
        return self in _SETTLED


_ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
_SETTLED = _ENDED | {State.WAITING}


def new_id() -> str:
    """The id of a job."""
    return secrets.token_hex(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who may see a job."""

    tenant: str
    subject: str

    @classmethod
    def of(cls, identity: Identity | None) -> Self:
        """The owner of what a caller makes."""
        if identity is None:
            return cls(tenant="", subject="")
        return cls(tenant=identity.tenant, subject=identity.subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where the end of a job is told, and what the telling is signed with."""

    url: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """Who is told of a job beside its webhook: of its end, and when it waits, in the form of the door that made it."""

    id: str
    url: str
    settings: bytes = field(repr=False)
    """For that door alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to begin."""

    id: str = field(default_factory=new_id)
    owner: Owner
    agent: str
    method: str
    """As gRPC dials it: "/package.Service/Method"."""
    request: bytes = field(repr=False)
    identity: bytes = field(repr=False)
    """weft.v1.Identity; it is signed anew when the job is run."""
    time: timedelta
    """How long it may take, waiting included."""
    keep: timedelta
    """For how long it is kept when it has ended."""
    streams: bool = False
    repeatable: bool = False
    """Whether a second call does no harm."""
    resumable: bool = False
    """Whether its door can go on with it when its agent asks for more."""
    conversation: str = ""
    traceparent: str = ""
    key: str = ""
    """Idempotency key; empty: none."""
    kind: str = CALL
    context: str = ""
    note: bytes = field(default=b"", repr=False)
    webhook: Webhook | None = None
    subscriber: Subscriber | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is now."""

    id: str
    number: int
    owner: Owner
    kind: str
    context: str
    note: bytes = field(repr=False)
    agent: str
    method: str
    request: bytes = field(repr=False)
    identity: bytes = field(repr=False)
    traceparent: str
    conversation: str
    streams: bool
    repeatable: bool
    resumable: bool
    state: State
    state_time: datetime
    """Since when it stands there."""
    waits_for: str
    """Reason of the error with which its agent asked for more; empty: it did not."""
    cancelling: bool
    fence: int
    losses: int
    create_time: datetime
    start_time: datetime | None
    update_time: datetime
    end_time: datetime | None
    deadline: datetime
    expire_time: datetime | None
    response: bytes | None = field(repr=False)
    status: bytes | None = field(repr=False)
    messages: int
    """Messages its stream has had so far."""
    webhook_url: str

    @property
    def error(self) -> rpc.Error | None:
        """Why it has no result, or waits; None: it has one, or goes on."""
        if self.status is None:
            return None
        return error_from_status(status_pb2.Status.FromString(self.status))

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Self:
        """A job as it is stored."""
        values = {name: row[name] for name in _COLUMNS}
        owner = Owner(tenant=row["tenant"], subject=row["subject"])
        return cls(owner=owner, **(values | {"state": State(row["state"])}))


_COLUMNS = tuple(name for name in Job.__slots__ if name != "owner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a job's stream. Numbers grow; those of a run that was begun again are new ones."""

    number: int
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list."""

    jobs: Sequence[Job]
    next_token: str
    """Empty: it was the last."""
