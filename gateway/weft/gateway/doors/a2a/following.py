"""What happens to a task from now on, for who asked for a stream, at whichever gateway it is worked on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from weft.gateway.doors.a2a.sending import Events
from weft.gateway.doors.a2a.shelf import Shelf
from weft.gateway.doors.a2a.tasks import Task
from weft.gateway.jobs import Job, Message, State


async def follow(
    shelf: Shelf, task: Task, closing: asyncio.Event, *, until_settled: bool = False
) -> Events:
    """Yields the task, then what happens to it until it ends.

    A task that waits for its caller is followed on (specification, 3.1.6): it may be continued.

    Args:
        shelf: where tasks are found.
        task: as it is now, whole.
        closing: set when nobody is to wait for anything that may never come.
        until_settled: whether it is enough when it waits.
    """
    yield [task.event()]
    job = task.job
    seen = {chunk.id for answer in task.answers for chunk in task.shape.chunks(answer)}
    if _over(job, until_settled=until_settled):
        return
    changes = shelf.jobs.watch(job.owner, job.id, job.messages)
    async with contextlib.aclosing(_until(changes, closing)) as coming:
        async for change in coming:
            if isinstance(change, Message):
                yield list(task.artifact_updates(change.content, seen, last=False))
                continue
            if change.fence != job.fence:  # what was made before is made anew
                seen.clear()
            told = task.state
            task = shelf.bare(change)
            job = change
            if job.response is not None:
                yield [
                    *task.artifact_updates(job.response, seen, last=True),
                    task.status_update(),
                ]
            elif task.state != told:
                yield [task.status_update()]
            if _over(job, until_settled=until_settled):
                return


def _over(job: Job, *, until_settled: bool) -> bool:
    return job.state.settled if until_settled else job.state.ended


async def _until(
    changes: AsyncGenerator[Job | Message, None], closing: asyncio.Event
) -> AsyncGenerator[Job | Message, None]:
    """Changes, until nobody is to wait any more for a job that nobody runs."""
    closed = asyncio.create_task(closing.wait())
    running = True
    try:
        async with contextlib.aclosing(changes):
            while True:
                coming = asyncio.create_task(_next(changes))
                try:
                    await asyncio.wait({coming, closed}, return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done() and running:
                        await asyncio.wait({coming})
                finally:
                    if not coming.done():
                        coming.cancel()
                        await asyncio.wait({coming})
                if coming.cancelled():
                    return
                change = coming.result()
                if change is None:
                    return
                if isinstance(change, Job):
                    running = change.state is State.RUNNING
                yield change
    finally:
        closed.cancel()


async def _next(changes: AsyncGenerator[Job | Message, None]) -> Job | Message | None:
    return await anext(changes, None)
