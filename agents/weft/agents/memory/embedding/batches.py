"""Runs what blocks in a thread of its own, with all that waits in one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from weft.agents.memory.embedding.port import Vectors

_Waiting = tuple[list[str], "asyncio.Future[Vectors]"]


class Batches:
    """Calls of one function, one at a time. What is asked for while it runs is asked together next: there is no timer.

    Args:
        run: makes vectors of texts; may block.
        most: texts in a batch.
        name: of the thread.
    """

    def __init__(self, run: Callable[[Sequence[str]], Vectors], *, most: int, name: str) -> None:
        self._run = run
        self._most = most
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._working: asyncio.Task[None] | None = None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts. Raises what the function raises."""
        made = [
            await self._part(texts[i : i + self._most]) for i in range(0, len(texts), self._most)
        ]
        return np.concatenate(made) if made else np.empty((0, 0), np.float32)

    async def close(self) -> None:
        """Ends the thread when it has done what it does; what waits is cancelled."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        await asyncio.to_thread(self._thread.shutdown)

    async def _part(self, texts: Sequence[str]) -> Vectors:
        future: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((list(texts), future))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work(), name="embedding")
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._taken():
            texts = [text for part, _ in batch for text in part]
            try:
                vectors = await loop.run_in_executor(self._thread, self._run, texts)
            except Exception as failed:  # noqa: BLE001 whoever asked is told
                for _, future in batch:
                    if not future.done():
                        future.set_exception(failed)
                continue
            begin = 0
            for part, future in batch:
                if not future.done():
                    future.set_result(vectors[begin : begin + len(part)])
                begin += len(part)

    def _taken(self) -> list[_Waiting]:
        """What comes into the next batch: as many of those who wait, in order, as fit."""
        batch: list[_Waiting] = []
        room = self._most
        while self._waiting and len(self._waiting[0][0]) <= room:
            part, future = self._waiting.popleft()
            if not future.done():  # somebody stopped waiting
                batch.append((part, future))
                room -= len(part)
        return batch
