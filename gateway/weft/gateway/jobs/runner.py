"""Runs the jobs that are stored: each gateway process has one, and each job is held by one of them at a time.

Whoever takes a job gets a lease on it, which it renews, and a fencing token, without which nothing of the job can be
changed: a runner that was slow, not dead, finds that out and drops its call. When a lease runs out because its
process died, a job that may be called twice is run again by another; of any other it is not known what became of its
call, and it ends with ABORTED. A job whose call never left the gateway (no instance, circuit open) waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

from weft import rpc
from weft.gateway.failures import AgentUnavailable
from weft.gateway.guards.call_limits import units_in
from weft.gateway.guards.circuit import CircuitOpen
from weft.gateway.jobs.bells import Bells
from weft.gateway.jobs.errors import JobOutcomeUnknown, JobTooLate
from weft.gateway.jobs.model import Job, State
from weft.gateway.jobs.progress import LeaseLost, Progress, ProgressLimits
from weft.gateway.metadata import Beside
from weft.gateway.upstream import Upstream
from weft.postgres import Database
from weft.rpc.call import IDENTITY_KEY, TRACEPARENT_KEY, Call, serve_as
from weft.rpc.signing import Signer
from weft.v1.identity_pb2 import Identity

log = logging.getLogger("weft.gateway")

_BATCH = 100
_LEAST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between looks that nobody asked for
_RETRY_FIRST, _RETRY_MOST = 1.0, 30.0  # seconds before a call that never left is tried again
_AFTER_DRAIN = 2.0  # seconds a job that was cut has to say so
_FORGOTTEN = 1_000  # rows a statement forgets


def _status(error: rpc.Error) -> bytes:
    status: bytes = rpc.status_proto(error).SerializeToString()
    return status


_TOO_LATE, _UNKNOWN = _status(JobTooLate()), _status(JobOutcomeUnknown())
_CANCELLED = _status(rpc.Cancelled("The job was cancelled."))

# Reasons with which an agent asks for more before it can go on.
ASKS = frozenset({"INPUT_REQUIRED", "AUTH_REQUIRED"})


Making = asyncio.Task[bytes] | asyncio.Task[bytes | None]
"""A call that is being made; None: its answer is the stream that was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """How jobs are run."""

    at_once: int = 64
    """Jobs one process runs at a time."""
    lease: timedelta = timedelta(seconds=15)
    """For how long a process that says nothing keeps its jobs."""
    losses: int = 5
    """How often a job is run again after its process was lost."""
    drain: timedelta = timedelta(seconds=8)
    """How long jobs may go on when the gateway stops."""
    cleaned: timedelta = timedelta(minutes=10)
    """How often jobs whose time is over are looked for."""
    progress: ProgressLimits = field(default_factory=ProgressLimits)
    """How much of a stream is kept."""


