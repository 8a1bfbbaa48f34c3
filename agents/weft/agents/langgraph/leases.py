"""The right to write to a thread, for one worker at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from langchain_core.runnables import RunnableConfig

from weft import rpc
from weft.postgres import Database

log = logging.getLogger("weft.agents")

# Begins with two underscores: LangGraph copies other settings into the metadata of checkpoints.
FENCE = "__weft_fence"
_RENEWALS = 3  # in the life of a lease


class ThreadTaken(rpc.Aborted):
    """Another worker has this thread."""

    reason = "THREAD_TAKEN"


class LeaseLost(rpc.Aborted):
    """The lease of this thread was lost; another worker may go on with it."""

    reason = "LEASE_LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease of a thread."""

    thread: str
    fence: int
    """Larger than that of any lease before."""

    @property
    def config(self) -> RunnableConfig:
        """What a graph is run with, to write under this lease."""
        return {"configurable": {"thread_id": self.thread, FENCE: self.fence}}


@contextlib.asynccontextmanager
async def leased(database: Database, thread: str, life: timedelta) -> AsyncIterator[Lease]:
    """Leases a thread and keeps the lease as long as the context; what runs in it is cancelled when the lease is lost.

    Raises:
        ThreadTaken: somebody else has it.
        LeaseLost: it was lost.
    """
    if life <= timedelta(0):
        raise ValueError("a lease must have a life")
    fence = await database.fetchval("take_lease", thread, life)
    if fence is None:
        raise ThreadTaken
    lease = Lease(thread=thread, fence=fence)
    holder = asyncio.current_task()
    assert holder is not None
    keeping = _Keeping(database, lease, life, holder)
    task = asyncio.create_task(keeping.run(), name=f"lease of {thread}")
    try:
        yield lease
    except asyncio.CancelledError:
        if keeping.lost and holder.cancelling() <= 1:  # nobody else wants it to end
            raise LeaseLost from None
        raise
    finally:
        keeping.leave()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if not keeping.lost:
            with contextlib.suppress(rpc.Error):  # it ends by itself
                await database.execute("end_lease", thread, fence)
    if keeping.lost:
        raise LeaseLost


class _Keeping:
    """Renews a lease, and cancels its holder when it is lost.

    Args:
        database: where it is.
        lease: the lease.
        life: how long it is kept without being renewed.
        holder: the task that has it.
    """

    def __init__(
        self, database: Database, lease: Lease, life: timedelta, holder: asyncio.Task[object]
    ) -> None:
        self._database = database
        self._lease = lease
        self._life = life
        self._holder: asyncio.Task[object] | None = holder
        self._told: asyncio.Task[object] | None = None
        self.lost = False

    async def run(self) -> None:
        """Returns when the lease is lost."""
        span = self._life.total_seconds()
        ends = time.monotonic() + span
        while True:
            await asyncio.sleep(span / _RENEWALS)
            asked = time.monotonic()
            try:
                async with asyncio.timeout(max(span / _RENEWALS, ends - asked)):
                    kept = await self._renew()
            except (rpc.Error, TimeoutError):
                kept = time.monotonic() < ends
            else:
                ends = asked + span
            if not kept:
                self._lose()
                return

    def leave(self) -> None:
        """The holder is done: nothing cancels it any more."""
        self._holder = None
        if self._told is not None:
            self._told.uncancel()

    async def _renew(self) -> bool:
        lease = self._lease
        return bool(
            await self._database.execute("renew_lease", lease.thread, lease.fence, self._life)
        )

    def _lose(self) -> None:
        log.warning("the lease of a thread is lost", extra={"thread_id": self._lease.thread})
        self.lost = True
        if self._holder is not None:
            self._told = self._holder
            self._told.cancel()
