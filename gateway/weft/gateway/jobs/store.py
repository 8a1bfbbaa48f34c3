"""Jobs as their callers see them: begin, look at, wait for, cancel, delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta

from weft import rpc
from weft.gateway.jobs.bells import Bells
from weft.gateway.jobs.errors import JobKeyReused, JobNotFound, JobRunning, TooManyJobs
from weft.gateway.jobs.model import Job, Message, NewJob, Owner, Page, State, Subscriber
from weft.postgres import Database
from weft.rpc.paging import page_begin, page_size, page_token

MOST_OPEN = 1_000
_LOOK_AGAIN = 10.0  # seconds after which a watcher looks though nobody woke it
_MESSAGES = 100  # read at a time
_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500
_NEWEST = 2**62
_CANCELLED = rpc.status_proto(rpc.Cancelled("The job was cancelled.")).SerializeToString()


class Jobs:
    """The jobs that are stored. Every method raises rpc.Unavailable where the database is away.

    Args:
        database: with the queries of weft.gateway.sql.
        bells: what wakes watchers.
        most_open: jobs of a caller that may be open at a time.
        on_end: told when a job has ended that was cancelled before it was run.
    """

    def __init__(
        self,
        database: Database,
        bells: Bells,
        *,
        most_open: int = MOST_OPEN,
        on_end: Callable[[State], None] = lambda _: None,
    ) -> None:
        self._on_end = on_end
        self._database = database
        self._bells = bells
        self._most_open = most_open

    async def begin(self, new: NewJob, *, lease: timedelta | None = None) -> Job:
        """Stores a job; it is run as soon as a runner has room. With a key that its owner used before: the job of then.

        Args:
            new: the job.
            lease: for how long its runner holds it already; None: it is queued.

        Raises:
            JobKeyReused: that was another call.
            TooManyJobs: see there.
        """
        owner = new.owner
        if new.key and (before := await self._by_key(new)) is not None:
            return before
        args = (owner.tenant, owner.subject, self._most_open)
        if await self._database.fetchval("count_open_jobs", *args) >= self._most_open:
            raise TooManyJobs(f"{self._most_open} of your jobs have not ended.")
        webhook, told = new.webhook, new.subscriber
        row = await self._database.fetchrow(
            "begin_job",
            *(new.id, owner.tenant, owner.subject),
            *(new.kind, new.context, new.note, new.key or None),
            *(new.agent, new.method, new.request, new.identity, new.traceparent),
            *(new.conversation, new.streams, new.repeatable, new.resumable, new.time, new.keep),
            *((webhook.url, webhook.secret) if webhook else ("", b"")),
            lease,
            *((told.id, told.url, told.settings) if told else (None, None, None)),
        )
        if row is None:
            begun = await self._by_key(new)
            if begun is None:
                raise rpc.Aborted("A job of the same key was deleted just now; begin again.")
            return begun
        if lease is None:
            self._bells.queued.ring()
        return Job.from_row(row)

    async def get(self, owner: Owner, job: str) -> Job:
        """A job.

        Raises:
            JobNotFound: its owner has no such job.
        """
        row = await self._database.fetchrow("get_job", owner.tenant, owner.subject, job)
        if row is None:
            raise JobNotFound
        return Job.from_row(row)

    async def list(
        self,
        owner: Owner,
        *,
        kind: str = "",
        context: str = "",
        state: State | None = None,
        method: str = "",
        size: int = 0,
        token: str = "",
    ) -> Page:
        """The jobs of an owner, the newest first; empty filters let all pass.

        Raises:
            rpc.InvalidArgument: `size` is negative, or `token` is of another list.
        """
        size = page_size(size, default=_DEFAULT_PAGE, most=_LARGEST_PAGE)
        filters = (kind, context, state or "", method)
        made_for = "jobs " + "\0".join((owner.tenant, owner.subject, *filters))
        last = page_begin(token, made_for=made_for, like=(0,))
        begin = last[0] if last else _NEWEST
        args = (owner.tenant, owner.subject, *filters, begin, size + 1)
        rows = await self._database.fetch("list_jobs", *args)
        found = [Job.from_row(row) for row in rows[:size]]
        more = len(rows) > size
        return Page(
            jobs=found,
            next_token=page_token((found[-1].number,), made_for=made_for) if more else "",
        )

    async def cancel(self, owner: Owner, job: str) -> Job:
        """Asks for a job to be cancelled, which takes effect soon; nothing where it has ended.

        Raises:
            JobNotFound: its owner has no such job.
        """
        row = await self._database.fetchrow(
            "cancel_job", owner.tenant, owner.subject, job, _CANCELLED
        )
        if row is None:
            return await self.get(owner, job)
        found = Job.from_row(row)
        if found.state.ended:
            self._on_end(found.state)
        return found

    async def delete(self, owner: Owner, job: str) -> None:
        """Forgets a job that has ended.

        Raises:
            JobNotFound: its owner has no such job.
            JobRunning: it has not ended.
        """
        if not await self._database.execute("delete_job", owner.tenant, owner.subject, job):
            await self.get(owner, job)
            raise JobRunning

    async def note(self, owner: Owner, job: str, note: bytes) -> None:
        """Changes what the door that made a job keeps beside it; watchers hear of it.

        Raises:
            JobNotFound: its owner has no such job.
        """
        if not await self._database.execute("note_job", owner.tenant, owner.subject, job, note):
            raise JobNotFound

    async def wait(self, owner: Owner, job: str, seconds: float) -> Job:
        """A job as it is when it has ended or waits for its caller, or after `seconds`.

        Raises:
            JobNotFound: its owner has no such job.
        """
        until = rpc.Deadline.after_seconds(seconds)
        with self._bells.watching(job) as bell:
            while True:
                found = await self.get(owner, job)
                if found.state.settled or until.expired():
                    return found
                await bell.wait(min(_LOOK_AGAIN, until.seconds()))

    async def messages(self, owner: Owner, job: str, after: int = 0) -> Sequence[Message]:
        """The next messages of a job's stream behind a number; those long ago are forgotten.

        Raises:
            JobNotFound: its owner has no such job.
        """
        await self.get(owner, job)
        return await self._messages(job, after)

    async def watch(
        self, owner: Owner, job: str, after: int = 0
    ) -> AsyncGenerator[Job | Message, None]:
        """What happens to a job until it ends: itself now and at each change, messages behind a number as they come.

        Raises:
            JobNotFound: its owner has no such job, or it was deleted.
        """
        told: tuple[State, bool, int, bytes] | None = None
        with self._bells.watching(job) as bell:
            while True:
                found = await self.get(owner, job)
                if not found.state.ended and told != _seen(found):
                    told = _seen(found)
                    yield found
                # What a job had when it was looked at is told before its end is.
                while after < found.messages and (more := await self._messages(job, after)):
                    for message in more:
                        yield message
                    after = more[-1].number
                if found.state.ended:
                    yield found
                    return
                await bell.wait(_LOOK_AGAIN)

    async def subscribe(self, owner: Owner, job: str, subscriber: Subscriber) -> None:
        """Adds or replaces a subscriber. Of a job that has ended, or waits, it is told at once.

        Raises:
            JobNotFound: its owner has no such job.
        """
        one = (subscriber.id, subscriber.url, subscriber.settings)
        async with self._database.transaction() as work:
            state = await work.fetchval(
                "add_job_subscriber", owner.tenant, owner.subject, job, *one
            )
            if state is None:
                raise JobNotFound
            if State(state).settled:
                await work.execute("tell_job_subscriber", job, subscriber.id)

    async def subscribers(self, owner: Owner, job: str) -> Sequence[Subscriber]:
        """The subscribers of a job, in the order of their ids; none of a job that its owner does not have."""
        rows = await self._database.fetch("list_job_subscribers", owner.tenant, owner.subject, job)
        return [Subscriber(**dict(row)) for row in rows]

    async def unsubscribe(self, owner: Owner, job: str, subscriber: str) -> None:
        """Removes a subscriber, and what is still to be told to it, if it is there."""
        args = (owner.tenant, owner.subject, job, subscriber)
        await self._database.execute("delete_job_subscriber", *args)

    async def _messages(self, job: str, after: int) -> Sequence[Message]:
        rows = await self._database.fetch("list_job_messages", job, after, _MESSAGES)
        return [Message(number=row["number"], content=row["content"]) for row in rows]

    async def _by_key(self, new: NewJob) -> Job | None:
        args = (new.owner.tenant, new.owner.subject, new.key)
        row = await self._database.fetchrow("find_job_by_key", *args)
        if row is None:
            return None
        if (row["method"], row["request"]) != (new.method, new.request):
            raise JobKeyReused(field="idempotency-key")
        return Job.from_row(row)


def _seen(job: Job) -> tuple[State, bool, int, bytes]:
    return job.state, job.cancelling, job.fence, job.note
