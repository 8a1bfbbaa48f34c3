"""Tasks as they are found: among the jobs of their caller, those that this door made, with what is needed to show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from weft.gateway.doors.a2a.content import Shape
from weft.gateway.doors.a2a.protocol import NAME, TaskNotFound
from weft.gateway.doors.a2a.skills import MESH, SkillSet
from weft.gateway.doors.a2a.tasks import Note, Task
from weft.gateway.jobs import Job, JobNotFound, Jobs, Owner
from weft.postgres import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which tasks to list; empty and None: any."""

    context_id: str = ""
    state: str = ""
    since: datetime | None = None


class Shelf:
    """The tasks that are stored. Its methods raise rpc.Unavailable when PostgreSQL is away.

    Args:
        database: of the gateway's schema.
        jobs: the same, as jobs.
    """

    def __init__(self, database: Database, jobs: Jobs) -> None:
        self._database = database
        self.jobs = jobs
        self.mesh = SkillSet(MESH, ())

    async def find(self, owner: Owner, task_id: str, agent: str) -> Job:
        """A task of a caller, that an agent does; MESH: any.

        Raises:
            TaskNotFound: see there.
        """
        try:
            job = await self.jobs.get(owner, task_id)
        except JobNotFound:
            raise TaskNotFound from None
        if job.kind != NAME or agent not in {job.agent, MESH}:
            raise TaskNotFound
        return job

    async def whole(self, job: Job) -> Task:
        """A task with what it had answered by then."""
        answers: list[bytes] = []
        after = 0
        while job.streams and after < job.messages:
            more = await self.jobs.messages(job.owner, job.id, after)
            if not more:  # it is begun anew
                break
            answers += (each.content for each in more if each.number <= job.messages)
            after = more[-1].number
        return self.bare(job, answers)

    def bare(self, job: Job, answers: Sequence[bytes] = ()) -> Task:
        """A task without the messages of its stream."""
        note = Note.decode(job.note)
        skill = self.mesh.skills.get(job.method[1:])
        return Task(job, note, Shape.kept(skill, note.accepted, text=note.text), answers)

    async def page(
        self,
        owner: Owner,
        agent: str,
        chosen: Filter,
        limit: int,
        after: tuple[datetime, int] | None,
    ) -> list[Job]:
        """Tasks of a caller, those that changed last first."""
        rows = await self._database.fetch(
            "list_a2a_jobs", *_filters(owner, agent, chosen), limit, *(after or (None, None))
        )
        return [Job.from_row(row) for row in rows]

    async def count(self, owner: Owner, agent: str, chosen: Filter) -> int:
        """How many there are."""
        found: int = await self._database.fetchval(
            "count_a2a_jobs", *_filters(owner, agent, chosen)
        )
        return found

    async def told(self, job: str, subscriber: str) -> tuple[Job, bytes] | None:
        """A job, whosever it is, and the settings of a subscriber; None: one of them is gone."""
        row = await self._database.fetchrow("read_job_told", job, subscriber)
        return None if row is None else (Job.from_row(row), row["settings"])


def _filters(owner: Owner, agent: str, chosen: Filter) -> tuple[object, ...]:
    asked = "" if agent == MESH else agent
    return (owner.tenant, owner.subject, asked, chosen.context_id, chosen.state, chosen.since)
