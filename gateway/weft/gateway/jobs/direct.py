"""Jobs that begin where they are accepted: their door has let the call in, and makes it here, with no hop through the queue.

A call that ends at once is a job that is stored once, as ended, together with others that end at the time. Any other is
stored, leased by this process, and from then on a job as any other: its caller may go, another gateway runs it again when
this one dies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from weft import rpc
from weft.gateway.jobs.batches import Batches, Row
from weft.gateway.jobs.model import Job, NewJob, State
from weft.gateway.jobs.runner import ASKS, Runner, may_be_made_again
from weft.gateway.jobs.store import Jobs
from weft.postgres import Database

log = logging.getLogger("weft.gateway")

_AT_ONCE = 0.05  # seconds within which a job may end without having been stored before
_LIMIT = timedelta(seconds=10)  # of a statement: the deadline of a call is not that of its record


class Work(Protocol):
    """A call that was let in. It is made once, or dropped."""

    def unary(self) -> Coroutine[Any, Any, bytes]:
        """Makes it; for methods with one answer."""

    def stream(self) -> AsyncGenerator[bytes, None]:
        """Makes it; for methods that answer with a stream."""

    def drop(self) -> None:
        """It will not be made here."""


class Direct:
    """Begins jobs in this process.

    Args:
        database: with the queries of weft.gateway.sql.
        jobs: the same, as callers see it.
        runner: sees to what does not end at once.
        on_end: told when a job has ended at once.
    """

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        runner: Runner,
        *,
        on_end: Callable[[State], None] = lambda _: None,
    ) -> None:
        self._on_end = on_end
        self._database = database
        self._jobs = jobs
        self._runner = runner
        self._ended = Batches(self._store_ended)
        self._settling: set[asyncio.Task[Job]] = set()

    async def begin(
        self,
        new: NewJob,
        work: Work,
        *,
        stored: bool,
        unless: Callable[[bytes], bool] = lambda _: False,
    ) -> Job:
        """Begins a job, and returns it as it is then: as ended, if that is so within 50 ms.

        Where so many jobs run here that there is no room, it is queued.

        Args:
            new: the job.
            work: its call.
            stored: whether to store it, and return, before its call is made. That is so for streams, for jobs with a
                key, a webhook or a subscriber.
            unless: whether a response that came at once needs no job; it is not stored then.

        Raises:
            rpc.Error: it is not stored; see `Jobs.begin`. Its call may have been made, unless it has a key.
        """
        if stored or new.streams or new.key or new.webhook or new.subscriber:
            return await self._own(self._begin_stored(new, work))
        call = asyncio.create_task(work.unary())
        try:
            await asyncio.wait({call}, timeout=_AT_ONCE)
        except asyncio.CancelledError:  # its caller is gone; the job goes on
            _ = self._settle(new, call)
            raise
        if (ended := _ended(new, call)) is not None:
            if ended.response is None or not unless(ended.response):
                await self._ended.add(_row(new, ended))
                self._on_end(ended.state)
            return ended
        return await asyncio.shield(self._settle(new, call))

    async def resume(self, new: NewJob, work: Work) -> Job | None:
        """Goes on with a job that waits for its caller: with the request, note, identity and time of `new`, which has its id.

        Returns:
            The job; None: it does not wait.
        """
        try:
            row = await self._database.fetchrow(
                "resume_job",
                *(new.owner.tenant, new.owner.subject, new.id),
                *(new.request, new.note, new.identity, new.time, self._runner.lease),
            )
        except BaseException:
            work.drop()
            raise
        if row is None:
            work.drop()
            return None
        found = Job.from_row(row)
        self._run(found, work)
        return found

    async def close(self) -> None:
        """Returns when what is being stored is."""
        while self._settling:
            await asyncio.wait(self._settling)

    async def _own(self, work: Coroutine[Any, Any, Job]) -> Job:
        return await asyncio.shield(self._owned(work))

    def _owned(self, work: Coroutine[Any, Any, Job]) -> asyncio.Task[Job]:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: asyncio.Task[Job]) -> None:
        self._settling.discard(task)
        if not task.cancelled() and (failed := task.exception()) is not None:
            log.warning("a job could not be stored: %s", failed)

    async def _begin_stored(self, new: NewJob, work: Work) -> Job:
        lease = self._runner.lease if self._runner.room > 0 else None
        try:
            job = await self._jobs.begin(new, lease=lease)
        except BaseException:
            work.drop()
            raise
        if lease is None or job.id != new.id:  # of a key that was used before
            work.drop()
        else:
            self._run(job, work)
        return job

    def _run(self, job: Job, work: Work) -> None:
        self._runner.hold(job, asyncio.create_task(self._make(job, work)))

    async def _make(self, job: Job, work: Work) -> bytes | None:
        if not job.streams:
            return await work.unary()
        await self._runner.keep(job, work.stream())
        return None

    def _settle(self, new: NewJob, call: asyncio.Task[bytes]) -> asyncio.Task[Job]:
        return self._owned(self._settle_now(new, call))

    async def _settle_now(self, new: NewJob, call: asyncio.Task[bytes]) -> Job:
        try:
            job = await self._jobs.begin(new, lease=self._runner.lease)
        except BaseException:
            call.cancel()
            raise
        self._runner.hold(job, call)
        return job

    async def _store_ended(self, rows: Sequence[Row]) -> None:
        with rpc.Deadline.after(_LIMIT).applied():
            await self._database.execute_many("store_ended_job", rows)


def _row(new: NewJob, job: Job) -> Row:
    return (
        *(job.id, job.owner.tenant, job.owner.subject, job.kind, job.context, job.note, job.agent),
        *(job.method, job.traceparent, job.state, job.state_time, job.waits_for, new.time),
        *(new.keep, job.response, job.status, job.repeatable, job.conversation, job.resumable),
    )


def _ended(new: NewJob, call: asyncio.Task[bytes]) -> Job | None:
    """A job whose call is over; None: it is not, or is to be made again."""
    if not call.done():
        return None
    failed: BaseException | None = rpc.Cancelled() if call.cancelled() else call.exception()
    if failed is None:
        return _as_ended(new, State.SUCCEEDED, response=call.result())
    if not isinstance(failed, rpc.Error):
        log.error("a job failed", exc_info=failed, extra={"job": new.id})
        failed = rpc.Internal()
    if new.resumable and failed.reason in ASKS:
        return _as_ended(new, State.WAITING, failed=failed)
    if may_be_made_again(failed, repeatable=new.repeatable):
        return None
    return _as_ended(new, State.FAILED, failed=failed)


def _as_ended(
    new: NewJob, state: State, *, response: bytes | None = None, failed: rpc.Error | None = None
) -> Job:
    now = datetime.now(UTC)
    over = now + new.keep
    return Job(
        id=new.id,
        number=0,  # which only lists know
        owner=new.owner,
        kind=new.kind,
        context=new.context,
        note=new.note,
        agent=new.agent,
        method=new.method,
        request=b"",
        identity=b"",
        traceparent=new.traceparent,
        conversation=new.conversation,
        streams=False,
        repeatable=new.repeatable,
        resumable=new.resumable,
        state=state,
        state_time=now,
        waits_for=failed.reason if failed is not None and not state.ended else "",
        cancelling=False,
        fence=0,
        losses=0,
        create_time=now,
        start_time=now,
        update_time=now,
        end_time=now if state.ended else None,
        deadline=now + new.time if state.ended else over,
        expire_time=over if state.ended else None,
        response=response,
        status=None if failed is None else rpc.status_proto(failed).SerializeToString(),
        messages=0,
        webhook_url="",
    )
