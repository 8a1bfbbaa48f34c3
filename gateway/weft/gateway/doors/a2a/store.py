"""Tasks in PostgreSQL: what every gateway of the mesh knows of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson

from weft import rpc
from weft.gateway.doors.a2a.batches import Batches, Row
from weft.gateway.doors.a2a.tasks import Owner, Task
from weft.postgres import Database

LIFE = timedelta(days=7)
LEASE = timedelta(seconds=30)

_LIMIT = timedelta(seconds=10)  # of a statement: the deadline of a call is not that of its record
_PUSH_LEASE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushConfig:
    """Where a caller wants to be told of a task."""

    id: str
    url: str
    token: str = ""
    scheme: str = ""
    credentials: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Something to tell."""

    task_id: uuid.UUID
    config: PushConfig
    claim: datetime
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which tasks to list; None: any."""

    context_id: str | None = None
    state: str | None = None
    since: datetime | None = None


class Store:
    """Tasks and push notification configs. Its methods raise rpc.Unavailable when PostgreSQL is away.

    Args:
        database: of the gateway's schema.
        life: how long settled tasks are kept.
    """

    def __init__(self, database: Database, *, life: timedelta = LIFE) -> None:
        self._database = database
        self._life = life
        self.gateway = uuid.uuid4().hex
        self._new = Batches(self._create_all)

    async def create(self, task: Task, config: PushConfig | None = None) -> None:
        """Stores a new task, with a config in the same moment."""
        row = (
            *(task.id, task.owner.tenant, task.owner.subject, task.agent, task.context_id),
            *(task.skill, *_changing(task)),
        )
        if config is None:
            await self._new.add(row)
            return
        with rpc.Deadline.after(_LIMIT).applied():
            async with self._database.transaction() as work:
                await work.execute("create_a2a_task", *row, self.gateway, LEASE, self._life)
                await work.execute(
                    "create_a2a_push_config", task.id, *_fields(config), task.settled
                )

    async def _create_all(self, rows: Sequence[Row]) -> None:
        columns = map(list, zip(*rows, strict=True))
        with rpc.Deadline.after(_LIMIT).applied():
            await self._database.execute(
                "create_a2a_tasks", *columns, self.gateway, LEASE, self._life
            )

    async def save(self, task: Task) -> bool:
        """Stores how a task goes; false: it was ended elsewhere, and stays so."""
        with rpc.Deadline.after(_LIMIT).applied():
            saved = await self._database.fetchval(
                "save_a2a_task", task.id, self.gateway, *_changing(task), task.settled, self._life
            )
        return bool(saved)

    async def find(self, task_id: str, owner: Owner, agent: str) -> Task | None:
        """A task of a caller that was asked of an agent; "-": of any."""
        if (known := _uuid(task_id)) is None:
            return None
        row = await self._database.fetchrow(
            "find_a2a_task", known, owner.tenant, owner.subject, agent
        )
        return _task(row) if row else None

    async def read(self, task_id: str | uuid.UUID) -> Task | None:
        """A task, whosever it is."""
        with rpc.Deadline.after(_LIMIT).applied():
            row = await self._database.fetchrow("read_a2a_task", task_id)
        return _task(row) if row else None

    async def page(
        self,
        owner: Owner,
        agent: str,
        chosen: Filter,
        limit: int,
        after: tuple[datetime, uuid.UUID] | None,
    ) -> list[Task]:
        """Tasks of a caller, those that changed last first."""
        rows = await self._database.fetch(
            "list_a2a_tasks",
            *(owner.tenant, owner.subject, agent, chosen.context_id, chosen.state, chosen.since),
            *(limit, *(after or (None, None))),
        )
        return [_task(row) for row in rows]

    async def count(self, owner: Owner, agent: str, chosen: Filter) -> int:
        """How many there are."""
        found: int = await self._database.fetchval(
            "count_a2a_tasks",
            *(owner.tenant, owner.subject, agent, chosen.context_id, chosen.state, chosen.since),
        )
        return found

    async def resume(self, task: Task) -> bool:
        """Takes up a task that waits for its caller; false: it does not."""
        row = await self._database.fetchrow("resume_a2a_task", task.id, self.gateway, LEASE)
        return row is not None

    async def cancel(self, task: Task) -> bool:
        """Cancels a task; false: it has ended."""
        return bool(await self._database.fetchval("cancel_a2a_task", task.id))

    async def renew(self, task_ids: list[str]) -> set[str]:
        """Says that this gateway still works on tasks, and returns those that it may go on with."""
        rows = await self._database.fetch("renew_a2a_leases", task_ids, self.gateway, LEASE)
        return {str(row["id"]) for row in rows}

    async def fail_lost(self, told: bytes) -> int:
        """Ends the tasks of gateways that are gone."""
        lost: int = await self._database.fetchval("fail_lost_a2a_tasks", told)
        return lost

    async def forget(self, limit: int) -> int:
        """Forgets tasks whose time is over."""
        return await self._database.execute("forget_a2a_tasks", limit)

    async def add_config(self, task: Task, config: PushConfig) -> None:
        """Adds or replaces a config; of a task that has settled it is told at once."""
        fields = _fields(config)
        await self._database.execute("create_a2a_push_config", task.id, *fields, task.settled)

    async def configs(self, task: Task) -> list[PushConfig]:
        """The configs of a task."""
        rows = await self._database.fetch("list_a2a_push_configs", task.id)
        return [PushConfig(**dict(row)) for row in rows]

    async def delete_config(self, task: Task, config_id: str) -> bool:
        """Removes a config; false: there is none."""
        return bool(await self._database.execute("delete_a2a_push_config", task.id, config_id))

    async def claim(self, limit: int) -> list[Push]:
        """Takes what is to be told now."""
        rows = await self._database.fetch("claim_a2a_pushes", limit, _PUSH_LEASE)
        return [
            Push(
                task_id=row["task_id"],
                config=PushConfig(
                    id=row["id"],
                    url=row["url"],
                    token=row["token"],
                    scheme=row["scheme"],
                    credentials=row["credentials"],
                ),
                claim=row["due_time"],
                attempts=row["attempts"],
            )
            for row in rows
        ]

    async def told(self, push: Push, again: timedelta | None) -> None:
        """Something was told; `again`: it was not, and is tried again after that."""
        await self._database.execute(
            "end_a2a_push", push.task_id, push.config.id, push.claim, again
        )


def _changing(task: Task) -> tuple[Any, ...]:
    history = b"[" + b",".join(task.history) + b"]"
    return (task.state, task.status_time, task.told, task.all_artifacts(), history)


def _fields(config: PushConfig) -> tuple[str, ...]:
    return (config.id, config.url, config.token, config.scheme, config.credentials)


def _task(row: Any) -> Task:
    return Task(
        id=str(row["id"]),
        context_id=row["context_id"],
        owner=Owner(row["tenant"], row["subject"]),
        agent=row["agent"],
        skill=row["skill"],
        state=row["state"],
        status_time=row["status_time"],
        told=row["told"],
        stored_artifacts=row["artifacts"],
        history=[orjson.dumps(each) for each in orjson.loads(row["history"])],
        revision=row["revision"],
    )


def _uuid(text: str) -> uuid.UUID | None:
    try:
        found = uuid.UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None
