"""What happens to a task from now on, for who subscribes, at whichever gateway it is worked on."""

from __future__ import annotations

import asyncio
import contextlib

from weft.gateway.doors.a2a.running import Run, Runner
from weft.gateway.doors.a2a.sending import Events
from weft.gateway.doors.a2a.store import Store

_LOOK = 0.5  # seconds between looks at a task that this gateway does not work on


async def follow(runner: Runner, store: Store, task_id: str) -> Events:
    """Yields the task, then what happens to it until it ends.

    A task that waits for its caller is followed on (specification, 3.1.6): it may be continued.
    """
    known = -1
    while True:
        run = runner.find(task_id)
        if run is not None:
            async for batch in _live(run, told=known >= 0):
                yield batch
            known = max(known, 0)
        task = await store.read(task_id)
        if task is None:
            return
        if task.revision != known and run is None:
            if known < 0:
                yield [b'{"task":' + task.render() + b"}"]
            else:
                made = task.rendered_artifacts()
                news = [task.artifact_update(each, append=False, last=False) for each in made]
                yield [*news, task.status_update()]
        known = task.revision
        if task.ended or runner.closing.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                await runner.closing.wait()


async def _live(run: Run, *, told: bool) -> Events:
    watch = run.watch()
    try:
        if told:
            yield [run.task.status_update()]
        else:
            yield [b'{"task":' + run.task.render() + b"}"]
        async for batch in watch.batches():
            yield batch
    finally:
        run.leave(watch)