class Runner:
    """Takes jobs and runs them.

    Args:
        database: with the queries of weft.gateway.sql.
        upstream: the way to agents.
        bells: what wakes it.
        signer: signs the identities that jobs are run with; None: they are not signed.
        on_end: told when it has ended a job.
        on_spent: told of the method, for whom, and what an agent says that a job cost.
    """

    def __init__(
        self,
        database: Database,
        upstream: Upstream,
        bells: Bells,
        *,
        signer: Signer | None = None,
        settings: RunnerSettings | None = None,
        on_end: Callable[[State], None] = lambda _: None,
        on_spent: Callable[[str, Identity, float], None] = lambda *_: None,
    ) -> None:
        self._on_end = on_end
        self._database = database
        self._upstream = upstream
        self._bells = bells
        self._signer = signer
        self._on_spent = on_spent
        self._settings = settings or RunnerSettings()
        self._held: dict[str, _Held] = {}

    async def run(self) -> None:
        """Runs jobs until cancelled; for a task of its own. Those that run then get a while to end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats())
            group.create_task(self._cancels())
            group.create_task(self._cleaning())
            try:
                await self._taking()
            finally:
                await self._drain()

    # Taking

    async def _taking(self) -> None:
        while True:
            pause = _LEAST_PAUSE
            try:
                await self._end_lost()
                if (room := self.room) > 0:
                    if await self._take(room) == room:
                        continue
                    due = await self._database.fetchval("next_job_due")
                    pause = _LONGEST_PAUSE if due is None else due
                else:
                    pause = _LONGEST_PAUSE
            except rpc.Error:
                log.warning("jobs cannot be taken now", exc_info=True)
            await self._bells.queued.wait(min(max(pause, _LEAST_PAUSE), _LONGEST_PAUSE))

    async def _end_lost(self) -> None:
        args = (_BATCH, _TOO_LATE, _UNKNOWN, _CANCELLED, self._settings.losses)
        while True:
            ended = await self._database.fetch("end_lost_jobs", *args)
            for row in ended:
                self._on_end(State(row["state"]))
            if len(ended) < _BATCH:
                return

    async def _take(self, room: int) -> int:
        settings = self._settings
        rows = await self._database.fetch(
            "claim_jobs", min(room, _BATCH), settings.lease, settings.losses
        )
        for row in rows:
            job = Job.from_row(row)
            # A task of its own: what is stored of the job has no part in the deadline of its call.
            self.hold(job, asyncio.create_task(self._make(job)))
        return len(rows)

    @property
    def room(self) -> int:
        """How many jobs more can be run here."""
        return self._settings.at_once - len(self._held)

    @property
    def lease(self) -> timedelta:
        """For how long a job is held that nobody has said anything of."""
        return self._settings.lease

    def hold(self, job: Job, call: Making) -> None:
        """Sees to a job whose lease this process has, and whose call is under way."""
        held = _Held(job.fence, call)
        if (before := self._held.get(job.id)) is not None:
            before.stop(_Why.LOST)  # by this process itself, which was too slow
        self._held[job.id] = held
        # Not in the context of a request: its deadline is not that of what is stored.
        held.task = asyncio.create_task(
            self._hold(job, held), name=f"job {job.id}", context=contextvars.Context()
        )
        held.task.add_done_callback(self._letting_go(job.id, held))

    async def keep(self, job: Job, messages: AsyncIterable[bytes]) -> None:
        """Keeps the messages of a job's stream.

        Raises:
            LeaseLost: another runner has the job.
            rpc.Error: as the stream ended.
        """
        await Progress(self._database, job, self._settings.progress).keep(messages)

    def _letting_go(self, job: str, held: _Held) -> Callable[[asyncio.Task[None]], None]:
        def let_go(task: asyncio.Task[None]) -> None:
            if self._held.get(job) is held:
                del self._held[job]
            held.call.cancel()  # where it was stopped before it was seen to
            if not task.cancelled() and (failed := task.exception()) is not None:
                log.error("a job could not be ended", exc_info=failed, extra={"job": job})
            self._bells.queued.ring()  # there is room

        return let_go

    # Running

    async def _hold(self, job: Job, held: _Held) -> None:
        try:
            response = await held.call
        except LeaseLost:
            log.warning("a job was lost to another runner", extra={"job": job.id})
        except rpc.Error as failed:
            await self._failed(job, held, failed)
        except asyncio.CancelledError:
            await self._stopped(job, held)
        except Exception:
            log.exception("a job failed", extra={"job": job.id})
            await self._end(job, held, State.FAILED, _status(rpc.Internal()))
        else:
            await self._end(job, held, State.SUCCEEDED, None, response)

    async def _make(self, job: Job) -> bytes | None:
        """Makes the call, in a task of its own."""
        deadline = rpc.Deadline.after(job.deadline - datetime.now(UTC))
        identity = Identity.FromString(job.identity)
        if self._signer is not None:
            identity = self._signer.sign(identity)
        traced = ((TRACEPARENT_KEY, job.traceparent),) if job.traceparent else ()
        entry = (IDENTITY_KEY, identity.SerializeToString())
        call = Call.at_door(job.method, traced, deadline, entry)
        if job.conversation:
            call.conversation = job.conversation
        serve_as(call)
        heard = Beside()
        try:
            if not job.streams:
                return await self._upstream.unary(
                    job.agent, job.method, job.request, deadline, heard
                )
            messages = self._upstream.stream(
                job.agent, job.method, job.request, deadline, heard, repeatable=job.repeatable
            )
            async with contextlib.aclosing(messages):
                await self.keep(job, messages)
            return None
        finally:
            if (units := units_in(heard.trailing)) is not None:
                self._on_spent(job.method, identity, units)

    async def _failed(self, job: Job, held: _Held, failed: rpc.Error) -> None:
        if job.resumable and failed.reason in ASKS:
            await self._store("wait_job", job, held, _status(failed), failed.reason, _CANCELLED)
            return
        now = datetime.now(UTC)
        waits = may_be_made_again(failed, repeatable=job.repeatable)
        age = (now - job.create_time).total_seconds()
        pause = min(max(age, _RETRY_FIRST), _RETRY_MOST) * random.uniform(0.5, 1)  # noqa: S311 jitter
        again = timedelta(seconds=pause)
        if waits and now + again < job.deadline:
            await self._store("requeue_job", job, held, again)
        elif isinstance(failed, AgentUnavailable) and not (job.repeatable or failed.unsent):
            await self._end(job, held, State.FAILED, _UNKNOWN)  # its agent went away within it
        else:
            await self._end(job, held, State.FAILED, _status(failed))

    async def _stopped(self, job: Job, held: _Held) -> None:
        why = held.why
        if why is _Why.CANCELLED:
            await self._end(job, held, State.CANCELLED, _CANCELLED)
        elif why is _Why.STOPPING and job.repeatable:
            await self._store("requeue_job", job, held, timedelta(0))
        elif why is _Why.STOPPING:
            await self._end(job, held, State.FAILED, _UNKNOWN)
        elif why is _Why.LOST:
            log.warning("a job was lost to another runner", extra={"job": job.id})
        else:
            raise asyncio.CancelledError

    async def _end(
        self,
        job: Job,
        held: _Held,
        state: State,
        status: bytes | None,
        response: bytes | None = None,
    ) -> None:
        if await self._store("end_job", job, held, state, response, status):
            self._on_end(state)

    async def _store(self, query: str, job: Job, held: _Held, *args: object) -> bool:
        """Changes a job, as soon as the database is there: what was found out must not be lost.

        Twice does no harm: the fence holds, and the state that it starts from is gone.
        """
        held.ending = True
        pause = 0.2
        while True:
            try:
                done = await self._database.execute(query, job.id, job.fence, *args)
            except (rpc.Unavailable, rpc.DeadlineExceeded, rpc.Aborted):
                log.warning("what became of a job cannot be stored yet", extra={"job": job.id})
            else:
                if not done:
                    log.warning("a job was lost to another runner", extra={"job": job.id})
                return bool(done)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 jitter
            pause = min(pause * 2, 5.0)

    # Beside

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease.total_seconds() / 3)
            held = dict(self._held)
            if not held:
                continue
            fences = [each.fence for each in held.values()]
            try:
                rows = await self._database.fetch(
                    "renew_job_leases", list(held), fences, self._settings.lease
                )
            except rpc.Error:
                log.warning("the leases of jobs cannot be renewed now", exc_info=True)
                continue
            kept = {row["id"]: row["cancelling"] for row in rows}
            for job, each in held.items():
                if job not in kept:
                    each.stop(_Why.LOST)
                elif kept[job]:
                    each.stop(_Why.CANCELLED)

    async def _cancels(self) -> None:
        while True:
            await self._bells.cancel.wait()
            for job in self._bells.cancelled():
                if (held := self._held.get(job)) is not None:
                    held.stop(_Why.CANCELLED)

    async def _cleaning(self) -> None:
        while True:
            try:
                while await self._database.execute("forget_jobs", _FORGOTTEN) == _FORGOTTEN:
                    pass
            except rpc.Error:
                log.warning("jobs cannot be forgotten now", exc_info=True)
            await asyncio.sleep(self._settings.cleaned.total_seconds())

    async def _drain(self) -> None:
        held = dict(self._held)
        if not held:
            return
        tasks = {each.task for each in held.values()}
        _, late = await asyncio.wait(tasks, timeout=self._settings.drain.total_seconds())
        for each in held.values():
            if each.task in late:
                each.stop(_Why.STOPPING)
        _, late = await asyncio.wait(tasks, timeout=_AFTER_DRAIN)
        for task in late:
            task.cancel()


class _Why(Enum):
    """Why a call is dropped."""

    CANCELLED = 1
    LOST = 2
    STOPPING = 3


class _Held:
    """A job that is run here."""

    __slots__ = ("call", "ending", "fence", "task", "why")

    task: asyncio.Task[None]

    def __init__(self, fence: int, call: Making) -> None:
        self.fence = fence
        self.call = call
        self.why: _Why | None = None
        self.ending = False

    def stop(self, why: _Why) -> None:
        """Drops the call, unless it is over."""
        if not self.ending and self.why is None:
            self.why = why
            self.task.cancel()


def may_be_made_again(failed: rpc.Error, *, repeatable: bool) -> bool:
    """Whether a call that failed so is made again: it never left, or it may be repeated and its agent went away."""
    return isinstance(failed, CircuitOpen) or (
        isinstance(failed, AgentUnavailable) and (failed.unsent or repeatable)
    )
