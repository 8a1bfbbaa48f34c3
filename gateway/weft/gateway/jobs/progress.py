"""Keeps the messages of a job's stream, in order and bounded: of a long stream, the newest."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterable
from dataclasses import dataclass

from weft import rpc
from weft.gateway.jobs.model import Job
from weft.postgres import Database

_WAITING_BYTES = 1024 * 1024


class LeaseLost(Exception):
    """Another runner has the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressLimits:
    """How much of a stream is kept."""

    messages: int = 10_000
    size: int = 16 * 1024 * 1024
    """Bytes of all messages together."""


class Progress:
    """What one run of a job has said. While a batch is being stored the next one gathers."""

    def __init__(self, database: Database, job: Job, limits: ProgressLimits) -> None:
        self._database = database
        self._job = job
        self._limits = limits
        self._stored = job.messages
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._kept: deque[int] = deque()  # sizes
        self._kept_size = 0

    async def keep(self, messages: AsyncIterable[bytes]) -> None:
        """Stores messages as they come, and returns when all are stored.

        Raises:
            LeaseLost: see there.
            rpc.Error: as the stream ended; what came before is stored.
        """
        storing: asyncio.Task[None] | None = None
        try:
            try:
                async for message in messages:
                    self._waiting.append(message)
                    self._waiting_size += len(message)
                    if storing is not None and self._waiting_size > _WAITING_BYTES:
                        await storing
                    if storing is None or storing.done():
                        await _raising(storing)
                        storing = asyncio.create_task(self._store())
            except rpc.Error:
                await self._rest(storing)
                raise
            await self._rest(storing)
        finally:
            if storing is not None and not storing.done():
                storing.cancel()
                await asyncio.wait({storing})

    async def _rest(self, storing: asyncio.Task[None] | None) -> None:
        if storing is not None:
            await storing
        await self._store()

    async def _store(self) -> None:
        batch, self._waiting, self._waiting_size = self._waiting, [], 0
        if not batch:
            return
        for message in batch:
            self._kept.append(len(message))
            self._kept_size += len(message)
        while (
            len(self._kept) > self._limits.messages or self._kept_size > self._limits.size
        ) and len(self._kept) > 1:
            self._kept_size -= self._kept.popleft()
        after = self._stored + len(batch)
        # Of one batch, what is too old already is not even written.
        unwritten = max(0, len(batch) - len(self._kept))
        await self._add(batch[unwritten:], unwritten, after - len(self._kept))
        self._stored = after

    async def _add(self, batch: list[bytes], unwritten: int, forget: int) -> None:
        job = self._job
        pause = 0.1
        while True:
            try:
                args = (job.id, job.fence, batch, forget, self._stored, unwritten)
                if await self._database.fetchval("add_job_messages", *args) is not None:
                    return
                now = await self._database.fetchval("count_job_messages", job.id, job.fence)
                if now == self._stored + unwritten + len(batch):
                    return  # the answer to an attempt before was lost
                raise LeaseLost
            except rpc.Unavailable:
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 jitter
                pause = min(pause * 2, 5.0)


async def _raising(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        await task
